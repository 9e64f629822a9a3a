// Package plan decides what to do next. Given what is wanted of a project and
// what is there, Make returns the next actions as data, each with its cause,
// and Simulate the whole way. Deploy knocks: it gathers Wanted, carries the
// actions out and asks again. Nothing here reads a clock, talks to an engine
// or keeps state, so every decision can be written down as a table.
package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
)

// Verb is what an action does.
type Verb string

const (
	// Ensure makes the project's networks and volumes exist.
	Ensure Verb = "ensure"
	// Scale removes the instances in Drop, then makes one started instance in each of Slots.
	Scale Verb = "scale"
	// Name gives an instance the plain name of its slot.
	Name Verb = "name"
	// Promote lets an instance be found by the names of its service, Demote by SERVICE-N alone.
	Promote Verb = "promote"
	Demote  Verb = "demote"
	Start   Verb = "start"
	Stop    Verb = "stop"
	Restart Verb = "restart"
	Remove  Verb = "remove"
	// RemoveNetwork and RemoveVolume are the end of a down.
	RemoveNetwork Verb = "remove-network"
	RemoveVolume  Verb = "remove-volume"
	// Drain waits for what is under way on an instance that is out of its traffic. Lanes says that it is;
	// nothing else is to be done.
	Drain Verb = "drain"
	// Check asks the new revision, through the edge, what must be answered before it gets traffic.
	Check Verb = "check"
	// Shift gives the new revision its next share of the traffic.
	Shift Verb = "shift"
	// Wait does nothing: it says what is waited for and until when.
	Wait Verb = "wait"
	// Finish, Fail and Rollback write how a rollout, a job or a down ended.
	Finish   Verb = "finish"
	Fail     Verb = "fail"
	Rollback Verb = "rollback"
)

// Action is one step, with the reason it is needed. Actions of different
// services in one plan are independent of each other and may run at once; so
// are those of one service.
type Action struct {
	Verb     Verb
	Service  string // empty: the project itself
	Revision string
	ID       string // of the instance, network; the name of a volume
	Instance string // name of the instance or network
	Slot     int    // of that instance; 0: unknown
	Slots    []int
	Drop     []string // ids
	dropped  []string // their names
	// Inherit names, per slot, the instance whose anonymous volumes the newcomer takes.
	Inherit map[int]string
	// Unnamed: the newcomers are found by SERVICE-N alone until they are promoted.
	Unnamed bool
	Grace   time.Duration
	// StopIn is the grace that somebody asked for of what is in Drop; nil: that which each was made with.
	StopIn  *time.Duration
	Volumes bool // Remove: anonymous volumes go too

	Rollout int64 // Check, Shift, Finish, Fail, Rollback, and a Wait that is a step of it: which; 0: none is open
	// Share is what Shift gives, in per mille; Step counts the shifts before.
	Share, Step int
	Checks      []tender.Check
	// Kept is what Finish leaves warm. Drained are the instances that left the traffic before this action.
	Kept    Kept
	Drained []Drained
	// Job is set where Finish or Fail records a job's end; For is the rollout that it ran for, if it ran
	// before one.
	Job  bool
	For  int64
	Code int
	// Pause: Fail leaves old and new instances as they are (failure_action: pause).
	Pause bool

	// Repair: it counts as an attempt to mend its slots.
	Repair bool
	// Until is when a Wait or Drain ends at the latest; zero: when the picture changes.
	Until time.Time
	// Tried is how many attempts in a row a Wait follows on.
	Tried int
	// Stuck: a Wait that only a person ends.
	Stuck bool
	Cause string
}

// Plan is a list of actions. An empty plan means that what is there is what
// is wanted.
type Plan []Action

// Leaving are those of there that the plan takes away, with all that they hold
// in themselves.
func (p Plan) Leaving(there []tender.Instance) []tender.Instance {
	gone := map[string]bool{}
	for _, a := range p {
		for _, id := range a.Drop {
			gone[id] = true
		}
		if a.Verb == Remove {
			gone[a.ID] = true
		}
	}
	var out []tender.Instance
	for _, i := range there {
		if gone[i.ID] {
			out = append(out, i)
		}
	}
	return out
}

// Target says in a few words what the action is about.
func (a Action) Target() string {
	switch a.Verb {
	case RemoveVolume:
		return a.ID
	case Name, Promote, Demote, Start, Stop, Restart, Drain, Remove, RemoveNetwork:
		return a.Instance
	}
	if a.Revision != "" {
		return a.Service + "@" + a.Revision
	}
	return a.Service
}

// Detail is the rest of what the action does.
func (a Action) Detail() string {
	var d []string
	if len(a.Slots) > 0 {
		d = append(d, slots(a.Slots))
	}
	if a.Verb == Shift {
		d = append(d, percent(a.Share)+" of the traffic")
	}
	for _, c := range a.Checks {
		d = append(d, c.Path)
	}
	if len(a.dropped) > 0 {
		d = append(d, "drop "+strings.Join(a.dropped, " "))
	}
	if a.Unnamed {
		d = append(d, "not named yet")
	}
	if len(a.Inherit) > 0 {
		d = append(d, "inherit volumes")
	}
	if a.Volumes {
		d = append(d, "with anonymous volumes")
	}
	if !a.Until.IsZero() {
		d = append(d, "until "+a.Until.UTC().Format("15:04:05"))
	}
	return strings.Join(d, ", ")
}

// String is one line.
func (a Action) String() string { return Plan{a}.lines()[0] }

// Waits reports whether the action is to do nothing until something has changed.
func (a Action) Waits() bool { return a.Verb == Wait || a.Verb == Drain }

// Waiting reports whether there is nothing to do but wait.
func (p Plan) Waiting() bool {
	return !slices.ContainsFunc(p, func(a Action) bool { return !a.Waits() })
}

// String prints one aligned line per action.
func (p Plan) String() string {
	if len(p) == 0 {
		return ""
	}
	return strings.Join(p.lines(), "\n") + "\n"
}

func (p Plan) lines() []string {
	var verb, target, detail int
	for _, a := range p {
		verb, target, detail = max(verb, len(a.Verb)), max(target, len(a.Target())), max(detail, len(a.Detail()))
	}
	lines := make([]string, len(p))
	for i, a := range p {
		line := fmt.Sprintf("%-*s  %-*s", verb, a.Verb, target, a.Target())
		if detail > 0 {
			line += fmt.Sprintf("  %-*s", detail, a.Detail())
		}
		lines[i] = line + "  # " + a.Cause
	}
	return lines
}

// slots prints 1, 2 and 3 as "slots 1-3".
func slots(in []int) string {
	var parts []string
	for i := 0; i < len(in); {
		j := i
		for j+1 < len(in) && in[j+1] == in[j]+1 {
			j++
		}
		if j > i {
			parts = append(parts, fmt.Sprintf("%d-%d", in[i], in[j]))
		} else {
			parts = append(parts, fmt.Sprint(in[i]))
		}
		i = j + 1
	}
	if len(in) == 1 {
		return "slot " + parts[0]
	}
	return "slots " + strings.Join(parts, ",")
}
