package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/scan"
	"github.com/tenderhq/tender/internal/store"
)

// What waits for a scan is not kept anywhere but in the store: images with a tag that have no
// report. So a push costs nothing, a thousand of them are one look, and a restart forgets none.
const (
	// pushLook is how often there is a look without a push.
	pushLook = time.Minute
	// pushBatch is how many that wait are looked at together.
	pushBatch = 200
	// scanTries is how often one that fails is tried, until the next start; the pause before the
	// second is firstTry, and each is five times as long as the one before.
	scanTries = 5
	firstTry  = time.Minute
)

// pushedHere says that something came to our own registry. It never waits.
func (s *scans) pushedHere() {
	if s == nil {
		return
	}
	select {
	case s.pushed <- struct{}{}:
	default:
	}
}

// attempt is a scan that failed.
type attempt struct {
	tries int
	next  time.Time
}

// runPushed is the part that scans what is pushed, one at a time, the newest first.
func (s *scans) runPushed(tell func(problem string)) func(context.Context) error {
	return func(ctx context.Context) error {
		failed := map[string]*attempt{}
		tick := time.NewTicker(pushLook)
		defer tick.Stop()
		for {
			// Reading costs, and says little while there is nothing to ask.
			for len(s.db.Ecosystems()) > 0 {
				more, err := s.scanPushed(ctx, failed)
				if ctx.Err() != nil {
					return nil
				}
				if err != nil {
					tell(err.Error())
				} else if more {
					tell("")
				}
				if !more {
					break
				}
			}
			select {
			case <-ctx.Done():
				return nil
			case <-s.pushed:
			case <-tick.C:
			}
		}
	}
}

// scanPushed scans the one that was pushed last of those that wait; more: there was one.
func (s *scans) scanPushed(ctx context.Context, failed map[string]*attempt) (more bool, err error) {
	var waiting []store.Tag
	if err := s.store.View(ctx, func(tx *store.Tx) (err error) {
		waiting, err = tx.Unscanned(s.version, pushBatch+len(failed))
		return err
	}); err != nil {
		return false, err
	}
	now := time.Now()
	there := map[string]bool{}
	var next *store.Tag
	for i, t := range waiting {
		there[t.Digest] = true
		if a := failed[t.Digest]; next == nil && (a == nil || a.tries < scanTries && !now.Before(a.next)) {
			next = &waiting[i]
		}
	}
	for digest := range failed { // of what has gone
		if !there[digest] {
			delete(failed, digest)
		}
	}
	if next == nil {
		return false, nil
	}
	ref := registry.Reference{Repository: next.Repository, Tag: next.Tag, Digest: next.Digest}
	r, err := s.own(ctx, ref, func(api.Event) {})
	if err == nil && r.Scanned.Before(now) { // it was known, and its row does not say all that it could
		err = s.keep(ctx, next.Digest, r)
	}
	if err != nil && ctx.Err() == nil {
		a := failed[next.Digest]
		if a == nil {
			a = &attempt{}
			failed[next.Digest] = a
		}
		pause := firstTry
		for range a.tries {
			pause *= 5
		}
		a.tries++
		a.next = now.Add(pause)
		s.log.Warn("a pushed image was not scanned", "image", ref.String(), "tries", a.tries, "err", err)
		return true, fmt.Errorf("scan %s: %w", ref, err)
	}
	return true, nil
}

// own is the report on an image of our own registry, which is read without a network. Of an index it is
// that on the image for the engine's platform, and is kept for both.
func (s *scans) own(ctx context.Context, ref registry.Reference, tell func(api.Event)) (scan.Report, error) {
	named := ref.Digest
	if named == "" {
		d, err := s.registries.Head(ctx, ref)
		if err != nil {
			return scan.Report{}, err
		}
		named = d.Digest
	}
	name := ref
	if name.Tag != "" {
		name.Digest = ""
	}
	r, err := s.kept(ctx, named)
	if err == nil {
		return s.fresh(ctx, named, r, time.Now())
	}
	if tender.KindOf(err) != tender.NotFound {
		return r, err
	}
	platform := s.platform(ctx)
	img, err := s.registries.Image(ctx, ref.At(named), platform)
	if err != nil {
		return r, err
	}
	digest, err := img.Digest()
	if err != nil {
		return r, tender.Errorf(tender.Unavailable, "read image %s: %w", name, err).Hint("tender image scan %s tries again", name)
	}
	r, err = s.kept(ctx, digest.String())
	if tender.KindOf(err) == tender.NotFound {
		if err := s.turn(ctx); err != nil {
			return r, err
		}
		defer func() { <-s.reading }()
		tell(api.Event{Kind: api.KindPull, Text: name.String() + ": reading it from our own registry"})
		r.Contents, err = scan.Read(ctx, scan.Source{Image: img, Reference: name.String(), Platform: platform}, scan.Limits{})
	}
	if err != nil {
		return r, err
	}
	if r, err = s.fresh(ctx, digest.String(), r, time.Now()); err != nil || digest.String() == named {
		return r, err
	}
	// Who pulls the index knows the image by that.
	return r, s.keep(ctx, named, r)
}

// platform is that of the engine, or of this machine while it does not answer.
func (s *scans) platform(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, placeFor)
	defer cancel()
	info, err := s.info(ctx)
	if err != nil {
		info.Arch = runtime.GOARCH
	}
	switch info.Arch { // as the kernel calls it
	case "x86_64":
		info.Arch = "amd64"
	case "aarch64":
		info.Arch = "arm64"
	case "armv7l":
		info.Arch = "arm/v7"
	case "armv6l":
		info.Arch = "arm/v6"
	}
	return "linux/" + info.Arch
}

// tally counts the findings of a report.
func tally(r scan.Report) (c api.ScanCounts) {
	c.Scanned = r.Scanned
	for _, f := range r.Findings {
		switch f.Severity {
		case tender.Critical:
			c.Critical++
		case tender.High:
			c.High++
		case tender.Medium:
			c.Medium++
		default:
			c.Low++
		}
		if f.Fixable() {
			c.Fixable++
		}
		if f.Kind == tender.SecretLeft {
			c.Secrets++
		}
	}
	return c
}

// verdicts are what scans have found, by the digest of the manifest or the image's ID.
func (b *backend) verdicts(ctx context.Context) (map[string]api.ScanCounts, error) {
	var all map[string]store.Scan
	if err := b.store.View(ctx, func(tx *store.Tx) (err error) { all, err = tx.Scanned(); return err }); err != nil {
		return nil, err
	}
	out := make(map[string]api.ScanCounts, len(all))
	for key, s := range all {
		var c api.ScanCounts
		if json.Unmarshal([]byte(s.Counts), &c) == nil { // one of before there were any has none
			out[key] = c
		}
	}
	return out, nil
}
