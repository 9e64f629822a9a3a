package api

import (
	"net/http"
	"regexp"

	"github.com/tenderhq/tender"
)

// questions are what Prometheus' and Loki's APIs answer to POST as they do to GET: clients
// choose it for questions too long for a URL, and Grafana for all. They change nothing.
var questions = regexp.MustCompile(`^(?:(?:/prometheus)?/api/v1/(?:query|query_range|query_exemplars|format_query|parse_query|labels|series|read)` +
	`|(?:/loki)?/loki/api/v1/(?:query|query_range|labels?|label/[^/]+/values|series|index/(?:stats|volume|volume_range)|` +
	`detected_fields|detected_field/[^/]+/values|detected_labels|patterns|format_query))$`)

// mounted asks for the scope that a foreign handler needs. own says that it looks by
// itself at which projects the person may see.
func mounted(next http.Handler, own bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok := PersonFrom(r.Context())
		scope := Deploy
		if r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodPost && questions.MatchString(r.URL.Path) {
			scope = Read
		}
		project := ""
		if own && len(who.Projects) > 0 {
			project = who.Projects[0]
		}
		err := who.May(scope, project)
		if !ok {
			err = tender.Errorf(tender.Denied, "nobody may do this")
		}
		if err != nil {
			writeProblem(w, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}
