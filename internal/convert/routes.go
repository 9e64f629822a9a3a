package convert

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
)

// Routes turns the configuration of HAProxy or nginx into x-tender routes. What
// has no counterpart, or is not understood, is told with its line.
func Routes(name string, content []byte) (Result, error) {
	if len(content) > 4<<20 {
		return Result{}, tender.Errorf(tender.Invalid, "%s is larger than 4 MiB", name)
	}
	im := &importer{file: name}
	var routes []*imported
	switch kind := kindOf(content); kind {
	case "haproxy":
		routes = im.haproxy(content)
	case "nginx":
		routes = im.nginx(content)
	default:
		return Result{}, tender.Errorf(tender.Invalid, "%s is neither a configuration of HAProxy nor of nginx", name).
			Hint("one has frontend and backend sections, the other server { } blocks")
	}
	if len(routes) == 0 {
		return Result{Notes: im.notes}, tender.Errorf(tender.Invalid, "%s has nothing that routes could be made of", name)
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for _, r := range routes {
		list.Content = append(list.Content, r.node())
	}
	root := mapping()
	put(under(root, "x-tender"), "routes", list)
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(root); err != nil {
		return Result{}, fmt.Errorf("write routes: %w", err)
	}
	return Result{YAML: b.String(), Notes: im.notes}, nil
}

// kindOf looks for what only one of them has.
func kindOf(content []byte) string {
	for line := range strings.Lines(string(content)) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		switch {
		case strings.HasSuffix(strings.TrimSpace(line), "{") || strings.HasSuffix(strings.TrimSpace(line), ";") || strings.HasSuffix(strings.TrimSpace(line), "}"):
			return "nginx"
		case words[0] == "global" || words[0] == "defaults" || words[0] == "frontend" || words[0] == "backend" || words[0] == "listen":
			return "haproxy"
		}
	}
	return ""
}

type importer struct {
	file  string
	notes []string
	names map[string]bool // services that were named
}

func (im *importer) note(line int, format string, args ...any) {
	im.notes = append(im.notes, fmt.Sprintf("%s:%d: ", im.file, line)+fmt.Sprintf(format, args...))
}

// imported is one route in the making.
type imported struct {
	hosts    []string
	path     string
	redirect string
	code     int
	servers  []server
	settings []kv
}

type kv struct {
	path  []string
	value any
}

// server is one address of a backend or an upstream.
type server struct {
	host, port string
	weight     int // -1: not said
	tls        bool
}

func (r *imported) set(value any, path ...string) {
	for i := range r.settings {
		if strings.Join(r.settings[i].path, "\x00") == strings.Join(path, "\x00") {
			r.settings[i].value = value
			return
		}
	}
	r.settings = append(r.settings, kv{path, value})
}

func (r *imported) node() *yaml.Node {
	m := mapping()
	switch len(r.hosts) {
	case 0:
	case 1:
		set(m, "host", r.hosts[0])
	default:
		for _, h := range r.hosts {
			add(m, "host", h)
		}
	}
	if r.path != "" && r.path != "/" {
		set(m, "path", r.path)
	}
	if r.redirect != "" {
		to := mapping()
		set(to, "to", r.redirect)
		if r.code != 0 && r.code != 308 {
			set(to, "code", r.code)
		}
		put(m, "redirect", to)
	}
	if len(r.servers) > 0 {
		to := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		weighed := slices.ContainsFunc(r.servers, func(s server) bool { return s.weight >= 0 })
		for _, s := range r.servers {
			if weighed && s.weight < 0 {
				s.weight = 1 // what says none has none where others say one
			}
			to.Content = append(to.Content, s.node(len(r.servers) > 1))
		}
		put(m, "to", to)
	}
	for _, s := range r.settings {
		in := m
		if n := len(s.path); n > 1 {
			in = under(m, s.path[:n-1]...)
		}
		if list, ok := s.value.([]string); ok {
			for _, v := range list {
				add(in, s.path[len(s.path)-1], v)
			}
			continue
		}
		set(in, s.path[len(s.path)-1], s.value)
	}
	return m
}

func (s server) node(weighed bool) *yaml.Node {
	m := mapping()
	m.Style = yaml.FlowStyle
	if s.service() {
		set(m, "service", s.host)
		if n, err := strconv.Atoi(s.port); err == nil {
			set(m, "port", n)
		}
	} else {
		scheme := "http"
		if s.tls {
			scheme = "https"
		}
		address := s.host
		if s.port != "" {
			address = net.JoinHostPort(s.host, s.port)
		}
		set(m, "url", scheme+"://"+address)
	}
	if weighed && s.weight >= 0 {
		set(m, "weight", s.weight)
	}
	return m
}

// service reports whether a name can only be that of a service: it is no
// address, and has no dots.
func (s server) service() bool {
	return net.ParseIP(s.host) == nil && !strings.ContainsAny(s.host, ".:") && s.host != "localhost" && !s.tls
}

// takes adds a server, once, and tells for what a plain name is taken.
func (im *importer) takes(r *imported, s server, line int) {
	for i, other := range r.servers {
		if other.host == s.host && other.port == s.port {
			if s.weight > 0 {
				r.servers[i].weight = max(other.weight, 0) + s.weight
			}
			return
		}
	}
	if im.names == nil {
		im.names = map[string]bool{}
	}
	if s.service() && !im.names[s.host] {
		im.names[s.host] = true
		im.note(line, "%s is taken for a service of the project", s.host)
	}
	r.servers = append(r.servers, s)
}

// period is a time as Tender writes it: HAProxy and nginx count milliseconds or
// seconds where no unit is said.
func period(v, unit string) (string, bool) {
	digits := strings.TrimRight(v, "usmhd")
	if _, err := strconv.Atoi(digits); err != nil || digits == "" {
		return "", false
	}
	switch suffix := strings.TrimPrefix(v, digits); suffix {
	case "":
		if n, _ := strconv.Atoi(digits); unit == "ms" && n%1000 == 0 {
			return strconv.Itoa(n/1000) + "s", true
		}
		return digits + unit, true
	case "ms", "s", "m", "h":
		return v, true
	case "d":
		n, _ := strconv.Atoi(digits)
		return strconv.Itoa(24*n) + "h", true
	}
	return "", false
}

// hostPort takes an address apart. HAProxy and nginx write IPv6 in brackets.
func hostPort(v string) (host, port string) {
	if h, p, err := net.SplitHostPort(v); err == nil {
		return h, p
	}
	return strings.Trim(v, "[]"), ""
}
