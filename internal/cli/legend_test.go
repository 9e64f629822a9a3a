package cli

import (
	"testing"

	"github.com/tenderhq/tender/internal/api"
)

// The id of a container, first of eight labels, was all that a legend had room for.
func TestOneLabelThatIsEnough(t *testing.T) {
	of := func(pairs ...string) api.FigureSeries {
		s := api.FigureSeries{Labels: map[string]string{}}
		for i := 0; i < len(pairs); i += 2 {
			s.Labels[pairs[i]] = pairs[i+1]
		}
		return s
	}
	for _, tt := range []struct {
		what   string
		series []api.FigureSeries
		want   string
	}{
		{"instances", []api.FigureSeries{of("id", "/1", "instance", "web-1"), of("id", "/2", "instance", "web-2")}, "instance"},
		{"services", []api.FigureSeries{of("service", "web"), of("service", "db")}, "service"},
		{"two of an instance", []api.FigureSeries{of("code", "2xx", "instance", "web-1"), of("code", "5xx", "instance", "web-1")}, ""},
		{"none of ours", []api.FigureSeries{of("le", "1"), of("le", "2")}, ""},
	} {
		_, names := sharedLabels(tt.series)
		if got := tellsApart(tt.series, names); got != tt.want {
			t.Errorf("%s: %q, not %q", tt.what, got, tt.want)
		}
	}
}
