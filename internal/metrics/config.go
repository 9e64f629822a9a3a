package metrics

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/config"
	_ "github.com/prometheus/prometheus/discovery/dns"  // dns_sd_configs
	_ "github.com/prometheus/prometheus/discovery/file" // file_sd_configs
	_ "github.com/prometheus/prometheus/discovery/http" // http_sd_configs
	_ "github.com/prometheus/prometheus/discovery/moby" // docker_sd_configs, dockerswarm_sd_configs
	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
)

// discoveries are how targets may be found; the others of Prometheus would be more
// code than all the rest.
var discoveries = []string{"dns_sd_configs", "docker_sd_configs", "dockerswarm_sd_configs", "file_sd_configs", "http_sd_configs", "static_configs"}

// ownInterval is how often targets are scraped where nobody says.
const ownInterval = 15 * time.Second

// load reads a prometheus.yml; "" gives the defaults.
func load(path string, log *slog.Logger) (*config.Config, error) {
	if path == "" {
		return config.Load("global: {scrape_interval: "+ownInterval.String()+", evaluation_interval: 15s}\n", log)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "read metrics.config: %w", err).Hint("name a prometheus.yml: --metrics-config, or metrics: {config: …}")
	}
	if err := known(path, text); err != nil {
		return nil, err
	}
	c, err := config.Load(string(text), log)
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "%s: %w", path, err).Hint("promtool check config %s says more", path)
	}
	c.SetDirectory(filepath.Dir(path))
	if _, err := c.GetScrapeConfigs(); err != nil {
		return nil, tender.Errorf(tender.Invalid, "%s: %w", path, err).Hint("look at scrape_config_files")
	}
	return c, nil
}

// CheckConfig says what is wrong with a prometheus.yml.
func CheckConfig(path string) error {
	_, err := load(path, slog.New(slog.DiscardHandler))
	return err
}

// known refuses what Prometheus has and we do not, with its line.
func known(path string, text []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return tender.Errorf(tender.Invalid, "%s: %w", path, err)
	}
	if len(doc.Content) == 0 {
		return nil
	}
	var walk func(n *yaml.Node) error
	walk = func(n *yaml.Node) error {
		for i, c := range n.Content {
			if n.Kind == yaml.MappingNode && i%2 == 0 && strings.HasSuffix(c.Value, "_sd_configs") && !slices.Contains(discoveries, c.Value) {
				return tender.Errorf(tender.Invalid, "%s:%d:%d: %s is not supported", path, c.Line, c.Column, c.Value).
					Hint("supported are %s; a Prometheus that knows more can remote-write to Tender", strings.Join(discoveries, ", "))
			}
			if err := walk(c); err != nil {
				return err
			}
		}
		return nil
	}
	for i := 0; i+1 < len(doc.Content[0].Content); i += 2 {
		// Alertmanagers are found by whoever sends alerts.
		if err := walk(doc.Content[0].Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// Reload reads prometheus.yml again. What is wrong with it is the error, and the
// old one stays in force.
func (d *DB) Reload() error {
	if d.o.Config == "" {
		return nil
	}
	d.configMu.Lock()
	defer d.configMu.Unlock()
	before := d.config.Load()
	c, err := load(d.o.Config, d.log)
	if err == nil {
		if err = d.remote.ApplyConfig(c); err != nil {
			_ = d.remote.ApplyConfig(before.Config) // it was in force a moment ago
		}
	}
	if err != nil {
		d.config.Store(&settings{before.Config, before.read, err.Error() + " (what was read before stays in force)"})
		return fmt.Errorf("read prometheus.yml again: %w", err)
	}
	d.config.Store(&settings{c, time.Now(), ""})
	select {
	case d.reload <- struct{}{}:
	default:
	}
	d.log.Info("prometheus.yml was read again", "file", d.o.Config)
	return nil
}
