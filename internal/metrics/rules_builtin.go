package metrics

import (
	_ "embed" // the rules are a file that promtool reads, too
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
)

//go:embed rules_builtin.yml
var builtin []byte

// BuiltinSource is the Source of the groups that come with Tender.
const BuiltinSource = "built-in"

// runbooks is where each of them has a section.
const runbooks = "https://github.com/tenderhq/tender/blob/main/docs/runbooks.md#"

// Builtin says what is different from the set as it comes; the zero value is the whole set.
type Builtin struct {
	None bool
	Off  []string // names of alerts
	Set  map[string]Tuning
}

// Tuning is what is different of one alert.
type Tuning struct {
	Threshold *float64
	For       *time.Duration
	Severity  string // "": as it comes
}

// BuiltinGroups are the rules that come with Tender.
func BuiltinGroups(b Builtin) ([]Group, error) {
	groups, problems := ReadRules(BuiltinSource, builtin, false, nil)
	if len(problems) > 0 {
		return nil, fmt.Errorf("read the built-in rules: %w", problems[0])
	}
	var names []string
	var out []Group
	for _, g := range groups {
		var keep []Rule
		for _, r := range g.Rules {
			names = append(names, r.Alert)
			if b.None || slices.Contains(b.Off, r.Alert) {
				continue
			}
			if t, ok := b.Set[r.Alert]; ok {
				if err := t.apply(&r); err != nil {
					return nil, fmt.Errorf("%s: %w", r.Alert, err)
				}
			}
			r.Annotations = maps.Clone(r.Annotations)
			r.Annotations["runbook_url"] = runbooks + strings.ToLower(r.Alert)
			keep = append(keep, r)
		}
		if g.Rules = keep; len(keep) > 0 {
			out = append(out, g)
		}
	}
	for _, name := range slices.Concat(b.Off, slices.Sorted(maps.Keys(b.Set))) {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("there is no built-in alert %q; there are %s", name, strings.Join(names, ", "))
		}
	}
	return out, nil
}

// apply changes r; its threshold is the number that its expression ends with.
func (t Tuning) apply(r *Rule) error {
	if t.Threshold != nil {
		x, err := parserOf(false, nil).ParseExpr(r.Expr)
		if err != nil {
			return err
		}
		b, ok := x.(*parser.BinaryExpr)
		if !ok || !b.Op.IsComparisonOperator() {
			return fmt.Errorf("it has no threshold")
		}
		n, ok := b.RHS.(*parser.NumberLiteral)
		if !ok {
			return fmt.Errorf("it has no threshold")
		}
		n.Val = *t.Threshold
		r.Expr = x.String()
	}
	if t.For != nil {
		r.For = *t.For
	}
	if t.Severity != "" {
		r.Labels = maps.Clone(r.Labels)
		r.Labels["severity"] = t.Severity
	}
	return nil
}
