package registry

import (
	"context"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	tender "github.com/tenderhq/tender"
)

// ImageFor is Image for a platform as people write it: linux/amd64, linux/arm/v7.
func (r *Remote) ImageFor(ctx context.Context, ref Reference, platform string) (v1.Image, error) {
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "platform %q: %v", platform, err).Hint("linux/amd64")
	}
	return r.Image(ctx, ref, *p)
}
