package docker

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	tender "github.com/tenderhq/tender"
)

func (e *Engine) ensureVolumes(ctx context.Context, project string, p *types.Project) error {
	if len(p.Volumes) == 0 {
		return nil
	}
	list, err := e.c().VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return wrap(err, "list volumes")
	}
	for _, key := range slices.Sorted(maps.Keys(p.Volumes)) {
		v := p.Volumes[key]
		name := volumeName(p, project, key)
		at := slices.IndexFunc(list.Items, func(s volume.Volume) bool { return s.Name == name })
		switch {
		case at >= 0 && bool(v.External):
		case at >= 0:
			if err := e.sameVolume(project, key, v, list.Items[at]); err != nil {
				return err
			}
		case bool(v.External):
			return tender.Errorf(tender.NotFound, "volume %s is external and not there", name).
				Hint("docker volume create %s", name)
		default:
			o := client.VolumeCreateOptions{Name: name, Driver: v.Driver, DriverOpts: v.DriverOpts, Labels: map[string]string{}}
			maps.Copy(o.Labels, v.Labels)
			maps.Copy(o.Labels, map[string]string{
				composeProject: project, composeVolume: key, composeVersion: "tender", labelProject: project,
			})
			if _, err := e.c().VolumeCreate(ctx, o); err != nil {
				return wrap(err, "create volume %s", name)
			}
		}
	}
	return nil
}

func (e *Engine) sameVolume(project, key string, v types.VolumeConfig, there volume.Volume) error {
	differs := func(what, has, wants string) error {
		return tender.Errorf(tender.Conflict, "volume %s is there with %s %s, the file says %s", there.Name, what, has, wants).
			Hint("give the volume another name: under volumes.%s, or copy its data and remove it", key)
	}
	if owner := there.Labels[composeProject]; owner != "" && owner != project {
		return tender.Errorf(tender.Conflict, "volume %s is there and belongs to project %s", there.Name, owner).
			Hint("say external: true under volumes.%s, or give it another name:", key)
	} else if owner == "" {
		e.o.Log.Debug("volume without a label is used as it is", "project", project, "volume", there.Name)
	}
	if v.Driver != "" && v.Driver != there.Driver {
		return differs("driver", there.Driver, v.Driver)
	}
	for _, k := range slices.Sorted(maps.Keys(v.DriverOpts)) {
		if there.Options[k] != v.DriverOpts[k] {
			return differs("option "+k, fmt.Sprintf("%q", there.Options[k]), fmt.Sprintf("%q", v.DriverOpts[k]))
		}
	}
	return nil
}

// volumeName is the engine's name of the volume that the file calls key.
func volumeName(p *types.Project, project, key string) string {
	if v, ok := p.Volumes[key]; ok && v.Name != "" {
		return v.Name
	}
	if v, ok := p.Volumes[key]; ok && bool(v.External) {
		return key
	}
	return project + "_" + key
}

// anonymous maps where a container's anonymous volumes are mounted to their names.
func anonymous(c container.InspectResponse) map[string]string {
	out := map[string]string{}
	for _, m := range c.Mounts {
		if m.Type == mount.TypeVolume && unnamed(m.Name) {
			out[path.Clean(m.Destination)] = m.Name
		}
	}
	return out
}

// unnamed reports whether the engine made up the name: 64 hexadecimal digits.
func unnamed(volume string) bool {
	return len(volume) == 64 && strings.Trim(volume, "0123456789abcdef") == ""
}

// removeVolumes removes anonymous volumes; one that another container uses stays.
func (e *Engine) removeVolumes(ctx context.Context, names []string) error {
	for _, name := range names {
		err := e.RemoveVolume(ctx, name)
		if err != nil && tender.KindOf(err) != tender.Conflict {
			return err
		}
	}
	return nil
}

// RemoveVolume implements engine.Engine.
func (e *Engine) RemoveVolume(ctx context.Context, name string) error {
	_, err := e.c().VolumeRemove(ctx, name, client.VolumeRemoveOptions{})
	if err != nil && kind(err) == tender.NotFound {
		return nil
	}
	return wrap(err, "remove volume %s", name)
}
