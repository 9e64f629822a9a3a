package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	tender "github.com/tenderhq/tender"
)

// asked writes down what requests go where, and answers them all with a digest.
type asked struct {
	mu    sync.Mutex
	lines []string
	noTLS bool
}

func (a *asked) RoundTrip(req *http.Request) (*http.Response, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lines = append(a.lines, req.URL.String())
	if a.noTLS && req.URL.Scheme == "https" {
		return nil, errors.New("this is no TLS")
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Docker-Content-Digest": {"sha256:1"}}, Body: io.NopCloser(strings.NewReader("{}")), Request: req,
	}, nil
}

func (a *asked) seen() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.lines, " ")
}

// A login is sent to the host that it is of, however that is called.
func TestTheLoginGoesToTheUpstreamAlone(t *testing.T) {
	for _, c := range []struct{ url, login, want string }{
		{"https://images", "images", "https://images/v2/ https://images/v2/team/web/manifests/1"},
		{"https://images/team", "images", "https://images/v2/ https://images/v2/team/team/web/manifests/1"},
		{"https://mydocker.io", "mydocker.io", "https://mydocker.io/v2/ https://mydocker.io/v2/team/web/manifests/1"},
		{"https://registry-1.docker.io", "docker.io", "https://registry-1.docker.io/v2/ https://registry-1.docker.io/v2/team/web/manifests/1"},
	} {
		there := &asked{}
		of := ""
		u, err := newUpstream(Upstream{Name: "company", URL: c.url}, func(_ context.Context, host string) (authn.Authenticator, error) {
			of = host
			return &authn.Basic{Username: "robot", Password: "secret"}, nil
		}, time.Now, there)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.head(t.Context(), "company/team/web", "1"); err != nil {
			t.Errorf("%s: %v", c.url, err)
		}
		if got := there.seen(); got != c.want || of != c.login {
			t.Errorf("%s: the login of %s goes with %s, not that of %s with %s", c.url, of, got, c.login, c.want)
		}
	}
}

// What is written with https is asked so, at addresses of this host and of private networks as well.
func TestAnUpstreamIsAskedAsItIsWritten(t *testing.T) {
	anonymous := func(context.Context, string) (authn.Authenticator, error) { return authn.Anonymous, nil }
	for _, host := range []string{"127.0.0.1:5000", "10.1.2.3", "images.local"} {
		there := &asked{noTLS: true}
		u, err := newUpstream(Upstream{Name: "company", URL: "https://" + host}, anonymous, time.Now, there)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := u.head(t.Context(), "company/web", "1"); tender.KindOf(err) != tender.Unavailable {
			t.Errorf("%s: %q, %v", host, got, err)
		}
		if got := there.seen(); got != "https://"+host+"/v2/" {
			t.Errorf("%s: asked at %s", host, got)
		}
	}
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Docker-Content-Digest", "sha256:1")
	}))
	t.Cleanup(s.Close)
	u, err := newUpstream(Upstream{Name: "company", URL: s.URL}, anonymous, time.Now, s.Client().Transport)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := u.head(t.Context(), "company/web", "1"); got != "sha256:1" || err != nil {
		t.Errorf("with TLS: %q, %v", got, err)
	}
}
