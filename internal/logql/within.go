package logql

import (
	"slices"
	"strings"

	"github.com/tenderhq/tender/internal/logs"
)

// Within reads a query that may be about what only is: its selectors get those
// conditions on labels, too. A query that begins with a stage is about all of it,
// and so is "".
func Within(query string, only []logs.Condition) (Expr, error) {
	q := strings.TrimSpace(query)
	if q == "" || q[0] == '|' || q[0] == '!' {
		q = "{} " + q
	} else {
		q = query
	}
	x, err := Parse(q)
	if err != nil {
		return nil, err
	}
	for _, s := range selectors(x) {
		for _, c := range only {
			s.matchers = append(s.matchers, matcher{c.Name, c.Op, c.Value, c.Regexp})
		}
	}
	return x, nil
}

// Meant reads a query whose selectors mean only where they do not name a label of it
// by themselves.
func Meant(query string, only []logs.Condition) (Expr, error) {
	x, err := Parse(query)
	if err != nil {
		return nil, err
	}
	for _, s := range selectors(x) {
		said := slices.Clone(s.matchers)
		for _, c := range only {
			if !slices.ContainsFunc(said, func(m matcher) bool { return m.name == c.Name }) {
				s.matchers = append(s.matchers, matcher{c.Name, c.Op, c.Value, c.Regexp})
			}
		}
	}
	return x, nil
}
