package daemon

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/store"
	"github.com/tenderhq/tender/internal/vault"
)

// owner is whose secret a file shows: "" for those of all projects.
func owner(project string, f tender.SecretFile) string {
	if f.External {
		return ""
	}
	return project
}

// newestSecret is the version that a service gets at up.
func (b *backend) newestSecret(ctx context.Context, project string, f tender.SecretFile) (int, error) {
	s, err := b.vault.Newest(ctx, owner(project, f), f.Name)
	if tender.KindOf(err) == tender.NotFound && f.External {
		// One of the project itself serves as well.
		if own, err := b.vault.Newest(ctx, project, f.Name); err == nil {
			return own.Version, nil
		}
	}
	if err != nil {
		return 0, err
	}
	return s.Version, nil
}

// versions puts the values that came with a submission into the vault and
// returns their versions; without keep it only says what they would become.
func (b *backend) versions(ctx context.Context, project string, values map[string][]byte, keep bool, who string) (map[string]int, error) {
	out := map[string]int{}
	for name, value := range values {
		if keep {
			s, _, err := b.vault.Put(ctx, who, project, name, value)
			if err != nil {
				return nil, err
			}
			out[name] = s.Version
			continue
		}
		v, err := b.vault.Would(ctx, project, name, value)
		if err != nil {
			return nil, err
		}
		out[name] = v
	}
	return out, nil
}

// deliver puts the secrets and configs of a revision on the host, secrets on
// the tmpfs, and says where. A path holds one revision and is never rewritten.
func (b *backend) deliver(ctx context.Context, project string, s tender.Service) ([]engine.File, error) {
	var out []engine.File
	put := func(root, source, target string, value []byte, uid, gid int, mode uint32) error {
		dir := filepath.Join(root, project, s.Name, s.Revision)
		err := vault.Deliver(dir, []vault.File{{Name: source, Value: value, UID: uid, GID: gid, Mode: mode}})
		out = append(out, engine.File{Source: filepath.Join(dir, source), Target: target})
		return err
	}
	for _, f := range s.Secrets {
		value, err := b.vault.Value(ctx, owner(project, f), f.Name, f.Version)
		if tender.KindOf(err) == tender.NotFound && f.External {
			value, err = b.vault.Value(ctx, project, f.Name, f.Version)
		}
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", s.Name, err)
		}
		if err := put(filepath.Join(b.config.RunDir, "secrets"), f.Source, f.Target, value, f.UID, f.GID, f.Mode); err != nil {
			return nil, fmt.Errorf("deliver secret %s of %s: %w", f.Source, s.Name, err)
		}
	}
	for _, f := range s.Configs {
		var content []byte
		err := b.store.View(ctx, func(tx *store.Tx) (err error) {
			content, err = tx.File(f.SHA256)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("service %s: config %s: %w", s.Name, f.Source, err)
		}
		if err := put(filepath.Join(b.config.DataDir, "configs"), f.Source, f.Target, content, f.UID, f.GID, f.Mode); err != nil {
			return nil, fmt.Errorf("deliver config %s of %s: %w", f.Source, s.Name, err)
		}
	}
	return out, nil
}

// users names the services that a secret is in, as PROJECT/SERVICE.
func (b *backend) users(ctx context.Context, project, name string) ([]string, error) {
	var out []string
	err := b.store.View(ctx, func(tx *store.Tx) error {
		projects, err := tx.Projects()
		if err != nil {
			return err
		}
		for _, p := range projects {
			g, err := tx.Head(p)
			if err != nil {
				return err
			}
			for _, s := range g.Services {
				if slices.ContainsFunc(s.Service.Secrets, func(f tender.SecretFile) bool { return f.Name == name && owner(p, f) == project }) {
					out = append(out, p+"/"+s.Service.Name)
				}
			}
		}
		return nil
	})
	return out, err
}

func (b *backend) secret(ctx context.Context, s vault.Secret) (api.Secret, error) {
	out := api.Secret{Name: s.Name, Project: s.Project, Version: s.Version, Created: s.Created, Who: s.Who, Size: s.Size}
	for _, v := range s.Versions {
		out.Versions = append(out.Versions, api.SecretVersion{Version: v.Version, Created: v.Created, Who: v.Who, Size: v.Size})
	}
	var err error
	out.UsedBy, err = b.users(ctx, s.Project, s.Name)
	return out, err
}

// Secrets lists what is in the vault, without values.
func (b *backend) Secrets(ctx context.Context, project string) ([]api.Secret, error) {
	list, err := b.vault.List(ctx, project)
	if err != nil {
		return nil, err
	}
	out := make([]api.Secret, 0, len(list))
	for _, s := range list {
		v, err := b.secret(ctx, s)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// Secret shows one with its versions, without values.
func (b *backend) Secret(ctx context.Context, project, name string) (api.Secret, error) {
	s, err := b.vault.Newest(ctx, project, name)
	if err != nil {
		return api.Secret{}, err
	}
	return b.secret(ctx, s)
}

// SetSecret puts a value into the vault; the same one again is no new version.
func (b *backend) SetSecret(ctx context.Context, who api.Person, project, name string, value []byte) (api.Secret, error) {
	s, changed, err := b.vault.Put(ctx, who.Name, project, name, value)
	detail := name
	if changed {
		detail = fmt.Sprintf("%s, version %d", name, s.Version)
	}
	b.auditEnd(ctx, who, "secret set", project, detail, err)
	if err != nil {
		return api.Secret{}, err
	}
	return b.secret(ctx, s)
}

// RemoveSecret removes one with all its versions. Conflict: a service uses it.
func (b *backend) RemoveSecret(ctx context.Context, who api.Person, project, name string) error {
	used, err := b.users(ctx, project, name)
	if err == nil && len(used) > 0 {
		err = tender.Errorf(tender.Conflict, "secret %s is in use by %s", name, used[0]).Hint("take it out of the Compose file and run tender up, then remove it")
	}
	if err == nil {
		err = b.vault.Remove(ctx, project, name)
	}
	b.auditEnd(ctx, who, "secret rm", project, name, err)
	return err
}
