package compose

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	tender "github.com/tenderhq/tender"
)

var (
	metricsWord = &word{about: "Where its instances tell figures as Prometheus reads them", keys: map[string]*word{
		"port":         {about: "The container's; default: the only one it has", rule: between(1, 65535)},
		"path":         {about: "With query; default /metrics", kind: "string", rule: rooted},
		"scheme":       {about: "https is not verified", enum: []string{"http", "https"}},
		"job":          {about: "The label job; default: the service's name", kind: "string", rule: filled("a name")},
		"interval":     {about: "How often; default as prometheus.yml says, or 15s", kind: "string", rule: interval},
		"timeout":      {about: "default 10s, at most the interval", kind: "string", rule: interval},
		"limit":        {about: "Samples that one answer may have, else none of it is kept; default any number", rule: between(1, 10_000_000)},
		"labels":       {about: "Added to all its series", free: &word{}},
		"honor_labels": {about: "Labels that it sends itself win", kind: "boolean"},
	}}
	metricsWords = &word{about: "Where its instances tell figures as Prometheus reads them: one place or several", items: metricsWord, or: metricsWord}
)

func interval(v string) error {
	if d, err := time.ParseDuration(v); err != nil || d < time.Second || d > time.Hour || d%time.Millisecond != 0 {
		return fmt.Errorf("want a duration from 1s to 1h")
	}
	return nil
}

// labelName is what Prometheus takes everywhere.
var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// kept are the labels that say whose a series is.
var kept = []string{"project", "service", "revision", "instance", "node"}

// Metrics reads what x-tender.metrics of the one service in spec says; where it says
// nothing, what its labels prometheus.io/scrape, port, path, scheme, job and interval
// say, in each of the ways people write them.
func Metrics(spec []byte) ([]tender.Metrics, error) {
	p, err := whole(spec)
	if err != nil {
		return nil, err
	}
	for _, s := range p.Services {
		return metricsOf(s)
	}
	return nil, nil
}

func metricsOf(s types.ServiceConfig) ([]tender.Metrics, error) {
	said := asMap(s.Extensions[extensionKey])["metrics"]
	if said == nil {
		return labelledMetrics(s), nil
	}
	list, ok := said.([]any)
	if !ok {
		list = []any{said}
	}
	var out []tender.Metrics
	r := reader{path: extensionKey + ".metrics"}
	for i, v := range list {
		at := &r
		if ok {
			at = r.at(strconv.Itoa(i))
		}
		m := asMap(v)
		one := tender.Metrics{
			Port: at.number(m, "port"), Path: at.held(m, "path", rooted), Scheme: at.held(m, "scheme", metricsWord.keys["scheme"].only), Job: at.text(m, "job"),
			Interval: at.period(m, "interval"), Timeout: at.period(m, "timeout"), Limit: at.number(m, "limit"), Labels: at.pairs(m, "labels"), Honor: at.truth(m, "honor_labels"),
		}
		if one.Port == 0 {
			var all []int
			if one.Port, all = onlyPort(s); one.Port == 0 {
				at.fail("port", "is missing", fmt.Errorf("want one of the container's, as it exposes %s", ports(all)))
			}
		}
		if one.Timeout > one.Interval && one.Interval > 0 {
			at.fail("timeout", one.Timeout, errors.New("it is longer than the interval"))
		}
		for _, name := range slices.Sorted(maps.Keys(one.Labels)) {
			switch {
			case !labelName.MatchString(name) || strings.HasPrefix(name, "__"):
				at.fail("labels", name, errors.New("want a name of letters, digits and _"))
			case slices.Contains(kept, name):
				at.fail("labels", name, errors.New("it is set by Tender itself"))
			}
		}
		out = append(out, one)
	}
	return out, r.err()
}

func ports(all []int) string {
	if len(all) == 0 {
		return "none"
	}
	return "several"
}

var notWord = regexp.MustCompile(`[^a-z0-9]+`)

// labelledMetrics are those of labels such as prometheus.io/port, prometheus.io.port,
// prometheus_io_port, prometheus.port and prometheus-port.
func labelledMetrics(s types.ServiceConfig) []tender.Metrics {
	said := map[string]string{}
	for name, value := range s.Labels {
		word := notWord.ReplaceAllString(strings.ToLower(name), "_")
		if rest, ok := strings.CutPrefix(word, "prometheus_"); ok {
			said[strings.TrimPrefix(rest, "io_")] = value
		}
	}
	if on, err := strconv.ParseBool(said["scrape"]); err != nil || !on {
		return nil
	}
	// They are the user's own and may mean something to somebody else: what is no value counts as not said.
	take := func(key string, rule func(string) error) string {
		if v := said[key]; v != "" && rule(v) == nil {
			return v
		}
		return ""
	}
	m := tender.Metrics{Path: take("path", rooted), Scheme: take("scheme", metricsWord.keys["scheme"].only), Job: said["job"]}
	m.Port, _ = strconv.Atoi(take("port", between(1, 65535)))
	m.Interval, _ = time.ParseDuration(take("interval", interval))
	m.Timeout, _ = time.ParseDuration(take("timeout", interval))
	if m.Port == 0 {
		if m.Port, _ = onlyPort(s); m.Port == 0 {
			return nil
		}
	}
	return []tender.Metrics{m}
}
