package metrics

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender/internal/sample"
)

// bench is a store with rules in fake time, and what they said.
type bench struct {
	t     *testing.T
	db    *DB
	rules *Rules
	stop  func()

	mu   sync.Mutex
	said []Firing
}

var gauge = &sample.Series{Name: "queue", Labels: []sample.Label{{Name: "service", Value: "web"}}}

func begin(t *testing.T, dir string, groups []Group, o RulesOptions) *bench {
	t.Helper()
	db, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, db: db}
	o.Notify = func(_ context.Context, f []Firing) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.said = append(b.said, f...)
	}
	if b.rules, err = NewRules(db, o); err != nil {
		t.Fatal(err)
	}
	if err := b.rules.Set(groups); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		if err := b.rules.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	b.stop = func() {
		cancel()
		work.Wait()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
	return b
}

// pass lets time go by with a sample each 5 s.
func (b *bench) pass(d time.Duration, value float64) {
	b.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		if err := b.db.Keep(b.t.Context(), sample.Round{Source: "here", At: time.Now(), Points: []sample.Point{{Series: gauge, Value: value}}}); err != nil {
			b.t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
	}
}

// heard is what was said since, as alerts and whether they go on.
func (b *bench) heard() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, f := range b.said {
		state := "fires"
		if !f.EndsAt.After(time.Now()) {
			state = "ended"
		}
		text := fmt.Sprintf("%s %s %s", f.Labels["alertname"], state, f.Annotations["summary"])
		if len(out) == 0 || out[len(out)-1] != text {
			out = append(out, text)
		}
	}
	b.said = nil
	return out
}

func full(wait time.Duration) []Group {
	return []Group{{Source: "a.yml", Name: "g", Rules: []Rule{
		{Record: "service:queue:max", Expr: `max by (service) (queue)`},
		{
			Alert: "Full", Expr: `service:queue:max > 10`, For: wait, Labels: map[string]string{"severity": "page"},
			Annotations: map[string]string{"summary": "{{ $labels.service }} has {{ $value }}"},
		},
	}}}
}

func TestRulesRecordFireAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := begin(t, t.TempDir(), full(time.Minute), RulesOptions{URL: "http://here"})
		defer b.stop()
		b.pass(time.Minute, 3)
		if got := b.heard(); got != nil {
			t.Errorf("while all is well: %q", got)
		}
		b.pass(45*time.Second, 12)
		if got := b.heard(); got != nil {
			t.Errorf("before it was true for a minute: %q", got)
		}
		if s := b.rules.States(); len(s) != 2 || s[1].State != "pending" || len(s[1].Active) != 1 || s[0].Health != "ok" || s[0].Rule.Record == "" {
			t.Errorf("pending: %+v", s)
		}
		b.pass(time.Minute, 12)
		if diff := cmp.Diff([]string{"Full fires web has 12"}, b.heard()); diff != "" {
			t.Error(diff)
		}
		// A group that stays as it is keeps its state when another comes.
		more := append(full(time.Minute), Group{Source: "b.yml", Name: "g", Rules: []Rule{{Record: "one", Expr: "vector(1)"}}})
		if err := b.rules.Set(more); err != nil {
			t.Fatal(err)
		}
		if s := b.rules.States(); len(s) != 3 || s[1].State != "firing" {
			t.Errorf("firing: %+v", s)
		}
		b.pass(time.Minute, 4)
		if diff := cmp.Diff([]string{"Full ended web has 12"}, b.heard()); diff != "" {
			t.Error(diff)
		}
		for expr, want := range map[string]float64{"service:queue:max": 4, "one": 1} {
			if got, err := b.db.Query(t.Context(), expr, time.Now()); err != nil || len(got) != 1 || got[0].Value != want {
				t.Errorf("%s: %v %v", expr, got, err)
			}
		}
		if n := len(b.rules.RuleGroups()); n != 2 {
			t.Errorf("the API of Prometheus sees %d groups", n)
		}
	})
}

// What was pending or firing before a restart does not wait from the beginning.
func TestARestartKeepsHowLongAlertsWerePending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		b := begin(t, dir, full(5*time.Minute), RulesOptions{})
		b.pass(4*time.Minute, 12)
		if got := b.heard(); got != nil {
			t.Errorf("too early: %q", got)
		}
		b.stop()
		b = begin(t, dir, full(5*time.Minute), RulesOptions{})
		defer b.stop()
		b.pass(2*time.Minute, 12)
		if diff := cmp.Diff([]string{"Full fires web has 12"}, b.heard()); diff != "" {
			t.Error(diff)
		}
	})
}

// What fired when the process was killed and does not any more has nobody who remembers it: its
// end is told all the same, once.
func TestAnAlertThatEndsOverARestart(t *testing.T) {
	for name, wait := range map[string]time.Duration{"at once": 0, "after a minute": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				b := begin(t, dir, full(wait), RulesOptions{})
				b.pass(3*time.Minute, 12)
				if diff := cmp.Diff([]string{"Full fires web has 12"}, b.heard()); diff != "" {
					t.Fatal(diff)
				}
				b.stop()
				b = begin(t, dir, full(wait), RulesOptions{})
				b.pass(45*time.Second, 3)
				b.mu.Lock()
				said := b.said
				b.mu.Unlock()
				if len(said) != 1 || said[0].Labels["alertname"] != "Full" || said[0].Labels["service"] != "web" || said[0].Labels["severity"] != "page" ||
					said[0].EndsAt.After(time.Now()) || said[0].StartsAt.After(said[0].EndsAt) || said[0].Expr == "" {
					t.Fatalf("said after the restart: %+v", said)
				}
				if got, err := b.db.Query(t.Context(), `ALERTS{alertstate="firing"}`, time.Now()); err != nil || len(got) > 0 {
					t.Errorf("it is seen to fire: %v, %v", got, err)
				}
				b.stop()
				b = begin(t, dir, full(wait), RulesOptions{})
				defer func() { b.stop() }()
				b.pass(2*time.Minute, 3)
				if got := b.heard(); got != nil {
					t.Errorf("said again: %q", got)
				}
			})
		})
	}
}

// After a longer while nothing may be measured yet: what is missing is no end.
func TestNoAlertEndsBecauseNothingIsMeasuredYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		b := begin(t, dir, full(0), RulesOptions{})
		b.pass(3*time.Minute, 12)
		b.heard()
		b.stop()
		time.Sleep(20 * time.Minute)
		b = begin(t, dir, full(0), RulesOptions{})
		defer func() { b.stop() }()
		time.Sleep(40 * time.Second) // two evaluations find nothing
		synctest.Wait()
		if got := b.heard(); got != nil {
			t.Errorf("without a sample: %q", got)
		}
		b.pass(2*time.Minute, 12)
		if diff := cmp.Diff([]string{"Full fires web has 12"}, b.heard()); diff != "" {
			t.Error(diff)
		}
	})
}

// A group is evaluated for the first time up to its interval after it was loaded: that is in time.
func TestRulesAreBehindOnlyWhereTheirIntervalIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		groups := full(0)
		groups[0].Interval = time.Hour
		b := begin(t, t.TempDir(), groups, RulesOptions{})
		defer func() { b.stop() }()
		for range 3 * 60 {
			b.pass(time.Minute, 1)
			if said := b.rules.Behind(time.Now()); said != "" {
				t.Fatal(said)
			}
		}
		if said := b.rules.Behind(time.Now().Add(5 * time.Hour)); !strings.Contains(said, "were last evaluated") {
			t.Errorf("after hours without: %q", said)
		}
	})
}

func TestRulesOverLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		groups := []Group{{Source: "shop/web", Name: "logs", Logs: true, Rules: []Rule{
			{Alert: "Panics", Expr: `sum(count_over_time({service="web"} |= "panic" [5m])) > 0`, Annotations: map[string]string{"summary": "{{ .Value }} lines"}},
			{Record: "lines", Expr: `count`},
			{Alert: "Broken", Expr: `broken`},
		}}}
		b := begin(t, t.TempDir(), groups, RulesOptions{
			CheckLogs: func(q string) error {
				if q == "" || q == "wrong" {
					return errors.New("1:1: that is no LogQL")
				}
				return nil
			},
			Logs: func(_ context.Context, q string, _ time.Time) ([]Value, error) {
				switch {
				case q == "broken":
					return nil, errors.New("the store is away")
				case q == "count":
					return []Value{{Labels: map[string]string{"service": "web"}, Value: 7}}, nil
				case !strings.Contains(q, "panic"):
					return nil, fmt.Errorf("asked for %s", q)
				}
				return []Value{{Value: 3}}, nil
			},
		})
		defer b.stop()
		b.pass(time.Minute, 1)
		if diff := cmp.Diff([]string{"Panics fires 3 lines"}, b.heard()); diff != "" {
			t.Error(diff)
		}
		if got, err := b.db.Query(t.Context(), `lines{service="web"}`, time.Now()); err != nil || len(got) != 1 || got[0].Value != 7 {
			t.Errorf("recorded: %v %v", got, err)
		}
		s := b.rules.States()
		if len(s) != 3 || s[2].Health != "err" || s[2].Error != "the store is away" || !s[2].Logs {
			t.Errorf("a rule that fails: %+v", s)
		}
		groups[0].Rules[0].Expr = "wrong"
		if err := b.rules.Set(groups); err == nil || !strings.Contains(err.Error(), "that is no LogQL") {
			t.Errorf("a wrong query: %v", err)
		}
		if s := b.rules.States(); len(s) != 3 || !strings.Contains(s[0].Rule.Expr, "panic") {
			t.Errorf("what was right is gone: %+v", s)
		}
	})
}

func TestWithin(t *testing.T) {
	only := map[string]string{"project": "shop", "service": `we"b`}
	for expr, want := range map[string]string{
		`up == 0`: `up{project="shop",service="we\"b"} == 0`,
		`rate(a{service="db"}[5m]) / on (x) group_left () sum(b)`:             `rate(a{project="shop",service="db"}[5m]) / on (x) group_left () sum(b{project="shop",service="we\"b"})`,
		`max_over_time(deriv(a[1m])[5m:1m])`:                                  `max_over_time(deriv(a{project="shop",service="we\"b"}[1m])[5m:1m])`,
		`absent({__name__=~"x.+",project=~".*",service!=""})`:                 `absent({__name__=~"x.+",project=~".*",service!=""})`,
		`node_load1{project="",service=""} > 4`:                               `node_load1{project="",service=""} > 4`,
		`label_replace(a offset 1h, "b", "$1", "c", "(.*)") unless a @ end()`: `label_replace(a{project="shop",service="we\"b"} offset 1h, "b", "$1", "c", "(.*)") unless a{project="shop",service="we\"b"} @ end()`,
		`vector(1)`: `vector(1)`,
	} {
		got, err := Within(expr, only)
		if err != nil || got != want {
			t.Errorf("%s:\ngot  %s %v\nwant %s", expr, got, err, want)
		}
	}
	if _, err := Within(`rate(a)`, only); err == nil || !strings.HasPrefix(err.Error(), "1:6: ") {
		t.Errorf("an error without its place: %v", err)
	}
}
