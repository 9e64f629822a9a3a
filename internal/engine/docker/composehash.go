package docker

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// hashOrder is the order of keys in which Docker Compose hashes a service. It
// is frozen there (docker/compose v5, pkg/compose/hash.go), so that no
// refactoring of compose-go makes it recreate everybody's containers.
const hashOrder = `
profiles annotations attach build develop blkio_config cap_add cap_drop cgroup_parent cgroup cpu_count
cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpus cpuset cpu_shares command configs
container_name credential_spec depends_on deploy device_cgroup_rules devices dns dns_opt dns_search dockerfile
domainname entrypoint provider environment env_file expose extends external_links extra_hosts group_add gpus
hostname healthcheck image init ipc isolation labels label_file links logging log_driver log_opt mem_limit
mem_reservation memswap_limit mem_swappiness mac_address models net network_mode networks oom_kill_disable
oom_score_adj pid pids_limit platform ports privileged pull_policy read_only restart runtime scale secrets
security_opt shm_size stdin_open stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits
use_api_socket user userns_mode uts volume_driver volumes volumes_from working_dir pre_start post_start
pre_stop pull_refresh_after`

// ConfigHash is computed as Docker Compose does, so that after tender release
// it finds the containers to be up to date, and keeps them.
func ConfigHash(project string, s types.ServiceConfig) string {
	// There an image that is built has no name until it is.
	if s.Build != nil && strings.EqualFold(s.Image, project+"-"+s.Name) {
		s.Image = ""
	}
	s.Build, s.PullPolicy, s.Scale = nil, "", nil
	if s.Deploy != nil {
		deploy := *s.Deploy
		deploy.Replicas = nil
		s.Deploy = &deploy
	}
	s.DependsOn, s.Profiles = nil, nil
	b, err := json.Marshal(s)
	var root map[string]json.RawMessage
	if err == nil {
		err = json.Unmarshal(b, &root)
	}
	if err != nil {
		b = []byte(err.Error()) // a hash must be there, or Compose does not list the container
	} else {
		b = ordered(root)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// ordered writes an object with its keys in hashOrder, and those not in it after them, sorted.
func ordered(root map[string]json.RawMessage) []byte {
	var b bytes.Buffer
	known := strings.Fields(hashOrder)
	for _, k := range append(known, slices.Sorted(maps.Keys(root))...) {
		v, ok := root[k]
		if !ok {
			continue
		}
		delete(root, k)
		name, _ := json.Marshal(k) // a string: cannot fail
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(v)
	}
	return []byte("{" + b.String() + "}")
}
