package metrics

import (
	"net/http"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Within makes an expression that asks series of one project alone.
func (d *DB) Within(expr, project string) (string, error) {
	e, err := d.parser.ParseExpr(expr)
	if err != nil {
		return "", err
	}
	only, err := labels.NewMatcher(labels.MatchEqual, "project", project)
	if err != nil {
		return "", err
	}
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			s.LabelMatchers = append(s.LabelMatchers, only)
		}
		return nil
	})
	return e.String(), nil
}

// Narrowed lets a question to Prometheus' API name a project in the parameter project, which is
// ours: it is asked of the series of that project alone.
func (d *DB) Narrowed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/api/v1/query") || strings.HasSuffix(r.URL.Path, "/api/v1/query_range") {
			if project := r.FormValue("project"); project != "" {
				// What cannot be parsed is refused behind, where errors say the place in what was typed.
				if expr, err := d.Within(r.FormValue("query"), project); err == nil {
					r.Form.Set("query", expr)
				}
			}
		}
		next.ServeHTTP(w, r)
	})
}
