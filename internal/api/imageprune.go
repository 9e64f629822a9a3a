package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tenderhq/tender"
)

// PruneRequest asks for a clean-up of the engine's images.
type PruneRequest struct {
	Rules []RegistryRule `json:"rules,omitempty" maxItems:"1000"` // none: those of the daemon's configuration
	// UntilFree ends it once this share of the engine's disk is free; 0: it goes on to the end.
	UntilFree float64 `json:"until_free,omitempty" minimum:"0" maximum:"0.99"`
	Foreign   bool    `json:"foreign,omitempty"` // also images that Tender did not bring
	// BuildCache: what builds left too, but for CacheKeep bytes, and what was used within CacheOlderThan seconds.
	BuildCache     bool    `json:"build_cache,omitempty"`
	CacheKeep      int64   `json:"cache_keep,omitempty" minimum:"0"`
	CacheOlderThan float64 `json:"cache_older_than,omitempty" minimum:"0"`
	DryRun         bool    `json:"dry_run,omitempty"`
}

// PruneStep says what happens to an image of the engine.
type PruneStep struct {
	ID    string    `json:"id"`
	Names []string  `json:"names,omitempty"`
	Was   string    `json:"was,omitempty"` // what one without a name was called when it came
	Goes  bool      `json:"goes"`
	Why   string    `json:"why"`
	Bytes int64     `json:"bytes"` // that no other image has; -1: not known
	Came  time.Time `json:"came,omitzero"`
}

// Pruned is what was decided about images and, unless DryRun, done.
type Pruned struct {
	DryRun bool        `json:"dry_run"`
	Steps  []PruneStep `json:"steps"`
	Images int         `json:"images"` // that go
	Bytes  int64       `json:"bytes"`  // that they alone hold; more becomes free where several share layers
	Cache  int64       `json:"cache"`  // bytes of the build cache that go
	// Free is the share of the engine's disk that is free, afterwards; absent: not known.
	Free float64 `json:"free,omitempty"`
}

// pruneRoutes are for those who may do everything on the host.
func (h *handler) pruneRoutes() {
	add(h, rule{scope: Admin}, huma.Operation{OperationID: "pruneImages", Method: http.MethodPost, Path: "/images/prune", Summary: "Remove images of the engine by rules"},
		func(ctx context.Context, in *struct{ Body PruneRequest }) (*answer[Pruned], error) {
			if !in.Body.BuildCache && (in.Body.CacheKeep > 0 || in.Body.CacheOlderThan > 0) {
				return nil, tender.Errorf(tender.Invalid, "cache_keep and cache_older_than say nothing without build_cache")
			}
			who, _ := PersonFrom(ctx)
			return one(h.backend.PruneImages(ctx, who, in.Body))
		})
}

// PruneImages is Backend's.
func (c *Client) PruneImages(ctx context.Context, r PruneRequest) (Pruned, error) {
	return post[Pruned](ctx, c, "/images/prune", r)
}
