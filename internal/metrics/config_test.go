package metrics

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPrometheusYML(t *testing.T) {
	for _, tt := range []struct{ name, file, err string }{
		{"nothing", "", ""},
		{"as it is taught", "global: {scrape_interval: 15s, evaluation_interval: 15s}\nalerting: {alertmanagers: [{static_configs: [{targets: [\"alertmanager:9093\"]}]}]}\nscrape_configs:\n  - job_name: app\n    static_configs: [{targets: [\"app:8080\"]}]\n", ""},
		{"others that find", "scrape_configs:\n- {job_name: a, file_sd_configs: [{files: [x.json]}]}\n- {job_name: b, http_sd_configs: [{url: \"http://x/sd\"}]}\n- {job_name: c, dns_sd_configs: [{names: [x]}]}\n- {job_name: d, docker_sd_configs: [{host: \"unix:///var/run/docker.sock\"}]}\n", ""},
		{"all that sends", "remote_write: [{url: \"http://x/write\"}]\nremote_read: [{url: \"http://x/read\"}]\nstorage: {tsdb: {out_of_order_time_window: 1h}}\n", ""},
		{"one that is not there", "scrape_configs:\n- job_name: a\n  kubernetes_sd_configs: [{role: pod}]\n", "prometheus.yml:3:3: kubernetes_sd_configs is not supported"},
		{"a word that nobody knows", "scrape_configs:\n- job_name: a\n  scrape_intervall: 5s\n", "scrape_intervall not found"},
		{"no YAML", "scrape_configs: [\n", "prometheus.yml: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "prometheus.yml")
			if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			err := CheckConfig(path)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("err = %v, want %q", err, tt.err)
			}
		})
	}
}

func TestABadFileLeavesTheOldOneInForce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "prometheus.yml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("global: {scrape_interval: 7s}\n")
	d := open(t, Options{Config: path})
	write("global: {scrape_interval: sometimes}\n")
	if err := d.Reload(); err == nil {
		t.Error("it was taken")
	}
	if got := d.Config().GlobalConfig.ScrapeInterval.String(); got != "7s" {
		t.Errorf("interval %s", got)
	}
	if p := d.Status().Problem(); !strings.Contains(p, "sometimes") || !strings.Contains(p, "what was read before stays in force") {
		t.Errorf("problem %q", p)
	}
	write("global: {scrape_interval: 9s}\n")
	if err := d.Reload(); err != nil {
		t.Error(err)
	}
	if got := d.Config().GlobalConfig.ScrapeInterval.String(); got != "9s" || d.Status().Problem() != "" {
		t.Errorf("interval %s, problem %q", got, d.Status().Problem())
	}
	// At the start a bad file costs what it says, and nothing else.
	write("global: {scrape_interval: never}\n")
	if p := open(t, Options{Config: path}).Status().Problem(); !strings.Contains(p, "never") {
		t.Errorf("problem %q", p)
	}
}
