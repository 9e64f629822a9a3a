package scan

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
)

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"join":     strings.Join,
	"sentence": Sentence,
	"when": func(t time.Time) string {
		if t.IsZero() {
			return "never"
		}
		return t.UTC().Format("2006-01-02 15:04 UTC")
	},
	"score": func(f float64) string {
		if f == 0 {
			return ""
		}
		return fmt.Sprintf("%.1f", f)
	},
	// Advisories come from outside: what is no web address is no link.
	"link": func(u string) string {
		if strings.HasPrefix(u, "https://") || strings.HasPrefix(u, "http://") {
			return u
		}
		return ""
	},
}).Parse(pageSource))

// WriteHTML writes one page that needs nothing else: no script, no font, no address.
func WriteHTML(w io.Writer, r Report, version string) error {
	type count struct {
		Severity tender.Severity
		N        int
	}
	var counts []count
	for s := tender.Critical; s >= tender.UnknownSeverity; s-- {
		n := 0
		for _, f := range r.Findings {
			if f.Severity == s {
				n++
			}
		}
		if n > 0 {
			counts = append(counts, count{s, n})
		}
	}
	return page.Execute(w, struct {
		Report
		Counts  []count
		Version string
	}{r, counts, version})
}
