package metrics

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/parser/posrange"
	"github.com/prometheus/prometheus/rules"
	"go.yaml.in/yaml/v4"
)

// ReadRules reads a rule file as Prometheus does and, with logs, one of Loki's, whose
// expressions are LogQL that checkLogs looks at. A problem begins with its line.
func ReadRules(source string, content []byte, logs bool, checkLogs func(query string) error) ([]Group, []error) {
	read, problems := rulefmt.Parse(content, false, model.UTF8Validation, parserOf(logs, checkLogs), slog.New(slog.DiscardHandler))
	if len(problems) > 0 {
		for i, p := range problems {
			if text, placeless := strings.CutPrefix(p.Error(), "0:0: "); placeless {
				problems[i] = errors.New(text)
			}
		}
		return nil, problems
	}
	var out []Group
	for _, g := range read.Groups {
		to := Group{Source: source, Name: g.Name, Logs: logs, Interval: time.Duration(g.Interval), Offset: (*time.Duration)(g.QueryOffset), Limit: g.Limit, Labels: g.Labels}
		for _, r := range g.Rules {
			to.Rules = append(to.Rules, Rule{
				Alert: r.Alert, Record: r.Record, Expr: r.Expr, For: time.Duration(r.For), KeepFiringFor: time.Duration(r.KeepFiringFor),
				Labels: r.Labels, Annotations: r.Annotations,
			})
		}
		out = append(out, to)
	}
	return out, nil
}

// Problem is what is wrong with one rule of a group.
type Problem struct {
	Rule int // its index; -1: the group itself
	Err  error
}

func (p *Problem) Error() string { return p.Err.Error() }

// Unwrap returns what is wrong.
func (p *Problem) Unwrap() error { return p.Err }

// CheckGroup looks for what Prometheus would refuse in a file.
func CheckGroup(g Group, checkLogs func(query string) error) (out []*Problem) {
	// By the same reader as files, so that there is one truth about what is right.
	text, err := yaml.Marshal(rulefmt.RuleGroups{Groups: []rulefmt.RuleGroup{written(g)}})
	if err != nil {
		return []*Problem{{-1, fmt.Errorf("write: %w", err)}}
	}
	_, problems := rulefmt.Parse(text, false, model.UTF8Validation, parserOf(g.Logs, checkLogs), slog.New(slog.DiscardHandler))
	for _, p := range problems {
		var of *rulefmt.Error
		if !errors.As(p, &of) {
			out = append(out, &Problem{-1, p})
			continue
		}
		// Lines of what was written above mean nothing to anybody.
		plain := of.Err.Unwrap()
		out = append(out, &Problem{of.Rule - 1, plain})
	}
	return out
}

// WriteRules writes groups as a rule file.
func WriteRules(groups []Group) ([]byte, error) {
	var all rulefmt.RuleGroups
	for _, g := range groups {
		all.Groups = append(all.Groups, written(g))
	}
	text, err := yaml.Marshal(all)
	if err != nil {
		return nil, fmt.Errorf("write rules: %w", err)
	}
	return text, nil
}

func written(g Group) rulefmt.RuleGroup {
	out := rulefmt.RuleGroup{Name: g.Name, Interval: model.Duration(g.Interval), QueryOffset: (*model.Duration)(g.Offset), Limit: g.Limit, Labels: g.Labels}
	for _, r := range g.Rules {
		out.Rules = append(out.Rules, rulefmt.Rule{
			Alert: r.Alert, Record: r.Record, Expr: r.Expr, For: model.Duration(r.For), KeepFiringFor: model.Duration(r.KeepFiringFor),
			Labels: r.Labels, Annotations: r.Annotations,
		})
	}
	return out
}

// CheckExpr refuses what is no PromQL; the error says where.
func CheckExpr(expr string) error {
	_, err := parserOf(false, nil).ParseExpr(expr)
	return err
}

// Within adds a matcher for each of only to every selector of an expression that does not
// name that label by itself.
func Within(expr string, only map[string]string) (string, error) {
	x, err := parserOf(false, nil).ParseExpr(expr)
	if err != nil {
		return "", err
	}
	names := slices.Sorted(maps.Keys(only))
	parser.Inspect(x, func(n parser.Node, _ []parser.Node) error {
		s, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		for _, name := range names {
			if !slices.ContainsFunc(s.LabelMatchers, func(m *labels.Matcher) bool { return m.Name == name }) {
				s.LabelMatchers = append(s.LabelMatchers, labels.MustNewMatcher(labels.MatchEqual, name, only[name]))
			}
		}
		return nil
	})
	return x.String(), nil
}

func parserOf(logs bool, checkLogs func(string) error) parser.Parser {
	p := parser.NewParser(parser.Options{})
	if logs {
		return logParser{p, checkLogs}
	}
	return p
}

// logParser lets LogQL pass where Prometheus wants an expression.
type logParser struct {
	parser.Parser
	check func(query string) error
}

// ParseExpr is parser.Parser's.
func (p logParser) ParseExpr(query string) (parser.Expr, error) {
	if p.check != nil {
		if err := p.check(query); err != nil {
			return nil, err
		}
	}
	return logExpr(query), nil
}

// logExpr is a query of LogQL as an expression that rules carry and nobody looks into.
type logExpr string

// String and the others are parser.Expr's.
func (x logExpr) String() string                        { return string(x) }
func (x logExpr) Pretty(int) string                     { return string(x) }
func (x logExpr) PositionRange() posrange.PositionRange { return posrange.PositionRange{} }
func (x logExpr) Type() parser.ValueType                { return parser.ValueTypeVector }
func (x logExpr) PromQLExpr()                           {}

// loader hands groups from memory to Prometheus.
type loader struct {
	parser parser.Parser
	logs   bool

	mu      sync.Mutex
	sources map[string]*rulefmt.RuleGroups
}

var _ rules.GroupLoader = (*loader)(nil)

// take keeps the groups of its language and names their sources.
func (l *loader) take(groups []Group) []string {
	sources := map[string]*rulefmt.RuleGroups{}
	for _, g := range groups {
		if g.Logs != l.logs {
			continue
		}
		if sources[g.Source] == nil {
			sources[g.Source] = &rulefmt.RuleGroups{}
		}
		sources[g.Source].Groups = append(sources[g.Source].Groups, written(g))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sources = sources
	return slices.Sorted(maps.Keys(sources))
}

// Load is rules.GroupLoader's.
func (l *loader) Load(source string, _ bool, _ model.ValidationScheme) (*rulefmt.RuleGroups, []error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g := l.sources[source]; g != nil {
		return g, nil
	}
	return nil, []error{fmt.Errorf("there are no rules of %s", source)}
}

// Parse is rules.GroupLoader's.
func (l *loader) Parse(query string) (parser.Expr, error) { return l.parser.ParseExpr(query) }
