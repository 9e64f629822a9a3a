package convert

import (
	"slices"
	"strconv"
	"strings"
)

// section is one of a haproxy.cfg, with its lines.
type section struct {
	kind, name string
	line       int
	lines      []cfgLine
}

type cfgLine struct {
	n     int
	words []string
}

// maxRoutes is how many routes one line may make: conditions multiply.
const maxRoutes = 100

// acl is a named condition that a route can be made of.
type acl struct {
	hosts, paths []string
	exact        bool
	src          []string
}

func sections(content []byte) (out []*section) {
	n := 0
	for raw := range strings.Lines(string(content)) {
		n++
		words := haproxyWords(raw)
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "global", "defaults", "frontend", "backend", "listen", "userlist", "peers", "resolvers", "cache", "program", "mailers", "ring", "http-errors", "crt-store", "traces", "log-profile":
			s := &section{kind: words[0], line: n}
			if len(words) > 1 {
				s.name = words[1]
			}
			out = append(out, s)
		default:
			if len(out) > 0 {
				out[len(out)-1].lines = append(out[len(out)-1].lines, cfgLine{n, words})
			}
		}
	}
	return out
}

// haproxyWords parts a line as HAProxy does: quotes, backslashes, comments.
func haproxyWords(line string) (out []string) {
	var b strings.Builder
	in, open := rune(0), false
	escaped := false
	for _, r := range strings.TrimRight(line, "\r\n") {
		switch {
		case escaped:
			b.WriteRune(r)
			escaped = false
		case r == '\\' && in != '\'':
			escaped, open = true, true
		case in != 0:
			if r == in {
				in = 0
			} else {
				b.WriteRune(r)
			}
		case r == '"' || r == '\'':
			in, open = r, true
		case r == '#':
			line = ""
		case r == ' ' || r == '\t':
			if open || b.Len() > 0 {
				out = append(out, b.String())
				b.Reset()
				open = false
			}
		default:
			b.WriteRune(r)
		}
		if line == "" {
			break
		}
	}
	if open || b.Len() > 0 {
		out = append(out, b.String())
	}
	return out
}

func (im *importer) haproxy(content []byte) []*imported {
	all := sections(content)
	backends := map[string]*section{}
	defaults := &section{}
	for _, s := range all {
		switch s.kind {
		case "backend", "listen":
			backends[s.name] = s
		case "defaults":
			defaults.lines = append(defaults.lines, s.lines...)
		case "frontend", "global":
		default:
			im.note(s.line, "section %s %s has no counterpart", s.kind, s.name)
		}
	}
	var out []*imported
	for _, s := range all {
		if s.kind != "frontend" && s.kind != "listen" {
			continue
		}
		if mode(defaults, s) == "tcp" {
			im.note(s.line, "%s %s is in TCP mode: publish the port with ports: and x-tender: {publish: proxy}", s.kind, s.name)
			continue
		}
		out = append(out, im.frontend(s, defaults, backends)...)
	}
	return out
}

func mode(of ...*section) string {
	out := "http"
	for _, s := range of {
		for _, l := range s.lines {
			if l.words[0] == "mode" && len(l.words) > 1 {
				out = l.words[1]
			}
		}
	}
	return out
}

// frontend makes a route of each use_backend, and one of the default.
func (im *importer) frontend(s, defaults *section, backends map[string]*section) (out []*imported) {
	acls := map[string]*acl{}
	common := &imported{}
	im.timeouts(common, defaults)
	type use struct {
		cfgLine
		backend string
		names   []string
	}
	var uses []use
	for _, l := range s.lines {
		w := l.words
		switch w[0] {
		case "bind":
			if slices.Contains(w, "ssl") {
				im.note(l.n, "TLS: routes with a host get a certificate by themselves; or say tls: internal, or cert_file and key_file")
			}
		case "mode", "log", "maxconn", "server", "balance", "cookie", "http-check", "fullconn", "description", "id":
		case "acl":
			if a := im.acl(l); a != nil {
				acls[w[1]] = a
			}
		case "use_backend":
			u := use{cfgLine: l}
			if len(w) > 1 {
				u.backend = w[1]
			}
			if len(w) > 3 && w[2] == "if" {
				u.names = w[3:]
			}
			if strings.Contains(u.backend, "%[") || len(w) > 2 && w[2] != "if" {
				im.note(l.n, "%s: not turned into a route", strings.Join(w, " "))
				continue
			}
			uses = append(uses, u)
		case "default_backend":
			if len(w) > 1 {
				uses = append(uses, use{cfgLine: l, backend: w[1]})
			}
		case "redirect", "http-request", "http-response":
			if r := im.rule(common, l); r != nil {
				out = append(out, r)
			}
		default:
			im.setting(common, l)
		}
	}
	if s.kind == "listen" {
		uses = append(uses, use{cfgLine: cfgLine{n: s.line}, backend: s.name})
	}
	for _, u := range uses {
		b := backends[u.backend]
		if b == nil {
			im.note(u.n, "backend %s is not there", u.backend)
			continue
		}
		if mode(defaults, b) == "tcp" {
			im.note(u.n, "backend %s is in TCP mode", u.backend)
			continue
		}
		list := []*imported{{}}
		ok := true
		for _, name := range u.names {
			a := acls[name]
			if a == nil || a.src != nil {
				im.note(u.n, "condition %s of backend %s is not one on host or path", name, u.backend)
				ok = false
				break
			}
			if len(list)*max(len(a.paths), 1) > maxRoutes {
				im.note(u.n, "the conditions of backend %s make more than %d routes", u.backend, maxRoutes)
				ok = false
				break
			}
			list = narrow(list, a)
			if a.exact {
				im.note(u.n, "%s meant one path exactly; the route takes all below it", name)
			}
		}
		if !ok {
			continue
		}
		for _, r := range list {
			r.settings = slices.Clone(common.settings)
			im.backend(r, b)
			if len(r.servers) == 0 {
				im.note(u.n, "%s leads to no server and is left out", b.name)
				continue
			}
			out = append(out, r)
		}
	}
	return out
}

// narrow adds a condition to each route; several paths make several routes.
func narrow(list []*imported, a *acl) (out []*imported) {
	for _, r := range list {
		if len(a.hosts) > 0 {
			r.hosts = append(r.hosts, a.hosts...)
		}
		if len(a.paths) == 0 {
			out = append(out, r)
			continue
		}
		for _, p := range a.paths {
			out = append(out, &imported{hosts: slices.Clone(r.hosts), path: p})
		}
	}
	return out
}

// acl reads a condition on hosts, paths or addresses.
func (im *importer) acl(l cfgLine) *acl {
	w := l.words
	if len(w) < 4 {
		im.note(l.n, "%s: not turned into a condition", strings.Join(w, " "))
		return nil
	}
	fetch, flags, values := w[2], []string{}, w[3:]
	for len(values) > 0 && strings.HasPrefix(values[0], "-") {
		flags = append(flags, values[0])
		if values[0] == "-m" && len(values) > 1 {
			flags = append(flags, values[1])
			values = values[1:]
		}
		values = values[1:]
	}
	if slices.Contains(flags, "-f") {
		im.note(l.n, "%s reads a file: not turned into a condition", w[1])
		return nil
	}
	match := ""
	if i := slices.Index(flags, "-m"); i >= 0 && i+1 < len(flags) {
		match = flags[i+1]
	}
	fetch = strings.ReplaceAll(strings.ToLower(fetch), "req.", "")
	fetch = strings.TrimSuffix(strings.Replace(fetch, ",lower", "", 1), ",field(1,:)")
	switch {
	case fetch == "hdr(host)" && (match == "" || match == "str"), fetch == "ssl_fc_sni":
		a := &acl{}
		for _, v := range values {
			h, _, _ := strings.Cut(strings.ToLower(v), ":")
			a.hosts = append(a.hosts, h)
		}
		return a
	case fetch == "hdr_end(host)" || fetch == "hdr(host)" && match == "end":
		a := &acl{}
		for _, v := range values {
			a.hosts = append(a.hosts, "*."+strings.TrimPrefix(strings.ToLower(v), "."))
		}
		return a
	case fetch == "path_beg" || fetch == "path" && match == "beg":
		return &acl{paths: values}
	case fetch == "path" && (match == "" || match == "str"):
		return &acl{paths: values, exact: true}
	case fetch == "src":
		return &acl{src: values}
	}
	im.note(l.n, "%s: not turned into a condition; routes know hosts and beginnings of paths", strings.Join(w[1:], " "))
	return nil
}

// rule turns what is done to requests and answers.
func (im *importer) rule(r *imported, l cfgLine) *imported {
	w := l.words
	text := strings.Join(w, " ")
	if w[0] == "http-request" && len(w) > 1 && w[1] == "redirect" {
		w = w[1:]
	}
	switch {
	case w[0] == "redirect" && strings.Contains(text, "scheme https"):
		im.note(l.n, "%s: routes with TLS redirect from HTTP by themselves", text)
		return nil
	case w[0] == "redirect" && len(w) >= 3 && !slices.Contains(w, "if") && !slices.Contains(w, "unless") && (w[1] == "location" || w[1] == "prefix"):
		out := &imported{redirect: w[2], code: 302}
		if w[1] == "prefix" {
			out.redirect += "{path}{query}"
		}
		if i := slices.Index(w, "code"); i > 0 && i+1 < len(w) {
			out.code, _ = strconv.Atoi(w[i+1])
		}
		return out
	case len(w) >= 4 && (w[1] == "set-header" || w[1] == "add-header") && !strings.Contains(text, "%[") && !slices.Contains(w[4:], "if"):
		if forwarded(w[2]) {
			return nil // the edge says it itself
		}
		r.set(w[3], "headers", strings.TrimPrefix(w[0], "http-"), w[2])
		return nil
	case len(w) >= 3 && w[1] == "del-header" && len(w) == 3:
		r.set("", "headers", strings.TrimPrefix(w[0], "http-"), w[2])
		return nil
	case len(w) >= 3 && (w[1] == "set-header" || w[1] == "add-header") && forwarded(w[2]):
		return nil
	}
	im.note(l.n, "%s: not turned", text)
	return nil
}

// forwarded are headers that the edge sends by itself.
func forwarded(name string) bool {
	switch strings.ToLower(name) {
	case "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "forwarded", "x-real-ip", "host", "connection", "upgrade":
		return true
	}
	return false
}

func (im *importer) timeouts(r *imported, s *section) {
	for _, l := range s.lines {
		switch l.words[0] {
		case "timeout", "retries", "compression":
			im.setting(r, l)
		case "balance":
			im.balance(r, l)
		}
	}
}

// setting is a line that is the same in all sections.
func (im *importer) setting(r *imported, l cfgLine) {
	w := l.words
	text := strings.Join(w, " ")
	switch w[0] {
	case "timeout":
		if len(w) < 3 {
			break
		}
		key := map[string]string{"connect": "connect", "client": "client", "server": "server", "tunnel": "tunnel", "queue": "queue"}[w[1]]
		if d, ok := period(w[2], "ms"); ok && key != "" {
			r.set(d, "timeout", key)
			return
		}
		switch w[1] {
		case "http-request", "http-keep-alive", "check", "client-fin", "server-fin", "tarpit":
			return // the edge has bounds of its own
		}
	case "retries":
		if n, err := strconv.Atoi(w[len(w)-1]); err == nil {
			r.set(min(n, 10), "retries")
			return
		}
	case "compression":
		if len(w) > 2 && w[1] == "algo" {
			r.set(true, "compress")
		}
		return
	case "option":
		if len(w) > 1 && slices.Contains([]string{"forwardfor", "httplog", "dontlognull", "http-server-close", "http-keep-alive", "redispatch", "tcplog", "log-health-checks", "http-buffer-request"}, w[1]) {
			return
		}
	case "log", "mode", "errorfile", "default-server", "maxconn", "hash-type", "stick-table":
		if w[0] != "errorfile" && w[0] != "stick-table" {
			return
		}
	}
	im.note(l.n, "%s: not turned", text)
}

func (im *importer) balance(r *imported, l cfgLine) {
	w := l.words
	if len(w) < 2 {
		return
	}
	switch kind := w[1]; {
	case kind == "roundrobin" || kind == "static-rr":
	case kind == "leastconn":
		r.set("least-conn", "balance")
	case kind == "source":
		r.set("hash:ip", "balance")
	case strings.HasPrefix(kind, "random"):
		r.set("random-two", "balance")
	case strings.HasPrefix(kind, "hdr(") && strings.HasSuffix(kind, ")"):
		r.set("hash:header:"+kind[4:len(kind)-1], "balance")
	default:
		im.note(l.n, "balance %s: round-robin is used", kind)
	}
}

func (im *importer) backend(r *imported, b *section) {
	health := false
	for _, l := range b.lines {
		w := l.words
		switch w[0] {
		case "balance":
			im.balance(r, l)
		case "cookie":
			r.set(true, "sticky")
		case "option":
			if len(w) > 1 && w[1] == "httpchk" {
				health = true
				switch {
				case len(w) == 3:
					r.set(w[2], "health", "path")
				case len(w) > 3:
					if w[2] != "GET" {
						r.set(w[2], "health", "method")
					}
					r.set(w[3], "health", "path")
				default:
					r.set("/", "health", "path")
				}
				continue
			}
			im.setting(r, l)
		case "http-check":
			im.httpCheck(r, l)
		case "server":
			im.server(r, l, health)
		case "http-request", "http-response":
			im.rule(r, l)
		case "bind", "acl", "use_backend", "default_backend", "redirect":
			if b.kind != "listen" {
				im.note(l.n, "%s: not turned", strings.Join(w, " "))
			}
		default:
			im.setting(r, l)
		}
	}
}

func (im *importer) httpCheck(r *imported, l cfgLine) {
	w := l.words
	switch {
	case len(w) > 3 && w[1] == "expect" && w[2] == "status":
		r.set(w[3], "health", "status")
	case len(w) > 1 && w[1] == "send":
		for i := 2; i+1 < len(w); i += 2 {
			switch w[i] {
			case "meth":
				if w[i+1] != "GET" {
					r.set(w[i+1], "health", "method")
				}
			case "uri":
				r.set(w[i+1], "health", "path")
			case "hdr":
				if i+2 < len(w) && strings.EqualFold(w[i+1], "host") {
					r.set(w[i+2], "health", "host")
				}
				i++
			}
		}
	default:
		im.note(l.n, "%s: not turned", strings.Join(w, " "))
	}
}

func (im *importer) server(r *imported, l cfgLine, health bool) {
	w := l.words
	if len(w) < 3 {
		im.note(l.n, "%s: not turned", strings.Join(w, " "))
		return
	}
	s := server{weight: -1}
	s.host, s.port = hostPort(w[2])
	if slices.Contains(w, "disabled") {
		im.note(l.n, "server %s is disabled and left out", w[1])
		return
	}
	if slices.Contains(w, "backup") {
		im.note(l.n, "server %s is a backup: its weight is 0", w[1])
		s.weight = 0
	}
	for i := 3; i < len(w); i++ {
		switch value := ""; w[i] {
		case "weight", "inter", "fall", "rise":
			if i+1 < len(w) {
				value = w[i+1]
			}
			n, err := strconv.Atoi(value)
			switch {
			case w[i] == "inter":
				if d, ok := period(value, "ms"); ok && health {
					r.set(d, "health", "interval")
				}
			case err != nil:
			case w[i] == "weight" && s.weight != 0:
				s.weight = n
			case w[i] == "fall" && health:
				r.set(n, "health", "down")
			case w[i] == "rise" && health:
				r.set(n, "health", "up")
			}
			i++
		case "ssl":
			s.tls = true
		case "check":
			if !health {
				r.set("tcp", "health", "path")
				health = true
			}
		case "send-proxy", "send-proxy-v2":
			im.note(l.n, "server %s: %s is for TCP ports", w[1], w[i])
		}
	}
	im.takes(r, s, l.n)
}
