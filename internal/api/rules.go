package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tenderhq/tender"
)

// Rule is one that alerts or records, and how it fares.
type Rule struct {
	Name string `json:"name"` // of the alert, or of the series that it is kept as
	Kind string `json:"kind"` // alert, record
	// Source: built-in, a file, project/service, or api for what was set here.
	Source   string `json:"source"`
	Group    string `json:"group"`
	Language string `json:"language"` // promql, logql
	Expr     string `json:"expr"`
	// For and KeepFiringFor are seconds, as Every is: between two evaluations.
	For           float64           `json:"for"`
	KeepFiringFor float64           `json:"keep_firing_for"`
	Every         float64           `json:"every"`
	Labels        map[string]string `json:"labels,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`

	State     string      `json:"state,omitempty"` // of an alert: inactive, pending, firing; unknown before the first evaluation
	Health    string      `json:"health"`          // ok, err, unknown
	Error     string      `json:"error,omitempty"` // of the last evaluation
	Evaluated time.Time   `json:"evaluated,omitzero"`
	Took      float64     `json:"took"` // seconds
	Active    []RuleAlert `json:"active,omitempty"`
}

// RuleAlert is one alert of a rule that is pending or fires.
type RuleAlert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Value       string            `json:"value"` // a number, NaN, +Inf or -Inf
	Since       time.Time         `json:"since"`
	Fires       time.Time         `json:"fires,omitzero"` // since; zero: it is pending
}

// Rules are all of them.
type Rules struct {
	Rules []Rule `json:"rules"`
	// Problems are of sources that could not be read: what was right of them before is evaluated on.
	Problems []string `json:"problems,omitempty"`
}

// RuleGroup is a group that was set over the API.
type RuleGroup struct {
	Name     string    `json:"name"`
	Language string    `json:"language"` // promql, logql
	Text     string    `json:"text"`     // a rule file with this group alone
	Who      string    `json:"who"`
	Changed  time.Time `json:"changed"`
}

// RuleFile is what is set: each of its groups takes the place of that with its name.
type RuleFile struct {
	Text     string `json:"text"`               // as Prometheus or Loki reads it
	Language string `json:"language,omitempty"` // default promql
}

// ruleRoutes are for those who may see all projects.
func (h *handler) ruleRoutes() {
	read, change := rule{scope: Read}, rule{scope: Deploy}
	add(h, read, huma.Operation{OperationID: "rules", Method: http.MethodGet, Path: "/rules", Summary: "All rules and how they fare"},
		func(ctx context.Context, _ *nothing) (*answer[Rules], error) {
			return one(h.backend.Rules(ctx))
		})
	add(h, read, huma.Operation{OperationID: "ruleGroups", Method: http.MethodGet, Path: "/rules/groups", Summary: "The groups that were set here, as they were written"},
		func(ctx context.Context, _ *nothing) (*answer[[]RuleGroup], error) {
			return list(h.backend.RuleGroups(ctx))
		})
	add(h, change, huma.Operation{OperationID: "setRules", Method: http.MethodPut, Path: "/rules/groups", Summary: "Set the groups of a rule file, each in the place of that with its name"},
		func(ctx context.Context, in *struct{ Body RuleFile }) (*answer[[]RuleGroup], error) {
			switch in.Body.Language {
			case "", "promql", "logql":
			default:
				return nil, tender.Errorf(tender.Invalid, "language: %q is neither promql nor logql", in.Body.Language)
			}
			who, _ := PersonFrom(ctx)
			return list(h.backend.SetRules(ctx, who, in.Body))
		})
	add(h, change, huma.Operation{OperationID: "removeRules", Method: http.MethodDelete, Path: "/rules/groups/{group}", Summary: "Remove a group that was set here", DefaultStatus: http.StatusNoContent},
		func(ctx context.Context, in *struct {
			Group string `path:"group" maxLength:"256"`
		},
		) (*nothing, error) {
			who, _ := PersonFrom(ctx)
			return &nothing{}, h.backend.RemoveRules(ctx, who, in.Group)
		})
}

// Rules is Backend's.
func (c *Client) Rules(ctx context.Context) (Rules, error) { return get[Rules](ctx, c, "/rules", nil) }

// RuleGroups is Backend's.
func (c *Client) RuleGroups(ctx context.Context) ([]RuleGroup, error) {
	return get[[]RuleGroup](ctx, c, "/rules/groups", nil)
}

// SetRules is Backend's.
func (c *Client) SetRules(ctx context.Context, f RuleFile) ([]RuleGroup, error) {
	r, err := jsonCall(http.MethodPut, "/rules/groups", nil, f)
	if err != nil {
		return nil, err
	}
	return ask[[]RuleGroup](ctx, c, r)
}

// RemoveRules is Backend's.
func (c *Client) RemoveRules(ctx context.Context, group string) error {
	_, err := ask[nothing](ctx, c, call{method: http.MethodDelete, path: pathf("/rules/groups/%s", group)})
	return err
}
