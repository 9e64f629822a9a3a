package compose_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/compose"
)

func TestMetricsAreReadAsWritten(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       []tender.Metrics
		err        string
	}{
		{name: "nothing", body: "    expose: [8080]\n"},
		{
			name: "all of it", body: "    x-tender: {metrics: {port: 9000, path: '/stats?format=prometheus', scheme: https, job: app, interval: 30s, timeout: 5s, limit: 5000, labels: {team: core}, honor_labels: true}}\n",
			want: []tender.Metrics{{Port: 9000, Path: "/stats?format=prometheus", Scheme: "https", Job: "app", Interval: 30 * time.Second, Timeout: 5 * time.Second, Limit: 5000, Labels: map[string]string{"team": "core"}, Honor: true}},
		},
		{name: "the only port", body: "    expose: [8080]\n    x-tender: {metrics: {path: /m}}\n", want: []tender.Metrics{{Port: 8080, Path: "/m"}}},
		{name: "two places", body: "    x-tender: {metrics: [{port: 1}, {port: 2, job: b}]}\n", want: []tender.Metrics{{Port: 1}, {Port: 2, Job: "b"}}},
		{name: "labels", body: "    labels: {prometheus.io/scrape: 'true', prometheus.io/port: '9113', prometheus.io/path: /m, prometheus.io/interval: 30s}\n", want: []tender.Metrics{{Port: 9113, Path: "/m", Interval: 30 * time.Second}}},
		{name: "labels written otherwise", body: "    labels: [prometheus_io_scrape=true, prometheus.port=9113, prometheus-job=app]\n", want: []tender.Metrics{{Port: 9113, Job: "app"}}},
		{name: "labels that say no", body: "    expose: [8080]\n    labels: {prometheus.io/scrape: 'false'}\n"},
		{name: "labels that mean something else", body: "    expose: [8080]\n    labels: {prometheus.io/scrape: 'true', prometheus.io/port: metrics, prometheus.io/path: here}\n", want: []tender.Metrics{{Port: 8080}}},
		{name: "x-tender wins over labels", body: "    labels: {prometheus.io/scrape: 'true', prometheus.io/port: '1'}\n    x-tender: {metrics: {port: 2}}\n", want: []tender.Metrics{{Port: 2}}},
		{name: "no port", body: "    x-tender: {metrics: {path: /m}}\n", err: "want one of the container's, as it exposes none"},
		{name: "no such key", body: "    x-tender: {metrics: {prot: 1}}\n", err: `compose.yaml:5:26`},
		{name: "no port of this world", body: "    x-tender: {metrics: {port: 70000}}\n", err: "want a whole number from 1 to 65535"},
		{name: "too often", body: "    x-tender: {metrics: {port: 1, interval: 10ms}}\n", err: "want a duration from 1s to 1h"},
		{name: "longer than it may", body: "    x-tender: {metrics: {port: 1, interval: 5s, timeout: 6s}}\n", err: "it is longer than the interval"},
		{name: "another's name", body: "    x-tender: {metrics: {port: 1, labels: {project: mine}}}\n", err: "it is set by Tender itself"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := loadLogs(t, tt.body)
			var p tender.Project
			if err == nil {
				p, err = compose.Parse([]byte(d.YAML))
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("err = %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := compose.Metrics(p.Services[0].Spec)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMetricsAreNoPartOfARevision(t *testing.T) {
	var essences [][]byte
	for _, body := range []string{"    expose: [8080]\n", "    expose: [8080]\n    x-tender: {metrics: {interval: 5s}}\n"} {
		d, err := loadLogs(t, body)
		if err != nil {
			t.Fatal(err)
		}
		p, err := compose.Parse([]byte(d.YAML))
		if err != nil {
			t.Fatal(err)
		}
		e, err := compose.Essence(p.Services[0].Spec)
		if err != nil {
			t.Fatal(err)
		}
		essences = append(essences, e)
	}
	if !bytes.Equal(essences[0], essences[1]) {
		t.Errorf("%s\n%s", essences[0], essences[1])
	}
}
