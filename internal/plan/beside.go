package plan

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
)

const (
	// PauseDefault is how long each step of a canary is watched; AbortErrorsDefault is the share of failed
	// requests above that of the old revision at which it goes back.
	PauseDefault       = time.Minute
	AbortErrorsDefault = 0.01

	// enough is how many requests of a step are judged for errors at least; enoughSlow, for their latency.
	enough     = 20
	enoughSlow = 100

	// settleFor is how long a revision has all of the traffic before its rollout is done.
	settleFor = 2 * time.Second

	// CheckSlot is where Tries counts the checks that failed in a row.
	CheckSlot = -1
)

// stepsDefault are the percentages of a canary.
var stepsDefault = []int{5, 25, 50}

// rollout is the one that says how the traffic is divided.
func (s *Service) rollout() *Rollout {
	if s.Open != nil {
		return s.Open
	}
	return s.Paused
}

// beside reports whether the new revision comes up as a whole beside the old
// one, and then gets the traffic.
func (v *view) beside() bool {
	r := v.rollout()
	if r == nil {
		return false
	}
	if len(r.Shifts) > 0 {
		return true
	}
	if len(v.old) == 0 || v.Replicas == 0 || r.First {
		return false
	}
	order, _ := Order(v.Service, v.old)
	return order == tender.BlueGreen || order == tender.Canary
}

// steps are the shares before the whole, in percent.
func (v *view) steps() []int {
	p := v.policy()
	if p.Strategy != tender.Canary || len(v.old) == 0 {
		return nil
	}
	if len(p.Steps) == 0 {
		return stepsDefault
	}
	return p.Steps
}

// next is the share that the next shift gives, in per mille.
func (v *view) next() int {
	if steps, done := v.steps(), len(v.Open.Shifts); done < len(steps) {
		return steps[done] * whole / 100
	}
	return whole
}

// shifted is the last shift; nil: there was none.
func (r *Rollout) shifted() *Shifted {
	if len(r.Shifts) == 0 {
		return nil
	}
	return &r.Shifts[len(r.Shifts)-1]
}

// watching reports whether the present step has not been watched for long
// enough yet, and until when it is.
func (m *maker) watching(v *view) (until time.Time, yes bool) {
	last := v.Open.shifted()
	if last == nil || v.Open.promoted() || len(v.old) == 0 {
		return time.Time{}, false
	}
	pause := v.policy().Pause
	if pause == 0 {
		pause = PauseDefault
	}
	until = last.At.Add(pause)
	return until, m.now.Before(until)
}

// limit is how many instances of the new revision the present step needs.
func (m *maker) limit(v *view) int {
	if !v.beside() || v.Open == nil {
		return v.Replicas
	}
	share := v.next()
	if _, yes := m.watching(v); yes || v.Open.Held != "" {
		share = v.Open.share()
		if share == 0 {
			share = v.next()
		}
	}
	n := int(math.Ceil(float64(v.Replicas) * float64(share) / whole))
	return min(max(n, 1), v.Replicas)
}

// besideNext plans the next share once all that it needs serves.
func (m *maker) besideNext(v *view) {
	r := v.Open
	until, watching := m.watching(v)
	last := r.shifted()
	switch {
	case watching:
		m.stepWait(v, until, "watched for %s with %s of the traffic: %s", took(until.Sub(last.At)), percent(last.Share), m.figures(v, last))
		return
	case r.Held != "" && last != nil:
		m.stepWait(v, time.Time{}, "held with %s of the traffic, by %s, until tender rollout resume %d: %s", percent(last.Share), r.Held, r.ID, m.figures(v, last))
		return
	}
	// A step that nobody can see is none.
	if t := v.Traffic; t != nil && t.Away != "" && !r.Reverse && (v.next() < whole || last != nil) {
		m.stepWait(v, time.Time{}, "%s of the traffic is the next step, and the edge does not tell: %s", percent(v.next()), t.Away)
		return
	}
	a := Action{Service: v.Name, Revision: v.Revision, Rollout: r.ID}
	if checks := v.policy().Check; last == nil && len(checks) > 0 && !r.Checked && !r.Reverse {
		if t := v.Tries[CheckSlot]; m.now.Before(t.Next()) {
			m.pause(v, t, t.Reason)
			return
		}
		a.Verb, a.Checks, a.Cause = Check, checks, "before it gets traffic"
		m.add(a)
		return
	}
	if r.Held != "" {
		m.stepWait(v, time.Time{}, "held before it gets traffic, by %s, until tender rollout resume %d", r.Held, r.ID)
		return
	}
	// A way back is one switch: what is bad is left first, and names follow.
	if v.next() == whole && !r.Reverse && m.promoteAll(v) {
		return
	}
	a.Verb, a.Share, a.Step = Shift, v.next(), len(r.Shifts)
	switch {
	case last != nil:
		a.Cause = fmt.Sprintf("%s with %s of the traffic: %s", took(m.now.Sub(last.At)), percent(last.Share), m.figures(v, last))
	case r.Reverse:
		a.Cause = fmt.Sprintf("back from %s, all of it is there", v.from())
	case a.Share < whole:
		a.Cause = "the first step beside " + v.from()
	default:
		a.Cause = "all of it is good beside " + v.from()
	}
	m.add(a)
}

// settle plans the wait after the last shift, so that it is proven by requests
// and not by a word.
func (m *maker) settle(v *view) {
	if !v.beside() || m.w.foreseen {
		return
	}
	if until := v.Open.shifted().At.Add(settleFor); m.now.Before(until) {
		m.stepWait(v, until, "it has all of the traffic for a moment")
	}
}

// stepWait is a wait that is a step of the rollout itself.
func (m *maker) stepWait(v *view, until time.Time, format string, args ...any) {
	m.wait(v, until, format, args...)
	a := &m.plan[len(m.plan)-1]
	a.Rollout, a.Step = v.Open.ID, len(v.Open.Shifts)
}

// leaves plans what goes of the old instances while or after the new revision
// stands beside them.
func (m *maker) leaves(v *view) {
	r := v.Open
	proven := slices.ContainsFunc(v.old, func(i *tender.Instance) bool { return i.Revision == r.From && i.Ready() })
	keep := v.policy().Keep > 0 && !r.Reverse
	for _, i := range v.old {
		switch {
		case i.State == tender.Removing:
		case r.promoted() && !m.demoted(v, i):
		case r.promoted() && !(keep && !i.Foreign && i.Revision == r.From):
			m.removeDrained(v, i, v.RenewAnon, "replaced by %s", v.Revision)
		case !r.promoted() && proven && i.Revision != r.From:
			m.removeDrained(v, i, v.RenewAnon, "neither %s nor %s", r.From, v.Revision)
		}
	}
}

// counted is what the edge has counted of rev since a shift; restarted: it has
// begun anew meanwhile, so that this is a part.
func (v *view) counted(rev string, from *Shifted) (n tender.Served, restarted bool) {
	if v.Traffic == nil {
		return n, false
	}
	return Since(v.Traffic.Revisions[rev], from.Counts[rev], v.Traffic.Counting.Equal(from.Counting))
}

// Since is what came to a count after it was at before. A count that has begun
// anew in between, or has fallen, is a part of it: restarted.
func Since(now, before tender.Served, same bool) (n tender.Served, restarted bool) {
	if !same || now.Requests < before.Requests || now.Failed < before.Failed {
		return now, before.Requests > 0 || !same
	}
	n = now
	n.Requests -= before.Requests
	n.Failed -= before.Failed
	n.Seconds -= before.Seconds
	n.BytesIn -= min(n.BytesIn, before.BytesIn)
	n.BytesOut -= min(n.BytesOut, before.BytesOut)
	n.Cut -= min(n.Cut, before.Cut)
	for k := range n.Class {
		n.Class[k] -= min(n.Class[k], before.Class[k])
	}
	for k := range n.Latency {
		n.Latency[k] -= min(n.Latency[k], before.Latency[k])
	}
	return n, false
}

// Errors is how many requests of s went wrong: what the edge could not bring
// home, and what the service itself answered with 5xx.
func Errors(s tender.Served) uint64 { return min(max(s.Failed, s.Class[5]), s.Requests) }

// Quantile is a bound under which that part of the requests stayed, in
// seconds; 0: there were none.
func Quantile(s tender.Served, q float64) float64 {
	var all, sum uint64
	for _, n := range s.Latency {
		all += n
	}
	if all == 0 {
		return 0
	}
	for k, n := range s.Latency {
		sum += n
		if float64(sum) >= q*float64(all) {
			return tender.LatencyBounds[min(k, len(tender.LatencyBounds)-1)]
		}
	}
	return tender.LatencyBounds[len(tender.LatencyBounds)-1]
}

// figures says what the edge has counted of both revisions since a shift.
func (m *maker) figures(v *view, since *Shifted) string {
	if m.w.foreseen {
		return "no worse than " + v.from()
	}
	now, restarted := v.counted(v.Revision, since)
	if now.Requests == 0 {
		return "no request came yet"
	}
	text := fmt.Sprintf("%d of %s failed", Errors(now), count(int(now.Requests), "request"))
	switch {
	case now.Requests < enough:
		text += ", too few to judge"
	default:
		if p99 := Quantile(now, .99); p99 > 0 {
			text += ", p99 " + seconds(p99)
		}
		if from := v.Open.From; from != "" {
			old, _ := v.counted(from, since)
			text += fmt.Sprintf("; of %s %d of %d", from, Errors(old), old.Requests)
		}
	}
	if restarted {
		text += ", since the edge began anew"
	}
	return text
}

// judgeStep compares the new revision with the old one at the same time. why
// is empty where it may go on.
func (m *maker) judgeStep(v *view) (why string) {
	last := v.Open.shifted()
	if last == nil || v.Open.promoted() || v.Open.Reverse || v.Traffic == nil {
		return ""
	}
	p := v.policy()
	now, _ := v.counted(v.Revision, last)
	old, _ := v.counted(v.Open.From, last)
	if now.Requests < enough {
		return ""
	}
	bound := p.AbortErrors
	if bound == 0 {
		bound = AbortErrorsDefault
	}
	if rate := ratio(now); rate > bound && (old.Requests < enough || rate-ratio(old) > bound+noise(old, now)) {
		return fmt.Sprintf("with %s of the traffic %d of %d requests failed (%s), %s of %s", percent(last.Share), Errors(now), now.Requests,
			percent(int(math.Round(rate*whole))), percent(int(math.Round(ratio(old)*whole))), v.Open.From)
	}
	if p.AbortP99 == 0 || now.Requests < enoughSlow {
		return ""
	}
	limit := p.AbortP99.Seconds()
	if slower(now, limit) && !(old.Requests >= enoughSlow && slower(old, limit)) {
		return fmt.Sprintf("with %s of the traffic p99 is %s, above %s; of %s %s", percent(last.Share), seconds(Quantile(now, .99)), p.AbortP99,
			v.Open.From, seconds(Quantile(old, .99)))
	}
	return ""
}

// slower reports whether more than one request of a hundred took longer than limit for certain.
func slower(s tender.Served, limit float64) bool {
	var all, slow uint64
	for k, n := range s.Latency {
		all += n
		if k > 0 && tender.LatencyBounds[k-1] >= limit {
			slow += n
		}
	}
	return all > 0 && float64(slow) > float64(all)/100
}

// noise is how far so few requests as now's stray by chance if they fail as often as old's: two standard deviations.
func noise(old, now tender.Served) float64 {
	p := ratio(old)
	return 2 * math.Sqrt(p*(1-p)/float64(now.Requests))
}

func ratio(s tender.Served) float64 {
	if s.Requests == 0 {
		return 0
	}
	return float64(Errors(s)) / float64(s.Requests)
}

// percent prints per mille as percent.
func percent(mille int) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(mille)/10), ".0") + " %"
}

func seconds(s float64) string {
	return took(time.Duration(s * float64(time.Second)))
}
