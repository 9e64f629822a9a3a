package registry

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// meter counts requests by method and status, and bytes both ways.
type meter struct {
	mu       sync.Mutex
	requests map[[2]int]*atomic.Uint64 // method's place in methods, status
	in, out  atomic.Uint64
}

var methods = [...]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "other"}

// Count is how many requests of a method were answered with a status.
type Count struct {
	Method string
	Status int
	N      uint64
}

// Counts returns what was counted since the start: requests, and bytes that came in and went out.
func (r *Registry) Counts() (requests []Count, in, out uint64) {
	r.met.mu.Lock()
	defer r.met.mu.Unlock()
	for k, n := range r.met.requests {
		requests = append(requests, Count{methods[k[0]], k[1], n.Load()})
	}
	return requests, r.met.in.Load(), r.met.out.Load()
}

func (m *meter) begin(w http.ResponseWriter, req *http.Request) *counted {
	c := &counted{ResponseWriter: w, m: m, method: len(methods) - 1}
	for i, name := range methods {
		if name == req.Method {
			c.method = i
		}
	}
	if req.Body != nil {
		req.Body = &countedBody{req.Body, m}
	}
	return c
}

type counted struct {
	http.ResponseWriter
	m      *meter
	method int
	status int
}

func (c *counted) WriteHeader(status int) {
	if c.status == 0 {
		c.status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.m.out.Add(uint64(n))
	return n, err
}

func (c *counted) ReadFrom(src io.Reader) (int64, error) {
	n, err := io.Copy(c.ResponseWriter, src)
	c.m.out.Add(uint64(n))
	return n, err
}

func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *counted) end() {
	key := [2]int{c.method, max(c.status, http.StatusOK)}
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if c.m.requests == nil {
		c.m.requests = map[[2]int]*atomic.Uint64{}
	}
	n := c.m.requests[key]
	if n == nil {
		n = new(atomic.Uint64)
		c.m.requests[key] = n
	}
	n.Add(1)
}

type countedBody struct {
	io.ReadCloser
	m *meter
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.m.in.Add(uint64(n))
	return n, err
}
