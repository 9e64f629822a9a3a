package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strconv"

	tender "github.com/tenderhq/tender"
)

const askMax = 1 << 20 // bytes of an answer to Ask

// Ask sends a request along a route, or to the targets of a TCP port, to a revision, whatever that one's weight,
// past gates and pauses, and counts it nowhere. It waits for a target as any
// request does, or until ctx ends.
func (s *Server) Ask(ctx context.Context, id, revision string, r *http.Request) (*http.Response, error) {
	snap := s.table.Load()
	way := snap.routes.all[id]
	if p := snap.ports[id]; way == nil && p != nil {
		way = newRoute(Route{ID: id}, p, false)
	}
	if way == nil {
		return nil, tender.Errorf(tender.NotFound, "no route %q", id)
	}
	known := false
	for _, g := range way.groups {
		known = known || g.revision == revision && len(g.targets) > 0
	}
	if !known {
		return nil, tender.Errorf(tender.NotFound, "route %q leads to no instance of revision %s", id, revision)
	}
	in := r.Clone(ctx)
	in.RequestURI, in.RemoteAddr = in.URL.RequestURI(), "127.0.0.1:0"
	in.Proto, in.ProtoMajor, in.ProtoMinor = "HTTP/1.1", 1, 1
	if in.Host == "" && len(way.Hosts) > 0 {
		in.Host = way.Hosts[0]
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	if way.secure {
		in.TLS = new(tls.ConnectionState)
	}
	w := &record{header: http.Header{}}
	x := &exchange{s: s, w: w, r: in, route: way, revision: revision}
	x.serve()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if x.abort || w.status == 0 {
		return nil, errors.New("the answer was cut off")
	}
	return &http.Response{
		Status: strconv.Itoa(w.status) + " " + http.StatusText(w.status), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()), Request: r,
	}, nil
}

// record keeps an answer.
type record struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *record) Header() http.Header { return w.header }

func (w *record) WriteHeader(status int) {
	if status >= 200 && w.status == 0 {
		w.status = status
	}
}

func (w *record) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.body.Len()+len(b) > askMax {
		return 0, errTooLarge
	}
	return w.body.Write(b)
}
