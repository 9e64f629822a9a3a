package compose

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	tender "github.com/tenderhq/tender"
)

// service translates one service into what Tender decides on.
func service(p *types.Project, s types.ServiceConfig) (tender.Service, error) {
	fail := func(format string, args ...any) (tender.Service, error) {
		return tender.Service{}, tender.Errorf(tender.Invalid, "services."+s.Name+": "+format, args...)
	}
	out := tender.Service{
		Name:     s.Name,
		Replicas: s.GetScale(),
		Image:    s.Image,
		Build:    s.Build != nil,
		Grace:    10 * time.Second,
		Platform: s.Platform,
	}
	switch s.PullPolicy {
	case "if_not_present":
		out.PullPolicy = "missing"
	default:
		out.PullPolicy = s.PullPolicy
	}
	if out.Image == "" && out.Build {
		out.Image = builtImage(p.Name, s.Name)
	}
	if s.StopGracePeriod != nil {
		out.Grace = time.Duration(*s.StopGracePeriod)
	}
	for _, name := range slices.Sorted(maps.Keys(s.DependsOn)) {
		d := s.DependsOn[name]
		out.DependsOn = append(out.DependsOn, tender.Dependency{
			Service:   name,
			Condition: tender.Condition(orElse(d.Condition, string(tender.Started))),
			Required:  d.Required,
			Restart:   d.Restart,
		})
	}
	var err error
	if out.Restart, out.RestartMax, err = restart(s); err != nil {
		return fail("restart %q: %w", s.Restart, err)
	}
	if out.Rollout, err = rollout(s); err != nil {
		return fail("%w", err)
	}
	if out.Boot, err = boot(s); err != nil {
		return fail("%w", err)
	}
	if s.Deploy != nil {
		out.Rollback = steps(s.Deploy.RollbackConfig)
	}
	if h := s.HealthCheck; h != nil {
		switch {
		case h.Disable || len(h.Test) > 0 && h.Test[0] == "NONE":
			out.Healthcheck = -1
		case len(h.Test) > 0:
			out.Healthcheck = 1
		}
	}
	x, err := extensionOf(s)
	if err != nil {
		return fail("%w", err)
	}
	if x.Scale != nil {
		if _, err := scalable(x.Scale); err != nil {
			return fail("%s.scale: %w", extensionKey, err)
		}
	}
	out.Publish, out.Ports, out.Scale, out.Update = x.Publish, portsOf(s), x.Scale, x.Update
	out.Exposed = exposed(s)
	out.Catalog = s.Labels["consul.service"]
	out.CatalogPort, _ = strconv.Atoi(s.Labels["consul.port"]) // what is no number says nothing
	out.Reach, out.Networks = reach(p, s)
	out.Resolver = slices.Contains(s.DNS, tender.DNS)
	out.OneAtATime = oneAtATime(inside(s))
	if out.Secrets, err = secrets(p, s); err != nil {
		return fail("%w", err)
	}
	if out.Configs, err = configs(p, s); err != nil {
		return fail("%w", err)
	}
	out.Spec, err = alone(p, s)
	return out, err
}

// restart reads restart:, which deploy.restart_policy overrides as in Docker Compose.
func restart(s types.ServiceConfig) (policy string, most int, err error) {
	policy, count, counted := strings.Cut(s.Restart, ":")
	if counted {
		n, err := strconv.Atoi(count)
		if err != nil || n < 0 || policy != types.RestartPolicyOnFailure {
			return "", 0, errors.New("only on-failure takes a number, as in on-failure:3")
		}
		most = n
	}
	if s.Deploy != nil && s.Deploy.RestartPolicy != nil {
		r := s.Deploy.RestartPolicy
		most = 0
		switch r.Condition {
		case "", "any", "always":
			policy = types.RestartPolicyAlways
		case "none", "no":
			policy = types.RestartPolicyNo
		default:
			policy = r.Condition
		}
		if r.MaxAttempts != nil && policy == types.RestartPolicyOnFailure {
			most = int(min(*r.MaxAttempts, 1<<30))
		}
	}
	switch policy {
	case "", types.RestartPolicyNo, types.RestartPolicyAlways, types.RestartPolicyOnFailure, types.RestartPolicyUnlessStopped:
		return policy, most, nil
	}
	return "", 0, errors.New("want no, always, on-failure, on-failure:N or unless-stopped")
}

func steps(c *types.UpdateConfig) tender.Rollout {
	if c == nil {
		return tender.Rollout{}
	}
	r := tender.Rollout{
		Order:    c.Order,
		Delay:    time.Duration(c.Delay),
		Monitor:  time.Duration(c.Monitor),
		Failure:  c.FailureAction,
		MaxRatio: decimal(c.MaxFailureRatio),
	}
	if c.Parallelism != nil {
		n := int(min(*c.Parallelism, 1<<30))
		r.Parallel = &n
	}
	return r
}

// decimal widens f to the number that the user wrote: 0.1, not 0.10000000149.
func decimal(f float32) float64 {
	d, _ := strconv.ParseFloat(strconv.FormatFloat(float64(f), 'g', -1, 32), 64)
	return d
}

func rollout(s types.ServiceConfig) (tender.Rollout, error) {
	var r tender.Rollout
	if s.Deploy != nil {
		r = steps(s.Deploy.UpdateConfig)
	}
	x, err := extensionOf(s)
	if err != nil {
		return r, err
	}
	out := x.Rollout
	out.Order, out.Parallel, out.Delay, out.Monitor, out.Failure, out.MaxRatio = r.Order, r.Parallel, r.Delay, r.Monitor, r.Failure, r.MaxRatio
	return out, nil
}

// boot is BootOrdered or nothing: the default said and not said are the same.
func boot(s types.ServiceConfig) (string, error) {
	x, err := extensionOf(s)
	if err != nil || x.Boot != tender.BootOrdered {
		return "", err
	}
	return x.Boot, nil
}

// jobsOf names the services that run to their end: another one waits for that.
func jobsOf(p *types.Project) map[string]bool {
	jobs := map[string]bool{}
	for _, s := range p.Services {
		for name, d := range s.DependsOn {
			if d.Condition == types.ServiceConditionCompletedSuccessfully {
				jobs[name] = true
			}
		}
		if x, err := extensionOf(s); err == nil && x.Rollout.Before != "" {
			jobs[x.Rollout.Before] = true
		}
	}
	return jobs
}

// oneAtATime says what two revisions of one slot would fight over; "" for nothing.
func oneAtATime(s types.ServiceConfig) string {
	if s.ContainerName != "" {
		return "container_name " + s.ContainerName
	}
	if s.NetworkMode == "host" {
		return "host network"
	}
	for _, p := range s.Ports {
		if n := hostPorts(p.Published); n > 0 && n <= s.GetScale() || n == 1 {
			return "host port " + p.Published
		}
	}
	if s.MacAddress != "" {
		return "mac_address " + s.MacAddress
	}
	for _, name := range slices.Sorted(maps.Keys(s.Networks)) {
		n := s.Networks[name]
		if n == nil {
			continue
		}
		for _, address := range append([]string{n.Ipv4Address, n.Ipv6Address, n.MacAddress}, n.LinkLocalIPs...) {
			if address != "" {
				return "static address " + address
			}
		}
	}
	if len(s.Devices) > 0 {
		return "device " + s.Devices[0].Source
	}
	for _, v := range s.Volumes {
		if v.Type == types.VolumeTypeVolume && v.Source == "" {
			return "anonymous volume at " + v.Target
		}
	}
	if s.GetScale() > 1 {
		return ""
	}
	for _, v := range s.Volumes {
		if (v.Type == types.VolumeTypeVolume || v.Type == types.VolumeTypeBind) && !v.ReadOnly {
			return "writable volume " + v.Source + " with one replica"
		}
	}
	return ""
}

// Room says how many instances of a service its host ports let stand side by
// side, and which port that is; 0: as many as one likes. spec is its tender.Service.Spec.
func Room(spec []byte) (instances int, port string, err error) {
	p, err := Spec(spec)
	if err != nil {
		return 0, "", err
	}
	for _, s := range p.Services {
		for _, on := range s.Ports {
			if n := hostPorts(on.Published); n > 0 && (instances == 0 || n < instances) {
				instances, port = n, on.Published
			}
		}
	}
	return instances, port, nil
}

// hostPorts counts the ports that published names: 0 when the engine chooses.
func hostPorts(published string) int {
	first, last, ranged := strings.Cut(published, "-")
	a, err := strconv.Atoi(first)
	if err != nil || a == 0 {
		return 0
	}
	if !ranged {
		return 1
	}
	b, err := strconv.Atoi(last)
	if err != nil || b < a {
		return 1
	}
	return b - a + 1
}

func secrets(p *types.Project, s types.ServiceConfig) ([]tender.SecretFile, error) {
	var out []tender.SecretFile
	for _, ref := range s.Secrets {
		c, ok := p.Secrets[ref.Source]
		if !ok {
			return nil, fmt.Errorf("secret %q is not defined", ref.Source)
		}
		f := tender.SecretFile{Name: ref.Source, Source: ref.Source, External: bool(c.External), Target: target(ref.Target, "/run/secrets", ref.Source)}
		if f.External {
			f.Name = orElse(c.Name, ref.Source)
		}
		var err error
		if f.UID, f.GID, f.Mode, err = owner(types.FileReferenceConfig(ref)); err != nil {
			return nil, fmt.Errorf("secret %q: %w", ref.Source, err)
		}
		out = append(out, f)
	}
	return out, nil
}

func configs(p *types.Project, s types.ServiceConfig) ([]tender.ConfigFile, error) {
	var out []tender.ConfigFile
	for _, ref := range s.Configs {
		c, ok := p.Configs[ref.Source]
		if !ok {
			return nil, fmt.Errorf("config %q is not defined", ref.Source)
		}
		hash, _ := c.Extensions[contentKey].(string)
		if len(hash) != 64 || strings.Trim(hash, "0123456789abcdef") != "" {
			return nil, fmt.Errorf("config %q: %s %q is not a hash", ref.Source, contentKey, hash)
		}
		f := tender.ConfigFile{Source: ref.Source, SHA256: hash, Target: target(ref.Target, "/", ref.Source)}
		var err error
		if f.UID, f.GID, f.Mode, err = owner(types.FileReferenceConfig(ref)); err != nil {
			return nil, fmt.Errorf("config %q: %w", ref.Source, err)
		}
		out = append(out, f)
	}
	return out, nil
}

func target(t, dir, source string) string {
	t = orElse(t, source)
	if !path.IsAbs(t) {
		t = path.Join(dir, t)
	}
	return path.Clean(t)
}

func owner(ref types.FileReferenceConfig) (uid, gid int, mode uint32, err error) {
	number := func(what, s string) int {
		if s == "" || err != nil {
			return 0
		}
		n, e := strconv.ParseUint(s, 10, 31)
		if e != nil {
			err = fmt.Errorf("%s %q is not a number", what, s)
		}
		return int(n)
	}
	uid, gid = number("uid", ref.UID), number("gid", ref.GID)
	mode = 0o444
	if ref.Mode != nil {
		if *ref.Mode < 0 || *ref.Mode > 0o7777 {
			return 0, 0, 0, fmt.Errorf("mode %s is not the mode of a file", ref.Mode)
		}
		mode = uint32(*ref.Mode)
	}
	return uid, gid, mode, err
}

// alone writes the normal form of one service with the resources that it uses.
func alone(p *types.Project, s types.ServiceConfig) ([]byte, error) {
	q := &types.Project{
		Name:     p.Name,
		Services: types.Services{s.Name: s},
		Networks: types.Networks{},
		Volumes:  types.Volumes{},
		Secrets:  types.Secrets{},
		Configs:  types.Configs{},
	}
	for name := range s.Networks {
		if n, ok := p.Networks[name]; ok {
			q.Networks[name] = n
		}
	}
	for _, v := range s.Volumes {
		if c, ok := p.Volumes[v.Source]; ok && v.Type == types.VolumeTypeVolume {
			q.Volumes[v.Source] = c
		}
	}
	for _, ref := range s.Secrets {
		if c, ok := p.Secrets[ref.Source]; ok {
			q.Secrets[ref.Source] = c
		}
	}
	for _, ref := range s.Configs {
		if c, ok := p.Configs[ref.Source]; ok {
			q.Configs[ref.Source] = c
		}
	}
	return marshal(q)
}
