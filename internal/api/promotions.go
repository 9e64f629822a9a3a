package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// PromoteRequest says what is to stand at a step of the pipeline.
type PromoteRequest struct {
	// Reference is what is promoted. With From, or Undo, and neither tag nor digest it is what stands there.
	Reference string `json:"reference" minLength:"1" maxLength:"512"`
	To        string `json:"to" minLength:"1" maxLength:"128"`
	From      string `json:"from,omitempty" maxLength:"128"` // the step that it must have been promoted to
	Reason    string `json:"reason,omitempty" maxLength:"1000"`
	DryRun    bool   `json:"dry_run,omitempty"`
	Undo      bool   `json:"undo,omitempty"` // the step stands again where it stood before
}

// Promotion is a digest that came to stand at a step, or the return to the one before.
type Promotion struct {
	Step       string             `json:"step"`
	Repository string             `json:"repository"`       // without what steps put before it
	Digest     string             `json:"digest,omitempty"` // that stands since; absent: none, after an undo
	Version    string             `json:"version,omitempty"`
	Source     string             `json:"source,omitempty"` // where it was read
	Target     string             `json:"target,omitempty"` // where it was written; absent: it stays where it is
	From       string             `json:"from,omitempty"`   // the step before
	Before     string             `json:"before,omitempty"` // the digest that stood
	Undo       bool               `json:"undo,omitempty"`
	Undone     bool               `json:"undone,omitempty"`
	Unfinished bool               `json:"unfinished,omitempty"` // it was begun; promoting it again ends it
	Who        string             `json:"who"`
	Reason     string             `json:"reason,omitempty"`
	At         time.Time          `json:"at,omitzero"`
	Referrer   string             `json:"referrer,omitempty"` // the digest of the evidence, which refers to Digest
	Evidence   *PromotionEvidence `json:"evidence,omitempty"`
	// Of the answer to a request alone.
	Already  bool      `json:"already,omitempty"` // it stood there, and nothing was done
	DryRun   bool      `json:"dry_run,omitempty"`
	Verdicts []Verdict `json:"verdicts,omitempty"` // that did not deny
	Warnings []string  `json:"warnings,omitempty"`
}

// PromotionEvidence is what is attached to a promoted digest, as application/vnd.tender.promotion.v1+json.
type PromotionEvidence struct {
	Format     int       `json:"format"` // 1
	Digest     string    `json:"digest"`
	Repository string    `json:"repository"`
	Version    string    `json:"version,omitempty"`
	Step       string    `json:"step"`
	From       string    `json:"from,omitempty"` // the step before
	Source     string    `json:"source"`         // where it was read
	Target     string    `json:"target,omitempty"`
	Who        string    `json:"who"`
	At         time.Time `json:"at"`
	Reason     string    `json:"reason,omitempty"`
	// Revision and URL are where the image's labels say that it comes from; Built is when.
	Revision string           `json:"revision,omitempty"`
	URL      string           `json:"url,omitempty"`
	Built    time.Time        `json:"built,omitzero"`
	Scan     *ScanVerdict     `json:"scan,omitempty"` // absent: it was not scanned
	Signers  []string         `json:"signers"`        // names of keys
	Canary   *PromotionCanary `json:"canary,omitempty"`
	// Exceptions are the verdicts of the gate that did not deny, in words.
	Exceptions []string `json:"exceptions,omitempty"`
}

// ScanVerdict counts what a scan found by severity.
type ScanVerdict struct {
	Scanned    time.Time      `json:"scanned"`
	Advisories time.Time      `json:"advisories,omitzero"` // of when they were
	Found      map[string]int `json:"found"`               // critical, high, medium, low, negligible, unknown
	Fixable    int            `json:"fixable"`             // of those
}

// PromotionCanary is how the digest did at the step before.
type PromotionCanary struct {
	Project  string    `json:"project"`
	Service  string    `json:"service"`
	Rollout  int64     `json:"rollout"`
	Strategy string    `json:"strategy"`
	State    string    `json:"state"` // done, rolled back, failed, superseded, open
	Verdict  string    `json:"verdict,omitempty"`
	Ended    time.Time `json:"ended,omitzero"`
}

// ListedImage is a manifest in the registry, or an image from elsewhere that services run.
type ListedImage struct {
	Repository string       `json:"repository"`
	Digest     string       `json:"digest"`
	Tags       []string     `json:"tags"`
	Pushed     time.Time    `json:"pushed,omitzero"` // or built, where it is from elsewhere
	Size       int64        `json:"size"`            // bytes
	Elsewhere  bool         `json:"elsewhere,omitempty"`
	Scan       *ScanVerdict `json:"scan,omitempty"`
	Signed     bool         `json:"signed"`
	Signers    []string     `json:"signers"`
	Stands     []ImageStand `json:"stands"`
	Running    []string     `json:"running"` // project/service
	// Promotions are all of the digest, the newest first.
	Promotions []Promotion `json:"promotions"`
}

// ImageStand is a step that an image stands at.
type ImageStand struct {
	Step       string    `json:"step"`
	Since      time.Time `json:"since"`
	Unfinished bool      `json:"unfinished,omitempty"`
}

func (h *handler) promotionRoutes() {
	add(h, rule{scope: Deploy, own: true}, huma.Operation{
		OperationID: "promote", Method: http.MethodPost, Path: "/images/promote", Summary: "Bring an image to a step of the pipeline, or take it back",
		Description: "A stream of events. It ends with kind done, which carries the promotion, or error.", Responses: contents(ndjson, schemaOf[Event](h)),
	},
		func(_ context.Context, in *struct{ Body PromoteRequest }) (*huma.StreamResponse, error) {
			return h.news(func(ctx context.Context, who Person, report func(Event)) (Event, error) {
				p, err := h.backend.Promote(ctx, who, in.Body, report)
				if err != nil {
					return Event{}, err
				}
				return Event{Text: p.Repository + " " + p.Step, Promotion: &p}, nil
			}), nil
		})
	add(h, rule{scope: Read, own: true}, huma.Operation{OperationID: "listImages", Method: http.MethodGet, Path: "/images/list", Summary: "Where each image stands and runs"},
		func(ctx context.Context, in *struct {
			Repository string `query:"repository" maxLength:"512" doc:"This one alone"`
		},
		) (*answer[[]ListedImage], error) {
			who, _ := PersonFrom(ctx)
			return list(h.backend.ListImages(ctx, who, in.Repository))
		})
}

// Promote is Backend's.
func (c *Client) Promote(ctx context.Context, r PromoteRequest, report func(Event)) (Promotion, error) {
	request, err := jsonCall(http.MethodPost, "/images/promote", nil, r)
	if err != nil {
		return Promotion{}, err
	}
	last, err := c.news(ctx, request, report)
	if err == nil && last.Promotion == nil {
		err = c.lost()
	}
	if err != nil {
		return Promotion{}, err
	}
	return *last.Promotion, nil
}

// ListImages is Backend's.
func (c *Client) ListImages(ctx context.Context, repository string) ([]ListedImage, error) {
	return get[[]ListedImage](ctx, c, "/images/list", url.Values{"repository": {repository}})
}
