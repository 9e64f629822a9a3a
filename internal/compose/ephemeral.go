package compose

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// databases are images whose data one would miss, by the last part of their name.
var databases = []string{"postgres", "mysql", "mariadb", "mongo", "redis", "valkey", "elasticsearch", "opensearch", "influxdb", "clickhouse", "cassandra", "rabbitmq"}

// Ephemeral says what data of a service will not outlive it, or lies where
// nobody looks for it: spec is its tender.Service.Spec, volumes are the paths
// that its image declares. missing, which may be nil, reports whether a path on
// the engine's host is not there.
func Ephemeral(spec []byte, volumes []string, missing func(string) bool) ([]string, error) {
	p, err := Spec(spec)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range p.Services {
		held := false // by a volume with a name, or a folder
		for _, v := range s.Volumes {
			switch {
			case v.Type == types.VolumeTypeVolume && v.Source == "":
				out = append(out, fmt.Sprintf("%s keeps %s in a volume without a name: it goes with tender down -v and is hard to find again; name it under volumes:", s.Name, v.Target))
			case v.Type == types.VolumeTypeVolume || v.Type == types.VolumeTypeBind:
				held = held || !v.ReadOnly
			}
			if v.Type == types.VolumeTypeBind && missing != nil && missing(v.Source) {
				out = append(out, fmt.Sprintf("%s mounts %s, which is not there: the engine makes an empty folder", s.Name, v.Source))
			}
		}
		for _, at := range volumes {
			if !slices.ContainsFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool { return path.Clean(v.Target) == path.Clean(at) }) &&
				!slices.ContainsFunc(s.Tmpfs, func(t string) bool { target, _, _ := strings.Cut(t, ":"); return path.Clean(target) == path.Clean(at) }) {
				out = append(out, fmt.Sprintf("%s keeps %s in a volume without a name, because its image says so: name it under volumes:", s.Name, at))
			}
		}
		name, _, _ := strings.Cut(path.Base(s.Image), ":")
		name, _, _ = strings.Cut(name, "@")
		if !held && len(volumes) == 0 && slices.Contains(databases, name) {
			out = append(out, fmt.Sprintf("%s looks like a database and keeps its data inside its container: it goes with the next change; mount a volume", s.Name))
		}
	}
	return out, nil
}
