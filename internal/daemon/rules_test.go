package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/metrics"
	"github.com/tenderhq/tender/internal/store"
)

// ruled is a backend with rules that are gathered, but not evaluated.
func ruled(t *testing.T, c Config) *backend {
	t.Helper()
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	db, err := metrics.Open(metrics.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	b := &backend{config: c, store: st, log: slog.New(slog.DiscardHandler), board: new(board), inventory: engine.NewInventory(nil, slog.New(slog.DiscardHandler))}
	if b.rules, err = newRuleRoom(b, db, b.log, nil); err != nil {
		t.Fatal(err)
	}
	return b
}

// printed is what was gathered, a rule a line.
func printed(r *ruleRoom) string {
	var b strings.Builder
	for _, g := range r.set {
		for _, x := range g.Rules {
			fmt.Fprintf(&b, "%s %s: %s%s = %s %v\n", filepath.Base(g.Source), g.Name, x.Alert, x.Record, x.Expr, x.Labels)
		}
	}
	return b.String()
}

func spec(alerts string) []byte {
	return []byte("name: shop\nx-tender-format: 1\nservices: {web: {image: nginx, x-tender: {alerts: " + alerts + "}}}\n")
}

func TestRulesComeFromFilesProjectsAndTheAPI(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.yml", "groups: [{name: a, rules: [{alert: Down, expr: up == 0}]}]")
	write("b.yml", "groups: [{name: b, rules: [{record: x, expr: sum(up)}]}]")
	write("l.yaml", `groups: [{name: l, rules: [{alert: Errors, expr: 'sum(rate({service="web"} |= "error" [5m])) > 1'}]}]`)
	b := ruled(t, Config{Builtin: metrics.Builtin{None: true}, RuleFiles: []string{filepath.Join(dir, "*.yml")}, LogRuleFiles: []string{filepath.Join(dir, "l.yaml")}})
	g := store.Generation{Project: "shop", N: 1, Services: []store.WantedService{{Service: tender.Service{Name: "web", Spec: spec(
		`[{alert: Slow, expr: 'latency{service="db"} > 1', labels: {severity: page}}, {record: y, expr: sum(hits)}, {alert: Panic, logql: 'sum(count_over_time({stream="stderr"} |= "panic" [5m])) > 0'}]`)}}}}
	if err := b.store.Update(t.Context(), func(tx *store.Tx) error { return tx.AddGeneration(g, nil) }); err != nil {
		t.Fatal(err)
	}
	who := api.Person{Name: "me"}
	if _, err := b.SetRules(t.Context(), who, api.RuleFile{Text: "groups: [{name: mine, rules: [{alert: Mine, expr: vector(1)}]}]"}); err != nil {
		t.Fatal(err)
	}
	b.rules.gather(t.Context())
	all := `a.yml a: Down = up == 0 map[]
b.yml b: x = sum(up) map[]
l.yaml l: Errors = sum(rate({service="web"} |= "error" [5m])) > 1 map[]
web alerts: Slow = latency{project="shop",service="db"} > 1 map[project:shop service:web severity:page]
web alerts: y = sum(hits{project="shop",service="web"}) map[project:shop service:web]
web alerts over logs: Panic = (sum(count_over_time({stream="stderr", project="shop", service="web"} |= "panic" [5m])) > 0) map[project:shop service:web]
api mine: Mine = vector(1) map[]
`
	if d := cmp.Diff(all, printed(b.rules)); d != "" || b.rules.problems != nil {
		t.Errorf("%v\n%s", b.rules.problems, d)
	}

	// A file that is not right any more is told of, and its rules stay.
	write("a.yml", "groups: [{name: a, rules: [{alert: Down, expr: rate(up) == 0}]}]")
	b.rules.gather(t.Context())
	if d := cmp.Diff(all, printed(b.rules)); d != "" || len(b.rules.problems) != 1 || !strings.Contains(b.rules.problems[0], `a.yml: 1:48: group "a", rule 1, "Down": could not parse expression: 1:6: parse error`) {
		t.Errorf("%q\n%s", b.rules.problems, d)
	}
	if err := os.Remove(filepath.Join(dir, "a.yml")); err != nil {
		t.Fatal(err)
	}
	if err := b.RemoveRules(t.Context(), who, "mine"); err != nil {
		t.Fatal(err)
	}
	if err := b.RemoveRules(t.Context(), who, "mine"); tender.KindOf(err) != tender.NotFound {
		t.Errorf("removed twice: %v", err)
	}
	g.N, g.Services[0].Service.Spec = 2, spec("[]")
	if err := b.store.Update(t.Context(), func(tx *store.Tx) error { return tx.AddGeneration(g, nil) }); err != nil {
		t.Fatal(err)
	}
	b.rules.gather(t.Context())
	left := strings.Join(slices.DeleteFunc(strings.SplitAfter(all, "\n"), func(l string) bool { return !strings.HasPrefix(l, "b.yml") && !strings.HasPrefix(l, "l.yaml") }), "")
	if d := cmp.Diff(left, printed(b.rules)); d != "" || b.rules.problems != nil {
		t.Errorf("%v\n%s", b.rules.problems, d)
	}
}

func TestWrongAlertsAreRefusedBeforeAnythingIsDone(t *testing.T) {
	for alerts, want := range map[string]string{
		`[{alert: A, expr: up == 0}, {alert: B, expr: rate(up)}]`: `services.web.x-tender.alerts[1] B: 1:6: parse error: expected type range vector`,
		`[{alert: A, logql: '{a="b"}'}]`:                          `services.web.x-tender.alerts[0] A: a rule needs a number`,
		`[{alert: A, expr: up, annotations: {a: '{{ .Nope'}}]`:    `services.web.x-tender.alerts[0] A: annotation "a": template: __alert_A:1: unclosed action`,
	} {
		err := checkAlerts(tender.Project{Name: "shop", Services: []tender.Service{{Name: "web", Spec: spec(alerts)}}})
		if tender.KindOf(err) != tender.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", alerts, err, want)
		}
	}
}

// How the newest rollout of each service ended is a figure: what a person asked to go back to has ended well.
func TestTheEndOfRolloutsIsAFigure(t *testing.T) {
	b := ruled(t, Config{})
	at := time.Unix(1_800_000_000, 0)
	if err := b.store.Update(t.Context(), func(tx *store.Tx) error {
		all := []error{tx.AddGeneration(store.Generation{Project: "shop", N: 1}, nil)}
		for _, r := range []struct {
			store.Rollout
			ends string
		}{
			{store.Rollout{Service: "web"}, store.RolledBack},
			{store.Rollout{Service: "web", Reverse: true, Who: "tender"}, store.RolloutDone},
			{store.Rollout{Service: "api", Reverse: true, Who: "me"}, store.RolloutDone},
			{store.Rollout{Service: "db"}, store.RolloutDone},
			{store.Rollout{Service: "db"}, store.RolloutFailed},
			{store.Rollout{Service: "cache"}, store.RolloutFailed},
			{store.Rollout{Service: "cache"}, ""},
			{store.Rollout{Service: "new", First: true}, ""},
			{store.Rollout{Service: "settled", First: true}, store.RolloutDone},
		} {
			r.Project, r.Generation, r.Started = "shop", 1, at
			id, err := tx.AddRollout(r.Rollout)
			all = append(all, err)
			if r.ends != "" {
				_, err = tx.EndRollout(id, r.ends, "", at)
				all = append(all, err)
			}
		}
		return errors.Join(all...)
	}); err != nil {
		t.Fatal(err)
	}
	var f figures
	b.alertable(t.Context(), &f)
	wellFormed(t, f.String())
	var got []string
	for line := range strings.Lines(f.String()) {
		if strings.HasPrefix(line, "tender_rollout_end_seconds") {
			got = append(got, strings.TrimSuffix(strings.TrimPrefix(line, "tender_rollout_end_seconds"), "\n"))
		}
	}
	slices.Sort(got)
	want := []string{
		`{project="shop",service="api",outcome="done"} 1800000000`,
		`{project="shop",service="db",outcome="failed"} 1800000000`,
		`{project="shop",service="settled",outcome="done"} 1800000000`,
		`{project="shop",service="web",outcome="rolled back"} 1800000000`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if text := f.String(); strings.Count(text, "\ntender_rollout_first") != 1 || !strings.Contains(text, "\ntender_rollout_first{project=\"shop\",service=\"new\"} 1\n") {
		t.Error(text)
	}
	if text := f.String(); !strings.Contains(text, "tender_engine_up 0\n") || !strings.Contains(text, "tender_rules_failing 0\n") {
		t.Error(text)
	}
}

func TestSetRulesTakesAllOrNothing(t *testing.T) {
	b := ruled(t, Config{})
	for text, want := range map[string]string{
		"groups: [{name: a, rules: [{alert: A, expr: up}]}, {name: b, rules: [{alert: B, expr: 'up('}]}]": `1:87: group "b", rule 1, "B": could not parse expression`,
		"groups: []": "there is no group of rules in it",
	} {
		if _, err := b.SetRules(t.Context(), api.Person{}, api.RuleFile{Text: text}); tender.KindOf(err) != tender.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if got, err := b.RuleGroups(t.Context()); err != nil || got != nil {
		t.Errorf("left: %v %v", got, err)
	}
	got, err := b.SetRules(t.Context(), api.Person{Name: "me"}, api.RuleFile{Language: "logql", Text: `groups: [{name: a, interval: 1m, rules: [{record: n, expr: 'sum(count_over_time({a="b"}[1m]))', labels: {x: y}}]}]`})
	want := "groups:\n    - name: a\n      interval: 1m\n      rules:\n        - record: \"n\"\n          expr: sum(count_over_time({a=\"b\"}[1m]))\n          labels:\n            x: \"y\"\n"
	if err != nil || len(got) != 1 || got[0].Language != "logql" || got[0].Who != "me" {
		t.Fatalf("%+v %v", got, err)
	}
	if d := cmp.Diff(want, got[0].Text); d != "" {
		t.Error(d)
	}

	// One of the same name in the other language is another one, and takes nobody's place.
	_, err = b.SetRules(t.Context(), api.Person{Name: "you"}, api.RuleFile{Text: "groups: [{name: b, rules: [{alert: B, expr: up}]}, {name: a, rules: [{alert: A, expr: up}]}]"})
	if tender.KindOf(err) != tender.Conflict || err.Error() != `there is a group of rules "a" in LogQL, set by me` || !strings.Contains(tender.AdviceOf(err), "tender alert rules rm a") {
		t.Errorf("a group of PromQL in the place of one of LogQL: %v", err)
	}
	if left, err := b.RuleGroups(t.Context()); err != nil || len(left) != 1 || left[0].Language != "logql" {
		t.Errorf("left: %+v %v", left, err)
	}
	if err := b.RemoveRules(t.Context(), api.Person{}, "a"); err != nil {
		t.Error(err)
	}
	if _, err := b.SetRules(t.Context(), api.Person{Name: "you"}, api.RuleFile{Text: "groups: [{name: a, rules: [{alert: A, expr: up}]}]"}); err != nil {
		t.Errorf("once it is gone: %v", err)
	}
}
