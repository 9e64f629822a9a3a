package daemon

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/edge"
	"github.com/tenderhq/tender/internal/proxy"
	"github.com/tenderhq/tender/internal/store"
)

// plane is an edge of which the keeper sees only what it answers.
type plane struct {
	status edge.Status
	away   error
	set    []edge.Table
}

func (p *plane) Set(_ context.Context, t edge.Table) error {
	p.set = append(p.set, t)
	p.status.Table = t.Proxy.Version
	return nil
}

func (p *plane) Report(context.Context) (proxy.Report, error) {
	return proxy.Report{Version: p.status.Table}, p.away
}

func (p *plane) Status(context.Context) (edge.Status, error) { return p.status, p.away }

// While the next edge cannot start, the one that serves got no tables: it sent
// to instances that were long gone.
func TestAnEdgeThatServesGetsItsTablesWhileTheNextCannotStart(t *testing.T) {
	p := &plane{status: edge.Status{Version: "1", PID: 7}}
	tries := 0
	k := newKeeper(slog.New(slog.DiscardHandler))
	k.client = p
	k.ensure = func(context.Context) error {
		tries++
		return errors.New("listen on :80: another program has that port")
	}
	table := func(host string) edge.Table {
		return edge.Table{Proxy: proxy.Table{Routes: []proxy.Route{{ID: host, Hosts: []string{host}}}}}
	}
	var before view
	for n, host := range []string{"a.example.com", "b.example.com"} {
		seen := view{at: noon, wanted: true, table: before.table}
		if err := k.serve(t.Context(), before, &seen, table(host), false); err != nil {
			t.Fatal(err)
		}
		if len(p.set) != n+1 || p.set[n].Proxy.Routes[0].ID != host {
			t.Errorf("tables %+v", p.set)
		}
		if said := seen.said(); !strings.Contains(said, "version 1 serves on") || !strings.Contains(said, "another program") {
			t.Errorf("status says %q", said)
		}
		before = seen
	}
	if tries != 1 {
		t.Errorf("%d tries at once", tries)
	}
	p.away = errors.New("no edge answers")
	seen := view{at: noon, wanted: true, table: before.table}
	if err := k.serve(t.Context(), before, &seen, table("c.example.com"), false); err == nil {
		t.Error("nobody serves, and that is well")
	}
}

// What the loop said to the serve before holds until it says something of each
// project: a revision that was held back would get traffic for a moment.
func TestAKeeperThatBeginsWaitsForTheLoop(t *testing.T) {
	p := &plane{status: edge.Status{Table: 5}}
	k := newKeeper(slog.New(slog.DiscardHandler))
	k.client, k.ensure = p, func(context.Context) error { return nil }
	s, _ := shop()
	for _, known := range []bool{false, true} {
		s.known = known
		var seen view
		seen.at, seen.wanted = noon, true
		if err := k.serve(t.Context(), view{}, &seen, edge.Table{}, k.waits([]served{s}, k.began)); err != nil {
			t.Fatal(err)
		}
		if got := len(p.set) > 0; got != known {
			t.Errorf("lanes known: %v, the table was set: %v", known, got)
		}
	}
	if k.waits([]served{{}}, k.began.Add(firstLanes)) {
		t.Error("it waits for ever")
	}
}

// An edge that was away for another reason than at the look before counted as away
// from then on: a rollout waited for it anew each time.
func TestSinceWhenAnEdgeIsAwayIsKept(t *testing.T) {
	head := store.Generation{Project: "shop", Routes: []tender.Route{{Path: "/", Aims: []tender.Aim{{Service: "web", Port: 80}}}}}
	before := view{}
	since := func(after time.Duration, why error) time.Time {
		seen := view{at: noon.Add(after), wanted: true, heads: map[string]store.Generation{"shop": head}}
		if why != nil {
			seen.lose(before, why)
		}
		before = seen
		return seen.trafficOf()["shop"]["web"].Since
	}
	if at := since(0, errors.New("no edge answers")); !at.Equal(noon) {
		t.Errorf("away since %s", at)
	}
	if at := since(time.Minute, errors.New("it does not take its table over")); !at.Equal(noon) {
		t.Errorf("with another reason: away since %s", at)
	}
	if at := since(2*time.Minute, nil); !at.IsZero() {
		t.Errorf("back, and away since %s", at)
	}
	if at := since(3*time.Minute, errors.New("no edge answers")); !at.Equal(noon.Add(3 * time.Minute)) {
		t.Errorf("away again since %s", at)
	}
}
