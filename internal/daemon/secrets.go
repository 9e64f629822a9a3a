package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

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

// ofProject refuses what the vault keeps under names that no project can have: logins, and the
// keys that sign. Services and builds get none of those.
func ofProject(project string) error {
	if strings.HasPrefix(project, "@") {
		return tender.Errorf(tender.Invalid, "%q is no name of a project", project)
	}
	return nil
}

// newestSecret is the version that a service gets at up.
func (b *backend) newestSecret(ctx context.Context, project string, f tender.SecretFile) (int, error) {
	if err := ofProject(project); err != nil {
		return 0, err
	}
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
		newest, err := b.vault.Newest(ctx, project, name)
		if err != nil && tender.KindOf(err) != tender.NotFound {
			return nil, err
		}
		out[name] = newest.Version + 1
		if newest.Version == 0 {
			continue
		}
		had, err := b.vault.Open(ctx, project, name, newest.Version)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(had, value) {
			out[name] = newest.Version
		}
	}
	return out, nil
}

// deliver puts the secrets and configs of a revision on the host, secrets on
// the tmpfs, and says where. A path holds one revision and is never rewritten.
func (b *backend) deliver(ctx context.Context, project string, s tender.Service) ([]engine.File, error) {
	var out []engine.File
	var secrets, configs []vault.File
	below := filepath.Join(project, s.Name, s.Revision)
	secretsDir, configsDir := filepath.Join(b.config.RunDir, "secrets", below), filepath.Join(b.config.DataDir, "configs", below)
	for _, f := range s.Secrets {
		secrets = append(secrets, vault.File{Name: f.Source, UID: f.UID, GID: f.GID, Mode: fs.FileMode(f.Mode), Value: func() ([]byte, error) {
			return b.value(ctx, project, f)
		}})
		out = append(out, engine.File{Source: filepath.Join(secretsDir, f.Source), Target: f.Target})
	}
	for _, f := range s.Configs {
		configs = append(configs, vault.File{Name: f.Source, UID: f.UID, GID: f.GID, Mode: fs.FileMode(f.Mode), Value: func() (content []byte, err error) {
			err = b.store.View(ctx, func(tx *store.Tx) (err error) {
				content, err = tx.File(f.SHA256)
				return err
			})
			if tender.KindOf(err) == tender.NotFound {
				err = tender.Errorf(tender.NotFound, "the content of config %s of %s is not known any more", f.Source, s.Name).
					Hint("tender up, in the folder of its Compose file, brings it back")
			}
			return content, err
		}})
		out = append(out, engine.File{Source: filepath.Join(configsDir, f.Source), Target: f.Target})
	}
	if len(secrets) > 0 {
		if err := vault.Deliver(secretsDir, secrets); err != nil {
			return nil, fmt.Errorf("secrets of %s: %w", s.Name, roomless(b.config.RunDir, err))
		}
	}
	if len(configs) > 0 {
		if err := vault.Deliver(configsDir, configs); err != nil {
			return nil, fmt.Errorf("configs of %s: %w", s.Name, roomless(b.config.DataDir, err))
		}
	}
	return out, nil
}

// roomless says it in few words where a disk is full. Not Unavailable: that is waited for, and a rollout is to go back.
func roomless(dir string, err error) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	return tender.Errorf(tender.Internal, "the disk that holds %s is full: %w", dir, unix.ENOSPC).
		Hint("make room there (df -h %s), then tender up again; what runs goes on running", dir)
}

func (b *backend) value(ctx context.Context, project string, f tender.SecretFile) ([]byte, error) {
	if err := ofProject(project); err != nil {
		return nil, err
	}
	value, err := b.vault.Open(ctx, owner(project, f), f.Name, f.Version)
	if tender.KindOf(err) == tender.NotFound && f.External {
		if own, err := b.vault.Open(ctx, project, f.Name, f.Version); err == nil {
			return own, nil
		}
	}
	return value, err
}

// users names the services that a secret is in, as PROJECT/SERVICE; version 0: any.
func users(ctx context.Context, st *store.Store, project, name string, version int) ([]string, error) {
	var out []string
	err := st.View(ctx, func(tx *store.Tx) error {
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
				if g.Down == nil && !s.Gone && slices.ContainsFunc(s.Service.Secrets, func(f tender.SecretFile) bool {
					return f.Name == name && (owner(p, f) == project || f.External && p == project) && (version == 0 || f.Version == version)
				}) {
					out = append(out, p+"/"+s.Service.Name)
				}
			}
		}
		return nil
	})
	return out, err
}

func (b *backend) secret(ctx context.Context, s vault.Secret) (out api.Secret, err error) {
	out = api.Secret{Name: s.Name, Project: s.Project, Version: s.Version.Version, Created: s.Created, Who: s.Who, Size: s.Size}
	for _, v := range s.Versions {
		out.Versions = append(out.Versions, api.SecretVersion{Version: v.Version, Created: v.Created, Who: v.Who, Size: v.Size})
	}
	out.UsedBy, err = users(ctx, b.store, s.Project, s.Name, 0)
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
	s, err := b.vault.Show(ctx, project, name)
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
	return b.Secret(ctx, project, name)
}

// RemoveSecret removes one with all its versions. Conflict: a service uses it.
func (b *backend) RemoveSecret(ctx context.Context, who api.Person, project, name string) error {
	err := b.vault.Remove(ctx, project, name)
	b.auditEnd(ctx, who, "secret rm", project, name, err)
	return err
}
