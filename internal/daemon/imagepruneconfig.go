package daemon

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/registry"
)

// ImagesConfig says what goes of the engine's images. Without rules, a share and a bound of the
// build cache nothing does.
type ImagesConfig struct {
	GC         time.Duration // after midnight
	NoGC       bool          // by hand alone
	Retain     []registry.Rule
	Free       float64            // share of the engine's disk under which a clean-up comes out of turn; 0: none does
	BuildCache *engine.CachePrune // nil: it stays
	Foreign    bool               // also what Tender did not bring
}

func (c ImagesConfig) idle() bool { return len(c.Retain) == 0 && c.BuildCache == nil && c.Free == 0 }

func treeImagesRetain(c *Config, n *yaml.Node) (err error) {
	c.Images.Retain, err = retainRules(n, "images.retain")
	return err
}

func setImagesGC(c *Config, v string) (err error) {
	c.Images.GC, c.Images.NoGC, err = timeOfDay(v)
	return err
}

func setImagesFree(c *Config, v string) error {
	if v == "" || v == "off" {
		c.Images.Free = 0
		return nil
	}
	text, is := strings.CutSuffix(v, "%")
	n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if !is || err != nil || n < 1 || n > 90 {
		return fmt.Errorf("%q is neither a share of the disk such as 15%%, from 1%% to 90%%, nor off", v)
	}
	c.Images.Free = n / 100
	return nil
}

func setImagesForeign(c *Config, v string) error {
	without, err := off(v)
	c.Images.Foreign = !without
	return err
}

func treeBuildCache(c *Config, n *yaml.Node) error {
	c.Images.BuildCache = nil
	if n = plainNode(n); n.Kind == yaml.ScalarNode && (n.Tag == "!!null" || n.Value == "") {
		return nil
	}
	var p engine.CachePrune
	err := mapping(n, "images.build_cache", map[string]func(*yaml.Node) error{
		"older_than": promDuration(&p.OlderThan, time.Hour),
		"keep": func(n *yaml.Node) (err error) {
			if p.Keep, err = size(n.Value); err != nil {
				return wrongNode(n, "%s", err)
			}
			return nil
		},
	})
	if err == nil && p == (engine.CachePrune{}) {
		err = wrongNode(n, "images.build_cache: want keep, older_than or both")
	}
	if err == nil {
		c.Images.BuildCache = &p
	}
	return err
}

const (
	// diskLook is how often the engine's disk is looked at.
	diskLook = time.Minute
	// diskAgain is how long after a clean-up that was not enough the next one comes.
	diskAgain = time.Hour
)

// tidyImages is the part: it cleans up each day, and out of turn where the disk is short.
func (b *backend) tidyImages(ctx context.Context) error {
	c := b.config.Images
	who := api.Person{Name: "tender"}
	tell := func(problem string) { b.board.set("image clean-up", func(p *api.Part) { p.Error = problem }) }
	next := nextAt(time.Now(), c.GC)
	var tried time.Time
	tick := time.NewTicker(diskLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := time.Now()
		if !c.NoGC && !now.Before(next) && (len(c.Retain) > 0 || c.BuildCache != nil) {
			next = nextAt(now, c.GC)
			_, err := b.PruneImages(ctx, who, api.PruneRequest{})
			if ctx.Err() != nil {
				return nil
			}
			problem := ""
			if err != nil {
				problem = err.Error()
				b.log.Error("the engine's images were not cleaned up", "err", err)
			}
			tell(problem)
		}
		if c.Free == 0 || now.Sub(tried) < diskAgain {
			continue
		}
		free, size, err := b.engineDisk(ctx)
		if err != nil || size == 0 || float64(free) >= c.Free*float64(size) {
			if err == nil && size > 0 && !tried.IsZero() {
				tried = time.Time{}
				tell("")
			}
			continue
		}
		tried = now
		out, err := b.PruneImages(ctx, who, api.PruneRequest{UntilFree: c.Free})
		if ctx.Err() != nil {
			return nil
		}
		problem := ""
		switch {
		case err != nil:
			problem = err.Error()
		case out.Free < c.Free:
			problem = fmt.Sprintf("%.0f %% of the engine's disk are free, %.0f %% are wanted, and no more images may go: tender image prune --dry-run -a says why", 100*out.Free, 100*c.Free)
		}
		b.log.Info("the engine's disk is short", "free", fmt.Sprintf("%.3f", out.Free), "images", out.Images, "bytes", out.Bytes, "cache", out.Cache, "problem", problem)
		tell(problem)
	}
}
