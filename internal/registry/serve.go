package registry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// maxManifest is how large a manifest may be, as the specification asks registries to take at least.
const maxManifest = 4 << 20

// form is an expression that counts far, and is compiled once it is needed: the edge never asks.
func form(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

var (
	// names are the grammar of the specification.
	names  = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tags   = form(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	uuid   = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	routes = regexp.MustCompile(`^/v2/(.+)/(?:(manifests|referrers)/([^/]+)|blobs/(uploads)(?:/([^/]*))?|(blobs)/([^/]+)|(tags)/list)$`)
)

// route is what a path names.
type route struct {
	repository string
	kind       string // manifests, referrers, uploads, blobs, tags
	reference  string // a tag, a digest or an upload
}

func parse(address string) (route, bool) {
	m := routes.FindStringSubmatch(address)
	if m == nil {
		return route{}, false
	}
	return route{repository: m[1], kind: m[2] + m[4] + m[6] + m[8], reference: m[3] + m[5] + m[7]}, true
}

// action is what a method does.
func action(method string, rt route) string {
	switch {
	case method == http.MethodGet || method == http.MethodHead:
		if rt.kind == "uploads" {
			return Push
		}
		return Pull
	case method == http.MethodDelete && rt.kind != "uploads":
		return Delete
	}
	return Push
}

func (r *Registry) serve(w http.ResponseWriter, req *http.Request) {
	count := r.met.begin(w, req)
	defer count.end()
	r.answer(count, req)
}

// enter finds out who asks. Requests from inside the process bring who they are.
func (r *Registry) enter(req *http.Request) (Account, error) {
	if a, ok := req.Context().Value(insideKey{}).(Account); ok {
		return a, nil
	}
	return r.o.Enter(req)
}

func (r *Registry) answer(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	account, err := r.enter(req)
	if err != nil {
		if tender.KindOf(err) != tender.Denied {
			r.refuse(w, err)
			return
		}
		challenge(w, err.Error())
		return
	}
	if req.URL.Path == "/v2/" || req.URL.Path == "/v2" {
		if account.Name == "" { // clients learn here that they have to log in
			challenge(w, "authentication is needed")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
		return
	}
	if req.URL.Path == "/v2/_catalog" {
		if account.Name == "" && !account.Admin && len(account.Grants) == 0 {
			challenge(w, "authentication is needed")
			return
		}
		r.catalog(w, req, account)
		return
	}
	rt, ok := parse(req.URL.Path)
	if !ok {
		problem(w, http.StatusNotFound, "UNSUPPORTED", "there is no such address")
		return
	}
	if len(rt.repository) > 255 || !names.MatchString(rt.repository) {
		problem(w, http.StatusBadRequest, "NAME_INVALID", fmt.Sprintf("%q is no name of a repository", rt.repository))
		return
	}
	req, upstream, err := r.cache.enter(req, &rt)
	if err != nil {
		r.refuse(w, err)
		return
	}
	do := action(req.Method, rt)
	if !account.May(rt.repository, do) {
		if account.Name == "" {
			challenge(w, "authentication is needed")
			return
		}
		problem(w, http.StatusForbidden, "DENIED", fmt.Sprintf("%s may not %s in %s", account.Name, do, rt.repository))
		return
	}
	if upstream != nil && (req.Method != http.MethodDelete || rt.kind != "manifests") {
		r.cache.serve(w, req, rt, upstream)
		return
	}
	if rt.kind == "uploads" && do == Push && req.Method != http.MethodDelete && req.Method != http.MethodGet {
		if err := r.roomFor(req, rt); err != nil {
			r.refuse(w, err)
			return
		}
	}
	switch {
	case rt.kind == "referrers":
		r.referrers(w, req, rt)
	case rt.kind == "manifests" && req.Method == http.MethodPut:
		r.putManifest(w, req, rt, account)
	case rt.kind == "manifests" && req.Method == http.MethodDelete:
		r.deleteManifest(w, req, rt, account)
	case rt.kind == "uploads" && req.Method == http.MethodPost:
		r.beginUpload(w, req, rt, account)
	default:
		done := func() {}
		if r.o.Touched != nil && (rt.kind == "blobs" || rt.kind == "manifests") {
			if _, err := digest.Parse(rt.reference); err == nil {
				done = r.o.Touched(rt.reference)
			}
		}
		if d := req.URL.Query().Get("digest"); r.o.Touched != nil && rt.kind == "uploads" && req.Method == http.MethodPut && d != "" {
			done = r.o.Touched(d)
		}
		defer done()
		if r.sendBlob(w, req, rt) {
			return
		}
		r.pass(w, req)
		if d := w.Header().Get("Docker-Content-Digest"); d != "" && rt.kind == "manifests" && d != rt.reference && r.o.Touched != nil {
			r.o.Touched(d)() // who asks for a tag goes on with its digest
		}
	}
}

// pass lets the library answer. What it failed at is logged, and told without what it says of
// the host.
func (r *Registry) pass(w http.ResponseWriter, req *http.Request) {
	watch := &failing{ResponseWriter: w}
	r.app.ServeHTTP(watch, req)
	if watch.status < 500 {
		return
	}
	said := watch.said.String()
	r.o.Log.Error("the registry failed", "method", req.Method, "path", req.URL.Path, "status", watch.status, "answer", said)
	w.Header().Del("Content-Length")
	if !strings.Contains(said, unix.ENOSPC.Error()) && !strings.Contains(said, unix.EDQUOT.Error()) {
		problem(w, watch.status, "UNKNOWN", "the registry failed; its log says at what")
		return
	}
	// What arrived of it would fill the disk for a week, and clients begin anew.
	if rt, ok := parse(req.URL.Path); ok && rt.kind == "uploads" && uuid.MatchString(rt.reference) {
		if err := r.driver.Delete(context.WithoutCancel(req.Context()), path.Join(tree, rt.repository, "_uploads", rt.reference)); err != nil {
			r.o.Log.Warn("what arrived of an upload stays", "repository", rt.repository, "error", err)
		}
	}
	problem(w, http.StatusInsufficientStorage, "UNKNOWN", "there is no space left on the registry's disk")
}

// failing holds back an answer that tells of a failure.
type failing struct {
	http.ResponseWriter
	status int
	said   bytes.Buffer // its beginning
}

func (f *failing) WriteHeader(status int) {
	if f.status >= 200 {
		return // the library says it twice where a client has gone
	}
	if f.status = status; status < 500 {
		f.ResponseWriter.WriteHeader(status)
	}
}

func (f *failing) Write(b []byte) (int, error) {
	if f.status < 500 {
		return f.ResponseWriter.Write(b)
	}
	if room := 4<<10 - f.said.Len(); room > 0 {
		f.said.Write(b[:min(len(b), room)])
	}
	return len(b), nil
}

func (f *failing) Unwrap() http.ResponseWriter { return f.ResponseWriter }

// ReadFrom keeps sendfile: most of what is answered are files.
func (f *failing) ReadFrom(src io.Reader) (int64, error) {
	if f.status >= 500 {
		return io.Copy(struct{ io.Writer }{f}, src)
	}
	return io.Copy(f.ResponseWriter, src)
}

// beginUpload drops the wish to mount a blob of a repository that may not be read, or that
// is not there: what follows is an ordinary upload, as the specification has it.
func (r *Registry) beginUpload(w http.ResponseWriter, req *http.Request, rt route, a Account) {
	q := req.URL.Query()
	mount := q.Get("mount")
	if mount != "" {
		from := q.Get("from")
		if from == "" || !names.MatchString(from) || !a.May(from, Pull) {
			q.Del("mount")
			q.Del("from")
			mount = ""
			req = withQuery(req, q)
		}
	}
	for _, d := range []string{mount, q.Get("digest")} {
		if _, err := digest.Parse(d); err == nil && r.o.Touched != nil {
			defer r.o.Touched(d)()
		}
	}
	r.pass(w, req)
}

func withQuery(req *http.Request, q url.Values) *http.Request {
	u := *req.URL
	u.RawQuery = q.Encode()
	next := req.WithContext(req.Context())
	next.URL = &u
	next.Form, next.PostForm = nil, nil
	return next
}

// putManifest asks who must be asked, lets the library write the files, then writes the row.
// A row that a crash kept from being written is made at the next start.
func (r *Registry) putManifest(w http.ResponseWriter, req *http.Request, rt route, a Account) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxManifest))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		problem(w, http.StatusRequestEntityTooLarge, "MANIFEST_INVALID", fmt.Sprintf("a manifest may have %d bytes at most", maxManifest))
		return
	}
	if err != nil {
		problem(w, http.StatusBadRequest, "MANIFEST_INVALID", "the manifest did not arrive whole: "+err.Error())
		return
	}
	media, _, err := mime.ParseMediaType(req.Header.Get("Content-Type"))
	if err != nil {
		media = ""
	}
	m, err := describe(body, media)
	if err != nil {
		problem(w, http.StatusBadRequest, "MANIFEST_INVALID", err.Error())
		return
	}
	m.Repository, m.Pushed, m.Who = rt.repository, r.o.Now().UTC(), a.Name
	push := Pushed{Manifest: m, Account: a}
	if d, err := digest.Parse(rt.reference); err != nil {
		if !tags().MatchString(rt.reference) {
			problem(w, http.StatusBadRequest, "TAG_INVALID", fmt.Sprintf("%q is no tag", rt.reference))
			return
		}
		push.Tag = rt.reference
	} else if d.Algorithm() != digest.SHA256 {
		push.Digest = d.Algorithm().FromBytes(body).String()
	}
	defer r.lockQuotas(rt.repository)()
	unlock := r.lock(rt.repository)
	defer unlock()
	if r.o.Touched != nil {
		for _, ref := range append([]store.ManifestRef{{Digest: push.Digest}}, m.Refs...) {
			defer r.o.Touched(ref.Digest)()
		}
	}
	for _, ask := range append([]func(context.Context, Pushed) error{r.keepExpected, r.keepTags, r.holdQuotas}, r.o.Before...) {
		if err := ask(req.Context(), push); err != nil {
			r.refuse(w, err)
			return
		}
	}
	next := req.WithContext(context.WithoutCancel(req.Context())) // all of it or nothing, also when who asked has gone
	next.Body, next.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	hold := &held{header: w.Header().Clone()}
	r.pass(hold, next)
	if hold.status == http.StatusCreated {
		err := r.o.Store.Update(next.Context(), func(tx *store.Tx) error {
			if push.Tag != "" {
				if err := tx.PutTag(store.Tag{Repository: m.Repository, Tag: push.Tag, Digest: push.Digest, Pushed: m.Pushed, Who: m.Who}); err != nil {
					return err
				}
			}
			return tx.PutManifest(push.Manifest)
		})
		if err != nil {
			r.refuse(w, err)
			return
		}
		if m.Subject != "" {
			hold.header.Set("OCI-Subject", m.Subject)
		}
		for _, tell := range r.o.After {
			tell(push)
		}
	}
	hold.flush(w)
}

func (r *Registry) deleteManifest(w http.ResponseWriter, req *http.Request, rt route, a Account) {
	unlock := r.lock(rt.repository)
	defer unlock()
	if err := r.keepDeleted(req, rt, a); err != nil {
		r.refuse(w, err)
		return
	}
	hold := &held{header: w.Header().Clone()}
	req = req.WithContext(context.WithoutCancel(req.Context())) // all of it or nothing, also when who asked has gone
	r.pass(hold, req)
	if hold.status == http.StatusAccepted {
		err := r.o.Store.Update(req.Context(), func(tx *store.Tx) error {
			if _, err := digest.Parse(rt.reference); err == nil {
				return tx.RemoveManifest(rt.repository, rt.reference)
			}
			return tx.RemoveTag(rt.repository, rt.reference)
		})
		if err != nil {
			r.refuse(w, err)
			return
		}
	}
	hold.flush(w)
}

// held is a short answer that waits until the row is written.
type held struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (h *held) Header() http.Header { return h.header }

func (h *held) WriteHeader(status int) {
	if h.status == 0 {
		h.status = status
	}
}

func (h *held) Write(b []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	return h.body.Write(b)
}

func (h *held) flush(w http.ResponseWriter) {
	clear(w.Header())
	for k, v := range h.header {
		w.Header()[k] = v
	}
	w.WriteHeader(cmp.Or(h.status, http.StatusOK))
	_, _ = w.Write(h.body.Bytes())
}

// catalog lists the repositories that the account may pull from.
func (r *Registry) catalog(w http.ResponseWriter, req *http.Request, a Account) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		problem(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "the catalog can only be read")
		return
	}
	n, last := 1000, req.URL.Query().Get("last")
	if s := req.URL.Query().Get("n"); s != "" {
		v, err := strconv.Atoi(s)
		if err != nil || v < 0 {
			problem(w, http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "n is how many names are asked for, 0 to 1000")
			return
		}
		n = min(v, n)
	}
	found := []string{}
	more := false
	for after := last; n > 0 && !more; {
		var page []string
		err := r.o.Store.View(req.Context(), func(tx *store.Tx) (err error) {
			page, err = tx.Repositories(after, 1000)
			return err
		})
		if err != nil {
			r.refuse(w, err)
			return
		}
		if len(page) == 0 {
			break
		}
		after = page[len(page)-1]
		page = slices.DeleteFunc(page, func(name string) bool { return !a.May(name, Pull) })
		if len(found)+len(page) > n {
			page, more = page[:n-len(found)], true
		}
		found = append(found, page...)
	}
	if more {
		w.Header().Set("Link", fmt.Sprintf(`</v2/_catalog?%s>; rel="next"`, url.Values{"n": {strconv.Itoa(n)}, "last": {found[len(found)-1]}}.Encode()))
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"repositories": found})
}

// refuse answers with an error of ours, and logs what is nobody's fault outside.
func (r *Registry) refuse(w http.ResponseWriter, err error) {
	switch tender.KindOf(err) {
	case tender.Invalid, tender.NotFound, tender.Conflict, tender.Denied:
	default:
		r.o.Log.Error("the registry failed", "error", err)
	}
	Refuse(w, err)
}

// Refuse answers a client of a registry with an error of ours.
func Refuse(w http.ResponseWriter, err error) {
	text := err.Error()
	if advice := tender.AdviceOf(err); advice != "" {
		text += " (" + advice + ")"
	}
	if wait := new(tooMany); errors.As(err, &wait) {
		w.Header().Set("Retry-After", strconv.Itoa(int(wait.after.Seconds())+1))
		problem(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", text)
		return
	}
	switch tender.KindOf(err) {
	case tender.Invalid:
		problem(w, http.StatusBadRequest, "MANIFEST_INVALID", text)
	case tender.NotFound:
		problem(w, http.StatusNotFound, "NAME_UNKNOWN", text)
	case tender.Conflict, tender.Denied:
		problem(w, http.StatusForbidden, "DENIED", text)
	case tender.Unavailable:
		w.Header().Set("Retry-After", "10")
		problem(w, http.StatusServiceUnavailable, "UNAVAILABLE", text)
	default:
		problem(w, http.StatusInternalServerError, "UNKNOWN", text)
	}
}

func challenge(w http.ResponseWriter, why string) {
	w.Header().Set("WWW-Authenticate", `Basic realm="tender", charset="UTF-8"`)
	problem(w, http.StatusUnauthorized, "UNAUTHORIZED", why)
}

// problem writes an error as the specification has them.
func problem(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Del("Content-Length")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": strings.TrimSpace(message)}}})
}
