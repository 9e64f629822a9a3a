package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine/enginetest"
	"github.com/tenderhq/tender/internal/plan"
)

var _ deploy.Edge = (*edge)(nil)

const (
	// beat is how often the edge in memory looks at the lanes, and how late it is.
	beat = 200 * time.Millisecond
	// underway is how long what has begun on an instance takes.
	underway = 700 * time.Millisecond
	// load is how many requests come to service web in a beat.
	load = 20
)

// edge is an edge in memory. It survives the loop, takes over lanes a beat
// late, sends requests by their shares to what it believes to serve, and writes
// down those that reached nobody.
type edge struct {
	fake *enginetest.Fake

	mu      sync.Mutex
	loop    *deploy.Loop
	away    string
	deaf    bool // takes nothing over
	table   map[string]target
	counts  map[string]tender.Served
	since   time.Time
	changed chan struct{}
	faults  map[string]float64 // by version: the part of its requests that fails
	slow    map[string]int     // by version: index of the bucket of its latencies
	refuse  map[string]bool    // versions that the edge cannot reach
	answers map[string]error   // by version: of checks
	asked   []string
	lost    []string
	busy    bool // there was somebody to serve once
	idle    bool // nobody asks for anything
}

type target struct {
	lane  plan.Lane
	state plan.LaneState
	since time.Time
}

func newEdge(fake *enginetest.Fake) *edge {
	return &edge{
		fake: fake, table: map[string]target{}, counts: map[string]tender.Served{}, changed: make(chan struct{}), since: time.Now(),
		faults: map[string]float64{}, slow: map[string]int{}, refuse: map[string]bool{}, answers: map[string]error{},
	}
}

// run serves until ctx ends.
func (e *edge) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(beat):
			e.beat(ctx)
		}
	}
}

func (e *edge) beat(ctx context.Context) {
	seen, err := e.fake.List(context.WithoutCancel(ctx))
	if err != nil {
		return
	}
	there := map[string]tender.Instance{}
	for _, i := range seen.Instances {
		there[i.ID] = i
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.away != "" {
		return
	}
	if !e.idle {
		e.serve(there)
	}
	if e.deaf || e.loop == nil {
		return
	}
	lanes, known, _ := e.loop.Lanes("shop")
	if !known {
		return
	}
	next := map[string]target{}
	for _, l := range lanes {
		t := target{lane: l, state: l.State, since: time.Now()}
		if l.State == plan.In && e.refuse[version(there[l.ID])] {
			t.state = plan.Out
		}
		if before, ok := e.table[l.ID]; ok && before.state == t.state {
			t.since = before.since
		}
		if there[l.ID].Service == "web" {
			next[l.ID] = t
		}
	}
	if !maps.Equal(e.table, next) {
		e.table = next
		e.tell()
	}
}

func (e *edge) tell() {
	close(e.changed)
	e.changed = make(chan struct{})
}

func version(i tender.Instance) string {
	_, v, _ := strings.Cut(i.Image, ":")
	return v
}

// serve sends a beat's requests: by share among the revisions that have
// somebody in, as weights do.
func (e *edge) serve(there map[string]tender.Instance) {
	share := map[string]int{}
	in := map[string][]string{}
	total := 0
	for _, id := range slices.Sorted(maps.Keys(e.table)) {
		t := e.table[id]
		if t.state != plan.In || t.lane.Share == 0 {
			continue
		}
		if in[t.lane.Revision] == nil {
			share[t.lane.Revision] = t.lane.Share
			total += t.lane.Share
		}
		in[t.lane.Revision] = append(in[t.lane.Revision], id)
	}
	if total == 0 {
		// They wait in the edge's queue.
		if e.busy {
			e.lost = append(e.lost, fmt.Sprintf("nobody serves: %v", e.table))
		}
		return
	}
	for rev, ids := range in {
		n := load * share[rev] / total
		if n == 0 && share[rev] > 0 {
			n = 1
		}
		c := e.counts[rev]
		for k := range n {
			i, ok := there[ids[k%len(ids)]]
			if !ok || !i.Ready() {
				e.lost = append(e.lost, fmt.Sprintf("%s is in, and does not serve: %q %s", ids[k%len(ids)], i.State, i.Health))
			}
			e.busy = true
			c.Requests++
			if f := e.faults[version(i)]; f > 0 && float64(c.Class[5]) < f*float64(c.Requests) {
				c.Class[5]++
			} else {
				c.Class[2]++
			}
			c.Latency[e.slow[version(i)]]++
		}
		e.counts[rev] = c
	}
	// What is under way on one that has gone is lost.
	for id, t := range e.table {
		if i, ok := there[id]; (!ok || i.State != tender.Running) && e.open(t) > 0 && t.state != plan.Out {
			e.lost = append(e.lost, fmt.Sprintf("%s went with requests under way", id))
		}
	}
}

// open is how many requests are under way on a target.
func (e *edge) open(t target) int {
	if t.state == plan.Out || t.state == plan.In && t.lane.Share == 0 || t.state == plan.Leaving && time.Since(t.since) >= underway {
		return 0
	}
	return 3
}

func (e *edge) Traffic(project string) map[string]*plan.Traffic {
	if project != "shop" {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	t := &plan.Traffic{Away: e.away, Instances: map[string]plan.Flow{}, Revisions: maps.Clone(e.counts), Counting: e.since}
	for id, x := range e.table {
		t.Instances[id] = plan.Flow{State: x.state, Since: x.since, Open: e.open(x), Reason: "connection refused"}
	}
	return map[string]*plan.Traffic{"web": t}
}

func (e *edge) Changed() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

func (e *edge) Ask(ctx context.Context, project, service, revision string, c tender.Check) error {
	seen, err := e.fake.List(ctx)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, service+c.Path)
	if e.away != "" {
		return tender.Errorf(tender.Unavailable, "the edge does not answer")
	}
	for _, i := range seen.Instances {
		if i.Service == service && i.Revision == revision && e.table[i.ID].state == plan.In {
			return e.answers[version(i)]
		}
	}
	return errors.New("404 Not Found")
}

// set changes what the edge does.
func (e *edge) set(change func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change()
	e.tell()
}

// tick makes the counts known every second.
func (e *edge) tick(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
			e.set(func() {})
		}
	}
}

// split prints the shares that the edge serves with: "r1 750 r2 250" by version.
func (r *rig) split() string {
	shares := map[string]int{}
	for _, i := range r.instances("web") {
		r.edge.mu.Lock()
		if t, ok := r.edge.table[i.ID]; ok && t.state == plan.In {
			shares[version(i)] = t.lane.Share
		}
		r.edge.mu.Unlock()
	}
	var parts []string
	for _, v := range slices.Sorted(maps.Keys(shares)) {
		parts = append(parts, fmt.Sprintf("%s:%d", v, shares[v]))
	}
	return strings.Join(parts, " ")
}

// nothingLost fails the test if a request reached nobody.
func (r *rig) nothingLost() {
	r.Helper()
	r.edge.mu.Lock()
	defer r.edge.mu.Unlock()
	if n := len(r.edge.lost); n > 0 {
		r.Errorf("%d requests were lost: %s", n, strings.Join(r.edge.lost[:min(n, 5)], "\n"))
	}
}
