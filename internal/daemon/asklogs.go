package daemon

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/collect"
	"github.com/tenderhq/tender/internal/logql"
	"github.com/tenderhq/tender/internal/logs"
)

// catchUp is how long an answer waits for what instances have written just before.
const catchUp = 2 * time.Second

// query is the room that asks: what queries, alerts and Loki's API share.
func (l *logRoom) query() *logql.Engine { return logql.New(l.store, logql.Limits{}) }

// loki serves Loki's API, or says why it cannot.
func (b *backend) loki() http.Handler {
	var all http.Handler
	if b.logs != nil {
		all = logql.Loki(b.logs.store, logql.LokiOptions{Log: b.logs.log, Version: b.version, Cut: collect.Cut, Projects: projectsOf})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := b.noStore(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		all.ServeHTTP(w, r)
	})
}

// projectsOf are the projects that who asks may see; none: all.
func projectsOf(ctx context.Context) []string {
	who, _ := api.PersonFrom(ctx)
	return who.Projects
}

// Logs answers from the store of logs: all revisions, restarts and instances that
// are gone. What instances of today wrote and the store does not follow comes from
// the engine, and a note says so.
func (b *backend) Logs(ctx context.Context, project string, r api.LogRequest, line func(api.LogLine) error) error {
	if err := b.noStore(); err != nil {
		if r.Query != "" && !onlyGrep(r.Query) {
			return err
		}
		if b.logs != nil {
			if err := line(api.LogLine{Time: time.Now().UTC(), Note: err.Error() + ": these are the lines that the engine has"}); err != nil {
				return err
			}
		}
		return b.engineLogs(ctx, project, r, line)
	}
	x, err := logql.Within(r.Query, within(project, r))
	if err != nil {
		return err
	}
	if logql.IsMetric(x) {
		return tender.Errorf(tender.Invalid, "%s yields numbers, not lines", x).Hint("tender logs --query prints them; add --stats for a chart")
	}
	now, err := b.today(project, r)
	if err != nil {
		return err
	}
	streams, err := b.logs.store.Streams(ctx, logs.Query{Labels: within(project, r)})
	if err != nil {
		return err
	}
	if err := knownServices(project, r.Services, streams, now); err != nil {
		return err
	}
	var followed []string
	var others []tender.Instance // that only the engine knows
	for _, i := range now {
		stored := slices.ContainsFunc(streams, func(l logs.Labels) bool { return l.Get("instance") == plainInstance(i) })
		switch {
		case b.logs.collector.Follows(i.ID):
			followed = append(followed, i.ID)
		case !stored && i.State != tender.Created:
			others = append(others, i)
		}
	}
	if len(followed) > 0 {
		limit, cancel := context.WithTimeout(ctx, catchUp)
		_ = b.logs.collector.Sync(limit, followed) // who writes without an end is not waited for
		cancel()
	}
	if len(others) > 0 && r.Query != "" && !onlyGrep(r.Query) {
		if err := line(api.LogLine{Time: time.Now().UTC(), Note: named(others) + ": not in the store of logs, so that nothing can be asked of the fields of its lines"}); err != nil {
			return err
		}
		others = nil
	}
	ask := asking{b.logs, b.logs.query(), x, r, streams}
	if r.Follow {
		return b.followLogs(ctx, project, ask, others, line)
	}
	if len(others) == 0 {
		return ask.past(ctx, line)
	}
	return sideBySide(ctx, []func(context.Context, func(api.LogLine) error) error{
		ask.past,
		func(ctx context.Context, line func(api.LogLine) error) error {
			return b.merge(ctx, others, r, announced(others, line))
		},
	}, line)
}

// announced says before the first line where they come from.
func announced(others []tender.Instance, line func(api.LogLine) error) func(api.LogLine) error {
	said := false
	return func(l api.LogLine) error {
		if !said {
			said = true
			if err := line(api.LogLine{Time: l.Time, Note: named(others) + ": read from the engine, as the store of logs does not follow it"}); err != nil {
				return err
			}
		}
		return line(l)
	}
}

// noStore says why there is no store of logs to ask; nil if there is one.
func (b *backend) noStore() error {
	if b.logs != nil && b.logs.down.Load() {
		return tender.Errorf(tender.Unavailable, "the store of logs has failed").Hint("tender status says why; restart tender serve. Without --where, --query and --stats the engine is asked")
	}
	if b.logs != nil {
		return nil
	}
	if b.config.NoLogs {
		return tender.Errorf(tender.Unavailable, "logs are switched off").Hint("set logs: on in tender.yaml and restart tender serve; without --where, --query and --stats the engine is asked")
	}
	return tender.Errorf(tender.Unavailable, "the store of logs could not be opened").Hint("tender status says why; without --where, --query and --stats the engine is asked")
}

// onlyGrep: the client looks at the lines by itself, too.
func onlyGrep(query string) bool {
	rest, ok := strings.CutPrefix(strings.TrimSpace(query), "|~")
	if !ok {
		return false
	}
	q, err := strconv.QuotedPrefix(strings.TrimSpace(rest))
	return err == nil && strings.TrimSpace(strings.TrimSpace(rest)[len(q):]) == ""
}

// within are the labels of what a request is about.
func within(project string, r api.LogRequest) []logs.Condition {
	c := []logs.Condition{{Name: "project", Op: logs.Equal, Value: project}}
	if len(r.Services) > 0 {
		quoted := make([]string, len(r.Services))
		for i, s := range r.Services {
			quoted[i] = regexp.QuoteMeta(s)
		}
		any := strings.Join(quoted, "|")
		c = append(c, logs.Condition{Name: "service", Op: logs.Matches, Value: any, Regexp: regexp.MustCompile("^(?:" + any + ")$")})
	}
	if r.Instance != "" {
		return append(c, logs.Condition{Name: "instance", Op: logs.Equal, Value: r.Instance})
	}
	// As with Docker Compose, one-off instances are not among those of a service.
	return append(c, logs.Condition{Name: "instance", Op: logs.NotMatches, Value: oneoff.String(), Regexp: oneoff})
}

// oneoff is what tender run calls its instances.
var oneoff = regexp.MustCompile("^.+-run-[0-9a-z]{12}$")

// today are the instances of a request that the engine has now.
func (b *backend) today(project string, r api.LogRequest) ([]tender.Instance, error) {
	picture, err := b.picture()
	if err != nil {
		return nil, err
	}
	var out []tender.Instance
	for _, i := range picture.Instances {
		if i.Project == project && !i.Oneoff && (r.Instance == "" || i.Name == r.Instance || plainInstance(i) == r.Instance || len(r.Instance) >= 12 && strings.HasPrefix(i.ID, r.Instance)) &&
			(len(r.Services) == 0 || slices.Contains(r.Services, i.Service)) {
			out = append(out, i)
		}
	}
	return out, nil
}

// plainInstance is the name under which the lines of i are stored: that which it
// has once it has its slot.
func plainInstance(i tender.Instance) string {
	if i.Revision == "" {
		return i.Name
	}
	return strings.TrimSuffix(i.Name, "-"+i.Revision)
}

func knownServices(project string, services []string, streams []logs.Labels, now []tender.Instance) error {
	for _, s := range services {
		if !slices.ContainsFunc(streams, func(l logs.Labels) bool { return l.Get("service") == s }) && !slices.ContainsFunc(now, func(i tender.Instance) bool { return i.Service == s }) {
			return tender.Errorf(tender.NotFound, "service %s of %s has no instance, and nothing of it is stored", s, project).Hint("tender ps -a -p %s lists what is there", project)
		}
	}
	return nil
}

func named(l []tender.Instance) string {
	var names []string
	for _, i := range l {
		names = append(names, i.Name)
	}
	return strings.Join(names, ", ")
}

// asking is one request to the store.
type asking struct {
	room    *logRoom
	engine  *logql.Engine
	x       logql.Expr
	r       api.LogRequest
	streams []logs.Labels // that it may be about
}

// past passes on what there is, by time: all, or the newest of each instance.
func (a *asking) past(ctx context.Context, line func(api.LogLine) error) error {
	o := logql.Lines{From: a.r.Since, To: a.r.Until, Plain: !a.r.Fields}
	if a.r.Tail < 0 {
		return a.engine.Each(ctx, a.x, o, func(l logql.Line) error { return line(wire(l)) })
	}
	newest, err := a.newest(ctx, o)
	for _, l := range newest {
		if err := line(wire(l)); err != nil {
			return err
		}
	}
	return err
}

// newest looks back for the last lines of each instance.
func (a *asking) newest(ctx context.Context, o logql.Lines) ([]logql.Line, error) {
	if a.r.Tail == 0 {
		return nil, nil
	}
	o.Backward, o.Limit = true, a.r.Tail
	var out []logql.Line
	seen := map[string]bool{}
	for _, s := range a.streams {
		name := s.Get("instance")
		if seen[name] {
			continue
		}
		seen[name] = true
		x, err := logql.Within(a.x.String(), []logs.Condition{{Name: "instance", Op: logs.Equal, Value: name}})
		if err != nil {
			return nil, err
		}
		found, err := a.engine.Lines(ctx, x, o)
		if err != nil {
			return nil, err
		}
		slices.Reverse(found)
		out = append(out, found...)
	}
	slices.SortStableFunc(out, func(x, y logql.Line) int { return x.Time.Compare(y.Time) })
	return out, nil
}

// followLogs passes on what there is and goes on with what comes.
func (b *backend) followLogs(ctx context.Context, project string, a asking, others []tender.Instance, line func(api.LogLine) error) error {
	var mu sync.Mutex
	safe := func(l api.LogLine) error {
		mu.Lock()
		defer mu.Unlock()
		return line(l)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 2)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	if len(others) > 0 {
		var one sync.Mutex
		announce := announced(others, safe)
		work.Go(func() {
			for _, i := range others {
				work.Go(func() {
					if err := b.read(ctx, i, a.r, func(l api.LogLine) error {
						one.Lock()
						defer one.Unlock()
						return announce(l)
					}); err != nil && tender.KindOf(err) != tender.NotFound {
						failed <- err
					}
				})
			}
		})
	}
	history := func(emit func([]logql.Line) error) error {
		o := logql.Lines{From: a.r.Since, To: a.r.Until, Plain: !a.r.Fields}
		if a.r.Tail >= 0 {
			found, err := a.newest(ctx, o)
			if err != nil || len(found) == 0 {
				return err
			}
			return emit(found)
		}
		return a.engine.Each(ctx, a.x, o, func(l logql.Line) error { return emit([]logql.Line{l}) })
	}
	work.Go(func() {
		failed <- a.engine.Tail(ctx, a.room.store, a.x, !a.r.Fields, history, func(found []logql.Line, missed int64) error {
			if missed > 0 {
				if err := safe(api.LogLine{Time: time.Now().UTC(), Note: fmt.Sprintf("%d lines are left out here: they came faster than they were read; they are stored", missed)}); err != nil {
					return err
				}
			}
			for _, l := range found {
				if !a.r.Until.IsZero() && l.Time.After(a.r.Until) {
					continue
				}
				if err := safe(wire(l)); err != nil {
					return err
				}
			}
			return nil
		})
	})
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
}

// wire is a line as clients get it.
func wire(l logql.Line) api.LogLine {
	s := logs.Labels(l.Stream)
	out := api.LogLine{Time: l.Time, Service: s.Get("service"), Instance: s.Get("instance"), Stream: s.Get("stream"), Text: strings.TrimSuffix(l.Text, "\r")}
	for _, f := range slices.Concat(l.Fields, l.Parsed) {
		if out.Fields == nil {
			out.Fields, out.Revision = map[string]string{}, s.Get("revision")
		}
		out.Fields[f.Name] = f.Value
	}
	return out
}

// sideBySide merges sources that are each in the order of time.
func sideBySide(ctx context.Context, sources []func(context.Context, func(api.LogLine) error) error, line func(api.LogLine) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	heads := make([]chan api.LogLine, len(sources))
	failed := make(chan error, len(sources))
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	for n, source := range sources {
		heads[n] = make(chan api.LogLine, 64)
		work.Go(func() {
			defer close(heads[n])
			err := source(ctx, func(l api.LogLine) error {
				select {
				case heads[n] <- l:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			if err != nil {
				failed <- err
			}
		})
	}
	next := make([]*api.LogLine, len(sources))
	pull := func(n int) {
		next[n] = nil
		if l, ok := <-heads[n]; ok {
			next[n] = &l
		}
	}
	for n := range heads {
		pull(n)
	}
	for {
		oldest := -1
		for n, l := range next {
			if l != nil && (oldest < 0 || l.Time.Before(next[oldest].Time)) {
				oldest = n
			}
		}
		if oldest < 0 {
			select {
			case err := <-failed:
				return err
			default:
				return nil
			}
		}
		if err := line(*next[oldest]); err != nil {
			return err
		}
		pull(oldest)
	}
}

// LogNumbers evaluates a metric query within a project.
func (b *backend) LogNumbers(ctx context.Context, project string, n api.LogNumbers) ([]api.LogSeries, error) {
	if err := b.noStore(); err != nil {
		return nil, err
	}
	x, err := logql.Within(n.Query, []logs.Condition{{Name: "project", Op: logs.Equal, Value: project}})
	if err != nil {
		return nil, err
	}
	if !logql.IsMetric(x) {
		return nil, tender.Errorf(tender.Invalid, "%s yields lines, not numbers", x).Hint("wrap it: sum(count_over_time(%s [5m]))", n.Query)
	}
	s := logql.Steps{Start: n.Start, End: n.End, Step: n.Step}
	if s.End.IsZero() {
		s.End = time.Now()
	}
	if s.Start.IsZero() {
		s.Start = s.End
	}
	series, err := b.logs.query().Series(ctx, x, s)
	if err != nil {
		return nil, err
	}
	var out []api.LogSeries
	for _, found := range series {
		l := api.LogSeries{Labels: map[string]string{}, Values: []api.LogValue{}}
		for _, f := range found.Labels {
			l.Labels[f.Name] = f.Value
		}
		for i, v := range found.Values {
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				l.Values = append(l.Values, api.LogValue{Time: s.Start.Add(time.Duration(i) * s.Step).UTC(), Value: v})
			}
		}
		out = append(out, l)
	}
	return out, nil
}

// DoctorLogs verifies the store of logs.
func (b *backend) DoctorLogs(ctx context.Context) ([]api.Check, error) {
	if err := b.noStore(); err != nil {
		return nil, err
	}
	report, err := b.logs.store.Check(ctx)
	if err != nil {
		return nil, fmt.Errorf("verify the store of logs: %w", err)
	}
	out := []api.Check{{
		Name: "logs", Result: okay,
		Text: fmt.Sprintf("%d lines in %d blocks of %d files, %s: all can be read", report.Rows, report.Blocks, report.Segments, units.HumanSize(float64(report.Bytes))),
	}}
	if len(report.Damage) > 0 {
		out[0].Result = failed
		out[0].Text = fmt.Sprintf("%d lines in %d blocks of %d files, %s: %d parts are damaged and left out, the rest is whole",
			report.Rows, report.Blocks, report.Segments, units.HumanSize(float64(report.Bytes)), len(report.Damage))
		out[0].Fix = "check the disk; what is damaged cannot be mended and goes with its day"
	}
	const most = 20
	for _, d := range report.Damage[:min(most, len(report.Damage))] {
		out = append(out, api.Check{Name: "damaged", Result: failed, Text: fmt.Sprintf("%s, %s from byte %d: %s", d.File, units.HumanSize(float64(d.Bytes)), d.Offset, d.Reason)})
	}
	slices.SortStableFunc(out[1:], func(x, y api.Check) int { return cmp.Compare(x.Text, y.Text) })
	return out, nil
}
