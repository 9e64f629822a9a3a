package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	tender "github.com/tenderhq/tender"
)

// serve answers about a repository of an upstream, to who may pull from it.
func (c *cache) serve(w http.ResponseWriter, req *http.Request, rt route, u *upstream) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead || rt.kind == "uploads" {
		problem(w, http.StatusForbidden, "DENIED", fmt.Sprintf("%s keeps images of another registry, and nothing is pushed to it (push under a name that begins otherwise, or to %s itself)", u.Name, u.base.Host))
		return
	}
	switch rt.kind {
	case "manifests":
		c.manifest(w, req, rt, u)
	case "blobs":
		c.blob(w, req, rt, u)
	default:
		c.list(w, req, rt, u)
	}
}

// found is how a request is answered.
type found struct {
	digest string
	stale  error     // the upstream could not be asked
	asked  time.Time // when it was last; of a tag
	came   bool      // from the upstream just now
	body   []byte    // of what could not be kept
	media  string
}

// status is the Cache-Status of RFC 9211.
func (f found) status(fresh time.Duration, now time.Time) string {
	switch {
	case f.stale != nil:
		ttl := 0
		if !f.asked.IsZero() {
			ttl = int((fresh - now.Sub(f.asked)).Seconds())
		}
		return "tender; hit; ttl=" + strconv.Itoa(min(ttl, 0)) + "; detail=" + strconv.Quote(ascii(f.stale.Error()))
	case f.came && f.body != nil:
		return "tender; fwd=uri-miss"
	case f.came:
		return "tender; fwd=uri-miss; stored"
	}
	return "tender; hit"
}

// ascii is what may stand in a header.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, s)
}

func (c *cache) count(u *upstream, f found) {
	switch {
	case f.stale != nil:
		u.stale.Add(1)
	case f.came:
		u.misses.Add(1)
	default:
		u.hits.Add(1)
	}
}

func (c *cache) manifest(w http.ResponseWriter, req *http.Request, rt route, u *upstream) {
	var f found
	var err error
	d, derr := digest.Parse(rt.reference)
	switch {
	case derr == nil && d.Algorithm() != digest.SHA256:
		problem(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "only digests in SHA-256 are kept of other registries")
		return
	case derr == nil:
		defer c.r.o.Touched(d.String())()
		f, err = c.keep(req.Context(), u, rt.repository, d.String(), "")
	case !tags().MatchString(rt.reference):
		problem(w, http.StatusBadRequest, "TAG_INVALID", fmt.Sprintf("%q is no tag", rt.reference))
		return
	default:
		f, err = c.tag(req.Context(), u, rt.repository, rt.reference)
	}
	if err != nil {
		c.refuse(w, err, "MANIFEST_UNKNOWN")
		return
	}
	c.count(u, f)
	w.Header().Set("Cache-Status", f.status(u.Fresh, c.r.o.Now()))
	if f.body != nil {
		w.Header().Set("Content-Type", f.media)
		w.Header().Set("Content-Length", strconv.Itoa(len(f.body)))
		w.Header().Set("Docker-Content-Digest", f.digest)
		w.WriteHeader(http.StatusOK)
		if req.Method == http.MethodGet {
			_, _ = w.Write(f.body)
		}
		return
	}
	if derr != nil {
		defer c.r.o.Touched(f.digest)()
	}
	c.note(req.Context(), rt.repository, f.digest)
	next := withQuery(req, url.Values{})
	next.URL.Path, next.URL.RawPath = "/v2/"+rt.repository+"/manifests/"+f.digest, ""
	c.hand(w, next, u, f)
}

// hand lets the library answer of what is kept, and counts it.
func (c *cache) hand(w http.ResponseWriter, req *http.Request, u *upstream, f found) {
	sent := &measured{ResponseWriter: w}
	c.r.pass(sent, req)
	if !f.came {
		u.served.Add(uint64(sent.n))
	}
}

type measured struct {
	http.ResponseWriter
	n int64
}

func (m *measured) Write(b []byte) (int, error) {
	n, err := m.ResponseWriter.Write(b)
	m.n += int64(n)
	return n, err
}

func (m *measured) ReadFrom(src io.Reader) (int64, error) {
	n, err := io.Copy(m.ResponseWriter, src)
	m.n += n
	return n, err
}

func (m *measured) Unwrap() http.ResponseWriter { return m.ResponseWriter }

// refuse answers with what the upstream said.
func (c *cache) refuse(w http.ResponseWriter, err error, unknown string) {
	text := err.Error()
	if advice := tender.AdviceOf(err); advice != "" {
		text += " (" + advice + ")"
	}
	switch {
	case tender.KindOf(err) == tender.NotFound:
		problem(w, http.StatusNotFound, unknown, text)
	case errors.As(err, new(*tooMany)), tender.KindOf(err) != tender.Unavailable:
		Refuse(w, err)
	default:
		c.r.o.Log.Warn("an image of another registry cannot be fetched", "error", err)
		Refuse(w, err)
	}
}

// list asks the upstream for tags or referrers, and answers with what is kept where that
// cannot be asked.
func (c *cache) list(w http.ResponseWriter, req *http.Request, rt route, u *upstream) {
	what := "tags/list"
	if rt.kind == "referrers" {
		if _, err := digest.Parse(rt.reference); err != nil {
			problem(w, http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("%q: %v", rt.reference, err))
			return
		}
		what = "referrers/" + rt.reference
	}
	within, cancel := context.WithTimeoutCause(req.Context(), askWithin, tender.Errorf(tender.Unavailable, "the registry asked does not answer within %s", askWithin).Hint("again in a moment"))
	defer cancel()
	body, header, err := c.listed(within, u, rt, what, req.URL.Query())
	if err == nil {
		u.misses.Add(1)
		w.Header().Set("Cache-Status", "tender; fwd=bypass")
		for _, k := range []string{"Content-Type", "Link", "OCI-Filters-Applied"} {
			if v := header.Get(k); v != "" {
				w.Header().Set(k, v)
			}
		}
		_, _ = w.Write(body)
		return
	}
	// A registry without referrers has none; clients look for tags then.
	if tender.KindOf(err) == tender.NotFound && rt.kind != "referrers" {
		c.refuse(w, err, "NAME_UNKNOWN")
		return
	}
	if tender.KindOf(err) != tender.NotFound {
		known, lerr := c.r.manifests(req.Context(), rt.repository)
		if tender.KindOf(err) != tender.Unavailable || lerr != nil || len(known) == 0 || req.Context().Err() != nil {
			c.refuse(w, err, "NAME_UNKNOWN")
			return
		}
		u.stale.Add(1)
		w.Header().Set("Cache-Status", found{stale: err}.status(0, time.Time{}))
	}
	if rt.kind == "referrers" {
		c.r.referrers(w, req, rt)
		return
	}
	c.r.pass(w, req)
}

func (c *cache) listed(ctx context.Context, u *upstream, rt route, what string, asked url.Values) (body []byte, header http.Header, err error) {
	q := url.Values{}
	for _, k := range []string{"n", "last", "artifactType"} {
		if v := asked.Get(k); v != "" {
			q.Set(k, v)
		}
	}
	if len(q) > 0 {
		what += "?" + q.Encode()
	}
	resp, err := u.ask(ctx, http.MethodGet, rt.repository, what, http.Header{"Accept": {ociIndex, "application/json"}}, http.StatusOK)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if body, err = u.read(ctx, resp.Body); err != nil {
		return nil, nil, err
	}
	header = http.Header{"Content-Type": {"application/json"}}
	if v := resp.Header.Get("OCI-Filters-Applied"); v != "" {
		header.Set("OCI-Filters-Applied", ascii(v))
	}
	// Where it goes on is told under the name that the repository has here.
	if target, _, ok := strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">"); ok {
		if next, err := url.Parse(target); err == nil {
			header.Set("Link", fmt.Sprintf(`</v2/%s/%s?%s>; rel="next"`, rt.repository, strings.SplitN(what, "?", 2)[0], next.Query().Encode()))
		}
	}
	if rt.kind == "referrers" {
		header.Set("Content-Type", ociIndex)
		if !json.Valid(body) {
			err = tender.Errorf(tender.Unavailable, "%s sent something that is no list of referrers", u.Name).Hint("again in a moment")
		}
		return body, header, err
	}
	var tags struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(body, &tags); err != nil {
		return nil, nil, tender.Errorf(tender.Unavailable, "%s sent something that is no list of tags", u.Name).Hint("again in a moment")
	}
	tags.Name = rt.repository
	body, err = json.Marshal(tags)
	return body, header, err
}
