package compose

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	tender "github.com/tenderhq/tender"
)

// reader turns decoded values of x-tender into Tender's own. A value of a
// variable comes as text, whatever it is.
type reader struct {
	path string
	bad  *[]error
}

func (r *reader) err() error {
	if r.bad == nil {
		return nil
	}
	return errors.Join(*r.bad...)
}

// at is the reader of what lies below.
func (r *reader) at(key string) *reader {
	if r.bad == nil {
		r.bad = new([]error)
	}
	return &reader{path: r.path + "." + key, bad: r.bad}
}

func (r *reader) fail(key string, v any, err error) {
	if r.bad == nil {
		r.bad = new([]error)
	}
	*r.bad = append(*r.bad, fmt.Errorf("%s.%s %v: %w", r.path, key, v, err))
}

func (r *reader) text(m map[string]any, key string) string {
	v, ok := m[key]
	if !ok || v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// valueAt gives the value at key to parse, where there is one.
func valueAt[T any](r *reader, m map[string]any, key string, parse func(string) (T, error)) (out T) {
	v, ok := m[key]
	if !ok || v == nil {
		return out
	}
	out, err := parse(fmt.Sprint(v))
	if err != nil {
		r.fail(key, v, err)
	}
	return out
}

// held is valueAt for values with a rule of their own.
func (r *reader) held(m map[string]any, key string, rule func(string) error) string {
	return valueAt(r, m, key, func(v string) (string, error) { return v, rule(v) })
}

func (r *reader) number(m map[string]any, key string) int { return valueAt(r, m, key, strconv.Atoi) }

func (r *reader) truth(m map[string]any, key string) bool {
	return valueAt(r, m, key, strconv.ParseBool)
}

func (r *reader) period(m map[string]any, key string) time.Duration {
	return valueAt(r, m, key, func(v string) (time.Duration, error) {
		if err := period(v); err != nil {
			return 0, err
		}
		return time.ParseDuration(v)
	})
}

func (r *reader) list(m map[string]any, key string) []map[string]any {
	l, _ := m[key].([]any)
	var out []map[string]any
	for _, v := range l {
		item, _ := v.(map[string]any)
		out = append(out, item)
	}
	return out
}

// texts is a list of values, or one.
func (r *reader) texts(m map[string]any, key string) []string {
	switch v := m[key].(type) {
	case nil:
		return nil
	case []any:
		var out []string
		for _, e := range v {
			out = append(out, fmt.Sprint(e))
		}
		return out
	default:
		return []string{fmt.Sprint(v)}
	}
}

func (r *reader) pairs(m map[string]any, key string) map[string]string {
	in, _ := m[key].(map[string]any)
	if len(in) == 0 {
		return nil
	}
	out := map[string]string{}
	for k, v := range in {
		out[k] = fmt.Sprint(v)
		if v == nil {
			out[k] = ""
		}
	}
	return out
}

func (r *reader) rollout(m map[string]any) tender.Rollout {
	out := tender.Rollout{
		Strategy: r.held(m, "strategy", rolloutWords.keys["strategy"].only), Before: r.text(m, "before"),
		Pause: r.period(m, "pause"), Keep: r.period(m, "keep"),
	}
	if _, ok := m["hold"]; ok {
		d := r.period(m, "hold")
		out.Hold = &d
	}
	for _, v := range r.texts(m, "steps") {
		n, err := strconv.Atoi(v)
		if err == nil {
			err = between(1, 99)(v)
		}
		if err == nil && len(out.Steps) > 0 && n <= out.Steps[len(out.Steps)-1] {
			err = errors.New("steps grow")
		}
		if err != nil {
			r.fail("steps", v, err)
		}
		out.Steps = append(out.Steps, n)
	}
	if a, ok := m["abort"].(map[string]any); ok {
		below := r.at("abort")
		out.AbortErrors = valueAt(below, a, "errors", shareOf)
		out.AbortP99 = below.period(a, "p99")
	}
	for i, c := range r.list(m, "check") {
		below := r.at(fmt.Sprintf("check[%d]", i))
		check := tender.Check{Path: orElse(below.held(c, "path", rooted), "/"), Status: below.number(c, "status"), Body: below.text(c, "body")}
		if check.Status == 0 {
			check.Status = 200
		}
		out.Check = append(out.Check, check)
	}
	return out
}

// only is the rule of a word that has a list of values.
func (s *word) only(v string) error { return s.check("string", v) }

// route reads one route. Its port is found later, with the whole service.
func (r *reader) route(m map[string]any) tender.Route {
	out := tender.Route{Path: orElse(r.held(m, "path", rooted), "/")}
	for _, h := range r.texts(m, "host") {
		if err := hostName(h); err != nil {
			r.fail("host", h, err)
		}
		if h = strings.ToLower(h); !slices.Contains(out.Hosts, h) {
			out.Hosts = append(out.Hosts, h)
		}
	}
	if to := r.list(m, "to"); len(to) > 0 {
		weighed := slices.ContainsFunc(to, func(a map[string]any) bool { return a["weight"] != nil })
		for i, a := range to {
			below := r.at(fmt.Sprintf("to[%d]", i))
			aim := tender.Aim{Service: below.text(a, "service"), Port: below.number(a, "port"), URL: strings.TrimSuffix(below.held(a, "url", origin), "/"), Weight: 1}
			if weighed {
				aim.Weight = below.number(a, "weight")
			}
			out.Aims = append(out.Aims, aim)
		}
	} else if port := r.number(m, "port"); port != 0 {
		out.Aims = []tender.Aim{{Port: port, Weight: 1}}
	}
	out.RouteOptions = r.options(m)
	return out
}

func (r *reader) options(m map[string]any) tender.RouteOptions {
	o := tender.RouteOptions{
		TLS:      r.held(m, "tls", routeWords.keys["tls"].only),
		CertFile: r.text(m, "cert_file"), KeyFile: r.text(m, "key_file"), HSTS: r.truth(m, "hsts"),
		Protocol: r.held(m, "protocol", routeWords.keys["protocol"].only),
		Balance:  r.held(m, "balance", balance), Sticky: r.truth(m, "sticky"), Retries: r.number(m, "retries"),
		StripPrefix: r.truth(m, "strip_prefix"), MaxBody: valueAt(r, m, "max_body", bytesOf), Compress: r.truth(m, "compress"),
		ErrorPage: r.text(m, "error_page"), Maintenance: r.text(m, "maintenance"),
	}
	if o.Protocol == "http" {
		o.Protocol = ""
	}
	if m["retries"] != nil && o.Retries == 0 {
		o.Retries = -1
	}
	if h, ok := m["health"].(map[string]any); ok {
		below := r.at("health")
		o.Health = &tender.RouteHealth{
			Path: orElse(below.text(h, "path"), "/"), Method: below.text(h, "method"), Host: below.text(h, "host"), Status: below.held(h, "status", statuses),
			Interval: below.period(h, "interval"), Timeout: below.period(h, "timeout"), Up: below.number(h, "up"), Down: below.number(h, "down"),
		}
	}
	if t, ok := m["timeout"].(map[string]any); ok {
		below := r.at("timeout")
		o.Timeout = tender.RouteTimeout{
			Connect: below.period(t, "connect"), Client: below.period(t, "client"), Server: below.period(t, "server"),
			Tunnel: below.period(t, "tunnel"), Total: below.period(t, "total"), Queue: below.period(t, "queue"),
		}
	}
	if h, ok := m["headers"].(map[string]any); ok {
		o.Headers = &tender.RouteHeaders{Request: r.pairs(h, "request"), Response: r.pairs(h, "response")}
	}
	switch v := m["redirect"].(type) {
	case map[string]any:
		below := r.at("redirect")
		o.Redirect = &tender.RouteRedirect{To: below.held(v, "to", redirection), Code: below.number(v, "code")}
	case string:
		o.Redirect = &tender.RouteRedirect{To: r.held(m, "redirect", redirection)}
	}
	o.BasicAuth = r.pairs(m, "basic_auth")
	for _, user := range slices.Sorted(maps.Keys(o.BasicAuth)) {
		if err := hashed(o.BasicAuth[user]); err != nil {
			r.fail("basic_auth", user, err)
		}
	}
	for _, v := range r.texts(m, "allow") {
		p, err := prefixOf(v)
		if err != nil {
			r.fail("allow", v, rangeRule(v))
		}
		o.Allow = append(o.Allow, p)
	}
	switch v := m["rate_limit"].(type) {
	case map[string]any:
		below := r.at("rate_limit")
		limit := valueAt(below, v, "requests", rateOf)
		limit.Burst, limit.By = below.number(v, "burst"), below.held(v, "by", clientBy)
		o.RateLimit = &limit
	case string:
		limit := valueAt(r, m, "rate_limit", rateOf)
		o.RateLimit = &limit
	}
	return o
}

// routesOf are the routes of a project, with their ports.
func routesOf(p *types.Project) ([]tender.Route, error) {
	var out []tender.Route
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		x, err := extensionOf(p.Services[name])
		if err != nil {
			return nil, tender.Errorf(tender.Invalid, "services.%s: %w", name, err)
		}
		for _, r := range x.Routes {
			if len(r.Aims) == 0 {
				r.Aims = []tender.Aim{{Weight: 1}}
			}
			r.Aims[0].Service = name
			out = append(out, r)
		}
	}
	x, _ := p.Extensions[extensionKey].(map[string]any)
	r := reader{path: extensionKey}
	for i, m := range r.list(x, "routes") {
		out = append(out, r.at(fmt.Sprintf("routes[%d]", i)).route(m))
	}
	if err := r.err(); err != nil {
		return nil, tender.Errorf(tender.Invalid, "%w", err)
	}
	for i := range out {
		for k := range out[i].Aims {
			a := &out[i].Aims[k]
			if s, ok := p.Services[a.Service]; ok && a.Port == 0 {
				a.Port, _ = onlyPort(s)
			}
		}
	}
	return out, nil
}

// onlyPort is the TCP port that a service exposes or publishes; 0 where it is
// none or more than one, all of which are named then.
func onlyPort(s types.ServiceConfig) (port int, all []int) {
	for _, p := range exposed(s) {
		if p.Protocol == "tcp" {
			all = append(all, p.Container)
		}
	}
	slices.Sort(all)
	if len(all) == 1 {
		return all[0], all
	}
	return 0, all
}
