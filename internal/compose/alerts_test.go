package compose_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender/internal/compose"
)

func TestAlertsAreReadAsWritten(t *testing.T) {
	d, err := loadLogs(t, `    x-tender:
      alerts:
        - alert: HighErrors
          expr: rate(http_errors_total[5m]) > 1
          for: 1h30m
          keep_firing_for: 5m
          labels: {severity: page, tier: 1}
          annotations: {summary: '{{ .Labels.instance }} has {{ $$value }}'}
        - {record: "web:errors:rate5m", expr: "rate(http_errors_total[5m])"}
        - {alert: Panics, logql: 'sum(count_over_time({} |= "panic" [5m])) > 0'}
`)
	if err != nil {
		t.Fatal(err)
	}
	p, err := compose.Parse([]byte(d.YAML))
	if err != nil {
		t.Fatal(err)
	}
	got, err := compose.Alerts(p.Services[0].Spec)
	if err != nil {
		t.Fatal(err)
	}
	want := []compose.Rule{
		{
			Alert: "HighErrors", Expr: "rate(http_errors_total[5m]) > 1", Language: compose.PromQL, For: 90 * time.Minute, KeepFiringFor: 5 * time.Minute,
			Labels: map[string]string{"severity": "page", "tier": "1"}, Annotations: map[string]string{"summary": "{{ .Labels.instance }} has {{ $value }}"},
		},
		{Record: "web:errors:rate5m", Expr: "rate(http_errors_total[5m])", Language: compose.PromQL},
		{Alert: "Panics", Expr: `sum(count_over_time({} |= "panic" [5m])) > 0`, Language: compose.LogQL},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// An alert that is added, changed or removed makes no other revision.
func TestAlertsRestartNothing(t *testing.T) {
	spec := func(body string) []byte {
		d, err := loadLogs(t, body)
		if err != nil {
			t.Fatal(err)
		}
		p, err := compose.Parse([]byte(d.YAML))
		if err != nil {
			t.Fatal(err)
		}
		return p.Services[0].Spec
	}
	if !compose.Same(spec(""), spec("    x-tender: {alerts: [{alert: Down, expr: up == 0}]}\n")) {
		t.Error("alerts alone make another revision")
	}
}

func TestWrongAlertsAreRefusedWithTheirLine(t *testing.T) {
	for body, want := range map[string]string{
		`{alert: A, expr: up}`:                            `compose.yaml:5:24: services.web.x-tender.alerts: want a list`,
		`[{alert: A, exp: up}]`:                           `compose.yaml:5:36: services.web.x-tender.alerts[0]: unknown key "exp", did you mean "expr"?`,
		`[{alert: A, record: b, expr: up}]`:               `compose.yaml:5:25: services.web.x-tender.alerts[0]: want alert or record, one of them`,
		`[{alert: A}]`:                                    `want expr or logql, one of them`,
		`[{alert: A, expr: up, logql: x}]`:                `want expr or logql, one of them`,
		`[{expr: up}]`:                                    `want alert or record, one of them`,
		`[{alert: A, expr: up, for: soon}]`:               `compose.yaml:5:51: services.web.x-tender.alerts[0].for: "soon": want a duration such as 5m or 1h30m`,
		`[{record: a b, expr: up}]`:                       `want the name of a series`,
		`[{record: a, expr: up, for: 1m}]`:                `for has no place where record is`,
		`[{alert: A, expr: up, labels: {a-b: x}}]`:        `"a-b": want a name of letters, digits and _`,
		`[{alert: A, expr: up, annotations: {"a b": x}}]`: `"a b": want a name of letters, digits and _`,
	} {
		if _, err := loadLogs(t, "    x-tender: {alerts: "+body+"}\n"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", body, err, want)
		}
	}
}

func TestExpressionsAreLookedAtWhereTheyStand(t *testing.T) {
	var asked []string
	_, err := compose.Load(t.Context(), compose.Source{
		Files: []string{"-"}, Dir: t.TempDir(), Env: []string{"MOST=5"},
		Stdin: strings.NewReader("name: shop\nservices:\n  web:\n    image: x\n    x-tender:\n      alerts:\n      - alert: A\n        expr: up > ${MOST}\n      - alert: B\n        logql: nonsense\n"),
		Expr: func(language, text string) error {
			asked = append(asked, language+": "+text)
			if language == compose.LogQL {
				return errors.New("1:1: that is nonsense")
			}
			return nil
		},
	})
	if err == nil || !strings.Contains(err.Error(), "stdin:10:16: services.web.x-tender.alerts[1].logql: 1:1: that is nonsense") {
		t.Error(err)
	}
	if d := cmp.Diff([]string{"promql: up > 5", "logql: nonsense"}, asked); d != "" {
		t.Error(d)
	}
}
