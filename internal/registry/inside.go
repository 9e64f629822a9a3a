package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// inside carries requests to our own registry without a network, as an administrator.
type inside struct{ to *Registry }

type insideKey struct{}

func (t inside) RoundTrip(req *http.Request) (*http.Response, error) {
	body := req.Body
	if body == nil {
		body = http.NoBody
	}
	ctx, cancel := context.WithCancel(context.WithValue(req.Context(), insideKey{}, Account{Name: "tender", Admin: true}))
	in := req.Clone(ctx)
	in.Body, in.RequestURI, in.RemoteAddr = body, req.URL.RequestURI(), "inside"
	out, to := io.Pipe()
	w := &insideWriter{header: http.Header{}, to: to, begun: make(chan struct{})}
	go func() {
		var err error
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("our own registry broke off: %v", p)
			}
			_ = body.Close()
			if err == nil {
				w.WriteHeader(http.StatusOK)
			} else {
				w.begin(http.StatusInternalServerError)
			}
			_ = to.CloseWithError(err)
		}()
		t.to.serve(w, in)
	}()
	select {
	case <-w.begun:
	case <-req.Context().Done():
		cancel()
		_ = out.CloseWithError(req.Context().Err())
		return nil, req.Context().Err()
	}
	length := int64(-1)
	if n := w.sent.Get("Content-Length"); n != "" {
		if _, err := fmt.Sscan(n, &length); err != nil {
			length = -1
		}
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), StatusCode: w.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, ContentLength: length, Request: req, Body: insideBody{out, cancel},
	}, nil
}

// insideBody lets the registry stop when nobody reads any more.
type insideBody struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (b insideBody) Close() error {
	defer b.cancel()
	return b.PipeReader.Close()
}

type insideWriter struct {
	header http.Header
	to     *io.PipeWriter
	begun  chan struct{}
	status int
	sent   http.Header // as of begun
}

func (w *insideWriter) Header() http.Header { return w.header }

func (w *insideWriter) WriteHeader(status int) {
	if status >= 200 {
		w.begin(status)
	}
}

func (w *insideWriter) begin(status int) {
	if w.status == 0 {
		w.status, w.sent = status, w.header.Clone()
		close(w.begun)
	}
}

func (w *insideWriter) Write(p []byte) (int, error) {
	w.begin(http.StatusOK)
	return w.to.Write(p)
}
