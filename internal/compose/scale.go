package compose

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"

	"github.com/compose-spec/compose-go/v2/types"

	tender "github.com/tenderhq/tender"
)

// mostInstances bounds max of x-tender.scale.
const mostInstances = 1000

var scaleWords = &word{about: "How many instances there are follows what is measured of them", must: []string{"max"}, keys: map[string]*word{
	"min":      {about: "At least as many; default 1", rule: between(1, mostInstances)},
	"max":      {about: "At most as many", rule: between(1, mostInstances)},
	"cpu":      {about: "Share of what an instance may use that is aimed at, such as 70%: of its limit, or of one core", rule: share},
	"memory":   {about: "Share of an instance's memory limit that is aimed at, such as 80%", rule: share},
	"requests": {about: "Requests that the edge brings to each instance, such as 200/s", kind: "string", rule: rateRule},
	"query": {about: "Any figure that falls when there are more instances", must: []string{"expr", "target"}, keys: map[string]*word{
		"expr":   {about: "PromQL with one value as its answer", kind: "string", rule: filled("an expression of PromQL")},
		"target": {about: "What that value should be", rule: above},
	}},
	"cooldown": {about: "Between two changes; default 1m", kind: "string", rule: period},
	"window":   {about: "Only what was asked for all this long takes instances away; default 5m", kind: "string", rule: period},
}}

func above(v string) error {
	_, err := aboveOf(v)
	return err
}

func aboveOf(v string) (float64, error) {
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || !(f > 0) || f > 1e300 {
		return 0, fmt.Errorf("want a number above 0")
	}
	return f, nil
}

func (r *reader) scale(m map[string]any) *tender.Scale {
	s := &tender.Scale{
		Min: cmp.Or(r.number(m, "min"), 1), Max: r.number(m, "max"),
		CPU: valueAt(r, m, "cpu", shareOf), Memory: valueAt(r, m, "memory", shareOf),
		Cooldown: tender.DefaultCooldown, Window: tender.DefaultWindow,
	}
	if _, said := m["requests"]; said {
		if rate := valueAt(r, m, "requests", rateOf); rate.Per > 0 {
			s.Requests = float64(rate.Requests) / rate.Per.Seconds()
		}
	}
	if q := asMap(m["query"]); len(q) > 0 {
		below := r.at("query")
		s.Query, s.Target = below.text(q, "expr"), valueAt(below, q, "target", aboveOf)
	}
	if _, said := m["cooldown"]; said {
		s.Cooldown = r.period(m, "cooldown")
	}
	if _, said := m["window"]; said {
		s.Window = r.period(m, "window")
	}
	return s
}

// scalable finds what the words of a rule do not say each for itself, and at
// which of them.
func scalable(s *tender.Scale) (key string, err error) {
	switch {
	case s.Max < 1 || s.Max > mostInstances:
		return "max", fmt.Errorf("want a whole number from 1 to %d", mostInstances)
	case s.Min < 1 || s.Min > s.Max:
		return "min", fmt.Errorf("min %d is not between 1 and max, which is %d", s.Min, s.Max)
	case s.CPU == 0 && s.Memory == 0 && s.Requests == 0 && s.Query == "":
		return "max", errors.New("nothing says when: give cpu, memory, requests or query")
	}
	return "", nil
}

// scale finds what keeps a service from having as many instances as its rule says.
func (r *references) scale(s types.ServiceConfig, at func(...string) []string) {
	m, ok := asMap(s.Extensions[extensionKey])["scale"].(map[string]any)
	if !ok {
		return
	}
	here := func(key string) []string { return at(extensionKey, "scale", key) }
	read := reader{path: extensionKey + ".scale"}
	rule := read.scale(m)
	if key, err := scalable(rule); err != nil {
		r.add("", extensionKey+".scale: "+err.Error(), here(key)...)
		return
	}
	if rule.Max == 1 {
		return
	}
	switch {
	case s.ContainerName != "":
		r.add("", "container_name is for one instance, and x-tender.scale.max is "+strconv.Itoa(rule.Max), at("container_name")...)
	case s.NetworkMode == "host":
		r.add("", "network_mode host is for one instance, and x-tender.scale.max is "+strconv.Itoa(rule.Max), at("network_mode")...)
	}
	if jobsOf(r.project)[s.Name] {
		r.add("", "x-tender.scale: another service waits for this one to end: it runs once", here("max")...)
	}
}

// Budget is what an instance of a service may use.
type Budget struct {
	Cores  float64 // 0: no limit
	Memory int64   // bytes; 0: no limit
}

// BudgetOf reads the limits of the one service in spec.
func BudgetOf(spec []byte) (Budget, error) {
	p, err := whole(spec)
	if err != nil {
		return Budget{}, err
	}
	for _, s := range p.Services {
		b := Budget{Cores: float64(s.CPUS), Memory: int64(s.MemLimit)}
		if s.Deploy != nil && s.Deploy.Resources.Limits != nil {
			l := s.Deploy.Resources.Limits
			b.Cores, b.Memory = cmp.Or(float64(l.NanoCPUs), b.Cores), cmp.Or(int64(l.MemoryBytes), b.Memory)
		}
		if s.CPUQuota > 0 && b.Cores == 0 {
			b.Cores = float64(s.CPUQuota) / float64(cmp.Or(s.CPUPeriod, 100_000))
		}
		return b, nil
	}
	return Budget{}, nil
}
