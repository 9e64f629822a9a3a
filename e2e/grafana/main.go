// Command grafana reads dashboards as Grafana's own types have them, and names every
// field that they do not know or that is not as they want it.
//
//	grafana FILE...
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	// The types of panels and of questions to data sources are known by their names.
	plugins.RegisterDefaultPlugins()
	failed := len(os.Args) < 2
	for _, path := range os.Args[1:] {
		if err := check(path); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}

func check(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var d dashboard.Dashboard
	if err := d.UnmarshalJSONStrict(text); err != nil {
		return err
	}
	if err := d.Validate(); err != nil {
		return err
	}
	panels, asked := 0, 0
	for _, p := range d.Panels {
		if p.Panel == nil {
			continue
		}
		if err := p.Panel.Validate(); err != nil {
			return fmt.Errorf("panel %v: %w", *p.Panel.Title, err)
		}
		panels++
		for _, t := range p.Panel.Targets {
			if _, unknown := t.(variants.UnknownDataquery); unknown {
				return fmt.Errorf("panel %v: a question to an unknown data source", *p.Panel.Title)
			}
			asked++
		}
	}
	back, err := json.Marshal(d)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d panels, %d questions, %d bytes as Grafana writes it\n", path, panels, asked, len(back))
	return nil
}
