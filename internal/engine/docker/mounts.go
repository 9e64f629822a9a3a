package docker

import (
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/mount"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// mounts are the binds whose source the engine may create, and all else.
func (e *Engine) mounts(p *types.Project, s types.ServiceConfig, w engine.Want, img image.InspectResponse, inherited map[string]string) (binds []string, out []mount.Mount, err error) {
	taken := map[string]bool{}
	for _, f := range w.Files {
		taken[path.Clean(f.Target)] = true
	}
	for _, v := range s.Volumes {
		target := path.Clean(v.Target)
		if taken[target] {
			continue
		}
		taken[target] = true
		m := mount.Mount{Type: mount.Type(v.Type), Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly, Consistency: mount.Consistency(v.Consistency)}
		switch v.Type {
		case types.VolumeTypeBind:
			if b := v.Bind; b == nil || bool(b.CreateHostPath) && b.Propagation == "" && b.Recursive == "" && !strings.Contains(v.Source+v.Target, ":") {
				binds = append(binds, bindString(v))
				continue
			}
			m.BindOptions = bindOptions(v.Bind)
		case types.VolumeTypeVolume:
			if v.Source == "" {
				m.Source = inherited[target]
			} else {
				m.Source = volumeName(p, w.Project, v.Source)
			}
			if o := v.Volume; o != nil {
				m.VolumeOptions = &mount.VolumeOptions{NoCopy: o.NoCopy, Subpath: o.Subpath, Labels: o.Labels}
			}
		case types.VolumeTypeTmpfs:
			m.Source = ""
			if o := v.Tmpfs; o != nil {
				m.TmpfsOptions = &mount.TmpfsOptions{SizeBytes: int64(o.Size), Mode: os.FileMode(o.Mode)}
			}
		case types.VolumeTypeImage:
			if o := v.Image; o != nil && o.SubPath != "" {
				m.ImageOptions = &mount.ImageOptions{Subpath: o.SubPath}
			}
		case types.VolumeTypeNamedPipe, types.VolumeTypeCluster:
		default:
			return nil, nil, tender.Errorf(tender.Invalid, "service %s: volume type %q", s.Name, v.Type)
		}
		out = append(out, m)
	}
	for t := range tmpfs(s.Tmpfs) {
		taken[path.Clean(t)] = true
	}
	// What the image declares as a volume and nothing else covers is anonymous: the newcomer takes it over.
	if img.Config != nil {
		for _, target := range slices.Sorted(maps.Keys(img.Config.Volumes)) {
			if name := inherited[path.Clean(target)]; name != "" && !taken[path.Clean(target)] {
				out = append(out, mount.Mount{Type: mount.TypeVolume, Source: name, Target: target})
			}
		}
	}
	for _, f := range w.Files {
		// Type bind: a missing file fails instead of becoming a directory.
		out = append(out, mount.Mount{Type: mount.TypeBind, Source: f.Source, Target: f.Target, ReadOnly: true})
	}
	return binds, out, nil
}

// bindString is SOURCE:TARGET:MODE; in this form the engine makes a missing source.
func bindString(v types.ServiceVolumeConfig) string {
	mode := "rw"
	if v.ReadOnly {
		mode = "ro"
	}
	if v.Bind != nil && v.Bind.SELinux != "" {
		mode += "," + v.Bind.SELinux
	}
	return v.Source + ":" + v.Target + ":" + mode
}

func bindOptions(b *types.ServiceVolumeBind) *mount.BindOptions {
	o := &mount.BindOptions{Propagation: mount.Propagation(b.Propagation)}
	switch b.Recursive {
	case "disabled":
		o.NonRecursive = true
	case "writable":
		o.ReadOnlyNonRecursive = true
	case "readonly":
		o.ReadOnlyForceRecursive = true
	}
	return o
}
