package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tenderhq/tender"
)

// RegistryImage is a tag in the registry, or a manifest without one.
type RegistryImage struct {
	Repository string    `json:"repository"`
	Tag        string    `json:"tag,omitempty"`
	Digest     string    `json:"digest"`
	Size       int64     `json:"size"` // bytes, with all that it is made of
	Pushed     time.Time `json:"pushed,omitzero"`
	Who        string    `json:"who,omitempty"`
	Signed     bool      `json:"signed"`
	Needed     string    `json:"needed,omitempty"` // why it must stay: what is deployed, or may be rolled back to
	// Scan is what the newest scan has found; absent: it was not scanned yet.
	Scan *ScanCounts `json:"scan,omitempty"`
}

// ScanCounts are the findings of a scan by severity; waivers are not heeded.
type ScanCounts struct {
	Scanned  time.Time `json:"scanned"`
	Critical int       `json:"critical"`
	High     int       `json:"high"`
	Medium   int       `json:"medium"`
	Low      int       `json:"low"`     // and less
	Fixable  int       `json:"fixable"` // of all those
	Secrets  int       `json:"secrets"` // in layers; they are counted above, too
}

// String is them in a word or two: "2 critical, 1 high", "clean".
func (c ScanCounts) String() string {
	var parts []string
	for _, p := range []struct {
		n    int
		word string
	}{{c.Critical, "critical"}, {c.High, "high"}, {c.Medium, "medium"}, {c.Low, "low"}} {
		if p.n > 0 && len(parts) < 2 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.word))
		}
	}
	if len(parts) == 0 {
		return "clean"
	}
	return strings.Join(parts, ", ")
}

// RegistryRule says what goes of some repositories; the first that fits a tag decides about it.
type RegistryRule struct {
	Repositories []string `json:"repositories,omitempty"` // patterns; none: all
	Tags         []string `json:"tags,omitempty"`         // patterns; none: all
	Keep         int      `json:"keep,omitempty" minimum:"0"`
	// OlderThan and Untagged are seconds since the push.
	OlderThan  float64  `json:"older_than,omitempty" minimum:"0"`
	Untagged   float64  `json:"untagged,omitempty" minimum:"0"`
	KeepTags   []string `json:"keep_tags,omitempty"`
	KeepSigned bool     `json:"keep_signed,omitempty"`
}

// RetainRequest asks for a round of retention.
type RetainRequest struct {
	Rules      []RegistryRule `json:"rules,omitempty" maxItems:"1000"`      // none: those of the daemon's configuration
	Repository string         `json:"repository,omitempty" maxLength:"255"` // a pattern; "": all
	DryRun     bool           `json:"dry_run,omitempty"`
}

// RemoveImageRequest names what is to go: a tag, a digest, or without both the whole repository.
type RemoveImageRequest struct {
	Repository string `json:"repository" minLength:"1" maxLength:"255"`
	Tag        string `json:"tag,omitempty" maxLength:"128"`
	Digest     string `json:"digest,omitempty" maxLength:"256"`
	Force      bool   `json:"force,omitempty"` // also what is needed
	DryRun     bool   `json:"dry_run,omitempty"`
}

// RegistryStep says what happens to a tag or, without one, to a manifest.
type RegistryStep struct {
	Repository string    `json:"repository"`
	Tag        string    `json:"tag,omitempty"`
	Digest     string    `json:"digest"`
	Goes       bool      `json:"goes"`
	Why        string    `json:"why"`
	Pushed     time.Time `json:"pushed,omitzero"`
}

// RegistryClean is what was decided about tags and manifests and, unless DryRun, done.
type RegistryClean struct {
	DryRun    bool           `json:"dry_run"`
	Steps     []RegistryStep `json:"steps"`
	Tags      int            `json:"tags"`      // that go
	Manifests int            `json:"manifests"` // that go
	Bytes     int64          `json:"bytes"`     // that the next sweep frees, once they are a day old
}

// RegistrySweep is what a sweep removed or, if DryRun, would have.
type RegistrySweep struct {
	DryRun     bool    `json:"dry_run"`
	Manifests  int     `json:"manifests"`  // that were read
	Referenced int     `json:"referenced"` // blobs that they name
	Blobs      int     `json:"blobs"`      // that went
	Bytes      int64   `json:"bytes"`      // of those
	Links      int     `json:"links"`      // of repositories to blobs that none of their manifests names
	Leased     int     `json:"leased"`     // that stay for a push or a pull
	Young      int     `json:"young"`      // that nobody names and are not a day old
	Took       float64 `json:"took"`       // seconds
}

type sweepRequest struct {
	DryRun bool `json:"dry_run,omitempty"`
}

// registryRoutes are for those who may see all projects.
func (h *handler) registryRoutes() {
	read, change := rule{scope: Read}, rule{scope: Admin}
	add(h, read, huma.Operation{OperationID: "registryImages", Method: http.MethodGet, Path: "/registry/images", Summary: "What is in the registry, the newest first"},
		func(ctx context.Context, in *struct {
			Repository string `query:"repository" maxLength:"255" doc:"This one alone"`
		},
		) (*answer[[]RegistryImage], error) {
			return list(h.backend.RegistryImages(ctx, in.Repository))
		})
	add(h, change, huma.Operation{OperationID: "sweepRegistry", Method: http.MethodPost, Path: "/registry/gc", Summary: "Remove blobs that no manifest names"},
		func(ctx context.Context, in *struct{ Body sweepRequest }) (*answer[RegistrySweep], error) {
			who, _ := PersonFrom(ctx)
			return one(h.backend.SweepRegistry(ctx, who, in.Body.DryRun))
		})
	add(h, change, huma.Operation{OperationID: "retainImages", Method: http.MethodPost, Path: "/registry/retain", Summary: "Remove tags and manifests by rules"},
		func(ctx context.Context, in *struct{ Body RetainRequest }) (*answer[RegistryClean], error) {
			who, _ := PersonFrom(ctx)
			return one(h.backend.RetainImages(ctx, who, in.Body))
		})
	add(h, change, huma.Operation{OperationID: "removeImage", Method: http.MethodPost, Path: "/registry/remove", Summary: "Remove a tag, a manifest or a repository"},
		func(ctx context.Context, in *struct{ Body RemoveImageRequest }) (*answer[RegistryClean], error) {
			if in.Body.Tag != "" && in.Body.Digest != "" {
				return nil, tender.Errorf(tender.Invalid, "give a tag or a digest, not both")
			}
			who, _ := PersonFrom(ctx)
			return one(h.backend.RemoveImage(ctx, who, in.Body))
		})
}

// RegistryImages is Backend's.
func (c *Client) RegistryImages(ctx context.Context, repository string) ([]RegistryImage, error) {
	return get[[]RegistryImage](ctx, c, "/registry/images", url.Values{"repository": {repository}})
}

// SweepRegistry is Backend's.
func (c *Client) SweepRegistry(ctx context.Context, dry bool) (RegistrySweep, error) {
	return post[RegistrySweep](ctx, c, "/registry/gc", sweepRequest{dry})
}

// RetainImages is Backend's.
func (c *Client) RetainImages(ctx context.Context, r RetainRequest) (RegistryClean, error) {
	return post[RegistryClean](ctx, c, "/registry/retain", r)
}

// RemoveImage is Backend's.
func (c *Client) RemoveImage(ctx context.Context, r RemoveImageRequest) (RegistryClean, error) {
	return post[RegistryClean](ctx, c, "/registry/remove", r)
}
