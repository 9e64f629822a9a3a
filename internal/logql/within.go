package logql

import (
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
