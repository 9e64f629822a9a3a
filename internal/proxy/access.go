package proxy

import (
	"net/netip"
	"time"
)

// Access is what a request came to, for an access log. Its strings are good
// until the function that got it returns.
type Access struct {
	Time                        time.Time // when it came
	Took                        time.Duration
	Client                      netip.Addr
	Method, Host, URI, Protocol string
	Referer, Agent              string
	Status                      int // 0: none was sent
	In, Out                     uint64
	// Where it went; empty where no route leads there, or nothing serves.
	Route, Project, Aim, Target, Revision string
}

// tell hands a request that has ended to the access log.
func (x *exchange) tell() {
	a := Access{
		Time: x.start, Took: time.Since(x.start), Client: x.from, Method: x.r.Method, Host: x.r.Host, URI: x.r.RequestURI, Protocol: x.r.Proto,
		Referer: x.r.Header.Get("Referer"), Agent: x.r.Header.Get("User-Agent"), Status: x.said, In: x.o.in, Out: x.o.out,
	}
	if a.Status == 0 {
		a.Status = x.o.status // of an upgraded connection
	}
	if x.route != nil {
		a.Route, a.Project = x.route.ID, x.route.project
	}
	if x.t != nil {
		a.Aim, a.Target, a.Revision = x.t.aim, x.t.name, x.t.revision
	}
	x.s.o.Access(&a)
}
