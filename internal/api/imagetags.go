package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tenderhq/tender"
)

// TagRequest gives an image more names.
type TagRequest struct {
	Source  string   `json:"source" minLength:"1" maxLength:"512"`
	Targets []string `json:"targets,omitempty" maxItems:"100"`
	// Moving: the names go forward by semver and never back, in the registry. Without targets they
	// are those of the source's tag: 1.4 and 1 of 1.4.2, and latest.
	Moving bool `json:"moving,omitempty"`
	// Registry: in the registry, although the engine has the image too.
	Registry bool `json:"registry,omitempty"`
	// Auths are X-Registry-Auth by host, from the user's docker config.
	Auths map[string]string `json:"auths,omitempty"`
}

// Tagged is what became of one name.
type Tagged struct {
	Reference string `json:"reference"`
	// Outcome: tagged (it is new), moved, same (it was there already), stays
	Outcome string `json:"outcome"`
	Where   string `json:"where"`            // engine, registry
	Digest  string `json:"digest,omitempty"` // of what it names now; in the engine the image's id
	Was     string `json:"was,omitempty"`    // the version, else the digest, that it stood on
	Why     string `json:"why,omitempty"`
}

// Outcomes of Tagged.
const (
	TagNew   = "tagged"
	TagMoved = "moved"
	TagSame  = "same"
	TagStays = "stays"
)

// Outdated says what newer images there are of one that runs.
type Outdated struct {
	Project string `json:"project,omitempty"`
	Service string `json:"service,omitempty"`
	Image   string `json:"image"`
	Digest  string `json:"digest,omitempty"` // that runs
	Range   string `json:"range,omitempty"`  // that InRange is the newest of
	InRange string `json:"in_range,omitempty"`
	Newest  string `json:"newest,omitempty"` // tag, in any range
	// Rebuilt: the tag that runs has another digest now, NewDigest.
	Rebuilt   bool   `json:"rebuilt"`
	NewDigest string `json:"new_digest,omitempty"`
	Outdated  bool   `json:"outdated"`
	Problem   string `json:"problem,omitempty"` // why nothing can be said
	// Auto and Window are x-tender.update's; Last is what the daemon decided last of itself.
	Auto   bool        `json:"auto,omitempty"`
	Window string      `json:"window,omitempty"`
	Last   *LastUpdate `json:"last,omitempty"`
}

// LastUpdate is a decision about an automatic update.
type LastUpdate struct {
	At     time.Time `json:"at"`
	Image  string    `json:"image"`
	Digest string    `json:"digest"`
	State  string    `json:"state"` // trying, done, denied, rolled back, failed, superseded
	Why    string    `json:"why,omitempty"`
}

// OutdatedRequest narrows what is looked at.
type OutdatedRequest struct {
	Project string
	Names   []string // services, PROJECT/SERVICE, or references of images; none: all services
}

func (h *handler) imageTagRoutes() {
	add(h, rule{scope: Deploy, own: true}, huma.Operation{
		OperationID: "tagImage", Method: http.MethodPost, Path: "/images/tag", Summary: "Give an image more names",
		Description: "In the engine if it has the image, else in the registry, by its digest. Tags that are immutable stay.",
	},
		func(ctx context.Context, in *struct{ Body TagRequest }) (*answer[[]Tagged], error) {
			if len(in.Body.Targets) == 0 && !in.Body.Moving {
				return nil, tender.Errorf(tender.Invalid, "targets: no name is given")
			}
			who, _ := PersonFrom(ctx)
			return list(h.backend.TagImage(ctx, who, in.Body))
		})
	add(h, rule{scope: Read}, huma.Operation{
		OperationID: "outdated", Method: http.MethodGet, Path: "/images/outdated", Summary: "Which newer images there are of those that run",
		Description: "Registries are asked; what they said holds for ten minutes.",
	},
		func(ctx context.Context, in *struct {
			Project string   `query:"project" maxLength:"255"`
			Names   []string `query:"name,explode" maxItems:"200" doc:"A service, PROJECT/SERVICE or the reference of an image; may be given several times"`
		},
		) (*answer[[]Outdated], error) {
			return list(h.backend.Outdated(ctx, OutdatedRequest{in.Project, in.Names}))
		})
}

// TagImage is Backend's.
func (c *Client) TagImage(ctx context.Context, r TagRequest) ([]Tagged, error) {
	return post[[]Tagged](ctx, c, "/images/tag", r)
}

// Outdated is Backend's.
func (c *Client) Outdated(ctx context.Context, r OutdatedRequest) ([]Outdated, error) {
	return get[[]Outdated](ctx, c, "/images/outdated", url.Values{"project": {r.Project}, "name": r.Names})
}
