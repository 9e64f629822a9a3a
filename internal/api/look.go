package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tenderhq/tender"
)

// ProjectIn is a project that a path names. This one and those below are
// exported only because huma reads embedded fields by reflection.
type ProjectIn struct {
	Project string `path:"project" maxLength:"128" pattern:"^[a-z0-9][a-z0-9_-]*$"`
}

// SomeProjectIn is a project that a query may name.
type SomeProjectIn struct {
	Project string `query:"project" maxLength:"128" pattern:"^[a-z0-9][a-z0-9_-]*$" doc:"Absent: all projects"`
}

// ServicesIn is a project and some of its services.
type ServicesIn struct {
	ProjectIn
	Services []string `query:"service,explode" maxItems:"1000" doc:"May be given several times; absent: all"`
}

// TargetIn is a Target in a query.
type TargetIn struct {
	SomeProjectIn
	Service  string `query:"service" maxLength:"128" pattern:"^[a-zA-Z0-9._-]+$"`
	Slot     int    `query:"slot" minimum:"0" doc:"0: the first that runs"`
	Instance string `query:"instance" maxLength:"256" pattern:"^[a-zA-Z0-9._-]+$" doc:"Id or name; wins over service"`
}

func (t TargetIn) target() (Target, error) {
	if t.Service == "" && t.Instance == "" {
		return Target{}, tender.Errorf(tender.Invalid, "neither a service nor an instance is named").
			Hint("add service=NAME or instance=NAME to the query")
	}
	return Target{Project: t.Project, Service: t.Service, Slot: t.Slot, Instance: t.Instance}, nil
}

// lookRoutes are the operations that change nothing.
func (h *handler) lookRoutes() {
	read := rule{scope: Read}
	some := rule{scope: Read, own: true}

	add(h, some, huma.Operation{OperationID: "status", Method: http.MethodGet, Path: "/status", Summary: "The daemon's own state"},
		func(ctx context.Context, _ *nothing) (*answer[Status], error) {
			s, err := h.backend.Status(ctx)
			s.Projects = visible(ctx, s.Projects, func(p Project) string { return p.Name })
			return &answer[Status]{s}, err
		})
	add(h, some, huma.Operation{OperationID: "doctor", Method: http.MethodGet, Path: "/doctor", Summary: "What is wrong with the host, and how to mend it"},
		func(ctx context.Context, _ *nothing) (*answer[[]Check], error) {
			return list(h.backend.Doctor(ctx))
		})
	add(h, read, huma.Operation{OperationID: "doctorLogs", Method: http.MethodGet, Path: "/doctor/logs", Summary: "Reads and verifies the store of logs"},
		func(ctx context.Context, _ *nothing) (*answer[[]Check], error) {
			return list(h.backend.DoctorLogs(ctx))
		})
	add(h, some, huma.Operation{OperationID: "projects", Method: http.MethodGet, Path: "/projects", Summary: "All projects"},
		func(ctx context.Context, _ *nothing) (*answer[[]Project], error) {
			l, err := h.backend.Projects(ctx)
			return list(visible(ctx, l, func(p Project) string { return p.Name }), err)
		})
	add(h, read, huma.Operation{OperationID: "project", Method: http.MethodGet, Path: "/projects/{project}", Summary: "One project with its services"},
		func(ctx context.Context, in *ProjectIn) (*answer[Project], error) {
			return one(h.backend.Project(ctx, in.Project))
		})
	add(h, some, huma.Operation{OperationID: "instances", Method: http.MethodGet, Path: "/instances", Summary: "Instances, as ps shows them"},
		func(ctx context.Context, in *struct {
			SomeProjectIn
			All bool `query:"all" doc:"Also those that do not run"`
		},
		) (*answer[[]Instance], error) {
			l, err := h.backend.Instances(ctx, in.Project, in.All)
			return list(visible(ctx, l, func(i Instance) string { return i.Project }), err)
		})
	add(h, read, huma.Operation{
		OperationID: "config", Method: http.MethodGet, Path: "/projects/{project}/config", Summary: "The normal form of what is wanted, as YAML",
		Responses: contents("application/yaml", &huma.Schema{Type: huma.TypeString}),
	},
		func(ctx context.Context, in *struct {
			ProjectIn
			Generation int `query:"generation" minimum:"0" doc:"0: the newest"`
		},
		) (*configOut, error) {
			yaml, err := h.backend.Config(ctx, in.Project, in.Generation)
			return &configOut{"application/yaml", []byte(yaml)}, err
		})
	add(h, read, huma.Operation{OperationID: "rollouts", Method: http.MethodGet, Path: "/projects/{project}/rollouts", Summary: "Rollouts, newest first"},
		func(ctx context.Context, in *struct {
			ProjectIn
			Service string `query:"service" maxLength:"128" doc:"Absent: all projects"`
		},
		) (*answer[[]Rollout], error) {
			return list(h.backend.History(ctx, in.Project, in.Service))
		})
	add(h, some, huma.Operation{OperationID: "rollout", Method: http.MethodGet, Path: "/rollouts/{id}", Summary: "One rollout with its proof"},
		func(ctx context.Context, in *struct {
			ID int64 `path:"id"`
		},
		) (*answer[Rollout], error) {
			r, err := h.backend.Rollout(ctx, in.ID)
			if err == nil {
				who, _ := PersonFrom(ctx)
				err = who.May(Read, r.Project)
			}
			return one(r, err)
		})
	add(h, read, huma.Operation{OperationID: "why", Method: http.MethodGet, Path: "/projects/{project}/services/{service}/why", Summary: "Why a service is as it is"},
		func(ctx context.Context, in *struct {
			ProjectIn
			Service string `path:"service" maxLength:"128"`
		},
		) (*answer[Why], error) {
			return one(h.backend.Why(ctx, in.Project, in.Service))
		})
	add(h, read, huma.Operation{OperationID: "audit", Method: http.MethodGet, Path: "/audit", Summary: "Who did what, newest first"},
		func(ctx context.Context, in *struct {
			SomeProjectIn
			Limit int `query:"limit" minimum:"0" doc:"0: all that is kept"`
		},
		) (*answer[[]Audit], error) {
			return list(h.backend.Audit(ctx, in.Project, in.Limit))
		})
	add(h, read, huma.Operation{OperationID: "stats", Method: http.MethodGet, Path: "/projects/{project}/stats", Summary: "What instances use now"},
		func(ctx context.Context, in *ServicesIn) (*answer[[]Sample], error) {
			return list(h.backend.Stats(ctx, in.Project, in.Services))
		})
	add(h, some, huma.Operation{OperationID: "allStats", Method: http.MethodGet, Path: "/stats", Summary: "What instances of all projects use now"},
		func(ctx context.Context, in *SomeProjectIn) (*answer[[]Sample], error) {
			l, err := h.backend.Stats(ctx, in.Project, nil)
			return list(visible(ctx, l, func(s Sample) string { return s.Project }), err)
		})
	add(h, read, huma.Operation{OperationID: "top", Method: http.MethodGet, Path: "/projects/{project}/top", Summary: "The processes of instances"},
		func(ctx context.Context, in *ServicesIn) (*answer[[]Processes], error) {
			return list(h.backend.Top(ctx, in.Project, in.Services))
		})
	add(h, read, huma.Operation{
		OperationID: "wait", Method: http.MethodGet, Path: "/wait", Summary: "Wait until an instance ends",
		Description: "A stream, because it may take long: empty lines until the end, then one line.",
		Responses:   contents(ndjson, schemaOf[exit](h)),
	},
		func(ctx context.Context, in *TargetIn) (*huma.StreamResponse, error) {
			t, err := in.target()
			if err != nil {
				return nil, err
			}
			return h.follow(ndjson, func(ctx context.Context, send func(any) error) error {
				code, err := h.backend.Wait(ctx, t)
				if err != nil {
					return err
				}
				return send(exit{Code: &code})
			}), nil
		})
	add(h, some, huma.Operation{
		OperationID: "events", Method: http.MethodGet, Path: "/events", Summary: "What happens from now on",
		Description: "A stream of lines, or of server-sent events when Accept asks for text/event-stream.",
		Responses:   contents(ndjson, schemaOf[Event](h), "text/event-stream"),
	},
		func(_ context.Context, in *struct {
			SomeProjectIn
			Engine bool   `query:"engine" doc:"With what the engine says of instances: kind container"`
			Accept string `header:"Accept"`
		},
		) (*huma.StreamResponse, error) {
			return h.follow(in.Accept, func(ctx context.Context, send func(any) error) error {
				who, _ := PersonFrom(ctx)
				return h.backend.Events(ctx, in.Project, in.Engine, func(e Event) {
					if who.sees(e.Project) {
						_ = send(e) // a client that has gone ends ctx
					}
				})
			}), nil
		})
	add(h, read, huma.Operation{
		OperationID: "logs", Method: http.MethodGet, Path: "/projects/{project}/logs", Summary: "What instances wrote",
		Description: "A stream of lines.", Responses: contents(ndjson, schemaOf[LogLine](h)),
	},
		func(_ context.Context, in *struct {
			ServicesIn
			Instance string    `query:"instance" maxLength:"256" doc:"Name or id; absent: all of the services"`
			Since    time.Time `query:"since"`
			Until    time.Time `query:"until"`
			Tail     int       `query:"tail" default:"-1" doc:"Lines per instance, < 0: all"`
			Follow   bool      `query:"follow"`
			Query    string    `query:"query" maxLength:"65536" doc:"LogQL: stages such as |= \"x\" | status >= 500, or a whole log query about this project"`
			Fields   bool      `query:"fields" doc:"With the stored fields of each line"`
		},
		) (*huma.StreamResponse, error) {
			r := LogRequest{Services: in.Services, Instance: in.Instance, Since: in.Since, Until: in.Until, Tail: in.Tail, Follow: in.Follow, Query: in.Query, Fields: in.Fields}
			return h.follow(ndjson, func(ctx context.Context, send func(any) error) error {
				return h.backend.Logs(ctx, in.Project, r, func(l LogLine) error { return send(l) })
			}), nil
		})
	add(h, read, huma.Operation{OperationID: "logNumbers", Method: http.MethodGet, Path: "/projects/{project}/logs/numbers", Summary: "Numbers made of log lines: a metric query of LogQL"},
		func(ctx context.Context, in *struct {
			ProjectIn
			Query string    `query:"query" required:"true" maxLength:"65536" doc:"LogQL; its selectors are about this project alone"`
			Start time.Time `query:"start" doc:"Absent: only at end"`
			End   time.Time `query:"end" doc:"Absent: now"`
			Step  string    `query:"step" maxLength:"32" doc:"A duration, such as 1m; needed with start"`
		},
		) (*answer[[]LogSeries], error) {
			n := LogNumbers{Query: in.Query, Start: in.Start, End: in.End}
			if in.Step != "" {
				var err error
				if n.Step, err = time.ParseDuration(in.Step); err != nil || n.Step <= 0 {
					return nil, tender.Errorf(tender.Invalid, "step %q is no duration", in.Step).Hint("such as 1m")
				}
			}
			return list(h.backend.LogNumbers(ctx, in.Project, n))
		})
}

type configOut struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

// exit is how a process ended: by itself, or because something went wrong on the way.
type exit struct {
	Code  *int   `json:"code,omitempty"`
	Error *Error `json:"error,omitempty"`
}

func one[T any](v T, err error) (*answer[T], error) { return &answer[T]{v}, err }

// list makes an empty list of none, so that JSON says [] and not null.
func list[T any](l []T, err error) (*answer[[]T], error) {
	if l == nil {
		l = []T{}
	}
	return &answer[[]T]{l}, err
}

// visible drops what belongs to projects that the person may not see.
func visible[T any](ctx context.Context, l []T, project func(T) string) []T {
	who, _ := PersonFrom(ctx)
	if len(who.Projects) == 0 {
		return l
	}
	return slices.DeleteFunc(slices.Clone(l), func(v T) bool { return !who.sees(project(v)) })
}

// contents describes an answer that is not plain JSON.
func contents(contentType string, s *huma.Schema, also ...string) map[string]*huma.Response {
	c := map[string]*huma.MediaType{contentType: {Schema: s}}
	for _, t := range also {
		c[t] = &huma.MediaType{Schema: s}
	}
	return map[string]*huma.Response{"200": {Description: "OK", Content: c}}
}

// follow answers with what serve sends, for as long as it takes.
func (h *handler) follow(accept string, serve func(ctx context.Context, send func(any) error) error) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(c huma.Context) {
		_, w := humago.Unwrap(c)
		ctx, cancel := untilStop(c.Context())
		defer cancel()
		l := newLines(w, accept, h.beat)
		err := stopped(c, ctx, serve(ctx, l.send))
		l.end(func(begun bool) {
			switch {
			case err == nil || c.Context().Err() != nil:
			case !begun:
				h.complain(c, err)
				writeProblem(w, err)
			default:
				l.write(Event{Time: time.Now().UTC(), Kind: KindError, Text: err.Error(), Error: problem(err)})
			}
		})
	}}
}

// stopped says it plainly when err comes from the server's own stop.
func stopped(c huma.Context, ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || c.Context().Err() != nil {
		return err
	}
	return tender.Errorf(tender.Unavailable, "the daemon is stopping").
		Hint("what was accepted goes on when it is back; see it with: tender status")
}

// complain logs what is our own fault.
func (h *handler) complain(c huma.Context, err error) {
	if tender.KindOf(err) == tender.Internal {
		h.log.Error("request", "operation", c.Operation().OperationID, "error", err)
	}
}
