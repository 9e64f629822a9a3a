package compose

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/prometheus/common/model"
)

// Languages of expressions.
const (
	PromQL = "promql"
	LogQL  = "logql"
)

// Rule is one of x-tender.alerts. Its words are those of Prometheus' rule files; logql
// stands in the place of expr where the expression is asked of logs.
type Rule struct {
	Alert, Record      string // one of them
	Expr               string
	Language           string // of Expr
	For, KeepFiringFor time.Duration
	Labels             map[string]string
	Annotations        map[string]string
}

var (
	alertLabels = func(about string) *word {
		return &word{about: about, free: &word{}, named: alertLabel}
	}
	alertsWords = &word{about: "Rules of alerts, as in Prometheus' files; the labels project and service are filled in", items: &word{fits: ruleKeys, keys: map[string]*word{
		"alert":           {about: "The name of an alert", kind: "string", rule: filled("a name")},
		"record":          {about: "The name of a series that the expression is kept as, in the place of alert", kind: "string", rule: seriesName},
		"expr":            {about: "PromQL; selectors that say nothing of project and service mean this service", kind: "string", rule: filled("an expression"), language: PromQL},
		"logql":           {about: "LogQL that yields numbers, in the place of expr; selectors mean this service", kind: "string", rule: filled("a query"), language: LogQL},
		"for":             {about: "How long it must be true before the alert fires, such as 5m", rule: promPeriod},
		"keep_firing_for": {about: "How long it goes on firing when it is true no more", rule: promPeriod},
		"labels":          alertLabels("Labels that the alert or the series gets, such as severity"),
		"annotations":     alertLabels("Texts for people, such as summary; {{ .Value }} and {{ .Labels.instance }} are filled in"),
	}}}

	seriesForm = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)
)

func alertLabel(v string) error {
	if !labelName.MatchString(v) || v == "__name__" {
		return errors.New("want a name of letters, digits and _")
	}
	return nil
}

func seriesName(v string) error {
	if !seriesForm.MatchString(v) {
		return errors.New("want the name of a series, such as service:errors:rate5m")
	}
	return nil
}

func promPeriod(v string) error {
	_, err := promPeriodOf(v)
	return err
}

func promPeriodOf(v string) (time.Duration, error) {
	d, err := model.ParseDuration(v)
	if err != nil {
		return 0, errors.New("want a duration such as 5m or 1h30m")
	}
	return time.Duration(d), nil
}

// ruleKeys looks at what a rule has together.
func ruleKeys(has func(key string) bool) error {
	switch {
	case has("alert") == has("record"):
		return errors.New("want alert or record, one of them")
	case has("expr") == has("logql"):
		return errors.New("want expr or logql, one of them")
	}
	for _, key := range []string{"for", "keep_firing_for", "annotations"} {
		if has("record") && has(key) {
			return fmt.Errorf("%s has no place where record is", key)
		}
	}
	return nil
}

// Alerts reads what x-tender.alerts of the one service in spec says.
func Alerts(spec []byte) ([]Rule, error) {
	p, err := whole(spec)
	if err != nil {
		return nil, err
	}
	for _, s := range p.Services {
		m, _ := s.Extensions[extensionKey].(map[string]any)
		return alertsOf(m)
	}
	return nil, nil
}

func alertsOf(x map[string]any) (out []Rule, err error) {
	r := reader{path: extensionKey}
	for i, m := range r.list(x, "alerts") {
		at := r.at(fmt.Sprintf("alerts[%d]", i))
		if err := ruleKeys(func(key string) bool { return m[key] != nil }); err != nil {
			at.fail("", "", err)
		}
		one := Rule{
			Alert: at.text(m, "alert"), Record: at.text(m, "record"), Expr: at.text(m, "expr"), Language: PromQL,
			For: valueAt(at, m, "for", promPeriodOf), KeepFiringFor: valueAt(at, m, "keep_firing_for", promPeriodOf),
			Labels: at.pairs(m, "labels"), Annotations: at.pairs(m, "annotations"),
		}
		if m["logql"] != nil {
			one.Expr, one.Language = at.text(m, "logql"), LogQL
		}
		out = append(out, one)
	}
	return out, r.err()
}
