package daemon

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

// loginsProject is whose secrets the logins are. No project can have this name,
// so no Compose file reaches them.
const loginsProject = "@registries"

// loginName writes a registry's host with the letters that a secret's name may
// have; hostOf reads it back.
func loginName(host string) string {
	var b strings.Builder
	for _, c := range []byte(host) {
		if c == '.' || c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

func hostOf(name string) string {
	var b strings.Builder
	for part, rest := "", name; rest != ""; {
		part, rest, _ = strings.Cut(rest, "_")
		b.WriteString(part)
		if len(rest) >= 2 {
			if c, err := hex.DecodeString(rest[:2]); err == nil {
				b.Write(c)
				rest = rest[2:]
			}
		}
	}
	return b.String()
}

// registryHost brings what people call a registry to the form that references
// have: without scheme and path, Docker's own under one name.
func registryHost(s string) (string, error) {
	host := strings.ToLower(strings.TrimSuffix(s, "/"))
	host = strings.TrimPrefix(strings.TrimPrefix(host, "https://"), "http://")
	host, _, _ = strings.Cut(host, "/")
	switch host {
	case "index.docker.io", "registry-1.docker.io", "hub.docker.com":
		host = "docker.io"
	}
	if host == "" || strings.ContainsAny(host, " @") || len(loginName(host)) > 128 {
		return "", tender.Errorf(tender.Invalid, "%q is no registry", s).Hint("name its host, as references do: registry.example.com:5000")
	}
	return host, nil
}

// Login asks the registry, and keeps in the vault what pulls and pushes need.
func (b *backend) Login(ctx context.Context, who api.Person, registry, user, password string) (out api.Login, err error) {
	host, err := registryHost(registry)
	if err != nil {
		return out, err
	}
	defer func() { b.auditEnd(ctx, who, "registry login", "", host+" as "+user, err) }()
	auth, err := b.engine.Login(ctx, host, user, password)
	if err != nil {
		return out, err
	}
	v, _, err := b.vault.Put(ctx, who.Name, loginsProject, loginName(host), []byte(auth))
	if err != nil {
		return out, err
	}
	return api.Login{Registry: host, User: user, Created: v.Created, Who: v.Who}, nil
}

// Logout forgets a login. NotFound: there is none.
func (b *backend) Logout(ctx context.Context, who api.Person, registry string) error {
	host, err := registryHost(registry)
	if err != nil {
		return err
	}
	err = b.vault.Remove(ctx, loginsProject, loginName(host))
	b.auditEnd(ctx, who, "registry logout", "", host, err)
	if tender.KindOf(err) == tender.NotFound {
		return tender.Errorf(tender.NotFound, "there is no login at %s", host).Hint("tender registry logins lists them")
	}
	return err
}

// Logins lists them, by registry.
func (b *backend) Logins(ctx context.Context) ([]api.Login, error) {
	kept, err := b.vault.List(ctx, loginsProject)
	if err != nil {
		return nil, err
	}
	out := make([]api.Login, 0, len(kept))
	for _, s := range kept {
		l := api.Login{Registry: hostOf(s.Name), Created: s.Created, Who: s.Who}
		auth, err := b.vault.Open(ctx, loginsProject, s.Name, s.Version.Version)
		if err != nil {
			return nil, err
		}
		var is struct{ Username string }
		if raw, err := base64.URLEncoding.DecodeString(string(auth)); err == nil && json.Unmarshal(raw, &is) == nil {
			l.User = is.Username
		}
		out = append(out, l)
	}
	return out, nil
}

// registryOf is the host of a reference's registry.
func registryOf(ref string) string {
	host, _, found := strings.Cut(ref, "/")
	if !found || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return "docker.io"
	}
	return host
}

// auth chooses the login for a reference's registry: what came with the request,
// else what the vault keeps, else none.
func (b *backend) auth(ctx context.Context, given map[string]string, ref string) (string, error) {
	host := registryOf(ref)
	if a := given[host]; a != "" {
		return a, nil
	}
	return b.login(ctx, host)
}

// login is what the vault keeps for a registry's host; "": nothing.
func (b *backend) login(ctx context.Context, host string) (string, error) {
	name := loginName(host)
	newest, err := b.vault.Newest(ctx, loginsProject, name)
	if tender.KindOf(err) == tender.NotFound {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	a, err := b.vault.Open(ctx, loginsProject, name, newest.Version)
	if err != nil {
		return "", fmt.Errorf("read the login at %s: %w", host, err)
	}
	return string(a), nil
}

// auths is every login that the vault keeps, and what was given: a build may
// name any image in its Dockerfile.
func (b *backend) auths(ctx context.Context, given map[string]string) (map[string]string, error) {
	kept, err := b.vault.List(ctx, loginsProject)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, s := range kept {
		a, err := b.vault.Open(ctx, loginsProject, s.Name, s.Version.Version)
		if err != nil {
			return nil, err
		}
		out[hostOf(s.Name)] = string(a)
	}
	maps.Copy(out, given)
	return out, nil
}
