package daemon

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/dns"
	"github.com/tenderhq/tender/internal/edge"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/proxy"
	"github.com/tenderhq/tender/internal/store"
)

const (
	pollIdle  = 5 * time.Second
	pollBusy  = 250 * time.Millisecond // while something rolls
	pollAway  = 10 * time.Second       // between tries to start an edge that does not
	edgeSpawn = 30 * time.Second       // how long an edge may take to start
	edgeCall  = 10 * time.Second
	// firstLanes is how long a keeper that begins waits for what the loop says of each project.
	firstLanes = 30 * time.Second
	// watchAgain is between two tries to reach an edge that is not there.
	watchAgain = 500 * time.Millisecond
)

// lanes is what the keeper asks the loop.
type laneSource interface {
	Lanes(project string) ([]plan.Lane, bool, <-chan struct{})
}

// dataPlane is the edge as the keeper knows it.
type dataPlane interface {
	Set(ctx context.Context, t edge.Table) error
	Report(ctx context.Context) (proxy.Report, error)
	Status(ctx context.Context) (edge.Status, error)
}

// keeper keeps the edge: it makes its table of what is wanted and what is
// there, sees that an edge of this version runs where there is something to
// serve, and tells deploy what the edge reports.
type keeper struct {
	log       *slog.Logger
	store     *store.Store
	inventory *engine.Inventory
	loop      laneSource
	client    dataPlane
	ensure    func(ctx context.Context) error // makes an edge of this version run
	names     *dns.Server                     // answers Consul's API and Prometheus here
	node      string
	socket    string
	own       []proxy.Route // of the daemon itself
	// looked closes once the store knows what it should: a table of less would take routes away. nil: it does.
	looked <-chan struct{}

	tell func(problem string) // for tender status; "" all is well

	wake  chan struct{}
	began time.Time

	mu     sync.Mutex
	seen   view
	moved  chan struct{} // closes when seen says something else
	rounds uint64        // looks begun; done is the last one that ended
	done   uint64
	turned chan struct{} // closes with each look that has ended
	past   []reported    // reports of the last minute, the oldest first
}

// view is the edge as it was last seen.
type view struct {
	wanted bool // there is something to serve
	away   string
	awayAt time.Time
	behind string // why the edge that serves is not the one that should
	// tries counts, in a row, what was tried to have an edge serve; again is when the next may be made.
	tries   int
	again   time.Time
	status  edge.Status
	report  proxy.Report
	table   edge.Table // as it was last taken over
	traffic map[string]map[string]*plan.Traffic
	// problems are what cannot be served, by project.
	problems map[string][]string
	withheld map[string]map[string][]plan.Lane // by project and service
	counting time.Time
	left     map[counter]tender.Served // of targets that are reported no more
	counted  struct {                  // the last report that there was, and whose
		pid    int
		report proxy.Report
	}
	at    time.Time // of the report
	heads map[string]store.Generation
}

// nodeName is how this host is called in names and labels.
func nodeName() string {
	node, err := os.Hostname()
	if err != nil {
		return "tender"
	}
	return node
}

func newKeeper(log *slog.Logger) *keeper {
	return &keeper{log: log, node: nodeName(), began: time.Now(), wake: make(chan struct{}, 1), moved: make(chan struct{}), turned: make(chan struct{})}
}

// poke has the keeper look soon: something has changed in the store.
func (k *keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// settle waits until the edge serves what is wanted now, and says why it does not.
func (k *keeper) settle(ctx context.Context) error {
	k.mu.Lock()
	after := k.rounds + 1
	k.mu.Unlock()
	k.poke()
	for {
		k.mu.Lock()
		done, turned, seen := k.done, k.turned, k.seen
		k.mu.Unlock()
		if done >= after {
			if seen.wanted && seen.away != "" {
				return tender.Errorf(tender.Unavailable, "the edge: %s", seen.away)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-turned:
		}
	}
}

// run is the part.
func (k *keeper) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-k.inventory.Ready():
	}
	if k.looked != nil {
		select {
		case <-ctx.Done():
			return nil
		case <-k.looked:
		}
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { k.watch(ctx) })
	parts := keptParts{}
	var said string
	for {
		k.mu.Lock()
		k.rounds++
		round := k.rounds
		k.mu.Unlock()
		picture, changed := k.inventory.Picture()
		next, moved, err := k.look(ctx, picture, parts)
		k.mu.Lock()
		k.done = round
		close(k.turned)
		k.turned = make(chan struct{})
		k.mu.Unlock()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		k.mu.Lock()
		now := k.seen.said()
		k.mu.Unlock()
		if now != said {
			said = now
			k.tell(said)
			if said == "" {
				k.log.Info("the edge serves what is wanted")
			} else {
				k.log.Warn("the edge does not serve all that is wanted", "why", said)
			}
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-k.wake:
		case <-changed:
		case <-moved:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// reported is a report and when it was read.
type reported struct {
	at     time.Time
	report proxy.Report
}

const (
	sampleEvery = 5 * time.Second
	sampleFor   = 30 * time.Second
)

// remember keeps a report for rates. k.mu is held.
func (k *keeper) remember(r proxy.Report, now time.Time) {
	if n := len(k.past); n > 0 && now.Sub(k.past[n-1].at) < sampleEvery {
		return
	}
	k.past = append(k.past, reported{now, r})
	for len(k.past) > 1 && now.Sub(k.past[0].at) > sampleFor {
		k.past = k.past[1:]
	}
}

// lately is what is served now and what was half a minute ago.
func (k *keeper) lately() lately {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := lately{now: k.seen}
	if len(k.past) > 0 {
		out.before, out.time = k.past[0].report, k.seen.at.Sub(k.past[0].at)
	}
	return out
}

// watch pokes as soon as the edge is gone: its end closes what is connected to it.
func (k *keeper) watch(ctx context.Context) {
	var d net.Dialer
	for ctx.Err() == nil {
		conn, err := d.DialContext(ctx, "unix", k.socket)
		if err == nil {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			_, _ = conn.Read(make([]byte, 1)) // it says nothing; it hangs up on who is silent for long, too
			stop()
			conn.Close()
			if conn, err = d.DialContext(ctx, "unix", k.socket); err == nil {
				conn.Close()
				continue
			}
		}
		k.mu.Lock()
		wanted := k.seen.wanted
		k.mu.Unlock()
		if wanted && ctx.Err() == nil {
			k.poke()
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchAgain):
		}
	}
}

// lose notes that the edge is away. Since when does not depend on how it says so.
func (v *view) lose(before view, why error) {
	v.away, v.awayAt = why.Error(), before.awayAt
	if before.away == "" {
		v.awayAt = v.at
	}
}

// said is what status shows of it.
func (v view) said() string {
	var out []string
	if v.wanted && v.away != "" {
		out = append(out, v.away)
	}
	if v.behind != "" {
		out = append(out, v.behind)
	}
	out = append(out, v.report.Problems...)
	for _, p := range v.report.Ports {
		if p.Problem != "" {
			out = append(out, p.ID+": "+p.Problem)
		}
	}
	for _, project := range slices.Sorted(maps.Keys(v.problems)) {
		for _, p := range v.problems[project] {
			out = append(out, project+": "+p)
		}
	}
	for _, p := range uncertain(v.report, nil) {
		out = append(out, p.project+": "+p.text)
	}
	return strings.Join(out, "; ")
}

// look makes the table, hands it over if it says something new, and reads the
// report. next is when to look again at the latest.
func (k *keeper) look(ctx context.Context, picture tender.Picture, parts keptParts) (next time.Duration, moved <-chan struct{}, err error) {
	now := time.Now()
	all, busy, moved, err := k.gather(ctx)
	if err != nil {
		return 0, nil, err
	}
	t, until, problems := parts.table(partMaker{picture: picture, now: now, node: k.node, own: k.own}, all)
	wanted := len(t.Proxy.Routes)+len(t.Proxy.Ports)+len(t.Inside) > 0
	k.mu.Lock()
	before := k.seen
	k.mu.Unlock()
	k.names.Set(t.DNS)
	for _, s := range k.names.Picture().Services {
		if s.Foreign { // registered here; the edge answers for it, too
			t.DNS.Services = append(t.DNS.Services, s)
		}
	}
	seen := view{at: now, wanted: wanted, problems: problems, heads: map[string]store.Generation{}, counting: before.counting, left: before.left, counted: before.counted, table: before.table}
	for _, s := range all {
		seen.heads[s.head.Project] = s.head
	}
	seen.withheld = map[string]map[string][]plan.Lane{}
	for project, part := range parts {
		seen.withheld[project] = part.withheld
	}
	if err = k.serve(ctx, before, &seen, t, k.waits(all, now)); err != nil {
		seen.lose(before, err)
	}
	seen.left = pruned(seen.left, all, picture)
	seen.count()
	seen.traffic = seen.trafficOf()
	k.publish(before, seen)
	if err := k.walks(ctx, all, now); err != nil {
		return 0, nil, err
	}
	next = pollIdle
	if busy {
		next = pollBusy
	}
	if wanted && seen.away != "" || seen.behind != "" {
		next = max(seen.again.Sub(now), pollBusy)
	}
	if d := time.Until(until); !until.IsZero() && d < next {
		next = max(d, 0)
	}
	return next, moved, ctx.Err()
}

// waits reports whether an edge that serves is left as it is for a moment: the
// loop has not yet said of each project what its instances may get, and what it
// said to the serve before this one holds.
func (k *keeper) waits(all []served, now time.Time) bool {
	return now.Before(k.began.Add(firstLanes)) && slices.ContainsFunc(all, func(s served) bool { return !s.known && s.head.Down == nil })
}

// gather reads what is wanted. busy: something rolls, so that what the edge
// reports is waited for.
func (k *keeper) gather(ctx context.Context) (all []served, busy bool, moved <-chan struct{}, err error) {
	_, _, moved = k.loop.Lanes("")
	err = k.store.View(ctx, func(tx *store.Tx) error {
		names, err := tx.Projects()
		if err != nil {
			return err
		}
		states, err := tx.RouteStates("")
		if err != nil {
			return err
		}
		for _, name := range names {
			head, err := tx.Head(name)
			if tender.KindOf(err) == tender.NotFound {
				continue // gone meanwhile
			}
			if err != nil {
				return err
			}
			s := served{head: head, states: map[string]store.RouteState{}}
			for _, x := range states {
				if x.Project == name {
					s.states[x.Route] = x
					busy = busy || x.Walk != nil && x.Walk.State == store.WalkOn
				}
			}
			open, err := tx.OpenRollouts(name)
			if err != nil {
				return err
			}
			busy = busy || len(open) > 0
			for _, r := range open {
				s.rolling = append(s.rolling, r.Service+"@"+r.From, r.Service+"@"+r.To)
			}
			all = append(all, s)
		}
		return nil
	})
	for i := range all {
		s := &all[i]
		s.lanes, s.known, _ = k.loop.Lanes(s.head.Project)
		busy = busy || slices.ContainsFunc(s.lanes, func(l plan.Lane) bool { return l.State == plan.Leaving })
	}
	if err != nil && ctx.Err() != nil {
		err = nil
	}
	return all, busy, moved, err
}

// serve has an edge serve t, where there is anything to serve or one runs that
// served something before. One that serves goes on with its tables while the
// edge that is to follow cannot start.
func (k *keeper) serve(ctx context.Context, before view, seen *view, t edge.Table, wait bool) error {
	call, cancel := context.WithTimeout(ctx, edgeSpawn)
	defer cancel()
	status, err := k.client.Status(call)
	switch {
	case err != nil && !seen.wanted:
		return nil // nothing is served, and nobody is there to do it
	case seen.wanted && seen.at.Before(before.again):
		seen.tries, seen.again, seen.behind = before.tries, before.again, before.behind
		if err != nil {
			return errors.New(cmp.Or(before.away, before.behind))
		}
	case seen.wanted:
		wrong := k.ensure(call)
		if wrong != nil {
			// At once, since traffic waits; then more and more seldom.
			seen.tries = before.tries + 1
			seen.again = time.Now().Add(min(pollBusy<<min(before.tries, 6), pollAway))
		}
		if status, err = k.client.Status(call); err != nil {
			return cmp.Or(wrong, err)
		}
		if wrong != nil {
			seen.behind = fmt.Sprintf("version %s serves on: %s", status.Version, wrong)
		}
	}
	call, cancel = context.WithTimeout(ctx, edgeCall)
	defer cancel()
	seen.status = status
	late := !sameTable(seen.table, t) || status.Table != seen.table.Proxy.Version
	if late && !(wait && status.Table > 0) {
		t.Proxy.Version = max(uint64(time.Now().UnixMilli()), seen.table.Proxy.Version+1, status.Table+1)
		if err := k.client.Set(call, t); err != nil {
			return fmt.Errorf("it does not take its table over: %w", err)
		}
		seen.table = t
	}
	seen.report, err = k.client.Report(call)
	return err
}

// sameTable compares two tables but for their version.
func sameTable(a, b edge.Table) bool {
	a.Proxy.Version, b.Proxy.Version = 0, 0
	a.DNS.Index, b.DNS.Index = 0, 0
	x, err := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err == nil && err2 == nil && bytes.Equal(x, y)
}

func (k *keeper) publish(before, seen view) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen = seen
	if seen.away == "" && seen.wanted {
		k.remember(seen.report, seen.at)
	}
	if !sameTraffic(before.traffic, seen.traffic) {
		close(k.moved)
		k.moved = make(chan struct{})
	}
}

// keptParts are the last good parts of each project.
type keptParts map[string]tablePart

// table puts the parts of all projects together. What is wrong with one does not
// hold up the others: of that project, what was last good is served.
func (k keptParts) table(m partMaker, all []served) (t edge.Table, until time.Time, problems map[string][]string) {
	t = edge.Table{Format: edge.Format, Proxy: proxy.Table{Format: proxy.Format}}
	t.Proxy.Routes = slices.Clone(m.own)
	problems = map[string][]string{}
	known := map[string]bool{}
	for _, s := range all {
		project := s.head.Project
		known[project] = true
		part := m.part(s)
		with := t.Proxy
		with.Routes, with.Ports = slices.Concat(t.Proxy.Routes, part.routes), slices.Concat(t.Proxy.Ports, part.ports)
		if err := with.Validate(); err != nil {
			problems[project] = append(problems[project], err.Error())
			old := k[project]
			part.routes, part.ports = old.routes, old.ports
			with.Routes, with.Ports = slices.Concat(t.Proxy.Routes, part.routes), slices.Concat(t.Proxy.Ports, part.ports)
			if with.Validate() != nil {
				with, part.routes, part.ports = t.Proxy, nil, nil
			}
		}
		t.Proxy = with
		t.DNS.Services = append(t.DNS.Services, part.names...)
		t.Inside = addInside(t.Inside, part.inside...)
		problems[project] = append(problems[project], part.problems...)
		if len(problems[project]) == 0 {
			delete(problems, project)
		}
		until = sooner(until, part.until)
		k[project] = part
	}
	maps.DeleteFunc(k, func(name string, _ tablePart) bool { return !known[name] })
	t.DNS.Nodes = []dns.Node{{Name: m.node, Address: "127.0.0.1"}}
	return t, until, problems
}

// Traffic is deploy.Edge's.
func (k *keeper) Traffic(project string) map[string]*plan.Traffic {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seen.traffic[project]
}

// Changed is deploy.Edge's.
func (k *keeper) Changed() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.moved
}

var _ deploy.Edge = (*asker)(nil)
