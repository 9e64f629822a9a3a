package metrics

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
)

// projectLabel is by what series are counted; those without it count together.
const projectLabel = "project"

// errFull is why a series is not made.
var errFull = errors.New("the project has as many series as it may")

// bounds count series by project: the store asks before it makes one.
type bounds struct {
	limit int
	open  atomic.Bool // before that the store reads what it has

	mu       sync.Mutex
	projects map[string]*bound
}

type bound struct {
	series  int
	refused uint64 // samples of series that were not made
	since   time.Time
	last    time.Time
	asked   time.Time // when widest was looked for
	label   string    // the one with the most values
	values  int
}

func newBounds(limit int) *bounds { return &bounds{limit: limit, projects: map[string]*bound{}} }

var _ tsdb.SeriesLifecycleCallback = (*bounds)(nil)

func (b *bounds) of(project string) *bound {
	p := b.projects[project]
	if p == nil {
		p = &bound{}
		b.projects[project] = p
	}
	return p
}

// PreCreation refuses a series of a project that is full.
func (b *bounds) PreCreation(l labels.Labels) error {
	if !b.open.Load() {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.of(l.Get(projectLabel))
	if p.series < b.limit {
		return nil
	}
	p.refused++
	p.last = time.Now()
	if p.since.IsZero() {
		p.since = p.last
	}
	return errFull
}

// PostCreation counts one.
func (b *bounds) PostCreation(l labels.Labels) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.of(l.Get(projectLabel)).series++
}

// PostDeletion counts those that are gone.
func (b *bounds) PostDeletion(gone map[chunks.HeadSeriesRef]labels.Labels) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range gone {
		name := l.Get(projectLabel)
		p := b.of(name)
		if p.series--; p.series <= 0 && p.refused == 0 { // what does not come back is not counted forever
			delete(b.projects, name)
		}
	}
}

// Full is a project that has as many series as it may.
type Full struct {
	Project string // "": series without the label project
	Series  int
	Refused uint64    // samples
	Since   time.Time // the first that was refused
	Label   string    // the one with the most values, "" not known yet
	Values  int
}

// remember is how long after the last refusal a project counts as full.
const remember = 10 * time.Minute

// full lists who was refused something lately.
func (b *bounds) full(now time.Time) (out []Full) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, p := range b.projects {
		if now.Sub(p.last) > remember {
			p.since = time.Time{}
			continue
		}
		out = append(out, Full{Project: name, Series: p.series, Refused: p.refused, Since: p.since, Label: p.label, Values: p.values})
	}
	slices.SortFunc(out, func(a, b Full) int { return cmp.Compare(a.Project, b.Project) })
	return out
}

// count is how many series each project has, and how many samples were refused.
func (b *bounds) count() map[string]bound {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[string]bound, len(b.projects))
	for name, p := range b.projects {
		out[name] = *p
	}
	return out
}

// blame finds for projects that are full the label that has the most values, and says
// so in the log: once when it begins, and every hour.
func (d *DB) blame(ctx context.Context, now time.Time) {
	for _, f := range d.bounds.full(now) {
		d.bounds.mu.Lock()
		p := d.bounds.of(f.Project)
		due := now.Sub(p.asked) > time.Hour || p.asked.Before(p.since)
		if due {
			p.asked = now
		}
		d.bounds.mu.Unlock()
		if !due {
			continue
		}
		label, values := d.widest(ctx, f.Project)
		d.bounds.mu.Lock()
		p.label, p.values = label, values
		d.bounds.mu.Unlock()
		d.log.Warn("no new series are kept: the project has as many as it may", "project", f.Project, "series", f.Series, "limit", d.o.Limit, "refused", f.Refused, "label", label, "values", values)
	}
}

// widest is the label of a project's series that has the most values.
func (d *DB) widest(ctx context.Context, project string) (label string, values int) {
	r, err := d.tsdb.Head().Index()
	if err != nil {
		return "", 0
	}
	defer r.Close()
	is := labels.MustNewMatcher(labels.MatchEqual, projectLabel, project)
	names, err := r.LabelNames(ctx, is)
	if err != nil {
		return "", 0
	}
	for _, name := range names {
		if name == model.MetricNameLabel {
			continue
		}
		if v, err := r.LabelValues(ctx, name, nil, is); err == nil && len(v) > values {
			label, values = name, len(v)
		}
	}
	return label, values
}

// appendable is the store as those see it who write.
type appendable struct{ d *DB }

// AppenderV2 is storage.AppendableV2's.
func (a appendable) AppenderV2(ctx context.Context) storage.AppenderV2 {
	if len(a.d.Config().RemoteWriteConfigs) == 0 { // nobody to count for what is sent on
		return &appender{AppenderV2: a.d.tsdb.AppenderV2(ctx), d: a.d}
	}
	return &appender{AppenderV2: a.d.all.AppenderV2(ctx), d: a.d}
}

// appender refuses in silence what is beyond the bounds: one label too many must not
// cost the rest of a scrape. It outlives a panic of the store.
type appender struct {
	storage.AppenderV2
	d *DB
	// made are the series that are new, as far as the caller knew.
	made []record.RefSeries
}

var _ storage.ExemplarAppenderV2 = (*appender)(nil)

// Append is storage.AppenderV2's.
func (a *appender) Append(ref storage.SeriesRef, l labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, o storage.AOptions) (out storage.SeriesRef, err error) {
	defer func() {
		if p := recover(); p != nil {
			out, err = 0, a.d.caught(p)
		}
	}()
	out, err = a.AppenderV2.Append(ref, l, st, t, v, h, fh, o)
	if err != nil && errors.Is(err, errFull) {
		return 0, nil
	}
	if err == nil && out != ref {
		a.made = append(a.made, record.RefSeries{Ref: chunks.HeadSeriesRef(out), Labels: l})
	}
	return out, err
}

// AppendExemplars is storage.ExemplarAppenderV2's.
func (a *appender) AppendExemplars(ref storage.SeriesRef, l labels.Labels, e []exemplar.Exemplar) (out storage.SeriesRef, err error) {
	defer func() {
		if p := recover(); p != nil {
			out, err = 0, a.d.caught(p)
		}
	}()
	out, err = a.AppenderV2.(storage.ExemplarAppenderV2).AppendExemplars(ref, l, e) //nolint:forcetypeassert // the fan-out has it
	if errors.Is(err, storage.ErrNotFound) {                                        // its series is beyond the bounds
		return 0, nil
	}
	return out, err
}

// Commit is storage.AppenderV2's.
func (a *appender) Commit() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = a.d.caught(p)
		}
		if err != nil {
			a.d.unwritten.add(a.made)
		}
		a.d.wrote(err)
	}()
	if err := a.d.reserve.full(); err != nil {
		return errors.Join(err, a.AppenderV2.Rollback())
	}
	if err := a.d.unwritten.save(a.d.damage); err != nil {
		return errors.Join(fmt.Errorf("write down new series: %w", err), a.AppenderV2.Rollback())
	}
	return a.AppenderV2.Commit()
}

// Rollback is storage.AppenderV2's. New series are written all the same.
func (a *appender) Rollback() error {
	err := a.AppenderV2.Rollback()
	if err != nil {
		a.d.unwritten.add(a.made)
	}
	return err
}

// unwritten are series that the store made in memory and could not name in its log of writes: it
// takes them for named from then on, and after a restart knows nobody of whom their samples are.
type unwritten struct {
	mu     sync.Mutex
	series map[chunks.HeadSeriesRef]labels.Labels
	unsafe bool // not all are written down
}

func (u *unwritten) add(made []record.RefSeries) {
	if len(made) == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.series == nil {
		u.series = map[chunks.HeadSeriesRef]labels.Labels{}
	}
	for _, s := range made {
		u.series[s.Ref] = s.Labels
	}
	u.unsafe = true
}

// save writes them down, before anything more is kept of them.
func (u *unwritten) save(d *damage) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.unsafe {
		return nil
	}
	all := make([]record.RefSeries, 0, len(u.series))
	for ref, l := range u.series {
		all = append(all, record.RefSeries{Ref: ref, Labels: l})
	}
	slices.SortFunc(all, func(a, b record.RefSeries) int { return cmp.Compare(a.Ref, b.Ref) })
	if err := d.remember(all); err != nil {
		return err
	}
	u.unsafe = false
	return nil
}
