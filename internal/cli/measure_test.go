package cli

import (
	"fmt"
	"strings"
	"testing"
)

func TestUnits(t *testing.T) {
	for expr, want := range map[string]quantity{
		`container_memory_working_set_bytes{service="x_seconds"}`:                                     bytesUnit,
		`sum by (interface_seconds) (rate(container_network_receive_bytes_total[1m]))`:                byteRate,
		`rate(container_cpu_usage_seconds_total[30s])`:                                                plainUnit,
		`sum(rate(tender_edge_requests_total[1m]))`:                                                   rateUnit,
		`histogram_quantile(0.99, sum by (le) (rate(tender_edge_duration_seconds_bucket[5m])))`:       secondsUnit,
		`rate(tender_edge_duration_seconds_sum[5m]) / rate(tender_edge_duration_seconds_count[5m])`:   secondsUnit,
		`container_memory_working_set_bytes / on (instance) container_spec_memory_limit_bytes`:        ratioUnit,
		`100 * container_memory_working_set_bytes / container_spec_memory_limit_bytes`:                plainUnit,
		`node_filesystem_avail_bytes - node_filesystem_free_bytes`:                                    bytesUnit,
		`tender_start_time_seconds`:                                                                   momentUnit,
		`up`:                                                                                          plainUnit,
		`1 + 1`:                                                                                       plainUnit,
		`count(container_memory_working_set_bytes)`:                                                   plainUnit,
		`tender_edge_open`:                                                                            plainUnit,
		`rate(node_cpu_seconds_total{mode!="idle"}[1m]) / rate(node_cpu_seconds_total[1m])`:           ratioUnit,
		`max(container_memory_usage_bytes) and on (project) tender_edge_up{project="a"} == bool true`: plainUnit,
	} {
		if got := quantityOf(expr); got != want {
			t.Errorf("%s: %d, want %d", expr, got, want)
		}
	}
}

func TestNumbersForPeople(t *testing.T) {
	for _, k := range []struct {
		u    quantity
		v    float64
		want string
	}{
		{plainUnit, 0, "0"},
		{plainUnit, 0.123456, "0.1235"},
		{plainUnit, 12, "12"},
		{plainUnit, 123456, "123456"},
		{plainUnit, 12345678, "12.3M"},
		{plainUnit, 1.5e9, "1.5G"},
		{plainUnit, -3.25, "-3.25"},
		{plainUnit, 0.00001, "1.00e-05"},
		{bytesUnit, 64 << 20, "64MiB"},
		{bytesUnit, 1000, "1000B"},
		{bytesUnit, 0.5, "0.5B"},
		{byteRate, 1536, "1.5KiB/s"},
		{rateUnit, 41.666, "41.67/s"},
		{secondsUnit, 0.0042, "4.2ms"},
		{secondsUnit, 3, "3s"},
		{secondsUnit, 150, "150s"},
		{secondsUnit, 5400, "90m"},
		{secondsUnit, 86400 * 9, "9d"},
		{ratioUnit, 0.5, "50%"},
	} {
		if got := k.u.say(k.v); got != k.want {
			t.Errorf("%v of %d: %q, want %q", k.v, k.u, got, k.want)
		}
	}
}

func TestScales(t *testing.T) {
	for _, k := range []struct {
		u         quantity
		low, high float64
		want      string
	}{
		{plainUnit, 0, 1, "0 0.5 1"},
		{plainUnit, 3, 9.5, "0 5 10"},
		{plainUnit, 95, 99, "94 96 98 100"},
		{plainUnit, 0, 0, "0 0.5 1"},
		{plainUnit, 7, 7, "6 6.5 7 7.5 8"},
		{plainUnit, -4, 4, "-5 0 5"},
		{bytesUnit, 10 << 20, 60 << 20, "0B 32MiB 64MiB"},
		{secondsUnit, 0, 0.05, "0s 20ms 40ms 60ms"},
		{secondsUnit, 0, 7000, "0s 50m 100m 150m"},
		{ratioUnit, 0, 0.93, "0% 50% 100%"},
	} {
		var got []string
		for _, v := range k.u.scale(k.low, k.high, 4) {
			got = append(got, k.u.say(v))
		}
		if s := fmt.Sprint(strings.Join(got, " ")); s != k.want {
			t.Errorf("%v to %v of %d: %s, want %s", k.low, k.high, k.u, s, k.want)
		}
	}
}
