package plan

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
)

const (
	// tolerance is how far off its target a figure may be without anything being done about it.
	tolerance = 0.1
	// LoadFor is how old a figure may be until it counts as missing.
	LoadFor = time.Minute
)

// Load is what was measured for one word of a rule.
type Load struct {
	Word   string  // cpu, memory, requests, query
	Target float64 // in the unit of Value
	// Value is that of the service: the mean over Of instances, or for the word requests what all of them get
	// together. Of is 0 where it is not known of how many.
	Value float64
	Of    int
	At    time.Time // of the oldest figure in it; zero: there is none
	// Missing says why there is none.
	Missing string
}

// Asked is how many instances were called for at one time.
type Asked struct {
	At time.Time
	N  int
}

// Room is the memory of the node that newcomers need.
type Room struct {
	Known     bool
	Available int64 // bytes, with what has to stay free taken away
	Each      int64 // what one instance takes; 0: not known
}

// Scaling is what a decision about the count of a service is made of.
type Scaling struct {
	Rule   tender.Scale
	Wanted int // instances, now
	Ready  int // of them
	Loads  []Load
	// Past is what was called for before, the oldest first; what is older than the window does not matter.
	Past []Asked
	// Began is since when there are figures without a gap that is longer than the window.
	Began time.Time
	// Changed is when the count was last changed, by whomever; zero: it never was. Added is when it last grew.
	Changed, Added time.Time
	// Busy says why nothing may change now: a rollout, a stale picture; empty: it may.
	Busy string
	Room Room
}

// Count is such a decision.
type Count struct {
	N int // wanted from now on
	// Asked is what the figures call for by themselves: as many as there are, where nothing is known. It belongs
	// into Past.
	Asked int
	// Cause says it in words.
	Cause string
}

// Decide says how many instances a service is to have. What is measured is
// followed as by Kubernetes' horizontal autoscaler: each figure calls for the
// count that would bring it to its target, the highest wins, what is within 10 %
// of the target is left alone, a missing figure takes nothing away, and adds only
// what is needed even if the missing ones are idle.
func Decide(s Scaling, now time.Time) Count {
	asked, cause := s.ask(now)
	out := Count{N: s.Wanted, Asked: asked, Cause: cause}
	stay := func(format string, args ...any) Count {
		out.N = s.Wanted
		out.Cause += "; " + fmt.Sprintf(format, args...)
		return out
	}
	bound := s.Rule.Clamp(asked)
	if bound != asked {
		which := "max"
		if bound > asked {
			which = "min"
		}
		out.Cause += fmt.Sprintf(", %s is %d", which, bound)
	}
	switch outside := s.Rule.Clamp(s.Wanted) != s.Wanted; {
	case s.Busy != "":
		return stay("%s", s.Busy)
	case outside && s.Wanted > s.Rule.Max:
		out.N, out.Cause = s.Rule.Max, fmt.Sprintf("%d are more than max, which is %d", s.Wanted, s.Rule.Max)
		return out
	case outside:
		out.N, out.Cause = s.Rule.Min, fmt.Sprintf("%d are fewer than min, which is %d", s.Wanted, s.Rule.Min)
		return s.fit(out)
	case bound == s.Wanted:
		return out
	case !s.Changed.IsZero() && now.Before(s.Changed.Add(s.Rule.Cooldown)):
		return stay("cooldown until %s", clock(s.Changed.Add(s.Rule.Cooldown)))
	case bound > s.Wanted:
		out.N = bound
		if most := max(2*s.Wanted, s.Wanted+4); bound > most {
			out.N = most
			out.Cause += fmt.Sprintf(", at most %d in one step", most)
		}
		return s.fit(out)
	}
	return s.fewer(out, bound, now)
}

// fewer decides whether instances may go: only down to what was called for at
// most in the whole of the window.
func (s *Scaling) fewer(out Count, bound int, now time.Time) Count {
	open := now.Add(-s.Rule.Window)
	switch {
	case s.Added.After(open):
		out.Cause += fmt.Sprintf("; fewer at %s at the earliest, %s after some were added", clock(s.Added.Add(s.Rule.Window)), took(s.Rule.Window))
		return out
	case s.Began.IsZero() || s.Began.After(open):
		begun := s.Began
		if begun.IsZero() {
			begun = now
		}
		out.Cause += fmt.Sprintf("; fewer at %s at the earliest, it is watched for %s first", clock(begun.Add(s.Rule.Window)), took(s.Rule.Window))
		return out
	}
	most := bound
	for _, a := range s.Past {
		if a.At.After(open) {
			most = max(most, s.Rule.Clamp(a.N))
		}
	}
	if most >= s.Wanted {
		out.Cause += fmt.Sprintf("; %d were called for in the last %s", most, took(s.Rule.Window))
		return out
	}
	out.N = most
	if most > bound {
		out.Cause += fmt.Sprintf(", %d at most in the last %s", most, took(s.Rule.Window))
	}
	return out
}

// missing says why these slots are empty: somebody has gone, which is mended, or
// nobody was there before the count was changed, a moment ago.
func (m *maker) missing(v *view, slots []int) (cause string, repair bool) {
	c := v.Counted
	if c.Cause == "" || slices.Min(slots) <= c.From || !m.now.Before(c.At.Add(Steady)) {
		return "missing", true
	}
	return fmt.Sprintf("%d wanted%s", v.Replicas, tail(c.Cause)), false
}

// fit holds newcomers back that the node has no memory for.
func (s *Scaling) fit(out Count) Count {
	if !s.Room.Known || s.Room.Each <= 0 {
		return out
	}
	// Those that are not ready have not taken theirs yet.
	free := s.Room.Available - int64(max(s.Wanted-s.Ready, 0))*s.Room.Each
	fits := int(max(free, 0) / s.Room.Each)
	if news := out.N - s.Wanted; news > fits {
		out.N = s.Wanted + fits
		out.Cause += fmt.Sprintf("; the node has memory for %d more: %s are free, each takes %s", fits, bytes(max(free, 0)), bytes(s.Room.Each))
	}
	return out
}

// ask says how many instances the figures call for, in words, too.
func (s *Scaling) ask(now time.Time) (n int, cause string) {
	type call struct {
		n     int
		off   float64 // how far the figure is from its target, as a factor
		cause string
	}
	var calls []call
	var without []string
	for _, l := range s.Loads {
		switch {
		case l.Missing != "":
			without = append(without, fmt.Sprintf("%s is not known: %s", l.Word, l.Missing))
			continue
		case l.At.IsZero() || math.IsNaN(l.Value) || math.IsInf(l.Value, 0):
			without = append(without, l.Word+" is not known")
			continue
		case now.Sub(l.At) > LoadFor:
			without = append(without, fmt.Sprintf("%s was measured %s ago", l.Word, took(now.Sub(l.At).Round(time.Second))))
			continue
		}
		n, off := s.call(l)
		calls = append(calls, call{n, off, l.words(s.Wanted)})
	}
	missing := strings.Join(without, ", ")
	if len(calls) == 0 {
		return s.Wanted, cmp.Or(missing, "nothing is measured")
	}
	best := slices.MaxFunc(calls, func(a, b call) int { return cmp.Or(cmp.Compare(a.n, b.n), cmp.Compare(a.off, b.off)) })
	n, cause = best.n, fmt.Sprintf("%s: %d", best.cause, best.n)
	if missing != "" && n < s.Wanted {
		n, cause = s.Wanted, cause+"; none goes: "+missing
	}
	return n, cause
}

// call is how many instances bring one figure to its target.
func (s *Scaling) call(l Load) (n int, off float64) {
	have := float64(s.Wanted)
	if have < 1 {
		return s.Rule.Min, 1
	}
	if l.Word == "requests" {
		off = l.Value / (l.Target * have)
	} else {
		off = l.Value / l.Target
	}
	if l.Of > 0 && l.Of < s.Wanted {
		// Of those that nothing is known of, each does nothing when more are called for, and its share when fewer are.
		sum, lack := off*float64(l.Of), have-float64(l.Of)
		filled := sum / have
		if off < 1 {
			filled = (sum + lack) / have
		}
		if off > 1 != (filled > 1) {
			filled = 1
		}
		off = filled
	}
	if math.Abs(off-1) <= tolerance {
		return s.Wanted, off
	}
	// The slack is for what floating point makes of a whole number.
	return int(min(max(math.Ceil(off*have-1e-9), 1), 1e6)), off
}

func (l Load) words(wanted int) string {
	of := fmt.Sprintf("%d instances", wanted)
	if l.Of > 0 && l.Of < wanted {
		of = fmt.Sprintf("%d of %d instances", l.Of, wanted)
	} else if wanted == 1 {
		of = "1 instance"
	}
	switch l.Word {
	case "cpu", "memory":
		return fmt.Sprintf("%s %.0f %% of %s, target %g %%", l.Word, l.Value*100, of, math.Round(l.Target*1000)/10)
	case "requests":
		return fmt.Sprintf("%s requests/s for %s, target %s each", short(l.Value), of, short(l.Target))
	}
	return fmt.Sprintf("query %s with %s, target %s", short(l.Value), of, short(l.Target))
}

// short prints three digits that matter.
func short(v float64) string {
	if math.Abs(v) >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05") }

func bytes(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
