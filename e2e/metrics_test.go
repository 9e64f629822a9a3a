package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Metrics of services must be found by a real promtool with a token that reads, whoever
// says where they are: x-tender, labels, or a prometheus.yml that is read again.
func TestMetricsMustBeScrapedAndAsked(t *testing.T) {
	t.Parallel()
	listen := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	h := makeHost(t, "--listen="+listen)
	yml := h.file("prometheus.yml", "global: {scrape_interval: 1s}\n")
	h.flags = append(h.flags, "--metrics-config="+yml)
	h.start()
	h.file("compose.yaml", `x-web: &web
  image: busybox
  command: [sh, -c, "mkdir /www && echo 'requests_total{code=\"200\"} 42' > /www/metrics && exec httpd -f -p 8080 -h /www"]
  stop_grace_period: 0s
services:
  web:
    <<: *web
    deploy: {replicas: 2}
    x-tender: {metrics: {port: 8080, interval: 1s, labels: {team: core}}}
  old:
    <<: *web
    labels: {prometheus.io/scrape: "true", prometheus.io/port: "8080", prometheus.io/interval: 1s}
  third:
    <<: *web
`)
	h.must("up", "-d")
	secret := h.token("promtool", "read")
	promtool := filepath.Join(h.dir, "promtool")
	image := docker("create", "prom/prometheus:latest")
	id := strings.TrimSpace(image.out)
	defer docker("rm", id)
	if err := errors.Join(image.err(), docker("cp", id+":/usr/bin/promtool", promtool).err()); err != nil {
		t.Fatal(err)
	}
	ask := func(expr string) (string, error) {
		out, err := exec.Command(promtool, "query", "instant", "http://promtool:"+secret+"@"+listen+"/prometheus", expr).CombinedOutput()
		return string(out), err
	}
	answers := func(expr string, want ...string) {
		t.Helper()
		h.until(expr, func() error {
			out, err := ask(expr)
			for _, w := range want {
				if err == nil && !strings.Contains(out, w) {
					err = fmt.Errorf("want %s", w)
				}
			}
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
	answers(`sum by (project, service, instance, job, team) (requests_total{project="`+h.project+`"})`,
		fmt.Sprintf(`{instance="%s-web-1", job="web", project="%s", service="web", team="core"} => 42 @`, h.project, h.project),
		fmt.Sprintf(`{instance="%s-web-2", job="web", project="%s", service="web", team="core"} => 42 @`, h.project, h.project),
		fmt.Sprintf(`{instance="%s-old-1", job="old", project="%s", service="old"} => 42 @`, h.project, h.project))
	answers(`up{job="tender"}`, "=> 1 @")
	answers(`tender_part_up{part="metrics"}`, "=> 1 @")

	// prometheus.yml may speak of services by their names; a bad one changes nothing.
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(yml, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := h.serve.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	write("scrape_configs: [{job_name: k, kubernetes_sd_configs: [{role: pod}]}]\n")
	h.until("status says what is wrong", func() error {
		if out := h.must("status"); !strings.Contains(out, "kubernetes_sd_configs is not supported") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	write(fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs: [{job_name: app, static_configs: [{targets: ['third.%s:8080']}]}]\n", h.project))
	answers(`requests_total{job="app"}`, `instance="third.`+h.project+`:8080"`)

	// One that reads may not write.
	out, _ := exec.Command("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-H", "Authorization: Bearer "+secret, "http://"+listen+"/api/v1/write").Output()
	if string(out) != "403" {
		t.Errorf("a token that reads writes: %s", out)
	}
	// What was kept is there after kill -9.
	h.kill()
	h.start()
	answers(`last_over_time(requests_total{job="web",instance="`+h.project+`-web-1"}[10m])`, "=> 42 @")
}
