package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"testing"
)

// What instances use must be there without anybody asking for it: of those that run,
// of one that was restarted because its memory ran out, and of the host.
func TestInstancesMustBeSampled(t *testing.T) {
	t.Parallel()
	h := newHost(t, "--metrics-interval", "1s")
	h.file("compose.yaml", `
services:
  web:
    image: busybox
    command: ["sh", "-c", "while :; do :; done"]
    mem_limit: 32m
    cpus: 0.1
    stop_signal: SIGKILL
  beside:
    image: busybox
    command: ["sleep", "100000"]
    network_mode: service:web
    stop_signal: SIGKILL
  greedy:
    image: busybox
    command: ["sh", "-c", "tail /dev/zero"]
    mem_limit: 16m
    restart: always
    stop_signal: SIGKILL
`)
	h.must("up", "-d")
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", h.socket())
	}}}
	defer client.CloseIdleConnections()
	// ask returns the one value of an expression.
	ask := func(expr string) (float64, error) {
		resp, err := client.Get("http://tender/api/v1/query?" + url.Values{"query": {expr}}.Encode())
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		var found struct {
			Error string
			Data  struct {
				Result []struct {
					Metric map[string]string
					Value  [2]any
				}
			}
		}
		if err := json.NewDecoder(resp.Body).Decode(&found); err != nil {
			return 0, err
		}
		if len(found.Data.Result) != 1 || found.Error != "" {
			return 0, fmt.Errorf("%s: %s %v", expr, found.Error, found.Data.Result)
		}
		text, _ := found.Data.Result[0].Value[1].(string)
		return strconv.ParseFloat(text, 64)
	}
	of := func(service string) string { return `{project="` + h.project + `",service="` + service + `"}` }
	for _, want := range []struct {
		expr string
		ok   func(float64) bool
	}{
		{"container_cpu_usage_seconds_total" + of("web"), func(v float64) bool { return v > 0.2 }},
		{"container_cpu_cfs_throttled_periods_total" + of("web"), func(v float64) bool { return v > 0 }},
		{"container_memory_working_set_bytes" + of("web"), func(v float64) bool { return v > 0 && v < 32<<20 }},
		{"container_spec_memory_limit_bytes" + of("web"), func(v float64) bool { return v == 32<<20 }},
		{"container_threads" + of("web"), func(v float64) bool { return v == 1 }},
		{"sum(container_network_receive_bytes_total" + of("web") + ")", func(v float64) bool { return v > 0 }},
		{"tender_service_instances" + `{project="` + h.project + `",service="web",state="ready"}`, func(v float64) bool { return v == 1 }},
		{"tender_instance_running" + of("beside"), func(v float64) bool { return v == 1 }},
		{"container_oom_events_total" + of("greedy"), func(v float64) bool { return v >= 2 }},
		{"tender_instance_restarts_total" + of("greedy"), func(v float64) bool { return v >= 1 }},
		{"node_load1", func(v float64) bool { return v >= 0 }},
		{"tender_engine_filesystem_avail_bytes", func(v float64) bool { return v > 0 }},
	} {
		h.until(want.expr, func() error {
			v, err := ask(want.expr)
			if err == nil && !want.ok(v) {
				err = fmt.Errorf("%s is %v", want.expr, v)
			}
			return err
		})
	}
	// The network of web is not beside's too.
	if v, err := ask("sum(container_network_receive_bytes_total" + of("beside") + ")"); err == nil {
		t.Errorf("the network is told of twice: %v", v)
	}
	h.must("down")
	h.until("its series end", func() error {
		if v, err := ask("count(container_last_seen" + `{project="` + h.project + `"})`); err == nil {
			return fmt.Errorf("%v are there", v)
		} else if _, odd := errors.AsType[*url.Error](err); odd {
			return err
		}
		return nil
	})
}
