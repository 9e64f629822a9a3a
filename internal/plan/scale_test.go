package plan_test

import (
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/plan"
)

// curve is a load over time: what all instances together have to do. Seconds
// with no value are those in which nothing was measured.
type curve struct {
	word   string
	at     []int
	values []float64 // negative: none
}

func readCurve(t *testing.T, name string) curve {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "scale", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	c := curve{word: rows[0][1]}
	for _, r := range rows[1:] {
		at, err := strconv.Atoi(r[0])
		if err != nil {
			t.Fatal(err)
		}
		v := -1.0
		if r[1] != "" {
			if v, err = strconv.ParseFloat(r[1], 64); err != nil {
				t.Fatal(err)
			}
		}
		c.at, c.values = append(c.at, at), append(c.values, v)
	}
	return c
}

// host runs a service in fake time: what it is told to have is ready after a while.
type host struct {
	rule     tender.Scale
	cores    float64 // of one instance
	startup  time.Duration
	wanted   int
	born     []time.Time
	past     []plan.Asked
	changed  time.Time
	added    time.Time
	began    time.Time
	room     plan.Room
	reversed []string // changes that contradict one that is younger than the window
}

const ask = 15 * time.Second

// step decides once, and does what was decided.
func (h *host) step(word string, load float64, now time.Time) plan.Count {
	for len(h.born) < h.wanted {
		h.born = append(h.born, now)
	}
	h.born = h.born[:h.wanted]
	ready := 0
	for _, b := range h.born {
		if !now.Before(b.Add(h.startup)) {
			ready++
		}
	}
	l := plan.Load{Word: "requests", Target: h.rule.Requests, Value: load, At: now}
	if word == "cores" {
		l = plan.Load{Word: "cpu", Target: h.rule.CPU, Value: min(load/h.cores/float64(max(ready, 1)), 1), Of: ready, At: now}
	}
	if load < 0 || ready == 0 {
		l.At = time.Time{}
	}
	s := plan.Scaling{
		Rule: h.rule, Wanted: h.wanted, Ready: ready, Loads: []plan.Load{l}, Past: h.past, Began: h.began, Changed: h.changed, Added: h.added, Room: h.room,
	}
	c := plan.Decide(s, now)
	h.past = append(h.past, plan.Asked{At: now, N: c.Asked})
	if c.N != h.wanted {
		if c.N < h.wanted && now.Sub(h.added) < h.rule.Window {
			h.reversed = append(h.reversed, fmt.Sprintf("%s: from %d to %d, and some were added at %s", now.Format("15:04:05"), h.wanted, c.N, h.added.Format("15:04:05")))
		}
		if c.N > h.wanted {
			h.added = now
		}
		h.wanted, h.changed = c.N, now
	}
	return c
}

// follow lets a host have a curve, and writes down what is decided and what is
// held back.
func (h *host) follow(c curve, start time.Time) string {
	var b strings.Builder
	h.began = start
	for range h.wanted {
		h.born = append(h.born, start.Add(-time.Hour))
	}
	held, k := "", 0
	for t := 0; t <= c.at[len(c.at)-1]; t += int(ask.Seconds()) {
		for k+1 < len(c.at) && c.at[k+1] <= t {
			k++
		}
		now, before := start.Add(time.Duration(t)*time.Second), h.wanted
		got := h.step(c.word, c.values[k], now)
		_, why, _ := strings.Cut(got.Cause, "; ")
		kind := strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return -1
			}
			return r
		}, why)
		if got.N != before {
			fmt.Fprintf(&b, "%s  %d -> %d  %s\n", now.Format("15:04:05"), before, got.N, got.Cause)
		} else if kind != "" && kind != held {
			fmt.Fprintf(&b, "%s  %d       %s\n", now.Format("15:04:05"), before, got.Cause)
		}
		held = kind
	}
	return b.String()
}

func TestLoadIsFollowed(t *testing.T) {
	start := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name string
		host host
		most int // changes
	}{
		{"day", host{rule: tender.Scale{Min: 2, Max: 10, CPU: 0.7, Cooldown: time.Minute, Window: 5 * time.Minute}, cores: 0.5, startup: 20 * time.Second, wanted: 2}, 60},
		{"spike", host{rule: tender.Scale{Min: 2, Max: 10, Requests: 200, Cooldown: time.Minute, Window: 3 * time.Minute}, startup: 20 * time.Second, wanted: 2}, 12},
		{"saw", host{rule: tender.Scale{Min: 1, Max: 10, Requests: 100, Cooldown: 30 * time.Second, Window: 3 * time.Minute}, startup: 5 * time.Second, wanted: 1}, 3},
		{"gaps", host{rule: tender.Scale{Min: 2, Max: 10, CPU: 0.7, Cooldown: time.Minute, Window: 3 * time.Minute}, cores: 0.5, startup: 20 * time.Second, wanted: 4}, 8},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := tc.host.follow(readCurve(t, tc.name+".csv"), start)
			path := filepath.Join("testdata", "scale", tc.name+".log")
			want, err := os.ReadFile(path)
			if err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
				if err := os.WriteFile(filepath.Join(t.ArtifactDir(), tc.name+".log"), []byte(got), 0o600); err != nil {
					t.Error(err)
				}
			}
			if n := strings.Count(got, "->"); n > tc.most {
				t.Errorf("%d changes, want %d at most", n, tc.most)
			}
			if len(tc.host.reversed) > 0 {
				t.Errorf("it flaps:\n%s", strings.Join(tc.host.reversed, "\n"))
			}
		})
	}
}

func TestDecide(t *testing.T) {
	rule := tender.Scale{Min: 2, Max: 10, CPU: 0.7, Memory: 0.8, Cooldown: time.Minute, Window: 3 * time.Minute}
	cpu := func(share float64, of int) plan.Load {
		return plan.Load{Word: "cpu", Target: 0.7, Value: share, Of: of, At: now}
	}
	long := now.Add(-time.Hour)
	usual := func(wanted int, loads ...plan.Load) plan.Scaling {
		return plan.Scaling{Rule: rule, Wanted: wanted, Ready: wanted, Loads: loads, Began: long}
	}
	with := func(s plan.Scaling, change func(*plan.Scaling)) plan.Scaling { change(&s); return s }
	at := func(ago time.Duration) time.Time { return now.Add(-ago) }
	for _, tc := range []struct {
		name string
		in   plan.Scaling
		want string
	}{
		{"at its target", usual(2, cpu(0.7, 2)), "2: cpu 70 % of 2 instances, target 70 %: 2"},
		{"near its target", usual(4, cpu(0.76, 4)), "4: cpu 76 % of 4 instances, target 70 %: 4"},
		{"above", usual(2, cpu(0.91, 2)), "3: cpu 91 % of 2 instances, target 70 %: 3"},
		{"far above, in steps", usual(2, plan.Load{Word: "query", Target: 1, Value: 20, At: now}), "6: query 20 with 2 instances, target 1: 40, max is 10, at most 6 in one step"},
		{"doubles when there are many", with(usual(5, cpu(2.8, 5)), func(s *plan.Scaling) { s.Rule.Max = 100 }), "10: cpu 280 % of 5 instances, target 70 %: 20, at most 10 in one step"},
		{"below", usual(6, cpu(0.2, 6)), "2: cpu 20 % of 6 instances, target 70 %: 2"},
		{"below min", usual(6, cpu(0.01, 6)), "2: cpu 1 % of 6 instances, target 70 %: 1, min is 2"},
		{
			"the highest figure wins", usual(4, cpu(0.1, 4), plan.Load{Word: "memory", Target: 0.8, Value: 0.97, Of: 4, At: now}),
			"5: memory 97 % of 4 instances, target 80 %: 5",
		},
		{"the edge's requests", usual(2, plan.Load{Word: "requests", Target: 200, Value: 700.4, At: now}), "4: 700 requests/s for 2 instances, target 200 each: 4"},
		{"one that is missing is idle when more are called for", usual(4, cpu(0.9, 3)), "4: cpu 90 % of 3 of 4 instances, target 70 %: 4"},
		{"and busy enough when fewer are", usual(4, cpu(0.1, 2)), "3: cpu 10 % of 2 of 4 instances, target 70 %: 3"},
		{
			"no figure", usual(4, plan.Load{Word: "cpu", Target: 0.7, Missing: "metrics are off"}),
			"4: cpu is not known: metrics are off",
		},
		{
			"no figure takes nothing away", usual(4, cpu(0.1, 4), plan.Load{Word: "query", Target: 1}),
			"4: cpu 10 % of 4 instances, target 70 %: 1; none goes: query is not known",
		},
		{
			"no figure holds nothing back", usual(4, cpu(0.9, 4), plan.Load{Word: "query", Target: 1}),
			"6: cpu 90 % of 4 instances, target 70 %: 6",
		},
		{"an old figure is none", with(usual(4, cpu(0.1, 4)), func(s *plan.Scaling) { s.Loads[0].At = at(2 * time.Minute) }), "4: cpu was measured 2m ago"},
		{
			"in a rollout", with(usual(2, cpu(0.91, 2)), func(s *plan.Scaling) { s.Busy = "a rollout to 7f3a runs" }),
			"2: cpu 91 % of 2 instances, target 70 %: 3; a rollout to 7f3a runs",
		},
		{
			"in the cooldown", with(usual(2, cpu(0.91, 2)), func(s *plan.Scaling) { s.Changed = at(20 * time.Second) }),
			"2: cpu 91 % of 2 instances, target 70 %: 3; cooldown until 12:00:40",
		},
		{
			"just added", with(usual(4, cpu(0.1, 4)), func(s *plan.Scaling) { s.Changed, s.Added = at(2*time.Minute), at(2*time.Minute) }),
			"4: cpu 10 % of 4 instances, target 70 %: 1, min is 2; fewer at 12:01:00 at the earliest, 3m after some were added",
		},
		{
			"just begun", with(usual(4, cpu(0.1, 4)), func(s *plan.Scaling) { s.Began = at(time.Minute) }),
			"4: cpu 10 % of 4 instances, target 70 %: 1, min is 2; fewer at 12:02:00 at the earliest, it is watched for 3m first",
		},
		{
			"called for in the window", with(usual(6, cpu(0.1, 6)), func(s *plan.Scaling) {
				s.Past = []plan.Asked{{At: at(4 * time.Minute), N: 6}, {At: at(2 * time.Minute), N: 5}, {At: at(time.Minute), N: 3}}
			}),
			"5: cpu 10 % of 6 instances, target 70 %: 1, min is 2, 5 at most in the last 3m",
		},
		{
			"all of it called for in the window", with(usual(6, cpu(0.1, 6)), func(s *plan.Scaling) { s.Past = []plan.Asked{{At: at(2 * time.Minute), N: 8}} }),
			"6: cpu 10 % of 6 instances, target 70 %: 1, min is 2; 8 were called for in the last 3m",
		},
		{"fewer than min", with(usual(1, cpu(0.1, 1)), func(s *plan.Scaling) { s.Changed = at(0) }), "2: 1 are fewer than min, which is 2"},
		{"more than max", usual(12, cpu(0.7, 12)), "10: 12 are more than max, which is 10"},
		{"fewer than min in a rollout", with(usual(1, cpu(0.7, 1)), func(s *plan.Scaling) { s.Busy = "a rollout to 7f3a runs" }), "1: cpu 70 % of 1 instance, target 70 %: 1, min is 2; a rollout to 7f3a runs"},
		{
			"no memory for all", with(usual(2, cpu(1.4, 2)), func(s *plan.Scaling) { s.Room = plan.Room{Known: true, Available: 300 << 20, Each: 200 << 20} }),
			"3: cpu 140 % of 2 instances, target 70 %: 4; the node has memory for 1 more: 300 MiB are free, each takes 200 MiB",
		},
		{
			"memory that newcomers will take", with(usual(3, cpu(0.95, 3)), func(s *plan.Scaling) {
				s.Ready, s.Room = 2, plan.Room{Known: true, Available: 300 << 20, Each: 200 << 20}
			}),
			"3: cpu 95 % of 3 instances, target 70 %: 5; the node has memory for 0 more: 100 MiB are free, each takes 200 MiB",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := plan.Decide(tc.in, now)
			if got := fmt.Sprintf("%d: %s", c.N, c.Cause); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

// Whatever comes: never outside of min and max, never two changes within the
// cooldown, never fewer within the window after some were added.
func TestNoLoadMakesItFlap(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 5))
		rule := tender.Scale{
			Min: 1 + r.IntN(3), Requests: 100, CPU: 0.7,
			Cooldown: time.Duration(r.IntN(120)) * time.Second, Window: time.Duration(r.IntN(600)) * time.Second,
		}
		rule.Max = rule.Min + r.IntN(20)
		h := host{rule: rule, cores: 0.5, startup: time.Duration(r.IntN(60)) * time.Second, wanted: rule.Min + r.IntN(rule.Max-rule.Min+1), began: now}
		load := r.Float64() * 2000
		period := 1 + r.IntN(40)
		for k := range 400 {
			at := now.Add(time.Duration(k) * ask)
			if k%period == 0 {
				load = r.Float64() * 2000
				if r.IntN(8) == 0 {
					load = -1
				}
			}
			before, changed := h.wanted, h.changed
			word, value := "requests", load
			if seed%2 == 0 {
				word, value = "cores", load/500
			}
			if load < 0 {
				value = -1
			}
			c := h.step(word, value, at)
			switch {
			case c.N < rule.Min || c.N > rule.Max:
				t.Fatalf("seed %d: %d is not between %d and %d: %s", seed, c.N, rule.Min, rule.Max, c.Cause)
			case c.N != before && !changed.IsZero() && at.Sub(changed) < rule.Cooldown:
				t.Fatalf("seed %d: from %d to %d, %s after the last change: %s", seed, before, c.N, at.Sub(changed), c.Cause)
			case c.N < before && load < 0:
				t.Fatalf("seed %d: from %d to %d, and nothing is known: %s", seed, before, c.N, c.Cause)
			case len(h.reversed) > 0:
				t.Fatalf("seed %d: %s: %s", seed, h.reversed[0], c.Cause)
			}
		}
	}
}
