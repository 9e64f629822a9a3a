package plan

import (
	"fmt"
	"slices"
	"time"

	tender "github.com/tenderhq/tender"
)

// beforeOnly reports whether v runs only before the rollouts of others.
func (m *maker) beforeOnly(v *view) bool {
	before := false
	for _, other := range m.views {
		if other.Service.Rollout.Before == v.Name {
			before = true
		}
		for _, d := range other.DependsOn {
			if d.Service == v.Name && d.Condition == tender.Completed {
				return false
			}
		}
	}
	return before
}

// before says what the open rollout of v still waits for from its job; act
// plans the job's next step.
func (m *maker) before(v *view, act bool) (why string, hopeless bool) {
	job := m.views[v.Service.Rollout.Before]
	if job == nil || job.Replicas == 0 || v.Open == nil || v.Open.Reverse {
		return "", false
	}
	if end, ok := job.ended(v.Open.ID); ok {
		if end.Code != 0 {
			return fmt.Sprintf("%s, which runs before, failed with exit %d", job.Name, end.Code), true
		}
		return "", false
	}
	if t := job.tries(1); t.Count >= Hopeless {
		return fmt.Sprintf("%s, which runs before, does not start: %s", job.Name, t.Reason), true
	}
	if act {
		m.runJob(job, v.Open.ID, v.Open.Stale, "before the rollout of "+v.Name)
	}
	return job.Name + " runs before and has not completed yet", false
}

// beforeJob plans nothing by itself: the rollouts of others do. It only clears
// what an earlier revision left.
func (m *maker) beforeJob(v *view) {
	for _, i := range v.extra {
		if i.State != tender.Removing && !active(i) {
			m.remove(i, v.grace(), v.RenewAnon, "doubled")
		}
	}
	if v.Open != nil {
		m.add(Action{Verb: Finish, Service: v.Name, Revision: v.Revision, Rollout: v.Open.ID, Cause: "runs before the rollouts that name it"})
	}
}

// job plans a job that runs once per own revision; repair never repeats it.
func (m *maker) job(v *view) {
	if v.Replicas == 0 {
		for _, i := range v.instances() {
			if i.State != tender.Removing {
				m.remove(i, v.grace(), v.RenewAnon, "none wanted")
			}
		}
		if len(v.instances()) == 0 && v.Open != nil {
			m.add(Action{Verb: Finish, Service: v.Name, Revision: v.Revision, Rollout: v.Open.ID, Cause: "none wanted"})
		}
		return
	}
	if end, ok := v.ended(0); ok {
		switch {
		case v.Open != nil && end.Code == 0:
			m.add(Action{Verb: Finish, Service: v.Name, Revision: v.Revision, Rollout: v.Open.ID, Cause: "has completed"})
		case v.Open != nil:
			m.add(Action{
				Verb: Fail, Service: v.Name, Revision: v.Revision, Rollout: v.Open.ID, Code: end.Code,
				Cause: fmt.Sprintf("exited with %d", end.Code),
			})
		case end.Code != 0:
			m.stuck(v, "failed with exit %d, and a job is not repeated", end.Code)
		default:
			for _, i := range append(v.old, v.extra...) {
				if i.State != tender.Removing {
					m.remove(i, v.grace(), v.RenewAnon, "job of another revision")
				}
			}
		}
		return
	}
	var stale []string
	if v.Open != nil {
		stale = v.Open.Stale
	}
	m.runJob(v, 0, stale, "a job, once per revision")
}

// runJob plans the next step of one run of a job: make it, wait for it, record
// it. Stale instances belong to an earlier run.
func (m *maker) runJob(v *view, rollout int64, stale []string, cause string) {
	if m.jobs[v.Name] {
		return
	}
	m.jobs[v.Name] = true
	var open int64
	if v.Open != nil && rollout == 0 {
		open = v.Open.ID
	}
	i := v.fresh[1]
	if i != nil && slices.Contains(stale, i.ID) {
		if active(i) {
			m.wait(v, time.Time{}, "%s runs still", i.Name)
			return
		}
		i = nil
	}
	switch {
	case i == nil, i.State == tender.Dead:
		m.makeJob(v, stale, cause)
	case i.State == tender.Exited:
		a := Action{Verb: Finish, Service: v.Name, Revision: v.Revision, Rollout: open, Job: true, For: rollout, Cause: "completed"}
		if i.ExitCode != 0 || i.Error != "" {
			a.Verb, a.Code, a.Cause = Fail, max(i.ExitCode, 1), i.Name+" "+exit(i)
		}
		m.add(a)
	default:
		m.wait(v, time.Time{}, "%s runs", i.Name)
	}
}

func (m *maker) makeJob(v *view, stale []string, cause string) {
	t := v.tries(1)
	if v.Open != nil && t.Count >= Hopeless {
		m.add(Action{Verb: Fail, Service: v.Name, Revision: v.Revision, Rollout: v.Open.ID, Cause: t.Reason})
		return
	}
	if why, hopeless := m.unmet(v); hopeless && v.Open != nil {
		m.add(Action{Verb: Fail, Service: v.Name, Revision: v.Revision, Rollout: v.Open.ID, Cause: why})
		return
	}
	if m.held(v) {
		return
	}
	if t.GaveUp() {
		m.stuck(v, "given up after %d attempts: %s", t.Count, t.Reason)
		return
	}
	if m.now.Before(t.Next()) {
		m.pause(v, t, t.Reason)
		return
	}
	a := Action{Verb: Scale, Service: v.Name, Revision: v.Revision, Slots: []int{1}, Grace: v.grace(), StopIn: v.askedGrace(), Cause: cause}
	for _, old := range v.instances() {
		if old == v.leftover[1] && !slices.Contains(stale, old.ID) {
			continue // Scale starts it
		}
		a.Drop, a.dropped = append(a.Drop, old.ID), append(a.dropped, old.Name)
	}
	if !v.RenewAnon {
		v.inherit(&a, func(*tender.Instance) bool { return true })
	}
	m.add(a)
}
