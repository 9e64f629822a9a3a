package cli

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v4"

	"github.com/tenderhq/tender/internal/logql"
)

// asked is what a panel asks, with what Grafana puts in its place.
var asked = strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h", "$project", "shop", "$service", "web", "$node", "here")

// Every question of the dashboards must be one that can be asked, and every panel must have its place.
func TestDashboards(t *testing.T) {
	files, err := grafanaFiles("http://127.0.0.1:7070")
	if err != nil {
		t.Fatal(err)
	}
	p := parser.NewParser(parser.Options{})
	uids, questions := map[string]bool{}, 0
	for _, f := range files {
		if strings.HasSuffix(f.path, ".yaml") {
			var v map[string]any
			if err := yaml.Unmarshal(f.text, &v); err != nil || v["apiVersion"] != 1 {
				t.Errorf("%s: %v %v", f.path, v, err)
			}
			continue
		}
		var d struct {
			UID        string
			Templating struct {
				List []struct{ Definition string }
			}
			Panels []struct {
				ID      int
				Title   string
				Type    string
				GridPos struct{ X, Y, W, H int }
				Targets []struct{ RefID, Expr, LegendFormat string }
			}
		}
		if err := json.Unmarshal(f.text, &d); err != nil {
			t.Fatalf("%s: %v", f.path, err)
		}
		if d.UID == "" || uids[d.UID] {
			t.Errorf("%s: the uid %q", f.path, d.UID)
		}
		uids[d.UID] = true
		for _, v := range d.Templating.List {
			m := regexp.MustCompile(`^label_values\((.+), [a-z]+\)$`).FindStringSubmatch(v.Definition)
			if m == nil {
				t.Errorf("%s: the variable %s", f.path, v.Definition)
			} else if _, err := p.ParseExpr(asked.Replace(m[1])); err != nil {
				t.Errorf("%s: %s: %v", f.path, v.Definition, err)
			}
		}
		taken, ids := map[string]string{}, map[int]bool{}
		for _, panel := range d.Panels {
			if ids[panel.ID] {
				t.Errorf("%s: two panels have the id %d", f.path, panel.ID)
			}
			ids[panel.ID] = true
			g := panel.GridPos
			for x := g.X; x < g.X+g.W; x++ {
				for y := g.Y; y < g.Y+g.H; y++ {
					at := fmt.Sprint(x, y)
					if x >= 24 || taken[at] != "" {
						t.Errorf("%s: %s lies on %q or outside", f.path, panel.Title, taken[at])
					}
					taken[at] = panel.Title
				}
			}
			for _, q := range panel.Targets {
				questions++
				if panel.Type == "logs" {
					if _, err := logql.Parse(asked.Replace(q.Expr)); err != nil {
						t.Errorf("%s: %s: %v", f.path, panel.Title, err)
					}
					continue
				}
				e, err := p.ParseExpr(asked.Replace(q.Expr))
				if err != nil {
					t.Errorf("%s: %s: %v", f.path, panel.Title, err)
					continue
				}
				if panel.Type == "timeseries" && strings.Contains(q.LegendFormat, "{{") {
					for _, m := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(q.LegendFormat, -1) {
						if strings.Contains(e.String(), "sum by") && !regexp.MustCompile(`by \([^)]*\b`+m[1]+`\b`).MatchString(e.String()) {
							t.Errorf("%s: %s: the legend's %s is summed away", f.path, panel.Title, m[1])
						}
					}
				}
			}
		}
	}
	if len(uids) != 4 || questions < 50 {
		t.Errorf("%d dashboards with %d questions", len(uids), questions)
	}
}
