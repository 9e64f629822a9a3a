package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tenderhq/tender"
)

// Edge is the data plane as the daemon sees it.
type Edge struct {
	// State: serving; away, when there is something to serve and no edge does; idle, when there is nothing.
	State     string        `json:"state"`
	Detail    string        `json:"detail,omitempty"` // why it is away
	Version   string        `json:"version,omitempty"`
	PID       int           `json:"pid,omitempty"`
	Started   time.Time     `json:"started,omitzero"`
	Table     uint64        `json:"table,omitempty"` // version of the table that is served
	Listeners []string      `json:"listeners,omitempty"`
	Problems  []EdgeProblem `json:"problems,omitempty"`
	Routes    []Route       `json:"routes"`
}

// EdgeProblem is what cannot be served of a project.
type EdgeProblem struct {
	Project string `json:"project"`
	Text    string `json:"text"`
}

// Route is one route of a project, or one port that the edge holds, with what
// it serves.
type Route struct {
	ID      string `json:"id"` // PROJECT/HOST/PATH; of a port PROJECT/SERVICE:PORT/PROTOCOL
	Project string `json:"project"`
	Kind    string `json:"kind"` // http, tcp, udp
	// State: serving, paused, maintenance, redirect, no target, away.
	State  string    `json:"state"`
	Detail string    `json:"detail,omitempty"`
	Until  time.Time `json:"until,omitzero"` // of a pause
	Who    string    `json:"who,omitempty"`  // who paused it

	Service  string   `json:"service,omitempty"` // under which it is written
	Hosts    []string `json:"hosts,omitempty"`
	Path     string   `json:"path,omitempty"`
	Address  string   `json:"address,omitempty"` // of a port
	Port     int      `json:"port,omitempty"`    // the container's, of a port
	Redirect string   `json:"redirect,omitempty"`
	TLS      string   `json:"tls,omitempty"`
	Balance  string   `json:"balance,omitempty"`
	Sticky   bool     `json:"sticky,omitempty"`

	// Certificates are those of its hosts, where it is served over TLS.
	Certificates []RouteCertificate `json:"certificates,omitempty"`

	Aims []RouteAim `json:"aims,omitempty"`
	Walk *RouteWalk `json:"walk,omitempty"`

	Waiting int           `json:"waiting"` // requests that wait now
	Open    int           `json:"open"`    // requests and connections under way
	Served  tender.Served `json:"served"`  // since the edge began to count
	Rate    float64       `json:"rate"`    // requests per second of late
	P50     float64       `json:"p50_ms"`  // of late, an upper bound in milliseconds; 0: nothing was served
	P99     float64       `json:"p99_ms"`
	Targets []RouteTarget `json:"targets,omitempty"`
}

// RouteCertificate is how the certificate of one host of a route is.
type RouteCertificate struct {
	Host string    `json:"host,omitempty"` // empty: of a route for any host
	From string    `json:"from"`           // auto, internal, file
	Ends time.Time `json:"ends,omitzero"`  // zero: there is none yet, or each name below a wildcard has its own
	// Problem says why there is none, why it is not renewed, or that it ends soon.
	Problem string `json:"problem,omitempty"`
	OCSP    string `json:"ocsp,omitempty"` // the authority's word on one in files
}

// RouteAim is one of those that share a route.
type RouteAim struct {
	Name    string `json:"name"` // service or URL
	Port    int    `json:"port,omitempty"`
	Weight  int    `json:"weight"`  // that holds now
	Written int    `json:"written"` // as the file says
	// Percent of the requests that it gets by its weight.
	Percent float64 `json:"percent"`
}

// RouteWalk is a move of traffic in steps: tender route shift --auto.
type RouteWalk struct {
	Aim     string        `json:"aim"`
	Steps   []int         `json:"steps"` // percent
	Step    int           `json:"step"`  // index of the one that stands
	Every   time.Duration `json:"every"` // nanoseconds
	Errors  float64       `json:"errors"`
	State   string        `json:"state"` // walking, done, back, stopped
	Reason  string        `json:"reason,omitempty"`
	Who     string        `json:"who"`
	Started time.Time     `json:"started"`
	Since   time.Time     `json:"since"` // of the step that stands
	Ended   time.Time     `json:"ended,omitzero"`
}

// RouteTarget is one instance, or an address outside, behind a route.
type RouteTarget struct {
	ID       string        `json:"id"`
	Name     string        `json:"name"`
	Aim      string        `json:"aim"`
	Revision string        `json:"revision,omitempty"`
	Address  string        `json:"address"`
	Weight   float64       `json:"percent"` // of the route's requests, by weight
	State    string        `json:"state"`   // up, down, ejected, leaving, gone
	Reason   string        `json:"reason,omitempty"`
	Since    time.Time     `json:"since,omitzero"` // of the last change of State
	Open     int           `json:"open"`
	Rate     float64       `json:"rate"`
	P50      float64       `json:"p50_ms"`
	P99      float64       `json:"p99_ms"`
	Served   tender.Served `json:"served"`
	Checks   []RouteCheck  `json:"checks,omitempty"`
}

// RouteCheck is one answer to the edge's own health check.
type RouteCheck struct {
	At     time.Time `json:"at"`
	OK     bool      `json:"ok"`
	Text   string    `json:"text"`
	Millis float64   `json:"ms"`
}

// RouteShift moves traffic of a route.
type RouteShift struct {
	Route string         `json:"route"`
	To    map[string]int `json:"to"` // percent by aim; empty: as the file says
	// Auto: walk to it in steps, while errors stay below Errors.
	Auto   bool          `json:"auto,omitempty"`
	Steps  []int         `json:"steps,omitempty"` // percent; default 5, 25, 50, 100 as far as To goes
	Every  time.Duration `json:"every,omitempty"` // nanoseconds; default 1 min
	Errors float64       `json:"errors,omitempty"`
}

type routePause struct {
	Route string        `json:"route"`
	For   time.Duration `json:"for,omitempty"` // nanoseconds; default 30 s
}

type routeName struct {
	Route string `json:"route"`
}

// routeRoutes show and steer what the edge serves.
func (h *handler) routeRoutes() {
	some := rule{scope: Read, own: true}
	change := rule{scope: Deploy}
	ofProject := func(r Route) string { return r.Project }
	add(h, some, huma.Operation{OperationID: "edge", Method: http.MethodGet, Path: "/edge", Summary: "The data plane and all that it serves"},
		func(ctx context.Context, _ *nothing) (*answer[Edge], error) {
			e, err := h.backend.Edge(ctx)
			e.Routes = visible(ctx, e.Routes, ofProject)
			e.Problems = visible(ctx, e.Problems, func(p EdgeProblem) string { return p.Project })
			if e.Routes == nil {
				e.Routes = []Route{}
			}
			return &answer[Edge]{e}, err
		})
	add(h, some, huma.Operation{OperationID: "routes", Method: http.MethodGet, Path: "/routes", Summary: "Routes and ports of the edge"},
		func(ctx context.Context, in *struct {
			SomeProjectIn
			Route string `query:"route" maxLength:"1024" doc:"Only this one: its id, or what follows the project in it"`
		},
		) (*answer[[]Route], error) {
			l, err := h.backend.Routes(ctx, in.Project, in.Route)
			return list(visible(ctx, l, ofProject), err)
		})
	add(h, change, huma.Operation{OperationID: "pauseRoute", Method: http.MethodPost, Path: "/projects/{project}/routes/pause", Summary: "Let the requests of a route wait"},
		func(ctx context.Context, in *struct {
			ProjectIn
			Body routePause
		},
		) (*answer[Route], error) {
			who, _ := PersonFrom(ctx)
			return one(h.backend.PauseRoute(ctx, who, in.Project, in.Body.Route, in.Body.For))
		})
	add(h, change, huma.Operation{OperationID: "resumeRoute", Method: http.MethodPost, Path: "/projects/{project}/routes/resume", Summary: "Let the requests of a route go on"},
		func(ctx context.Context, in *struct {
			ProjectIn
			Body routeName
		},
		) (*answer[Route], error) {
			who, _ := PersonFrom(ctx)
			return one(h.backend.ResumeRoute(ctx, who, in.Project, in.Body.Route))
		})
	add(h, change, huma.Operation{OperationID: "shiftRoute", Method: http.MethodPost, Path: "/projects/{project}/routes/shift", Summary: "Move traffic of a route to one of its targets"},
		func(ctx context.Context, in *struct {
			ProjectIn
			Body RouteShift
		},
		) (*answer[Route], error) {
			who, _ := PersonFrom(ctx)
			return one(h.backend.ShiftRoute(ctx, who, in.Project, in.Body))
		})
}

// Edge is Backend's.
func (c *Client) Edge(ctx context.Context) (Edge, error) { return get[Edge](ctx, c, "/edge", nil) }

// Routes is Backend's.
func (c *Client) Routes(ctx context.Context, project, route string) ([]Route, error) {
	return get[[]Route](ctx, c, "/routes", url.Values{"project": {project}, "route": {route}})
}

// PauseRoute is Backend's.
func (c *Client) PauseRoute(ctx context.Context, project, route string, limit time.Duration) (Route, error) {
	return post[Route](ctx, c, pathf("/projects/%s/routes/pause", project), routePause{route, limit})
}

// ResumeRoute is Backend's.
func (c *Client) ResumeRoute(ctx context.Context, project, route string) (Route, error) {
	return post[Route](ctx, c, pathf("/projects/%s/routes/resume", project), routeName{route})
}

// ShiftRoute is Backend's.
func (c *Client) ShiftRoute(ctx context.Context, project string, s RouteShift) (Route, error) {
	return post[Route](ctx, c, pathf("/projects/%s/routes/shift", project), s)
}
