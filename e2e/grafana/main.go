// Command grafana reads dashboards as Grafana's own types have them, and names every
// field that they do not know or that is not as they want it.
//
//	grafana FILE...
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/loki"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
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

// told is err, or nil for one that says nothing: a list of errors may be empty.
func told(err error) error {
	if err == nil || err.Error() == "" {
		return nil
	}
	return err
}

func check(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var d dashboard.Dashboard
	if err := told(d.UnmarshalJSONStrict(text)); err != nil {
		return err
	}
	if err := told(d.Validate()); err != nil {
		return err
	}
	// An empty list of errors makes the types above lose panels and questions: they are read one by one.
	var raw struct{ Panels []json.RawMessage }
	if err := json.Unmarshal(text, &raw); err != nil {
		return err
	}
	asked := 0
	for i, one := range raw.Panels {
		var p dashboard.Panel
		if err := told(p.UnmarshalJSONStrict(one)); err != nil {
			return fmt.Errorf("panel %d: %w", i, err)
		}
		if err := told(p.Validate()); err != nil {
			return fmt.Errorf("panel %q: %w", *p.Title, err)
		}
		var of struct {
			Type    string
			Targets []json.RawMessage
		}
		if err := json.Unmarshal(one, &of); err != nil {
			return err
		}
		for _, t := range of.Targets {
			asked++
			var err error
			if of.Type == "logs" {
				err = new(loki.Dataquery).UnmarshalJSONStrict(t)
			} else {
				err = new(prometheus.Dataquery).UnmarshalJSONStrict(t)
			}
			if err := told(err); err != nil {
				return fmt.Errorf("panel %q: %w", *p.Title, err)
			}
		}
	}
	if asked == 0 {
		return errors.New("nothing is asked")
	}
	fmt.Printf("%s: %d panels, %d questions\n", path, len(raw.Panels), asked)
	return nil
}
