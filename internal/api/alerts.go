package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tenderhq/tender"
)

// Alert is one that fires.
type Alert struct {
	Name        string            `json:"name"`
	Severity    string            `json:"severity,omitempty"`
	Project     string            `json:"project,omitempty"`
	Service     string            `json:"service,omitempty"`
	Summary     string            `json:"summary,omitempty"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	Since       time.Time         `json:"since"`
	// State: active; silenced; inhibited, by another alert; muted, by a time interval; unprocessed, which lasts for a moment.
	State       string   `json:"state"`
	SilencedBy  []string `json:"silenced_by,omitempty"`  // ids of silences
	InhibitedBy []string `json:"inhibited_by,omitempty"` // fingerprints of alerts
	MutedBy     []string `json:"muted_by,omitempty"`     // names of time intervals
	Receivers   []string `json:"receivers"`
	Fingerprint string   `json:"fingerprint"`
	Link        string   `json:"link,omitempty"` // where its expression can be looked at
}

// Alerting is how alerts are sent.
type Alerting struct {
	File      string    `json:"file,omitempty"`     // the configuration of Alertmanager; empty: there is none
	Outside   string    `json:"external,omitempty"` // the Alertmanager that does it instead
	Loaded    time.Time `json:"loaded,omitzero"`
	Receivers []string  `json:"receivers,omitempty"`
	Nowhere   bool      `json:"nowhere"` // no route leads to anybody
	Waiting   int       `json:"waiting"` // alerts that the one outside has not taken yet
	Dropped   int64     `json:"dropped"` // alerts for it that found no place to wait in
	Problem   string    `json:"problem,omitempty"`
}

// Alerts are those that fire, and how they are sent.
type Alerts struct {
	Alerts   []Alert  `json:"alerts"`
	Alerting Alerting `json:"alerting"`
}

// Silence mutes alerts for a while.
type Silence struct {
	ID       string    `json:"id"`
	State    string    `json:"state"` // active, pending, expired
	Matchers []string  `json:"matchers"`
	Starts   time.Time `json:"starts"`
	Ends     time.Time `json:"ends"`
	Who      string    `json:"who"`
	Comment  string    `json:"comment"`
}

// SilenceRequest is a silence to be made.
type SilenceRequest struct {
	Matchers []string      `json:"matchers"`        // as amtool takes them: service=web, severity=~"info|warning"
	Starts   time.Time     `json:"starts,omitzero"` // default: now
	For      time.Duration `json:"for"`             // nanoseconds
	Comment  string        `json:"comment,omitempty"`
}

// AlertTry is what came of a sample that one integration of a receiver was given.
type AlertTry struct {
	Receiver    string        `json:"receiver"`
	Integration string        `json:"integration"` // webhook[0], slack[1]
	Took        time.Duration `json:"took"`        // nanoseconds
	Error       string        `json:"error,omitempty"`
}

type alertTest struct {
	Receiver string `json:"receiver,omitempty"`
}

// SilenceIn is a silence that a path names.
type SilenceIn struct {
	SomeProjectIn
	ID string `path:"id" maxLength:"64" pattern:"^[a-zA-Z0-9-]+$"`
}

// alertRoutes show alerts and mute them. A silence that names no project may mute
// those of all, and so needs a token for all.
func (h *handler) alertRoutes() {
	read := rule{scope: Read}
	some := rule{scope: Read, own: true}
	change := rule{scope: Deploy}
	add(h, some, huma.Operation{OperationID: "alerts", Method: http.MethodGet, Path: "/alerts", Summary: "Alerts that fire, and how they are sent"},
		func(ctx context.Context, in *struct {
			SomeProjectIn
			Match []string `query:"match,explode" maxItems:"100" doc:"Matchers as amtool takes them, such as severity=critical"`
		},
		) (*answer[Alerts], error) {
			a, err := h.backend.Alerts(ctx, in.Project, in.Match)
			a.Alerts = visible(ctx, a.Alerts, func(a Alert) string { return a.Project })
			if a.Alerts == nil {
				a.Alerts = []Alert{}
			}
			return &answer[Alerts]{a}, err
		})
	add(h, change, huma.Operation{OperationID: "testAlert", Method: http.MethodPost, Path: "/alerts/test", Summary: "Send a sample through the integrations of a receiver, or of all"},
		func(ctx context.Context, in *struct{ Body alertTest }) (*answer[[]AlertTry], error) {
			who, _ := PersonFrom(ctx)
			return list(h.backend.TestAlert(ctx, who, in.Body.Receiver))
		})
	add(h, read, huma.Operation{OperationID: "silences", Method: http.MethodGet, Path: "/silences", Summary: "Silences, the newest last"},
		func(ctx context.Context, in *struct {
			SomeProjectIn
			All   bool     `query:"all" doc:"Also those that have ended"`
			Match []string `query:"match,explode" maxItems:"100"`
		},
		) (*answer[[]Silence], error) {
			return list(h.backend.Silences(ctx, in.Project, in.Match, in.All))
		})
	add(h, change, huma.Operation{OperationID: "addSilence", Method: http.MethodPost, Path: "/silences", Summary: "Mute alerts for a while"},
		func(ctx context.Context, in *struct {
			SomeProjectIn
			Body SilenceRequest
		},
		) (*answer[Silence], error) {
			if in.Body.For <= 0 {
				return nil, tender.Errorf(tender.Invalid, "a silence ends: say for how long")
			}
			who, _ := PersonFrom(ctx)
			return one(h.backend.AddSilence(ctx, who, in.Project, in.Body))
		})
	add(h, change, huma.Operation{OperationID: "expireSilence", Method: http.MethodDelete, Path: "/silences/{id}", Summary: "End a silence", DefaultStatus: http.StatusNoContent},
		func(ctx context.Context, in *SilenceIn) (*nothing, error) {
			who, _ := PersonFrom(ctx)
			return &nothing{}, h.backend.ExpireSilence(ctx, who, in.Project, in.ID)
		})
}

// Alerts is Backend's.
func (c *Client) Alerts(ctx context.Context, project string, match []string) (Alerts, error) {
	return get[Alerts](ctx, c, "/alerts", url.Values{"project": {project}, "match": match})
}

// TestAlert is Backend's.
func (c *Client) TestAlert(ctx context.Context, receiver string) ([]AlertTry, error) {
	return post[[]AlertTry](ctx, c, "/alerts/test", alertTest{receiver})
}

// Silences is Backend's.
func (c *Client) Silences(ctx context.Context, project string, match []string, all bool) ([]Silence, error) {
	return get[[]Silence](ctx, c, "/silences", url.Values{"project": {project}, "match": match, "all": {strconv.FormatBool(all)}})
}

// AddSilence is Backend's.
func (c *Client) AddSilence(ctx context.Context, project string, r SilenceRequest) (Silence, error) {
	post, err := jsonCall(http.MethodPost, "/silences", url.Values{"project": {project}}, r)
	if err != nil {
		return Silence{}, err
	}
	return ask[Silence](ctx, c, post)
}

// ExpireSilence is Backend's.
func (c *Client) ExpireSilence(ctx context.Context, project, id string) error {
	_, err := ask[nothing](ctx, c, call{method: http.MethodDelete, path: pathf("/silences/%s", id), query: url.Values{"project": {project}}})
	return err
}
