package convert

import (
	"slices"
	"strconv"
	"strings"
)

// directive is one of an nginx.conf, with its block.
type directive struct {
	n     int
	words []string
	block []directive
	has   bool // a block, even an empty one
}

// parseNginx reads directives. What is not closed ends with the file.
func parseNginx(content string) []directive {
	p := &nginxReader{text: content, line: 1}
	return p.block(0)
}

type nginxReader struct {
	text string
	at   int
	line int
}

func (p *nginxReader) block(depth int) (out []directive) {
	var d directive
	for {
		word, sep := p.next()
		if word != "" {
			if len(d.words) == 0 {
				d.n = p.line
			}
			d.words = append(d.words, word)
		}
		switch sep {
		case ';':
			if len(d.words) > 0 {
				out = append(out, d)
			}
			d = directive{}
		case '{':
			d.has = true
			if depth < 20 {
				d.block = p.block(depth + 1)
			}
			if len(d.words) > 0 {
				out = append(out, d)
			}
			d = directive{}
		case '}', 0:
			return out
		}
	}
}

// next returns a word, and what ends the directive after it: ; { } or 0 at the
// end of the text; ' ' where it goes on.
func (p *nginxReader) next() (word string, sep byte) {
	var b strings.Builder
	quote := byte(0)
	for p.at < len(p.text) {
		c := p.text[p.at]
		p.at++
		switch {
		case quote != 0:
			if c == quote {
				return b.String(), ' '
			}
			if c == '\\' && p.at < len(p.text) {
				c = p.text[p.at]
				p.at++
			}
			b.WriteByte(c)
		case c == '"' || c == '\'':
			if b.Len() > 0 {
				b.WriteByte(c)
			} else {
				quote = c
			}
		case c == '#' && b.Len() == 0:
			for p.at < len(p.text) && p.text[p.at] != '\n' {
				p.at++
			}
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			if b.Len() > 0 {
				if c == '\n' {
					p.at-- // the word is of the line before
				}
				return b.String(), ' '
			}
			if c == '\n' {
				p.line++
			}
		case c == '{' && b.Len() > 0 && p.text[p.at-2] == '$':
			b.WriteByte(c) // ${variable}
			for p.at < len(p.text) && p.text[p.at] != '}' {
				b.WriteByte(p.text[p.at])
				p.at++
			}
		case c == ';' || c == '{' || c == '}':
			return b.String(), c
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), 0
}

func (d directive) name() string { return d.words[0] }

func (d directive) arg(i int) string {
	if i < len(d.words) {
		return d.words[i]
	}
	return ""
}

func (im *importer) nginx(content []byte) (out []*imported) {
	top := parseNginx(string(content))
	var http []directive
	for _, d := range top {
		switch d.name() {
		case "http":
			http = append(http, d.block...)
		case "stream", "mail":
			im.note(d.n, "%s: publish its ports with ports: and x-tender: {publish: proxy}", d.name())
		case "events", "user", "worker_processes", "pid", "error_log", "worker_rlimit_nofile", "load_module", "daemon", "pcre_jit":
		default:
			http = append(http, d) // a file of conf.d
		}
	}
	upstreams := map[string]directive{}
	base := &imported{}
	for _, d := range http {
		switch d.name() {
		case "upstream":
			upstreams[d.arg(1)] = d
		case "server":
		default:
			im.nginxSetting(base, d)
		}
	}
	for _, d := range http {
		if d.name() == "server" {
			out = append(out, im.nginxServer(d, base, upstreams)...)
		}
	}
	return out
}

func (im *importer) nginxServer(s directive, base *imported, upstreams map[string]directive) (out []*imported) {
	common := &imported{settings: slices.Clone(base.settings)}
	var locations []directive
	for _, d := range s.block {
		switch d.name() {
		case "listen":
		case "server_name":
			for _, name := range d.words[1:] {
				switch {
				case name == "_" || name == "":
				case strings.HasPrefix(name, "~"):
					im.note(d.n, "server_name %s: patterns are not turned", name)
				case strings.HasPrefix(name, "."):
					common.hosts = append(common.hosts, name[1:], "*"+name)
				default:
					common.hosts = append(common.hosts, strings.ToLower(name))
				}
			}
		case "location":
			locations = append(locations, d)
		case "return":
			if r := im.nginxReturn(d); r != nil {
				if strings.HasPrefix(r.redirect, "https://{host}") && r.path == "" && len(s.block) > 0 {
					im.note(d.n, "return %s: routes with TLS redirect from HTTP by themselves", strings.Join(d.words[1:], " "))
					continue
				}
				r.hosts = common.hosts
				out = append(out, r)
			}
		default:
			im.nginxSetting(common, d)
		}
	}
	if len(common.hosts) == 0 && hasTLS(s) {
		im.note(s.n, "this server has TLS and no name: a certificate needs a host")
	}
	for _, l := range locations {
		if r := im.location(l, common, upstreams); r != nil {
			out = append(out, r)
		}
	}
	return out
}

func hasTLS(s directive) bool {
	return slices.ContainsFunc(s.block, func(d directive) bool { return d.name() == "listen" && slices.Contains(d.words, "ssl") })
}

func (im *importer) location(l directive, common *imported, upstreams map[string]directive) *imported {
	path := l.arg(1)
	switch path {
	case "=", "^~":
		if path == "=" {
			im.note(l.n, "location = %s meant one path exactly; the route takes all below it", l.arg(2))
		}
		path = l.arg(2)
	case "~", "~*":
		im.note(l.n, "location %s: patterns are not turned", strings.Join(l.words[1:], " "))
		return nil
	}
	if !strings.HasPrefix(path, "/") {
		im.note(l.n, "location %s: not turned", path)
		return nil
	}
	r := &imported{hosts: common.hosts, path: path, settings: slices.Clone(common.settings)}
	for _, d := range l.block {
		switch d.name() {
		case "proxy_pass", "grpc_pass":
			im.pass(r, d, upstreams)
		case "return":
			if to := im.nginxReturn(d); to != nil {
				r.redirect, r.code = to.redirect, to.code
			}
		case "root", "alias", "try_files", "index", "fastcgi_pass", "uwsgi_pass", "autoindex", "stub_status":
			im.note(d.n, "%s: the edge serves no files and no programs; run them in a service", strings.Join(d.words, " "))
		default:
			im.nginxSetting(r, d)
		}
	}
	if len(r.servers) == 0 && r.redirect == "" {
		im.note(l.n, "location %s leads to no other server and is left out", path)
		return nil
	}
	return r
}

// pass reads where a location leads.
func (im *importer) pass(r *imported, d directive, upstreams map[string]directive) {
	target := d.arg(1)
	scheme, rest, ok := strings.Cut(target, "://")
	if d.name() == "grpc_pass" {
		r.set("h2c", "protocol")
		if !ok {
			rest, ok, scheme = target, true, "grpc"
		}
	}
	if !ok || strings.Contains(target, "$") {
		im.note(d.n, "%s: not turned", strings.Join(d.words, " "))
		return
	}
	host, uri, hasURI := strings.Cut(rest, "/")
	switch {
	case hasURI && uri == "" && r.path != "/":
		r.set(true, "strip_prefix")
	case hasURI && uri != "" && "/"+uri != r.path:
		im.note(d.n, "%s: the path is not changed but for strip_prefix", strings.Join(d.words, " "))
	}
	tls := scheme == "https" || scheme == "grpcs"
	up, ok := upstreams[host]
	if !ok {
		s := server{weight: -1, tls: tls}
		if s.host, s.port = hostPort(host); s.port == "" {
			s.port = map[bool]string{true: "443", false: "80"}[tls]
		}
		im.takes(r, s, d.n)
		return
	}
	for _, u := range up.block {
		switch u.name() {
		case "server":
			s := server{weight: -1, tls: tls}
			if s.host, s.port = hostPort(u.arg(1)); s.port == "" {
				s.port = "80"
			}
			if slices.Contains(u.words, "down") {
				im.note(u.n, "server %s is down and left out", u.arg(1))
				continue
			}
			for _, w := range u.words[2:] {
				if v, ok := strings.CutPrefix(w, "weight="); ok {
					s.weight, _ = strconv.Atoi(v)
				}
				if w == "backup" {
					im.note(u.n, "server %s is a backup: its weight is 0", u.arg(1))
					s.weight = 0
				}
			}
			im.takes(r, s, u.n)
		case "least_conn":
			r.set("least-conn", "balance")
		case "ip_hash":
			r.set("hash:ip", "balance")
		case "random":
			r.set("random-two", "balance")
		case "hash":
			key := strings.ToLower(u.arg(1))
			switch {
			case strings.HasPrefix(key, "$cookie_"):
				r.set("hash:cookie:"+u.arg(1)[len("$cookie_"):], "balance")
			case strings.HasPrefix(key, "$http_"):
				r.set("hash:header:"+strings.ReplaceAll(u.arg(1)[len("$http_"):], "_", "-"), "balance")
			case key == "$remote_addr" || key == "$binary_remote_addr":
				r.set("hash:ip", "balance")
			default:
				im.note(u.n, "hash %s: round-robin is used", u.arg(1))
			}
		case "sticky":
			r.set(true, "sticky")
		case "keepalive", "keepalive_timeout", "keepalive_requests", "zone":
		default:
			im.note(u.n, "%s: not turned", strings.Join(u.words, " "))
		}
	}
}

func (im *importer) nginxReturn(d directive) *imported {
	code, _ := strconv.Atoi(d.arg(1))
	to := d.arg(2)
	if to == "" && strings.Contains(d.arg(1), "://") {
		code, to = 302, d.arg(1)
	}
	to = strings.NewReplacer("$scheme", "https", "$host", "{host}", "$server_name", "{host}", "$http_host", "{host}",
		"$request_uri", "{path}{query}", "$uri", "{path}", "$is_args$args", "{query}").Replace(to)
	if code < 300 || code > 308 || strings.Contains(to, "$") || !strings.Contains(to, "/") {
		im.note(d.n, "%s: not turned", strings.Join(d.words, " "))
		return nil
	}
	return &imported{redirect: to, code: code}
}

// nginxSetting is a directive that may stand in http, server and location.
func (im *importer) nginxSetting(r *imported, d directive) {
	timeout := func(key string) bool {
		v, ok := period(d.arg(1), "s")
		if ok {
			r.set(v, "timeout", key)
		}
		return ok
	}
	switch d.name() {
	case "proxy_connect_timeout":
		if timeout("connect") {
			return
		}
	case "proxy_read_timeout", "proxy_send_timeout", "grpc_read_timeout":
		if timeout("server") {
			return
		}
	case "client_body_timeout":
		if timeout("client") {
			return
		}
	case "client_max_body_size":
		if v := d.arg(1); v != "0" {
			r.set(v, "max_body")
		}
		return
	case "gzip":
		if d.arg(1) == "on" {
			r.set(true, "compress")
		}
		return
	case "ssl_certificate":
		r.set(d.arg(1), "cert_file")
		return
	case "ssl_certificate_key":
		r.set(d.arg(1), "key_file")
		return
	case "add_header":
		if strings.EqualFold(d.arg(1), "Strict-Transport-Security") {
			r.set(true, "hsts")
			return
		}
		if !strings.Contains(d.arg(2), "$") {
			r.set(d.arg(2), "headers", "response", d.arg(1))
			return
		}
	case "proxy_hide_header":
		r.set("", "headers", "response", d.arg(1))
		return
	case "proxy_set_header":
		if forwarded(d.arg(1)) {
			return // the edge says it itself
		}
		if !strings.Contains(d.arg(2), "$") {
			r.set(d.arg(2), "headers", "request", d.arg(1))
			return
		}
	case "allow":
		if d.arg(1) != "all" {
			var list []string
			for _, s := range r.settings {
				if s.path[0] == "allow" {
					list, _ = s.value.([]string)
				}
			}
			r.set(append(slices.Clone(list), d.arg(1)), "allow")
		}
		return
	case "deny":
		if d.arg(1) == "all" {
			return
		}
	case "auth_basic_user_file":
		im.note(d.n, "basic_auth: write the names and bcrypt hashes of %s into the route", d.arg(1))
		return
	case "limit_req_zone", "limit_req":
		im.note(d.n, "%s: write rate_limit: into the route", d.name())
		return
	}
	if slices.ContainsFunc(quietNginx, func(prefix string) bool { return strings.HasPrefix(d.name(), prefix) }) {
		return
	}
	im.note(d.n, "%s: not turned", strings.Join(d.words, " "))
}

// quietNginx are directives that have nothing to say here.
var quietNginx = []string{
	"include", "default_type", "sendfile", "tcp_", "keepalive", "access_log", "error_log", "log_format", "gzip_", "ssl_protocols", "ssl_ciphers",
	"ssl_session", "ssl_prefer", "ssl_dhparam", "types", "proxy_http_version", "proxy_buffer", "proxy_redirect", "proxy_request_buffering", "server_tokens",
	"client_header", "large_client", "auth_basic", "resolver", "send_timeout", "charset", "etag", "http2", "reset_timedout", "proxy_next_upstream", "proxy_cache_bypass",
}
