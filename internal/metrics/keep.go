package metrics

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"

	"github.com/tenderhq/tender/internal/sample"
)

// source is who hands in rounds.
type source struct {
	series map[*sample.Series]*held
	// before are the references of series that the last process kept for it; they are
	// compared with those of the first round.
	before []storage.SeriesRef
}

// held is a series that is being written.
type held struct {
	ref    storage.SeriesRef
	labels labels.Labels
}

// stale marks the end of a series.
var stale = math.Float64frombits(value.StaleNaN)

func (d *DB) keep(ctx context.Context, r sample.Round) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	src := d.refs[r.Source]
	if src == nil {
		src = &source{before: readRefs(d.refsFile(r.Source))}
		d.refs[r.Source] = src
	}
	now, fresh := make(map[*sample.Series]*held, len(r.Points)), false
	at, app := r.At.UnixMilli(), appendable{d}.AppenderV2(ctx)
	for _, p := range r.Points {
		h := src.series[p.Series]
		if h == nil {
			h, fresh = &held{labels: labelsOf(p.Series)}, true
			d.describe(p.Series)
		}
		ref, err := app.Append(h.ref, h.labels, 0, at, p.Value, nil, nil, storage.AOptions{})
		switch {
		case d.late(err):
		case err != nil:
			return errors.Join(fmt.Errorf("keep a sample of %s: %w", p.Series.Name, err), app.Rollback())
		default:
			// Another one: there was no room for it before, or the store had forgotten it.
			fresh = fresh || ref != h.ref
			h.ref = ref
		}
		now[p.Series] = h
	}
	ended := false
	for s, h := range src.series {
		if now[s] == nil && h.ref != 0 {
			ended = true
			if _, err := app.Append(h.ref, h.labels, 0, at, stale, nil, nil, storage.AOptions{}); err != nil && !d.late(err) {
				return errors.Join(fmt.Errorf("end %s: %w", s.Name, err), app.Rollback())
			}
		}
	}
	if len(src.before) > 0 {
		d.endBefore(app, src.before, now, at)
	}
	if err := app.Commit(); err != nil {
		return fmt.Errorf("keep samples: %w", err)
	}
	src.series, src.before = now, nil
	if fresh || ended {
		if err := writeRefs(d.refsFile(r.Source), now); err != nil {
			d.log.Warn("which series are kept is not written down: after a restart those that end meanwhile are seen for five minutes more", "err", err)
		}
	}
	return nil
}

// endBefore marks the series of the last process that did not come back. References
// live as long as the series do in the store, also over a restart.
func (d *DB) endBefore(app storage.AppenderV2, before []storage.SeriesRef, now map[*sample.Series]*held, at int64) {
	here := make(map[storage.SeriesRef]bool, len(now))
	for _, h := range now {
		here[h.ref] = true
	}
	for _, ref := range before {
		if !here[ref] {
			// One that the store has forgotten has no labels to be made anew from, and is refused.
			_, _ = app.Append(ref, labels.EmptyLabels(), 0, at, stale, nil, nil, storage.AOptions{})
		}
	}
}

// late reports whether a sample is left out because of its time, and counts it.
func (d *DB) late(err error) bool {
	switch {
	case err == nil:
		return false
	case errors.Is(err, storage.ErrOutOfOrderSample), errors.Is(err, storage.ErrDuplicateSampleForTimestamp), errors.Is(err, storage.ErrOutOfBounds), errors.Is(err, storage.ErrTooOldSample):
		d.counts.late.Inc()
		return true
	}
	return false
}

func labelsOf(s *sample.Series) labels.Labels {
	b := labels.NewScratchBuilder(len(s.Labels) + 1)
	b.Add(model.MetricNameLabel, s.Name)
	for _, l := range s.Labels {
		if l.Value != "" {
			b.Add(l.Name, l.Value)
		}
	}
	b.Sort()
	return b.Labels()
}

const sourcesDir = "sources"

// refsFile holds the references of a source's series, eight bytes each.
func (d *DB) refsFile(source string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(source)) // it never fails
	return filepath.Join(d.o.Dir, sourcesDir, fmt.Sprintf("%016x", h.Sum64()))
}

func readRefs(path string) (out []storage.SeriesRef) {
	b, _ := os.ReadFile(path) //nolint:errcheck // none: nothing was kept
	for ; len(b) >= 8; b = b[8:] {
		out = append(out, storage.SeriesRef(binary.LittleEndian.Uint64(b)))
	}
	return out
}

func writeRefs(path string, series map[*sample.Series]*held) error {
	refs := make([]uint64, 0, len(series))
	for _, h := range series {
		if h.ref != 0 {
			refs = append(refs, uint64(h.ref))
		}
	}
	slices.Sort(refs)
	b := make([]byte, 0, 8*len(refs))
	for _, r := range refs {
		b = binary.LittleEndian.AppendUint64(b, r)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
