package dns

import (
	"iter"
	"maps"
	"net/http"
	"slices"
	"time"
)

// holder returns the registration that has a check.
func holder(all map[string]*registration, check string) *registration {
	for _, r := range all {
		if slices.ContainsFunc(r.Checks, func(c ttlCheck) bool { return c.ID == check }) {
			return r
		}
	}
	return nil
}

// registeredHere yields copies of what is registered, with checks as they are now. They do not
// have to wait for the next picture: a report that changes no status makes none.
func (s *Server) registeredHere() iter.Seq[*listing] {
	s.mu.Lock()
	all := maps.Clone(s.registered)
	s.mu.Unlock()
	return func(yield func(*listing) bool) {
		index := s.state.Load().picture.Index
		for _, id := range slices.Sorted(maps.Keys(all)) {
			v := all[id].service(s.o.Node)
			l := &listing{service: v, endpoint: v.Endpoints[0], node: Node{s.o.Node, s.o.Address}, created: index, changed: index}
			if !yield(l) {
				return
			}
		}
	}
}

// change lets f change what is registered. It is on disk before anybody sees it; if that
// fails or f refuses, nothing has changed.
func (s *Server) change(f func(map[string]*registration) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := maps.Clone(s.registered)
	if err := f(all); err != nil {
		return err
	}
	return s.commit(all)
}

// commit makes all what is registered. s.mu is held.
func (s *Server) commit(all map[string]*registration) error {
	if err := s.save(all); err != nil {
		return err
	}
	s.registered = all
	s.publish()
	s.nudge()
	return nil
}

// nudge makes Run look at the deadlines again.
func (s *Server) nudge() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *Server) report(status string) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		return nil, s.update(r.PathValue("id"), status, r.URL.Query().Get("note"))
	}
}

func (s *Server) putUpdate(r *http.Request) (any, error) {
	var body struct{ Status, Output string }
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if !known(body.Status) {
		return nil, refuse(http.StatusBadRequest, "Invalid check status: %.80q", body.Status)
	}
	return nil, s.update(r.PathValue("id"), body.Status, body.Output)
}

// update notes what a service says of itself. Only a change of status changes the picture and
// the file: services report every few seconds.
func (s *Server) update(check, status, output string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := holder(s.registered, check)
	if old == nil {
		return refuse(http.StatusNotFound, "Unknown check ID %q. Ensure that the check ID is passed, not the check name.", check)
	}
	r := old.clone()
	i := slices.IndexFunc(r.Checks, func(c ttlCheck) bool { return c.ID == check })
	c := &r.Checks[i]
	changed := c.Status != status
	c.Status, c.Output = status, output[:min(len(output), outputMax)]
	c.renew(time.Now())
	if !changed {
		s.registered[r.ID] = r
		return nil
	}
	all := maps.Clone(s.registered)
	all[r.ID] = r
	return s.commit(all)
}

func (s *Server) putCheck(r *http.Request) (any, error) {
	var a askedCheck
	if err := read(r, &a); err != nil {
		return nil, err
	}
	if a.ServiceID == "" {
		a.ServiceID = a.ServiceIDToo
	}
	if a.ServiceID == "" {
		return nil, refuse(http.StatusBadRequest, "Missing ServiceID: Tender has no checks of nodes, only of services")
	}
	if a.Name == "" {
		return nil, refuse(http.StatusBadRequest, "Missing check name")
	}
	c, err := a.check(a.Name, a.Name, time.Now())
	if err != nil {
		return nil, err
	}
	return nil, s.change(func(all map[string]*registration) error {
		old := all[a.ServiceID]
		if old == nil {
			return refuse(http.StatusNotFound, "ServiceID %q does not exist", a.ServiceID)
		}
		if owner := holder(all, c.ID); owner != nil && owner.ID != old.ID {
			return refuse(http.StatusBadRequest, "Check ID %.80q belongs to service %.80q", c.ID, owner.ID)
		}
		reg := old.clone()
		i := slices.IndexFunc(reg.Checks, func(o ttlCheck) bool { return o.ID == c.ID })
		switch {
		case i >= 0:
			c.Status, c.Output, c.critical = reg.Checks[i].Status, reg.Checks[i].Output, reg.Checks[i].critical
			reg.Checks[i] = c
		case len(reg.Checks) >= checksMax:
			return refuse(http.StatusBadRequest, "Too many checks: at most %d", checksMax)
		default:
			reg.Checks = append(reg.Checks, c)
		}
		all[reg.ID] = reg
		return nil
	})
}

func (s *Server) deleteCheck(r *http.Request) (any, error) {
	id := r.PathValue("id")
	return nil, s.change(func(all map[string]*registration) error {
		old := holder(all, id)
		if old == nil {
			return refuse(http.StatusNotFound, "Unknown check ID %q. Ensure that the check ID is passed, not the check name.", id)
		}
		reg := old.clone()
		reg.Checks = slices.DeleteFunc(reg.Checks, func(c ttlCheck) bool { return c.ID == id })
		all[reg.ID] = reg
		return nil
	})
}

// expire makes checks critical whose time is over, removes services that were critical
// for as long as they asked for, and returns how long nothing more will happen.
func (s *Server) expire(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := now.Add(time.Hour)
	all := maps.Clone(s.registered)
	changed := false
	for id, r := range all {
		gone, late := false, false
		for i := range r.Checks {
			c := &r.Checks[i]
			if c.Status != critical && !now.Before(c.deadline) {
				if !late {
					r, late = r.clone(), true
					c = &r.Checks[i]
				}
				c.Status, c.Output, c.critical = critical, "TTL expired", now
			}
			at := c.deadline
			if c.Status == critical {
				if c.Remove == 0 {
					continue
				}
				at = c.critical.Add(c.Remove)
				gone = gone || !now.Before(at)
			}
			if at.Before(next) {
				next = at
			}
		}
		switch {
		case gone:
			delete(all, id)
			s.log.Info("service removed, critical for too long", "service", r.Name, "id", id)
		case late:
			all[id] = r
			s.log.Info("service critical, not heard of for its TTL", "service", r.Name, "id", id)
		}
		changed = changed || gone || late
	}
	if changed {
		if err := s.save(all); err != nil {
			// What is answered is right all the same; the file follows with the next change.
			s.log.Error("keep registered services", "err", err)
		}
		s.registered = all
		s.publish()
	}
	// Many deadlines close to each other are one round.
	return max(next.Sub(now), 50*time.Millisecond)
}
