package proxy

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"sync"
)

const zipMin = 256 // bytes; less is not worth it

var zips = sync.Pool{New: func() any { z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed); return z }}

type zipper struct{ *gzip.Writer }

// compress decides whether the answer is sent as gzip: text, whole, not
// compressed yet, and not too small.
func (x *exchange) compress(h http.Header, status int, length int64) {
	kind, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	if !textual(strings.ToLower(trim(kind))) {
		return
	}
	h.Add("Vary", "Accept-Encoding")
	if x.r.Method == http.MethodHead || status != http.StatusOK || length >= 0 && length < zipMin ||
		h.Get("Content-Encoding") != "" || anyLists(h["Cache-Control"], "no-transform") || !takesGzip(x.r.Header["Accept-Encoding"]) {
		return
	}
	h.Del("Content-Length")
	h.Del("Accept-Ranges")
	h.Set("Content-Encoding", "gzip")
	if tag := h.Get("Etag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		h.Set("Etag", "W/"+tag)
	}
	z := zips.Get().(*gzip.Writer)
	z.Reset(x.w)
	x.zip = &zipper{z}
}

// close ends the compressed body, if there is one.
func (x *exchange) unzip(whole bool) {
	if x.zip == nil {
		return
	}
	if whole {
		x.zip.Close()
	}
	x.zip.Reset(io.Discard)
	zips.Put(x.zip.Writer)
	x.zip = nil
}

func textual(kind string) bool {
	if strings.HasPrefix(kind, "text/") {
		return kind != "text/event-stream" // small pieces, each of which must come at once
	}
	switch kind {
	case "application/json", "application/javascript", "application/xml", "application/xhtml+xml", "application/manifest+json",
		"application/ld+json", "application/rss+xml", "application/atom+xml", "application/problem+json", "application/wasm", "image/svg+xml":
		return true
	}
	return false
}

func takesGzip(values []string) bool {
	for _, v := range values {
		for one := range strings.SplitSeq(v, ",") {
			name, q, _ := strings.Cut(one, ";")
			if name = trim(name); strings.EqualFold(name, "gzip") || name == "*" {
				q = strings.ReplaceAll(q, " ", "")
				return q != "q=0" && !strings.HasPrefix(q, "q=0.0") || q == "q=0.001"
			}
		}
	}
	return false
}
