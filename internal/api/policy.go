package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Policy is what the gate says of a submission.
type Policy struct {
	Project     string `json:"project"`
	Environment string `json:"environment,omitempty"` // the step of the pipeline
	Gates       int    `json:"gates"`                 // how many hold; 0: none is configured
	Denied      int    `json:"denied"`                // how many verdicts deny; 0: it may run
	// Verdicts are the worst first.
	Verdicts []Verdict `json:"verdicts"`
}

// Verdict is one thing that the gate says.
type Verdict struct {
	Verdict  string   `json:"verdict"` // deny, warn, waived
	Rule     string   `json:"rule"`
	Services []string `json:"services,omitempty"`
	Image    string   `json:"image,omitempty"`
	Severity string   `json:"severity,omitempty"`
	Why      string   `json:"why"`
	Fix      string   `json:"fix,omitempty"`
	Waiver   *Waiver  `json:"waiver,omitempty"`
}

// Waiver is a dated exception.
type Waiver struct {
	ID      int64     `json:"id,omitempty"` // given by the daemon
	Finding string    `json:"finding"`      // a CVE, or the name of a rule
	Scope   string    `json:"scope,omitempty"`
	Reason  string    `json:"reason"`
	By      string    `json:"by,omitempty"` // whoever asked
	Made    time.Time `json:"made,omitzero"`
	Until   time.Time `json:"until"`
}

// policyRoutes: whoever may deploy may not open the gate, which is an admin's.
func (h *handler) policyRoutes() {
	add(h, rule{scope: Read, own: true}, huma.Operation{
		OperationID: "checkPolicy", Method: http.MethodPost, Path: "/policy/check", Summary: "What the gate says of a document", MaxBodyBytes: MaxSubmission,
	},
		func(ctx context.Context, in *submissionIn) (*answer[Policy], error) {
			if err := in.Body.check(ctx, Read); err != nil {
				return nil, err
			}
			return one(h.backend.CheckPolicy(ctx, in.Body))
		})
	add(h, rule{scope: Read, own: true}, huma.Operation{OperationID: "waivers", Method: http.MethodGet, Path: "/policy/waivers", Summary: "The exceptions from the gate"},
		func(ctx context.Context, _ *nothing) (*answer[[]Waiver], error) {
			all, err := h.backend.Waivers(ctx)
			who, _ := PersonFrom(ctx)
			var out []Waiver
			for _, w := range all {
				if project, _, _ := strings.Cut(w.Scope, "/"); who.sees(project) || project == "" {
					out = append(out, w)
				}
			}
			return list(out, err)
		})
	add(h, rule{scope: Admin}, huma.Operation{OperationID: "waive", Method: http.MethodPost, Path: "/policy/waivers", Summary: "Make an exception from the gate"},
		func(ctx context.Context, in *struct{ Body Waiver }) (*answer[Waiver], error) {
			who, _ := PersonFrom(ctx)
			return one(h.backend.Waive(ctx, who, in.Body))
		})
	add(h, rule{scope: Admin}, huma.Operation{OperationID: "removeWaiver", Method: http.MethodDelete, Path: "/policy/waivers/{id}", Summary: "End an exception", DefaultStatus: http.StatusNoContent},
		func(ctx context.Context, in *struct {
			ID int64 `path:"id"`
		},
		) (*nothing, error) {
			who, _ := PersonFrom(ctx)
			return &nothing{}, h.backend.RemoveWaiver(ctx, who, in.ID)
		})
}

// CheckPolicy is Backend's.
func (c *Client) CheckPolicy(ctx context.Context, s Submission) (Policy, error) {
	r, err := jsonCall(http.MethodPost, "/policy/check", nil, s)
	if err != nil {
		return Policy{}, err
	}
	return ask[Policy](ctx, c, r)
}

// Waivers is Backend's.
func (c *Client) Waivers(ctx context.Context) ([]Waiver, error) {
	return get[[]Waiver](ctx, c, "/policy/waivers", nil)
}

// Waive is Backend's.
func (c *Client) Waive(ctx context.Context, w Waiver) (Waiver, error) {
	r, err := jsonCall(http.MethodPost, "/policy/waivers", nil, w)
	if err != nil {
		return Waiver{}, err
	}
	return ask[Waiver](ctx, c, r)
}

// RemoveWaiver is Backend's.
func (c *Client) RemoveWaiver(ctx context.Context, id int64) error {
	_, err := ask[nothing](ctx, c, call{method: http.MethodDelete, path: "/policy/waivers/" + strconv.FormatInt(id, 10)})
	return err
}
