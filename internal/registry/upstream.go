package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	tender "github.com/tenderhq/tender"
)

// Upstream is another registry, of whose images those are kept here that somebody has asked for.
type Upstream struct {
	// Name is what the names of its repositories begin with here: docker.io/library/nginx.
	Name string
	// URL is where it answers, as https://registry-1.docker.io; a path in it is put before
	// the names of repositories there. "": https:// and Name.
	URL string
	// Fresh is how long a tag is believed before the upstream is asked again; 0: 5 minutes.
	Fresh time.Duration
}

const (
	freshFor   = 5 * time.Minute
	hubName    = "docker.io"
	hubAddress = "https://registry-1.docker.io"
	hubLibrary = "library" // where Docker Hub has the repositories of one level

	maxDoors    = 256              // repositories of an upstream whose tokens are remembered
	restUnsaid  = time.Minute      // after 429 without Retry-After
	restMost    = 6 * time.Hour    // the longest Retry-After that is believed
	restDown    = 10 * time.Second // after no answer at all
	answersIn   = 30 * time.Second // until the header of an answer is there
	maxAnswer   = 4 << 20          // of an answer that is held in memory
	maxRedirect = 5
)

// CheckUpstreams says what is not right about them as they were written, and fills what is left out.
func CheckUpstreams(list []Upstream) error {
	seen := map[string]bool{}
	for i := range list {
		u := &list[i]
		if !names.MatchString(u.Name) || len(u.Name) > 128 {
			return tender.Errorf(tender.Invalid, "%q is no name for an upstream: repositories begin with it", u.Name).Hint("its host without a port, such as docker.io or registry.example.com")
		}
		if seen[u.Name] {
			return tender.Errorf(tender.Invalid, "the upstream %s is there twice", u.Name).Hint("give each a name of its own")
		}
		seen[u.Name] = true
		if u.URL == "" {
			u.URL = "https://" + u.Name
			if u.Name == hubName {
				u.URL = hubAddress
			}
		}
		at, err := url.Parse(u.URL)
		if err != nil || at.Scheme != "https" && at.Scheme != "http" || at.Host == "" || at.RawQuery+at.Fragment != "" || at.User != nil {
			// A password in it must not come out.
			return tender.Errorf(tender.Invalid, "the address of the upstream %s is not a URL such as https://registry.example.com", u.Name).
				Hint("without a name and a password in it: tender registry login HOST keeps those")
		}
		if sub := strings.Trim(at.Path, "/"); sub != "" && !names.MatchString(sub) {
			return tender.Errorf(tender.Invalid, "the address of the upstream %s ends with %q, which no repository is called", u.Name, at.Path).Hint("end it with the host, or with the folder of the repositories")
		}
		if u.Fresh < 0 {
			return tender.Errorf(tender.Invalid, "the upstream %s: fresh is %s", u.Name, u.Fresh).Hint("such as 5m")
		}
		u.Fresh = cmp.Or(u.Fresh, freshFor)
	}
	return nil
}

// upstream asks another registry, and knows when it does not want to be asked.
type upstream struct {
	Upstream
	base   *url.URL
	host   string // whose login it is
	scheme string
	sub    string // before the names of repositories; "": nothing
	hub    bool
	login  func(context.Context, string) (authn.Authenticator, error)
	now    func() time.Time
	under  http.RoundTripper

	mu        sync.Mutex
	restUntil time.Time
	restWhy   string
	limited   bool // it was 429
	doors     map[string]*door
	remaining int // pulls that it still allows, as it said; -1: it has not

	hits, misses, stale, failed, fetched, served atomic.Uint64
}

// door lets requests about a repository in, with what the login is good for.
type door struct {
	http.RoundTripper
	auth authn.AuthConfig
}

func newUpstream(u Upstream, login func(context.Context, string) (authn.Authenticator, error), now func() time.Time, under http.RoundTripper) (*upstream, error) {
	at, err := url.Parse(u.URL)
	if err != nil {
		return nil, err
	}
	if under == nil {
		under = remote.DefaultTransport
		if t, ok := under.(*http.Transport); ok {
			t = t.Clone()
			t.ResponseHeaderTimeout = answersIn
			under = t
		}
	}
	return &upstream{
		Upstream: u, base: at, host: at.Host, scheme: at.Scheme, sub: strings.Trim(at.Path, "/"), hub: at.Host == hubName || strings.HasSuffix(at.Host, "."+hubName),
		login: login, now: now, under: under, doors: map[string]*door{}, remaining: -1,
	}, nil
}

// away is the name of a repository there.
func (u *upstream) away(repository string) string {
	return path.Join(u.sub, strings.TrimPrefix(strings.TrimPrefix(repository, u.Name), "/"))
}

// resting is an upstream that is not asked now.
func (u *upstream) resting() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	wait := u.restUntil.Sub(u.now())
	if wait <= 0 {
		return nil
	}
	return u.wait(wait)
}

func (u *upstream) wait(wait time.Duration) error {
	told := max(wait.Round(time.Second), time.Second)
	if u.limited {
		return &tooMany{tender.Errorf(tender.Unavailable, "%s takes no more requests: %s", u.Name, u.restWhy).
			Hint("again in %s; a login is often allowed more: tender registry login %s", told, u.loginHost()), wait}
	}
	return tender.Errorf(tender.Unavailable, "%s is not asked for %s: %s", u.Name, told, u.restWhy).Hint("again after that; what was pulled before is served meanwhile")
}

func (u *upstream) loginHost() string {
	if u.hub {
		return hubName
	}
	return u.host
}

// rest keeps requests from it for a while.
func (u *upstream) rest(wait time.Duration, limited bool, why string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	wait = min(wait, restMost)
	if until := u.now().Add(wait); until.After(u.restUntil) {
		u.restUntil, u.restWhy, u.limited = until, why, limited
	}
	return u.wait(wait)
}

// retryAfter reads seconds or a date; 0: neither.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if n, err := strconv.Atoi(text); err == nil && n > 0 {
		return min(time.Duration(min(n, 1<<30))*time.Second, restMost)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(0, at.Sub(now)), restMost)
	}
	return 0
}

// RoundTrip is every request's to the upstream, also those for tokens: it sees when too many came.
func (u *upstream) RoundTrip(req *http.Request) (*http.Response, error) {
	if u.scheme == "https" && req.URL.Scheme != "https" {
		// The library tries plain HTTP at private addresses, too.
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, errors.New("it is to be asked by https alone")
	}
	resp, err := u.under.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if left, _, _ := strings.Cut(resp.Header.Get("RateLimit-Remaining"), ";"); left != "" {
		if n, err := strconv.Atoi(strings.TrimSpace(left)); err == nil {
			u.mu.Lock()
			u.remaining = n
			u.mu.Unlock()
		}
	}
	wait := retryAfter(resp.Header, u.now())
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		_ = u.rest(cmp.Or(wait, restUnsaid), true, "it answered 429")
	case resp.StatusCode >= 500 && wait > 0:
		_ = u.rest(wait, false, "it answered "+strconv.Itoa(resp.StatusCode))
	}
	return resp, nil
}

// through is the door to a repository. A login that has changed opens another one.
func (u *upstream) through(ctx context.Context, repository string) (http.RoundTripper, error) {
	who, err := u.login(ctx, u.loginHost())
	if err != nil {
		return nil, err
	}
	auth, err := authn.Authorization(ctx, who)
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	d := u.doors[repository]
	u.mu.Unlock()
	if d != nil && d.auth == *auth {
		return d, nil
	}
	var opts []name.Option
	if u.scheme == "http" {
		opts = append(opts, name.Insecure)
	}
	// NewRepository takes a host without a dot or a port for one who has images at Docker Hub.
	host, err := name.NewRegistry(u.host, opts...)
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "%s has no repository of this name: %v", u.Name, err)
	}
	of := host.Repo(strings.Split(repository, "/")...)
	var carrier http.RoundTripper = u
	if who != authn.Anonymous {
		carrier = guarded{u}
	}
	rt, err := transport.NewWithContext(ctx, of.Registry, who, carrier, []string{of.Scope(transport.PullScope)})
	if err != nil {
		return nil, err
	}
	d = &door{rt, *auth}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.doors) >= maxDoors {
		clear(u.doors)
	}
	u.doors[repository] = d
	return d, nil
}

// ask sends a request about a repository, and answers with what came if it is of one of
// these statuses. NotFound: it is not there. Denied: the login is not good for it.
// Unavailable: it does not answer, or wants no requests for now.
func (u *upstream) ask(ctx context.Context, method, repository, what string, header http.Header, statuses ...int) (*http.Response, error) {
	resp, err := u.send(ctx, method, repository, what, header, statuses)
	if err != nil && ctx.Err() == nil && tender.KindOf(err) != tender.NotFound {
		u.failed.Add(1)
	}
	return resp, err
}

func (u *upstream) send(ctx context.Context, method, repository, what string, header http.Header, statuses []int) (*http.Response, error) {
	if err := u.resting(); err != nil {
		return nil, err
	}
	there := u.away(repository)
	rt, err := u.through(ctx, there)
	if err != nil {
		return nil, u.wrong(ctx, repository, err)
	}
	at := *u.base
	at.Path, at.RawPath = "", ""
	req, err := http.NewRequestWithContext(ctx, method, at.String()+"/v2/"+there+"/"+what, http.NoBody)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", "tender")
	req.Header.Set("Accept-Encoding", "identity") // the bytes that the digest is of
	client := &http.Client{Transport: rt, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirect {
			return errors.New("it redirects too often")
		}
		if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
			return errors.New("it redirects from https to " + req.URL.Scheme)
		}
		return nil
	}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, u.wrong(ctx, repository, err)
	}
	if err := transport.CheckError(resp, statuses...); err != nil {
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusUnauthorized {
			u.mu.Lock()
			delete(u.doors, there)
			u.mu.Unlock()
		}
		return nil, u.wrong(ctx, repository, err)
	}
	return resp, nil
}

// wrong says what an answer means. Addresses of redirects hold signatures: they are not told.
func (u *upstream) wrong(ctx context.Context, repository string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if known := new(tender.Error); errors.As(err, &known) {
		return known
	}
	var said *transport.Error
	if !errors.As(err, &said) {
		if inner := new(url.Error); errors.As(err, &inner) {
			err = inner.Err
		}
		return u.rest(restDown, false, fmt.Sprintf("it does not answer: %v", err))
	}
	text := ""
	for _, d := range said.Errors {
		if text == "" && d.Message != "" {
			text = ": " + d.Message
		}
	}
	switch said.StatusCode {
	case http.StatusNotFound:
		return tender.Errorf(tender.NotFound, "%s does not have it%s", u.Name, text)
	case http.StatusUnauthorized, http.StatusForbidden:
		return tender.Errorf(tender.Denied, "%s does not let us pull %s%s", u.Name, repository, text).
			Hint("is the name right? If it needs a login: tender registry login %s", u.loginHost())
	case http.StatusTooManyRequests:
		if err := u.resting(); err != nil {
			return err
		}
		return u.rest(restUnsaid, true, "it answered 429")
	}
	if err := u.resting(); err != nil {
		return err
	}
	return tender.Errorf(tender.Unavailable, "%s answers %d%s", u.Name, said.StatusCode, text).Hint("again in a moment")
}

// acceptManifests is every kind that is kept.
var acceptManifests = []string{ociIndex, ociManifest, dockerList, dockerManifest}

// head asks what a tag names; "" where the answer does not say.
func (u *upstream) head(ctx context.Context, repository, tag string) (digest string, err error) {
	resp, err := u.ask(ctx, http.MethodHead, repository, "manifests/"+tag, http.Header{"Accept": acceptManifests}, http.StatusOK)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	return resp.Header.Get("Docker-Content-Digest"), nil
}

// manifest reads one by its tag or digest, and what it was sent as.
func (u *upstream) manifest(ctx context.Context, repository, reference string) (body []byte, media string, err error) {
	resp, err := u.ask(ctx, http.MethodGet, repository, "manifests/"+reference, http.Header{"Accept": acceptManifests}, http.StatusOK)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err = u.read(ctx, resp.Body)
	return body, resp.Header.Get("Content-Type"), err
}

// read takes a short answer.
func (u *upstream) read(ctx context.Context, from io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(from, maxAnswer+1))
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		u.failed.Add(1)
		return nil, tender.Errorf(tender.Unavailable, "the answer of %s broke off: %v", u.Name, err).Hint("again in a moment")
	}
	if len(body) > maxAnswer {
		u.failed.Add(1)
		return nil, tender.Errorf(tender.Unavailable, "the answer of %s has more than %d bytes", u.Name, maxAnswer).Hint("pull it from there, not through this registry")
	}
	u.fetched.Add(uint64(len(body)))
	return body, nil
}
