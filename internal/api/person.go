package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tenderhq/tender"
)

// Person is who asks: from SO_PEERCRED on the socket, from the token elsewhere.
type Person struct {
	Name     string // "root (uid 0)", "token ci"
	Scope    Scope
	Projects []string // empty: all
}

// Scope is what a person may do; each one includes those before it. Whoever may
// deploy may also mount the host's files into a container: on the host, deploy
// is as good as root.
type Scope string

const (
	Read   Scope = "read"   // look at everything but the values of secrets
	Deploy Scope = "deploy" // change projects, run commands in them, build, pull and push images
	Admin  Scope = "admin"  // make and remove tokens
)

// scopes in the order of what they allow.
var scopes = []Scope{Read, Deploy, Admin}

// May is Denied, with what to do about it, when p may not do what needs the
// scope in a project. project "" stands for what belongs to no project or to all.
func (p Person) May(need Scope, project string) error {
	if slices.Index(scopes, p.Scope) < slices.Index(scopes, need) {
		return tender.Errorf(tender.Denied, "%s has the scope %q; this needs %q", p.Name, p.Scope, need).
			Hint("use a token with that scope: tender token create NAME --scope %s", need)
	}
	if p.sees(project) {
		return nil
	}
	what := fmt.Sprintf("project %q", project)
	if project == "" {
		what = "all projects"
	}
	return tender.Errorf(tender.Denied, "%s is for %s only; this is about %s", p.Name, strings.Join(p.Projects, ", "), what).
		Hint("name a project that the token is for, or use another token")
}

func (p Person) sees(project string) bool {
	return len(p.Projects) == 0 || slices.Contains(p.Projects, project)
}

type personKey struct{}

// PersonFrom returns who asks, in a context that Handler gave to its Backend.
func PersonFrom(ctx context.Context) (Person, bool) {
	p, ok := ctx.Value(personKey{}).(Person)
	return p, ok
}

func withPerson(ctx context.Context, p Person) context.Context {
	return context.WithValue(ctx, personKey{}, p)
}

// ConnContext is for http.Server: it notes who is at the other end of a unix
// socket. Whoever may open the socket is admin; its file mode says who may.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || credErr != nil {
		return ctx
	}
	uid := strconv.Itoa(int(cred.Uid))
	name := "uid " + uid
	if who, err := user.LookupId(uid); err == nil {
		name = who.Username + " (uid " + uid + ")"
	}
	return withPerson(ctx, Person{Name: name, Scope: Admin})
}

// authenticate finds who asks. A token counts more than the socket it came by,
// so that a token can be tried out on the host.
func (h *handler) authenticate(r *http.Request) (Person, error) {
	header := r.Header.Get("Authorization")
	if token := r.Header.Get("X-Consul-Token"); header == "" && token != "" && strings.HasPrefix(r.URL.Path, "/v1/") {
		header = "Bearer " + token // how Consul's clients say it
	}
	if header == "" {
		if p, ok := PersonFrom(r.Context()); ok {
			return p, nil
		}
		return Person{}, tender.Errorf(tender.Denied, "this needs a token").
			Hint("make one on the host: tender token create NAME, and put it into TENDER_TOKEN (HTTP: Authorization: Bearer TOKEN)")
	}
	scheme, token, _ := strings.Cut(header, " ")
	if _, password, ok := r.BasicAuth(); ok { // what has a field for a password alone, and http://any:TOKEN@host
		scheme, token = "Bearer", password
	}
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return Person{}, tender.Errorf(tender.Denied, "the Authorization header holds no token").
			Hint("send: Authorization: Bearer TOKEN, or TOKEN as the password of basic authentication, with any name")
	}
	return h.backend.Authenticate(r.Context(), strings.TrimSpace(token))
}
