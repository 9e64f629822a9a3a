package cli

import (
	"net/url"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

// site is where the daemon is, and what lets one in there.
type site struct {
	host, token string
	from        string // what said so, for errors: --host, TENDER_HOST, context prod, or nothing
}

// where finds the daemon: --host, --context, TENDER_HOST, TENDER_CONTEXT, the
// context in use, else this machine. The order is that of docker.
func (a *app) where() (site, error) {
	token := a.getenv("TENDER_TOKEN")
	named := func(name, from string) (site, error) {
		p, err := a.inContext(name, from)
		if token != "" {
			p.token = token
		}
		return p, err
	}
	switch host, name := a.getenv("TENDER_HOST"), a.getenv("TENDER_CONTEXT"); {
	case a.host != "":
		return site{a.host, token, "--host"}, nil
	case a.context != "":
		return named(a.context, "--context")
	case host != "":
		return site{host, token, "TENDER_HOST"}, nil
	case name != "":
		return named(name, "TENDER_CONTEXT")
	}
	f, err := a.contexts()
	if err != nil {
		return site{}, err
	}
	if f.Current != "" {
		return named(f.Current, "tender context use")
	}
	return site{api.DefaultHost, token, ""}, nil
}

// client returns the other end of the daemon. It does not connect yet.
func (a *app) client() (*api.Client, error) {
	p, err := a.where()
	if err != nil {
		return nil, err
	}
	c, err := api.New(p.host, api.ClientOptions{Token: p.token})
	if err != nil {
		return nil, misuse(tender.AdviceOf(err), "%s: %v", p.from, err)
	}
	return c, nil
}

// address is the daemon's as messages name it.
func (a *app) address() string {
	p, err := a.where()
	if err != nil {
		return "nowhere"
	}
	return p.host
}

// remote reports whether the daemon is on another host, which has none of the
// user's files.
func (a *app) remote() bool {
	p, err := a.where()
	if err != nil {
		return false // client says what is wrong
	}
	u, err := url.Parse(p.host)
	if err != nil || u.Scheme == "unix" {
		return false
	}
	h := u.Hostname()
	return u.Scheme == "ssh" || h != "localhost" && h != "127.0.0.1" && h != "::1"
}
