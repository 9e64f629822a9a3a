package registry

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"regexp"
	"strings"

	tender "github.com/tenderhq/tender"
)

// guarded keeps a login from crossing a network in the clear: the library falls back to
// plain HTTP at private addresses.
type guarded struct{ http.RoundTripper }

// Guard keeps requests with a login off networks that are not encrypted; this host is none.
func Guard(carrier http.RoundTripper) http.RoundTripper { return guarded{carrier} }

func (g guarded) RoundTrip(req *http.Request) (*http.Response, error) {
	if host := req.URL.Hostname(); req.URL.Scheme != "https" && host != "localhost" {
		if a, err := netip.ParseAddr(host); err != nil || !a.IsLoopback() {
			if req.Body != nil {
				_ = req.Body.Close()
			}
			return nil, tender.Errorf(tender.Denied, "%s speaks no TLS, and the login there would cross the network in the clear", req.URL.Host).
				Hint("give it a certificate, or forget the login: tender registry logout %s", req.URL.Host)
		}
	}
	return g.RoundTripper.RoundTrip(req)
}

// maxRead is how large manifests, lists and referrers of others may be, in bytes: the library reads them whole.
const maxRead = 8 << 20

// askedBlob is the path of a blob.
var askedBlob = regexp.MustCompile(`^/v2/.+/blobs/[a-z0-9+._-]+:[a-zA-Z0-9=_-]+$`)

// bounded reads no endless answers. Blobs may have any size, wherever their registry keeps
// them; of what is not asked below /v2/, such as tokens, the library reads little.
type bounded struct{ http.RoundTripper }

type allBoundedKey struct{}

// allBounded bounds every answer, whatever it looks like: pages lie where the page before says.
func allBounded(ctx context.Context) context.Context {
	return context.WithValue(ctx, allBoundedKey{}, true)
}

// small says whether a request is for something that is read whole. What counts is what was
// asked for: where an answer leads is the registry's choice.
func small(req *http.Request) bool {
	if req.Context().Value(allBoundedKey{}) != nil {
		return true
	}
	for req.Response != nil && req.Response.Request != nil {
		req = req.Response.Request
	}
	return strings.HasPrefix(req.URL.Path, "/v2/") && !askedBlob.MatchString(req.URL.Path)
}

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(req)
	if err != nil || !small(req) {
		return res, err
	}
	res.Body = &boundedBody{res.Body, maxRead}
	return res, nil
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, tender.Errorf(tender.Invalid, "the registry's answer is longer than %d bytes", maxRead)
	}
	return n, err
}
