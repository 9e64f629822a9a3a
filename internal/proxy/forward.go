package proxy

import (
	"net/http"
	"net/netip"
	"path"
	"strings"
)

// trust is the list of proxies in front whose word is taken.
type trust []netip.Prefix

func newTrust(list []netip.Prefix) trust { return trust(list) }

func (t trust) has(a netip.Addr) bool {
	for _, p := range t {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// client is the address of the one who asks: from the right, the first in
// X-Forwarded-For, or Forwarded, that is not one of the trusted.
func (t trust) client(peer netip.Addr, h http.Header) netip.Addr {
	if !t.has(peer) {
		return peer
	}
	hops := h["X-Forwarded-For"]
	forwarded := false
	if len(hops) == 0 {
		hops, forwarded = h["Forwarded"], true
	}
	last := peer
	for i := len(hops) - 1; i >= 0; i-- {
		list := strings.Split(hops[i], ",")
		for j := len(list) - 1; j >= 0; j-- {
			one := trim(list[j])
			if forwarded {
				one = forwardedFor(one)
			}
			a, ok := parseHop(one)
			if !ok {
				return last // unknown, or nonsense: nobody further left can be believed
			}
			if last = a; !t.has(a) {
				return a
			}
		}
	}
	return last
}

// forwardedFor is the for= of one element of Forwarded (RFC 7239).
func forwardedFor(element string) string {
	for element != "" {
		var pair string
		pair, element, _ = strings.Cut(element, ";")
		if k, v, ok := strings.Cut(trim(pair), "="); ok && strings.EqualFold(k, "for") {
			return strings.Trim(v, `"`)
		}
	}
	return ""
}

func parseHop(s string) (netip.Addr, bool) {
	if p, err := netip.ParseAddrPort(s); err == nil {
		return p.Addr().Unmap().WithZone(""), true
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return a.Unmap().WithZone(""), err == nil
}

// https says whether the client asked by https, as this connection or a trusted proxy knows.
func (x *exchange) https() bool {
	if x.trusted {
		if p := x.r.Header["X-Forwarded-Proto"]; len(p) > 0 {
			return strings.EqualFold(p[0], "https")
		}
	}
	return x.r.TLS != nil
}

// says names who asked: targets believe these, so that nobody but the proxy and those in
// front whom it trusts may say them. Spelled with an underscore they are the same to CGI and its kin.
func says(key string) bool {
	switch key {
	case "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Proto", "X-Forwarded-Server", "X-Real-Ip", "Forwarded":
		return true
	}
	if strings.IndexByte(key, '_') < 0 {
		return false
	}
	switch strings.ReplaceAll(strings.ToLower(key), "_", "-") {
	case "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-proto", "x-forwarded-server", "x-real-ip":
		return true
	}
	return false
}

// outgoing calls add with each header that the target gets, apart from Host and
// framing. Both client paths send exactly these.
func (x *exchange) outgoing(add func(key, value string)) {
	h := x.r.Header
	listed := h["Connection"]
	for k, values := range h {
		if hop(k) || says(k) && (!x.trusted || k == "X-Forwarded-For" || k == "Forwarded") || len(listed) > 0 && anyLists(listed, k) || x.route.sets(k) {
			continue
		}
		for _, v := range values {
			add(k, v)
		}
	}
	if anyLists(h["Te"], "trailers") {
		add("Te", "trailers")
	}
	if x.upgrade != "" {
		add("Connection", "Upgrade")
		add("Upgrade", x.upgrade)
	}
	if before := h["X-Forwarded-For"]; x.trusted && len(before) > 0 {
		add("X-Forwarded-For", strings.Join(before, ", ")+", "+x.peer())
	} else {
		add("X-Forwarded-For", x.peer())
	}
	said := func(k string) bool { return x.trusted && len(h[k]) > 0 }
	secure := x.r.TLS != nil
	if !said("X-Forwarded-Proto") {
		if secure {
			add("X-Forwarded-Proto", "https")
		} else {
			add("X-Forwarded-Proto", "http")
		}
	}
	if !said("X-Forwarded-Host") {
		add("X-Forwarded-Host", x.r.Host)
	}
	if !said("X-Forwarded-Port") {
		add("X-Forwarded-Port", portOf(x.r.Host, secure))
	}
	if before := h["Forwarded"]; x.trusted && len(before) > 0 {
		add("Forwarded", strings.Join(before, ", ")+", for="+quoted(x.peer()))
	}
	if x.route.StripPrefix && x.route.Path != "/" && !said("X-Forwarded-Prefix") {
		add("X-Forwarded-Prefix", strings.TrimSuffix(x.route.Path, "/"))
	}
	for _, f := range x.route.setRequest {
		if f.value != "" && f.key != "Host" {
			add(f.key, f.value)
		}
	}
}

func quoted(addr string) string {
	if strings.Contains(addr, ":") {
		return `"[` + addr + `]"`
	}
	return addr
}

func portOf(host string, secure bool) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		return host[i+1:]
	}
	if secure {
		return "443"
	}
	return "80"
}

// sets says whether the route sets, or removes, a request's header.
func (r *route) sets(key string) bool {
	for _, f := range r.setRequest {
		if f.key == key {
			return true
		}
	}
	return false
}

// toHost is the Host that the target is asked for: what the client said, unless the route says another.
func (x *exchange) toHost() string {
	for _, f := range x.route.setRequest {
		if f.key == "Host" && f.value != "" {
			return f.value
		}
	}
	return x.r.Host
}

// toPath is the path and query that the target is asked for: as the client
// wrote them, but for a prefix that the route strips.
func (x *exchange) toPath() string {
	u := x.r.URL
	raw := x.r.RequestURI
	if raw == "*" {
		return raw
	}
	if raw == "" || raw[0] != '/' {
		raw = u.RequestURI() // the absolute form, or none
	}
	if !x.route.StripPrefix || x.route.Path == "/" {
		return raw
	}
	prefix := strings.TrimSuffix(x.route.Path, "/")
	p, query, asked := strings.Cut(raw, "?")
	rest, ok := strings.CutPrefix(p, prefix)
	if !ok || rest != "" && rest[0] != '/' || strings.Contains(p, "/.") || strings.Contains(p, "//") || strings.Contains(p, "%2") {
		// Written with escapes or detours: what matched is the plain form, so that is what is sent.
		clean := *u
		clean.Path, clean.RawPath = strings.TrimPrefix(x.path, prefix), ""
		if ok && under(prefix, path.Clean(u.Path)) && !strings.Contains(p, "/.") && !strings.Contains(p, "//") && (rest == "" || rest[0] == '/') {
			clean.Path, clean.RawPath = strings.TrimPrefix(u.Path, prefix), rest
		}
		rest = clean.EscapedPath()
	}
	if rest == "" || rest[0] != '/' {
		rest = "/" + rest
	}
	if asked {
		rest += "?" + query
	}
	return rest
}
