package docker

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
)

// List implements engine.Reader: one list of the containers, and an inspect of
// those that changed since the last one.
func (e *Engine) List(ctx context.Context) (tender.Picture, error) {
	if err := e.negotiate(ctx, false); err != nil {
		return tender.Picture{}, err
	}
	p := tender.Picture{Taken: time.Now()}
	ours := make(client.Filters).Add("label", composeProject)
	list, err := e.c().ContainerList(ctx, client.ContainerListOptions{All: true, Filters: ours})
	if err != nil {
		return tender.Picture{}, wrap(err, "list containers")
	}
	list.Items = slices.DeleteFunc(list.Items, func(c container.Summary) bool { return c.Labels[labelKeep] != "" })
	found := make([]*tender.Instance, len(list.Items))
	err = each(len(list.Items), func(n int) error {
		i, err := e.look(ctx, list.Items[n])
		if err != nil {
			if kind(err) == tender.NotFound {
				return nil // gone since the list was made
			}
			return wrap(err, "inspect %s", nameOf(list.Items[n].Names))
		}
		found[n] = &i
		return nil
	})
	if err != nil {
		return tender.Picture{}, err
	}
	ids := map[string]bool{}
	for _, i := range found {
		if i != nil {
			ids[i.ID] = true
			i.OOMs = e.seen.shortOf(i.ID)
			p.Instances = append(p.Instances, *i)
		}
	}
	e.seen.keep(ids)

	networks, err := e.c().NetworkList(ctx, client.NetworkListOptions{Filters: ours})
	if err != nil {
		return tender.Picture{}, wrap(err, "list networks")
	}
	for _, n := range networks.Items {
		gateway, subnets := gatewayOf(n.Network)
		p.Networks = append(p.Networks, tender.Network{
			ID: n.ID, Name: n.Name, Project: n.Labels[composeProject], Key: n.Labels[composeNetwork], Foreign: n.Labels[labelProject] == "",
			Roomy: n.Labels[labelRange] != "", Gateway: gateway, Subnets: subnets,
		})
	}
	volumes, err := e.c().VolumeList(ctx, client.VolumeListOptions{Filters: ours})
	if err != nil {
		return tender.Picture{}, wrap(err, "list volumes")
	}
	for _, v := range volumes.Items {
		p.Volumes = append(p.Volumes, tender.Volume{
			Name: v.Name, Project: v.Labels[composeProject], Key: v.Labels[composeVolume], Foreign: v.Labels[labelProject] == "",
		})
	}
	return p, nil
}

// Sizes implements engine.Reader.
func (e *Engine) Sizes(ctx context.Context, ids ...string) (map[string]int64, error) {
	if err := e.negotiate(ctx, false); err != nil {
		return nil, err
	}
	which := make(client.Filters).Add("label", composeProject)
	if len(ids) > 0 {
		which.Add("id", ids...)
	}
	list, err := e.c().ContainerList(ctx, client.ContainerListOptions{All: true, Size: true, Filters: which})
	if err != nil {
		return nil, wrap(err, "measure containers")
	}
	sizes := make(map[string]int64, len(list.Items))
	for _, c := range list.Items {
		sizes[c.ID] = c.SizeRw
	}
	return sizes, nil
}

// Disk implements engine.Reader.
func (e *Engine) Disk(ctx context.Context) (map[string]int64, error) {
	if err := e.negotiate(ctx, false); err != nil {
		return nil, err
	}
	df, err := e.c().DiskUsage(ctx, client.DiskUsageOptions{Containers: true, Images: true, BuildCache: true, Volumes: true})
	if err != nil {
		return nil, wrap(err, "measure the engine's disk")
	}
	return map[string]int64{
		"images": df.Images.TotalSize, "containers": df.Containers.TotalSize, "volumes": df.Volumes.TotalSize, "build_cache": df.BuildCache.TotalSize,
	}, nil
}

// Written implements engine.Reader. What the engine itself makes there are the
// points of mounts.
func (e *Engine) Written(ctx context.Context, id string) ([]string, error) {
	if err := e.negotiate(ctx, false); err != nil {
		return nil, err
	}
	got, err := e.c().ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return nil, wrap(err, "look at %s", short(id))
	}
	diff, err := e.c().ContainerDiff(ctx, id, client.ContainerDiffOptions{})
	if err != nil {
		return nil, wrap(err, "look what %s has written", short(id))
	}
	mounted := map[string]bool{}
	for _, m := range got.Container.Mounts {
		mounted[m.Destination] = true
	}
	if h := got.Container.HostConfig; h != nil {
		for at := range h.Tmpfs {
			mounted[path.Clean(at)] = true
		}
	}
	holds := map[string]bool{}
	for _, c := range diff.Changes {
		holds[path.Dir(c.Path)] = true
	}
	var out []string
	for _, c := range diff.Changes {
		if c.Kind != container.ChangeDelete && !holds[c.Path] && !mounted[c.Path] {
			out = append(out, c.Path)
		}
	}
	slices.Sort(out)
	return out, nil
}

// look returns what is known of a container, from the cache where nothing has touched it.
func (e *Engine) look(ctx context.Context, c container.Summary) (tender.Instance, error) {
	key := nameOf(c.Names) + "|" + string(c.State) + "|" + health(c.Status)
	i, ok, touched := e.seen.get(c.ID, key)
	if ok {
		return i, nil
	}
	got, err := e.c().ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
	if err != nil {
		return tender.Instance{}, err
	}
	if got.Container.Config == nil || got.Container.State == nil || got.Container.HostConfig == nil {
		return tender.Instance{}, errors.New("the engine's answer lacks its configuration")
	}
	i = e.instance(got.Container)
	i.Command = c.Command
	e.seen.put(c.ID, key, touched, i)
	return i, nil
}

// health is the part of "Up 5 minutes (healthy)" that tells a change; the rest changes by itself.
func health(status string) string {
	if _, in, ok := strings.Cut(status, "("); ok && strings.HasPrefix(status, "Up") {
		return in
	}
	if !strings.HasPrefix(status, "Up") {
		code, _, _ := strings.Cut(status, ")")
		return code
	}
	return ""
}

// instance reads an inspect.
func (e *Engine) instance(c container.InspectResponse) tender.Instance {
	l := c.Config.Labels
	i := tender.Instance{
		ID: c.ID, Name: strings.TrimPrefix(c.Name, "/"),
		Project: l[composeProject], Service: l[composeService], Revision: l[labelRevision],
		Foreign: l[labelProject] == "", Home: l[labelHome], ConfigHash: l[composeHash], Oneoff: l[composeOneoff] == "True",
		State: tender.State(c.State.Status), Error: c.State.Error, Restarts: c.RestartCount,
		Created: when(c.Created), Started: when(c.State.StartedAt), Finished: when(c.State.FinishedAt),
		Image: c.Config.Image, ImageID: c.Image, LogPath: c.LogPath,
	}
	if c.HostConfig != nil {
		i.LogDriver = c.HostConfig.LogConfig.Type
	}
	slot := l[labelSlot]
	if i.Foreign {
		slot = l[composeNumber]
	}
	i.Slot, _ = strconv.Atoi(slot)
	if id, ok := imageOf(l); ok && id.Reference != "" {
		i.Image = id.Reference
	}
	if i.State != tender.Running && i.State != tender.Paused {
		i.ExitCode = c.State.ExitCode
	}
	i.OOM = c.State.OOMKilled
	if i.State == tender.Running || i.State == tender.Paused {
		i.PID = c.State.Pid
	}
	if h := c.State.Health; h != nil && h.Status != container.NoHealthcheck && i.State == tender.Running {
		i.Health = tender.Health(h.Status)
		if n := len(h.Log); n > 0 && h.Log[n-1].ExitCode != 0 {
			i.HealthOutput = cut(strings.TrimSpace(h.Log[n-1].Output), 1024)
		}
	}
	i.Addresses = map[string]string{}
	if c.NetworkSettings != nil {
		for port, bindings := range c.NetworkSettings.Ports {
			for _, b := range bindings {
				host, _ := strconv.Atoi(b.HostPort)
				p := tender.Port{HostPort: host, Container: int(port.Num()), Protocol: string(port.Proto())}
				if b.HostIP.IsValid() {
					p.HostIP = b.HostIP.String()
				}
				i.Ports = append(i.Ports, p)
			}
		}
		for name, n := range c.NetworkSettings.Networks {
			address := ""
			if n.IPAddress.IsValid() {
				address = n.IPAddress.String()
			} else if n.GlobalIPv6Address.IsValid() {
				address = n.GlobalIPv6Address.String()
			}
			i.Addresses[name] = address
		}
	}
	slices.SortFunc(i.Ports, func(a, b tender.Port) int {
		return strings.Compare(fmt.Sprintf("%05d/%s %s %05d", a.Container, a.Protocol, a.HostIP, a.HostPort),
			fmt.Sprintf("%05d/%s %s %05d", b.Container, b.Protocol, b.HostIP, b.HostPort))
	})
	for _, m := range c.Mounts {
		if m.Type == mount.TypeVolume && unnamed(m.Name) {
			i.Anonymous = append(i.Anonymous, m.Name)
		}
	}
	slices.Sort(i.Anonymous)
	// One that is only created may still be on its way into its networks.
	if !i.Foreign && !i.Oneoff && i.State != tender.Created {
		i.Drift = e.drift(c)
		i.Found, i.Pinned = e.found(c)
	}
	return i
}

func when(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t.UTC()
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
