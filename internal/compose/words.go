package compose

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"golang.org/x/crypto/bcrypt"

	tender "github.com/tenderhq/tender"
)

// The words of x-tender: what this version knows, and what it does not know yet
// but another does.
var (
	projectWords = &word{about: "What concerns the whole project", keys: map[string]*word{
		"environment": {about: "Which step of the daemon's pipeline this is: its gate holds", kind: "string", rule: filled("the name of a step")},
		"routes":      {about: "Routes that lead to several services, or outside", items: freeRouteWords},
	}}
	serviceWords = &word{about: "What Compose has no word for", keys: map[string]*word{
		"routes":  {about: "What the edge serves of this service", items: routeWords},
		"publish": {about: "Who holds ports: on the host", enum: []string{tender.PublishProxy, tender.PublishEngine}},
		"boot":    {about: "Who starts it after a reboot", enum: []string{tender.BootEngine, tender.BootOrdered}},
		"rollout": rolloutWords,
		"logs":    logsWords,
		"scale":   scaleWords,
		"update":  updateWords,
		"metrics": metricsWords,
		"alerts":  alertsWords,
		"backup":  {later: true}, "pool": {later: true},
		"schedule": {later: true}, "allow": {later: true}, "mesh": {later: true}, "profile": {later: true},
	}}
	volumeWords = &word{about: "What Compose has no word for", keys: map[string]*word{"backup": {later: true}}}

	rolloutWords = &word{about: "How one revision replaces another", keys: map[string]*word{
		"strategy": {
			about: "rolling: one instance after the other; blue-green: all beside the old ones, then one switch; canary: a growing share of the traffic; recreate: all old ones stop first",
			enum:  []string{tender.Rolling, tender.BlueGreen, tender.Canary, tender.Recreate},
		},
		"hold":   {about: "An instance must stay healthy this long", kind: "string", rule: period},
		"before": {about: "A service that must end with 0 first, once for each rollout", kind: "string", rule: filled("the name of a service")},
		"steps":  {about: "canary: percent of the traffic, growing", items: &word{rule: between(1, 99)}},
		"pause":  {about: "canary: how long each step is watched", kind: "string", rule: period},
		"abort": {about: "canary: what the edge may measure at most, else the rollout goes back", keys: map[string]*word{
			"errors": {about: "Failed requests, such as 1%", rule: share},
			"p99":    {about: "The 99th percentile of the time that requests take", kind: "string", rule: period},
		}},
		"keep": {about: "blue-green: how long the old revision stays for an instant way back", kind: "string", rule: period},
		"check": {about: "Asked of the new revision through the edge before it gets traffic", items: &word{keys: map[string]*word{
			"path":   {about: "With query; / where it is not said", kind: "string", rule: rooted},
			"status": {about: "200 where it is not said", rule: between(100, 599)},
			"body":   {about: "What the body must hold"},
		}}},
	}}

	routeWords     = &word{about: "One route: hosts and a path", keys: routeKeys()}
	freeRouteWords = &word{about: "One route: hosts and a path", keys: added(routeKeys(), "to", &word{
		about: "Where requests go, by weight",
		items: &word{keys: map[string]*word{
			"service": {about: "A service of this project", kind: "string", rule: filled("the name of a service")},
			"port":    {about: "The container's; default: the only one it has", rule: between(1, 65535)},
			"url":     {about: "http:// or https://, host and port, for what runs elsewhere", kind: "string", rule: origin},
			"weight":  {about: "Its share, relative to the others'; 1 where it is not said", rule: between(0, 1_000_000)},
		}},
	})}
)

func added(m map[string]*word, key string, w *word) map[string]*word {
	m[key] = w
	delete(m, "port")
	return m
}

func routeKeys() map[string]*word {
	truth := func(about string) *word { return &word{about: about, kind: "boolean"} }
	wait := func(about string) *word { return &word{about: about, kind: "string", rule: period} }
	set := func(about string) *word { return &word{about: about, free: &word{also: []string{""}}} }
	host := &word{kind: "string", rule: hostName}
	return map[string]*word{
		"host": {about: "Names, without port; *.example.com is any name below; none: any host", items: host, or: host},
		"path": {about: "A prefix; the longest wins; default /", kind: "string", rule: rooted},
		"port": {about: "The container's; default: the only one it has", rule: between(1, 65535)},

		"tls":       {about: "auto: from an ACME authority; internal: from the edge's own; off", enum: []string{"auto", "internal", "off"}},
		"cert_file": {about: "A certificate on the edge's host, PEM", kind: "string", rule: absolute},
		"key_file":  {about: "Its key", kind: "string", rule: absolute},
		"hsts":      truth("Browsers are told to come with TLS only, for a year"),
		"protocol":  {about: "Spoken to the targets: h2c for gRPC and HTTP/2 without TLS, https for HTTP/1 over TLS", enum: []string{"http", "h2c", "https"}},

		"balance": {about: "round-robin, least-conn, random-two, hash:ip, hash:header:NAME or hash:cookie:NAME", kind: "string", rule: balance},
		"sticky":  truth("A cookie keeps a client at its instance"),
		"health": {about: "The edge's own check of each target", keys: map[string]*word{
			"path":     {about: "default /; tcp: a connection is enough", kind: "string", rule: rooted, also: []string{"tcp"}},
			"method":   {about: "default GET", enum: []string{"GET", "HEAD", "OPTIONS"}},
			"host":     {about: "The Host header", kind: "string", rule: hostName},
			"status":   {about: "200, 2xx or 200-399, which is the default", rule: statuses},
			"interval": wait("default 2s"), "timeout": wait("default 1s"),
			"up":   {about: "Good answers in a row until it serves; default 1", rule: between(1, 1000)},
			"down": {about: "Bad answers in a row until it does not; default 2", rule: between(1, 1000)},
		}},
		"timeout": {about: "Of inactivity, but for total", keys: map[string]*word{
			"connect": wait("default 5s"), "client": wait("default 50s"), "server": wait("default 50s"),
			"tunnel": wait("Of WebSockets and streams; default 1h"), "total": wait("Of the whole request; default none"),
			"queue": wait("How long a request waits where nothing serves; default 30s"),
		}},
		"retries": {about: "Of requests that are safe to repeat, on another target; default 1", rule: between(0, 10)},

		"strip_prefix": truth("The path is taken away before the request goes on"),
		"headers":      {about: "Set; an empty value removes one", keys: map[string]*word{"request": set("To the target"), "response": set("To the client")}},
		"redirect": {about: "Answered by the edge with another address; {host}, {path} and {query} are filled in", or: &word{kind: "string", rule: redirection}, must: []string{"to"}, keys: map[string]*word{
			"to": {kind: "string", rule: redirection}, "code": {about: "default 308", enum: []string{"301", "302", "303", "307", "308"}},
		}},
		"basic_auth": {about: "Names and their bcrypt hashes, as htpasswd -nB prints them", free: &word{kind: "string", rule: hashed}},
		"allow":      {about: "Addresses and ranges that may come; others get 403", items: &word{kind: "string", rule: rangeRule}},
		"rate_limit": {about: "Requests of one client, such as 100/s", or: &word{kind: "string", rule: rateRule}, must: []string{"requests"}, keys: map[string]*word{
			"requests": {kind: "string", rule: rateRule},
			"burst":    {about: "At once; default as many as requests says", rule: between(1, 1_000_000)},
			"by":       {about: "ip, which is the default, or header:NAME", kind: "string", rule: clientBy},
		}},
		"max_body":    {about: "Of a request, such as 10MB; larger ones get 413", rule: bytesRule},
		"compress":    truth("gzip of text, where the client takes it"),
		"error_page":  {about: "HTML for 502, 503 and 504 of the edge's own; {{.Status}} and {{.Text}} are filled in", kind: "string", rule: filled("HTML")},
		"maintenance": {about: "503 with this text instead of the service", kind: "string", rule: filled("a text for visitors")},
	}
}

func period(v string) error {
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		return fmt.Errorf("want a duration such as 10s")
	}
	return nil
}

func filled(what string) func(string) error {
	return func(v string) error {
		if v == "" {
			return fmt.Errorf("want %s", what)
		}
		return nil
	}
}

func between(low, high int) func(string) error {
	return func(v string) error {
		if n, err := strconv.Atoi(v); err != nil || n < low || n > high {
			return fmt.Errorf("want a whole number from %d to %d", low, high)
		}
		return nil
	}
}

func rooted(v string) error {
	if !strings.HasPrefix(v, "/") || strings.ContainsAny(v, " \t\r\n#") {
		return fmt.Errorf("want a path that begins with /")
	}
	return nil
}

func absolute(v string) error {
	if !strings.HasPrefix(v, "/") {
		return fmt.Errorf("want an absolute path on the edge's host")
	}
	return nil
}

var hostForm = regexp.MustCompile(`^(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

func hostName(v string) error {
	if _, err := netip.ParseAddr(v); err == nil {
		return nil
	}
	switch name := strings.ToLower(v); {
	case strings.Contains(v, "://") || strings.Contains(v, "/"):
		return fmt.Errorf("want a name alone; path: takes the rest")
	case strings.Contains(v, ":"):
		return fmt.Errorf("want a name without port")
	case v == "*":
		return fmt.Errorf("leave host: out for any host")
	case len(v) > 253 || !hostForm.MatchString(name):
		return fmt.Errorf("want a name such as shop.example.com or *.example.com")
	}
	return nil
}

func origin(v string) error {
	u, err := url.Parse(v)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("want http:// or https:// with a host, such as http://10.0.0.8:8081")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return fmt.Errorf("want a host and a port alone: paths go on as they come")
	}
	return nil
}

func balance(v string) error {
	words := []string{"round-robin", "least-conn", "random-two", "hash:ip"}
	for _, w := range words {
		if v == w {
			return nil
		}
	}
	for _, prefix := range []string{"hash:header:", "hash:cookie:"} {
		if name, ok := strings.CutPrefix(v, prefix); ok && token(name) {
			return nil
		}
	}
	return fmt.Errorf("want round-robin, least-conn, random-two, hash:ip, hash:header:NAME or hash:cookie:NAME%s", meant(v, words))
}

func clientBy(v string) error {
	if name, ok := strings.CutPrefix(v, "header:"); v == "ip" || ok && token(name) {
		return nil
	}
	return fmt.Errorf("want ip or header:NAME")
}

// token reports whether v can be the name of a header or a cookie.
func token(v string) bool {
	return v != "" && !strings.ContainsFunc(v, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r)
	})
}

var statusForm = regexp.MustCompile(`^[1-5](\d\d|xx)$|^[1-5]\d\d-[1-5]\d\d$`)

func statuses(v string) error {
	if a, b, ranged := strings.Cut(v, "-"); !statusForm.MatchString(v) || ranged && b < a {
		return fmt.Errorf("want 200, 2xx or 200-399")
	}
	return nil
}

func redirection(v string) error {
	if v == "" || !strings.HasPrefix(v, "/") && !strings.HasPrefix(v, "http://") && !strings.HasPrefix(v, "https://") || strings.ContainsAny(v, " \t\r\n") {
		return fmt.Errorf("want an address such as https://{host}{path}{query} or a path")
	}
	return nil
}

func hashed(v string) error {
	if _, err := bcrypt.Cost([]byte(v)); err != nil {
		if strings.HasPrefix(v, "$2") || v == "" {
			return fmt.Errorf("not a whole bcrypt hash: write $$ for each dollar sign")
		}
		return errors.New("want a bcrypt hash, as htpasswd -nB prints it, with $$ for each dollar sign")
	}
	return nil
}

func rangeRule(v string) error {
	if _, err := prefixOf(v); err != nil {
		return fmt.Errorf("want an address or a range such as 10.0.0.0/8")
	}
	return nil
}

func prefixOf(v string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(v); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(v)
	return p.Masked(), err
}

func share(v string) error {
	_, err := shareOf(v)
	return err
}

func shareOf(v string) (float64, error) {
	n, percent := strings.CutSuffix(v, "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(n), 64)
	if percent {
		f /= 100
	}
	if err != nil || !(f > 0 && f <= 1) { // NaN is neither
		return 0, fmt.Errorf("want a share such as 1%%")
	}
	return f, nil
}

func rateRule(v string) error {
	_, err := rateOf(v)
	return err
}

// rateOf reads 100/s, 5/m, 1000/h and 10/30s.
func rateOf(v string) (r tender.RateLimit, err error) {
	n, per, ok := strings.Cut(v, "/")
	if per = strings.TrimSpace(per); per != "" && (per[0] < '0' || per[0] > '9') {
		per = "1" + per
	}
	r.Requests, err = strconv.Atoi(strings.TrimSpace(n))
	if err == nil {
		r.Per, err = time.ParseDuration(per)
	}
	if !ok || err != nil || r.Requests < 1 || r.Per < time.Millisecond || r.Per > 24*time.Hour {
		return tender.RateLimit{}, fmt.Errorf("want a rate such as 100/s, 5/m or 10/30s")
	}
	return r, nil
}

func bytesRule(v string) error {
	_, err := bytesOf(v)
	return err
}

// bytesOf reads sizes as Docker does: 10MB and 10m are 10 * 1024 * 1024.
func bytesOf(v string) (int64, error) {
	n, err := units.RAMInBytes(v)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("want a size such as 10MB")
	}
	return n, nil
}
