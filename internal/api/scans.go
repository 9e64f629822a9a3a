package api

import (
	"context"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tenderhq/tender"
)

// ScanDocuments are the formats that a scan may be written in beside this API's own.
var ScanDocuments = []string{"sarif", "cyclonedx", "spdx", "html"}

// maxOpinion is how large the report of another scanner may be, in bytes.
const maxOpinion = 64 << 20

// ScanRequest says what to look into.
type ScanRequest struct {
	// Reference is an image of the engine, else of its registry. Of an archive it chooses, where there are several.
	Reference string `json:"reference,omitempty"`
	Archive   bool   `json:"archive,omitempty"` // the part image follows
	Auth      string `json:"auth,omitempty"`    // X-Registry-Auth, from the user's docker config
	Document  string `json:"document,omitempty" enum:"sarif,cyclonedx,spdx,html,"`
	Deny      string `json:"deny,omitempty"` // a severity: what is as bad or worse denies
	Fixable   bool   `json:"fixable,omitempty"`
	With      string `json:"with,omitempty"` // what trivy or grype found, in its own JSON
	Against   string `json:"against,omitempty"`
	// AgainstAuth is for Against.
	AgainstAuth string `json:"againstAuth,omitempty"`
}

// Scan is what an image is found to be.
type Scan struct {
	Reference  string     `json:"reference"`
	Digest     string     `json:"digest,omitempty"`
	ImageID    string     `json:"imageID"`
	Platform   string     `json:"platform"`
	Created    time.Time  `json:"created,omitzero"`
	Base       string     `json:"base,omitempty"` // the distribution
	Packages   int        `json:"packages"`
	Layers     int        `json:"layers"`
	Scanned    time.Time  `json:"scanned"`
	Advisories Advisories `json:"advisories"`
	// Warnings say what is missing or old, and what was not looked at.
	Warnings []string      `json:"warnings,omitempty"`
	Findings []ScanFinding `json:"findings"` // the worst first
	Changes  []ScanChange  `json:"changes,omitempty"`
	Opinion  *ScanOpinion  `json:"opinion,omitempty"`
	Denied   int           `json:"denied,omitempty"` // how many verdicts deny
	Verdicts []Verdict     `json:"verdicts,omitempty"`
	Document string        `json:"document,omitempty"` // in the format that was asked for
}

// ScanFinding is one thing that is wrong.
type ScanFinding struct {
	Severity  string    `json:"severity"`
	Kind      string    `json:"kind"` // vulnerability, secret, setup
	ID        string    `json:"id"`
	Aliases   []string  `json:"aliases,omitempty"`
	Score     float64   `json:"score,omitempty"`
	Vector    string    `json:"vector,omitempty"`
	Title     string    `json:"title,omitempty"`
	URL       string    `json:"url,omitempty"`
	Package   string    `json:"package,omitempty"`
	Source    string    `json:"source,omitempty"`
	Version   string    `json:"version,omitempty"`
	Fixed     string    `json:"fixed,omitempty"`
	PURL      string    `json:"purl,omitempty"`
	Path      string    `json:"path,omitempty"`
	Layer     int       `json:"layer"` // from 0; -1: none in particular
	Step      string    `json:"step,omitempty"`
	Published time.Time `json:"published,omitzero"`
	// Other: the second opinion alone has it.
	Other  bool    `json:"other,omitempty"`
	Waiver *Waiver `json:"waiver,omitempty"` // of all projects, or of this repository
}

// ScanChange is the difference from another image.
type ScanChange struct {
	Against  string   `json:"against"`
	Services []string `json:"services,omitempty"` // project/service that run it
	Text     string   `json:"text"`               // 2 new criticals, both fixable; 5 gone
	New      []string `json:"new,omitempty"`      // IDs
	Gone     []string `json:"gone,omitempty"`
}

// ScanOpinion is how another scanner's findings compare.
type ScanOpinion struct {
	Both   int `json:"both"`
	Others int `json:"others"` // it alone has
	Ours   int `json:"ours"`   // it does not have
}

// Advisories are how old the index is.
type Advisories struct {
	Updated    time.Time `json:"updated,omitzero"`
	Newest     time.Time `json:"newest,omitzero"`
	Count      int       `json:"count"`
	Ecosystems []string  `json:"ecosystems"`
	Stale      string    `json:"stale,omitempty"` // what is wrong with their age
	From       string    `json:"from,omitempty"`  // where the daemon fetches them
	Every      string    `json:"every,omitempty"` // how often by itself; absent: never
}

// AdvisoriesUpdate says what to bring up to date. The zero value: what the configuration says,
// else what the index has and the scanned images need.
type AdvisoriesUpdate struct {
	From       string   `json:"from,omitempty"` // URL, or a folder, .tar or .zip on the daemon's host
	Ecosystems []string `json:"ecosystems,omitempty"`
	All        bool     `json:"all,omitempty"` // everything that is there
}

// scanRoutes: images belong to the host, as those of imageRoutes.
func (h *handler) scanRoutes() {
	add(h, rule{scope: Deploy, own: true}, huma.Operation{
		OperationID: "scan", Method: http.MethodPost, Path: "/images/scan", Summary: "Say what is wrong with an image",
		Description: "multipart/form-data: first the part request (JSON, a ScanRequest), then with archive the part image, a tar of docker save or an OCI layout. " +
			"The answer is a stream of events that ends with kind done, which carries the scan, or error.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"multipart/form-data": {Schema: &huma.Schema{
			Type: huma.TypeString, Format: "binary", Description: "request: " + schemaOf[ScanRequest](h).Ref + ", image: a tar",
		}}}},
		Responses: contents(ndjson, schemaOf[Event](h)),
	},
		func(context.Context, *nothing) (*huma.StreamResponse, error) {
			return &huma.StreamResponse{Body: func(c huma.Context) {
				req, w := humago.Unwrap(c)
				_ = http.NewResponseController(w).EnableFullDuplex()
				r, archive, err := readScan(req)
				if err != nil {
					writeProblem(w, err)
					return
				}
				h.news(func(ctx context.Context, who Person, report func(Event)) (Event, error) {
					s, err := h.backend.Scan(ctx, who, r, archive, report)
					if err != nil {
						return Event{}, err
					}
					s.Changes = seenChanges(who, s.Changes)
					return Event{Text: s.Reference, Scan: &s}, nil
				}).Body(c)
			}}, nil
		})
	add(h, rule{scope: Read, own: true}, huma.Operation{OperationID: "advisories", Method: http.MethodGet, Path: "/advisories", Summary: "How old the index of advisories is"},
		func(ctx context.Context, _ *nothing) (*answer[Advisories], error) {
			return one(h.backend.Advisories(ctx))
		})
	add(h, rule{scope: Admin}, huma.Operation{
		OperationID: "updateAdvisories", Method: http.MethodPost, Path: "/advisories/update", Summary: "Bring the index of advisories up to date",
		Description: "A stream of events. It ends with kind done or error.", Responses: contents(ndjson, schemaOf[Event](h)),
	},
		func(_ context.Context, in *struct{ Body AdvisoriesUpdate }) (*huma.StreamResponse, error) {
			return h.news(func(ctx context.Context, who Person, report func(Event)) (Event, error) {
				return Event{Text: "updated"}, h.backend.UpdateAdvisories(ctx, who, in.Body, report)
			}), nil
		})
}

// seenChanges leaves out which services of other projects run an image.
func seenChanges(who Person, all []ScanChange) (out []ScanChange) {
	for _, c := range all {
		named := len(c.Services) > 0
		c.Services = slices.DeleteFunc(c.Services, func(s string) bool {
			project, _, _ := strings.Cut(s, "/")
			return !who.sees(project)
		})
		if !named || len(c.Services) > 0 {
			out = append(out, c)
		}
	}
	return out
}

// readScan reads the first part; the archive, if there is one, is read as the backend asks for it.
func readScan(r *http.Request) (s ScanRequest, archive io.Reader, err error) {
	parts, err := partsOf(r)
	if err != nil {
		return s, nil, err
	}
	part, err := nextPart(parts, "request")
	if errors.Is(err, io.EOF) {
		err = tender.Errorf(tender.Invalid, "the part request is missing")
	}
	if err != nil {
		return s, nil, err
	}
	text, err := io.ReadAll(io.LimitReader(part, maxOpinion+1))
	if err != nil {
		return s, nil, tender.Errorf(tender.Invalid, "read the part request: %w", err)
	}
	if len(text) > maxOpinion {
		return s, nil, tender.Errorf(tender.Invalid, "the part request has more than %d bytes", maxOpinion)
	}
	if err := decode(text, &s); err != nil {
		return s, nil, tender.Errorf(tender.Invalid, "the part request: %w", err)
	}
	if s.Document != "" && !slices.Contains(ScanDocuments, s.Document) {
		return s, nil, tender.Errorf(tender.Invalid, "document: %q is none of %s", s.Document, strings.Join(ScanDocuments, ", "))
	}
	if !s.Archive {
		if s.Reference == "" {
			return s, nil, tender.Errorf(tender.Invalid, "reference: no image is named")
		}
		return s, nil, nil
	}
	if part, err = nextPart(parts, "image"); errors.Is(err, io.EOF) {
		err = tender.Errorf(tender.Invalid, "the part image is missing")
	}
	return s, part, err
}

// Scan is Backend's.
func (c *Client) Scan(ctx context.Context, s ScanRequest, archive io.Reader, report func(Event)) (Scan, error) {
	r, w := io.Pipe()
	defer r.Close() //nolint:errcheck // a pipe's Close only ends the writer
	m := multipart.NewWriter(w)
	go func() {
		w.CloseWithError(func() error {
			if err := writeJSONPart(m, "request", s); err != nil {
				return err
			}
			if archive != nil {
				part, err := m.CreateFormField("image")
				if err != nil {
					return err
				}
				if _, err := io.Copy(part, archive); err != nil {
					return err
				}
			}
			return m.Close()
		}())
	}()
	last, err := c.news(ctx, call{method: http.MethodPost, path: "/images/scan", body: r, kind: m.FormDataContentType(), alone: true}, report)
	if err == nil && last.Scan == nil {
		err = c.lost()
	}
	if err != nil {
		return Scan{}, err
	}
	return *last.Scan, nil
}

// Advisories is Backend's.
func (c *Client) Advisories(ctx context.Context) (Advisories, error) {
	return get[Advisories](ctx, c, "/advisories", nil)
}

// UpdateAdvisories is Backend's.
func (c *Client) UpdateAdvisories(ctx context.Context, u AdvisoriesUpdate, report func(Event)) error {
	_, err := c.change(ctx, "/advisories/update", u, report)
	return err
}
