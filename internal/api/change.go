package api

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tenderhq/tender"
)

// verbs of Change.
var verbs = []string{"down", "stop", "start", "restart", "kill", "pause", "unpause", "rm", "scale", "rollback", "release"}

var projectName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,127}$`)

type submissionIn struct{ Body Submission }

// check looks at what can be seen without reading the YAML, and at whether the
// person may do it in the project that the submission says it is for.
func (s *Submission) check(ctx context.Context, need Scope) error {
	who, _ := PersonFrom(ctx)
	if s.Project == "" || !projectName.MatchString(s.Project) {
		return tender.Errorf(tender.Invalid, "project: %q is no name of a project (small letters, digits, - and _)", s.Project)
	}
	if s.YAML == "" {
		return tender.Errorf(tender.Invalid, "yaml: a submission without a Compose document")
	}
	if !slices.Contains([]string{"", "always", "missing", "never"}, s.Pull) {
		return tender.Errorf(tender.Invalid, "pull: %q is none of always, missing, never", s.Pull)
	}
	for name, value := range s.Secrets {
		if len(value) > MaxSecret {
			return tender.Errorf(tender.Invalid, "secret %q has %d bytes, more than %d", name, len(value), MaxSecret)
		}
	}
	return who.May(need, s.Project)
}

// changeRoutes are plan, up, and everything else that changes a project.
func (h *handler) changeRoutes() {
	add(h, rule{scope: Read, own: true}, huma.Operation{
		OperationID: "plan", Method: http.MethodPost, Path: "/plan",
		Summary: "What up would do", MaxBodyBytes: MaxSubmission,
	},
		func(ctx context.Context, in *submissionIn) (*answer[Plan], error) {
			if err := in.Body.check(ctx, Read); err != nil {
				return nil, err
			}
			return one(h.backend.Plan(ctx, in.Body))
		})
	add(h, rule{scope: Deploy, own: true}, huma.Operation{
		OperationID: "up", Method: http.MethodPost, Path: "/up",
		Summary: "Make a project what the document says", MaxBodyBytes: MaxSubmission,
		Description: "A stream of events. It ends with kind done or error. When the client goes away before kind accepted, nothing has changed; after that the daemon goes on alone.",
		Responses:   contents(ndjson, schemaOf[Event](h)),
	},
		func(ctx context.Context, in *submissionIn) (*huma.StreamResponse, error) {
			if err := in.Body.check(ctx, Deploy); err != nil {
				return nil, err
			}
			return h.news(func(ctx context.Context, who Person, report func(Event)) (Event, error) {
				r, err := h.backend.Up(ctx, who, in.Body, report)
				return Event{Project: in.Body.Project, Text: r.Text, Hint: r.Hint, Result: &r}, err
			}), nil
		})
	add(h, rule{scope: Deploy}, huma.Operation{
		OperationID: "change", Method: http.MethodPost, Path: "/projects/{project}/changes",
		Summary:     "Stop, start, scale, roll back, take down, and so on",
		Description: "A stream of events. It ends with kind done or error.",
		Responses:   contents(ndjson, schemaOf[Event](h)),
	},
		func(_ context.Context, in *struct {
			ProjectIn
			Body Change
		},
		) (*huma.StreamResponse, error) {
			if !slices.Contains(verbs, in.Body.Verb) {
				return nil, tender.Errorf(tender.Invalid, "verb: %q is none of %s", in.Body.Verb, strings.Join(verbs, ", "))
			}
			return h.news(func(ctx context.Context, who Person, report func(Event)) (Event, error) {
				r, err := h.backend.Change(ctx, who, in.Project, in.Body, report)
				return Event{Project: in.Project, Text: r.Text, Hint: r.Hint, Result: &r}, err
			}), nil
		})
}

// steerRoutes are what a person says to an open rollout.
func (h *handler) steerRoutes() {
	add(h, rule{scope: Deploy, own: true}, huma.Operation{
		OperationID: "steer", Method: http.MethodPost, Path: "/rollouts/{id}/{verb}",
		Summary: "Hold an open rollout before its next step, resume it, or abort it",
	},
		func(ctx context.Context, in *struct {
			ID   int64  `path:"id"`
			Verb string `path:"verb" enum:"hold,resume,abort"`
		},
		) (*answer[Rollout], error) {
			r, err := h.backend.Rollout(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			who, _ := PersonFrom(ctx)
			if err := who.May(Deploy, r.Project); err != nil {
				return nil, err
			}
			return one(h.backend.Steer(ctx, who, in.ID, in.Verb))
		})
}

// news answers with the events of a long change. do returns the last one.
func (h *handler) news(do func(ctx context.Context, who Person, report func(Event)) (Event, error)) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(c huma.Context) {
		_, w := humago.Unwrap(c)
		ctx, cancel := untilStop(c.Context())
		defer cancel()
		who, _ := PersonFrom(ctx)
		l := newLines(w, ndjson, h.beat)
		last, err := do(ctx, who, func(e Event) { _ = l.send(e) }) // a client that has gone ends ctx
		err = stopped(c, ctx, err)
		l.end(func(begun bool) {
			if err == nil {
				last.Time, last.Kind = time.Now().UTC(), KindDone
				l.write(last)
				return
			}
			h.complain(c, err)
			if !begun {
				writeProblem(w, err)
				return
			}
			l.write(Event{Time: time.Now().UTC(), Kind: KindError, Text: err.Error(), Hint: tender.AdviceOf(err), Error: problem(err)})
		})
	}}
}
