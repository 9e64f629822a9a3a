package proxy

import (
	"net/http"
	"net/netip"
	"net/textproto"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
)

const (
	defaultConnect = 5 * time.Second
	defaultClient  = 50 * time.Second
	defaultServer  = 50 * time.Second
	defaultTunnel  = time.Hour
	defaultQueue   = 30 * time.Second
)

// route is a Route made ready: defaults applied, names in the form they are compared in.
type route struct {
	Route
	*pool
	cookieName string
	secure     bool // plain HTTP is sent on to https
	setRequest []field
	setAnswer  []field
	rates      *rates
}

type field struct{ key, value string }

func newRoute(r Route, p *pool, https bool) *route {
	n := &route{Route: r, pool: p}
	t := &n.Timeout
	for v, d := range map[*time.Duration]time.Duration{
		&t.Connect: defaultConnect, &t.Client: defaultClient, &t.Server: defaultServer, &t.Tunnel: defaultTunnel, &t.Queue: defaultQueue,
	} {
		if *v == 0 {
			*v = d
		}
	}
	if n.Path == "" {
		n.Path = "/"
	}
	if n.Retries == 0 {
		n.Retries = 1
	}
	n.cookieName = "tender_" + short(r.ID)
	n.secure = https && r.Mode() != "off"
	if h := r.Headers; h != nil {
		n.setRequest, n.setAnswer = fields(h.Request), fields(h.Response)
	}
	if r.RateLimit != nil {
		n.rates = p.limits(*r.RateLimit)
	}
	return n
}

func fields(m map[string]string) []field {
	var list []field
	for k, v := range m {
		list = append(list, field{textproto.CanonicalMIMEHeaderKey(k), v})
	}
	slices.SortFunc(list, func(a, b field) int { return strings.Compare(a.key, b.key) })
	return list
}

// Mode is how a route is kept secret: "auto", "internal", "file" or "off". Names
// that no public authority vouches for are off unless the route says otherwise.
func (r Route) Mode() string {
	switch {
	case r.TLS == "off":
		return "off"
	case r.CertFile != "":
		return "file"
	case r.TLS != "":
		return r.TLS
	}
	for _, h := range r.Hosts {
		if Public(h) {
			return "auto"
		}
	}
	return "off"
}

// Public says whether an authority of the public can vouch for a host.
func Public(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") || strings.HasPrefix(host, "*.") {
		return false
	}
	switch host[strings.LastIndexByte(host, '.')+1:] {
	case "localhost", "local", "internal", "test", "example", "invalid", "lan", "home", "arpa", "tender", "consul":
		return false
	}
	return true
}

// routing finds the route of a request: an exact host before the longest
// wildcard before any host, and there the longest path.
type routing struct {
	all      map[string]*route   // by id
	exact    map[string][]*route // by host
	wild     map[string][]*route // by what follows "*"
	anywhere []*route
}

func (m *routing) add(r *route) {
	if m.all == nil {
		m.all, m.exact, m.wild = map[string]*route{}, map[string][]*route{}, map[string][]*route{}
	}
	m.all[r.ID] = r
	for _, h := range r.Hosts {
		if rest, ok := strings.CutPrefix(h, "*"); ok {
			m.wild[rest] = append(m.wild[rest], r)
		} else {
			m.exact[h] = append(m.exact[h], r)
		}
	}
	if len(r.Hosts) == 0 {
		m.anywhere = append(m.anywhere, r)
	}
}

func (m *routing) sort() {
	longest := func(list []*route) {
		slices.SortFunc(list, func(a, b *route) int { return len(b.Path) - len(a.Path) })
	}
	for _, list := range m.exact {
		longest(list)
	}
	for _, list := range m.wild {
		longest(list)
	}
	longest(m.anywhere)
}

func (m *routing) match(host, path string) *route {
	if r := first(m.exact[host], path); r != nil {
		return r
	}
	if len(m.wild) > 0 {
		for i := strings.IndexByte(host, '.'); i >= 0; {
			if r := first(m.wild[host[i:]], path); r != nil {
				return r
			}
			next := strings.IndexByte(host[i+1:], '.')
			if next < 0 {
				break
			}
			i += 1 + next
		}
	}
	return first(m.anywhere, path)
}

func first(list []*route, path string) *route {
	for _, r := range list {
		if under(r.Path, path) {
			return r
		}
	}
	return nil
}

// under says whether path lies under prefix, which ends at a slash or a segment's end.
func under(prefix, path string) bool {
	if prefix == "/" {
		return true
	}
	if !strings.HasPrefix(path, prefix) {
		return false
	}
	return len(path) == len(prefix) || prefix[len(prefix)-1] == '/' || path[len(prefix)] == '/'
}

// hostOf is a Host header as routes name hosts.
func hostOf(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	host = strings.TrimSuffix(host, ".")
	for i := range len(host) {
		if c := host[i]; 'A' <= c && c <= 'Z' {
			return strings.ToLower(host)
		}
	}
	return host
}

// pathOf is what routes are matched with: the decoded path without detours, so
// that /a/../b and /a/%2e%2e/b are not let in as /a where a target takes them for /b.
func pathOf(r *http.Request) string {
	p := r.URL.Path
	if p == "" || p[0] != '/' {
		return "/"
	}
	if strings.Contains(p, "//") || strings.Contains(p, "/.") {
		clean := path.Clean(p)
		if p[len(p)-1] == '/' && clean != "/" {
			clean += "/"
		}
		return clean
	}
	return p
}

// Validate names the first route or port that cannot be served, and why.
func (t Table) Validate() error {
	if t.Format != Format && t.Format != Format-1 || t.Format == 0 {
		return tender.Errorf(tender.Invalid, "table has format %d, this edge knows %d", t.Format, Format).Hint("upgrade serve and edge together")
	}
	ids, places := map[string]bool{}, map[string]string{}
	for _, r := range t.Routes {
		bad := func(format string, args ...any) error {
			return tender.Errorf(tender.Invalid, "route %q: "+format, append([]any{r.ID}, args...)...)
		}
		if r.ID == "" || ids["r"+r.ID] {
			return bad("its id is empty or taken")
		}
		ids["r"+r.ID] = true
		p := r.Path
		if p == "" {
			p = "/"
		}
		if p[0] != '/' {
			return bad("path %q does not begin with /", r.Path)
		}
		hosts := r.Hosts
		if len(hosts) == 0 {
			hosts = []string{""}
		}
		for _, h := range hosts {
			if h != strings.ToLower(h) || strings.ContainsAny(h, "/: ") && !strings.HasPrefix(h, "[") || strings.Contains(strings.TrimPrefix(h, "*."), "*") {
				return bad("host %q is not a lower case name", h)
			}
			if other := places[h+p]; other != "" {
				return bad("%s%s belongs to %q", h, p, other)
			}
			places[h+p] = r.ID
		}
		if err := r.options(bad); err != nil {
			return err
		}
		if err := validGroups(r.Groups, bad); err != nil {
			return err
		}
	}
	held := map[string]string{}
	for _, p := range t.Ports {
		bad := func(format string, args ...any) error {
			return tender.Errorf(tender.Invalid, "port %q: "+format, append([]any{p.ID}, args...)...)
		}
		if p.ID == "" || ids["p"+p.ID] {
			return bad("its id is empty or taken")
		}
		ids["p"+p.ID] = true
		if p.Protocol != "tcp" && p.Protocol != "udp" {
			return bad("protocol %q is neither tcp nor udp", p.Protocol)
		}
		i := strings.LastIndexByte(p.Address, ':')
		if n, err := strconv.ParseUint(p.Address[i+1:], 10, 16); i < 0 || err != nil || n == 0 && i < 1 {
			return bad("address %q is not HOST:PORT", p.Address)
		}
		if other := held[p.Address+"/"+p.Protocol]; other != "" && !strings.HasSuffix(p.Address, ":0") {
			return bad("%s/%s belongs to %q", p.Address, p.Protocol, other)
		}
		held[p.Address+"/"+p.Protocol] = p.ID
		if mode, _, ok := parseBalance(p.Balance); !ok || mode > hashIP {
			return bad("balance %q is not known for ports", p.Balance)
		}
		if p.ProxyOut < 0 || p.ProxyOut > 2 {
			return bad("PROXY protocol %d is not known", p.ProxyOut)
		}
		if err := validGroups(p.Groups, bad); err != nil {
			return err
		}
	}
	return nil
}

func (r Route) options(bad func(string, ...any) error) error {
	switch r.TLS {
	case "", "auto", "internal", "off":
	default:
		return bad("tls %q is not auto, internal or off", r.TLS)
	}
	if (r.CertFile == "") != (r.KeyFile == "") {
		return bad("a certificate needs both cert_file and key_file")
	}
	switch r.Protocol {
	case "", "http", "h2c", "https":
	default:
		return bad("protocol %q is not http, h2c or https", r.Protocol)
	}
	if _, _, ok := parseBalance(r.Balance); !ok {
		return bad("balance %q is not known", r.Balance)
	}
	if h := r.Health; h != nil {
		if _, err := parseStatus(h.Status); err != nil {
			return bad("health: %w", err)
		}
		if h.Path != "" && h.Path != "tcp" && h.Path[0] != '/' {
			return bad("health: path %q does not begin with /", h.Path)
		}
		if !token(h.Method) && h.Method != "" {
			return bad("health: method %q is not one", h.Method)
		}
	}
	if h := r.Headers; h != nil {
		for _, m := range []map[string]string{h.Request, h.Response} {
			for k, v := range m {
				if !token(k) || !validValue(v) {
					return bad("header %q cannot be sent", k)
				}
				switch textproto.CanonicalMIMEHeaderKey(k) {
				case "Content-Length", "Transfer-Encoding", "Connection", "Trailer", "Te", "Upgrade":
					return bad("header %q is the proxy's own", k)
				}
			}
		}
	}
	if d := r.Redirect; d != nil {
		if d.Code != 0 && (d.Code < 300 || d.Code > 399) {
			return bad("redirect: code %d is not one of a redirect", d.Code)
		}
		if d.To == "" || !validValue(d.To) {
			return bad("redirect: no address to go to")
		}
	}
	if l := r.RateLimit; l != nil {
		if l.Requests < 1 || l.Per <= 0 || l.Burst < 0 {
			return bad("rate_limit needs requests and a time")
		}
		if by, ok := strings.CutPrefix(l.By, "header:"); l.By != "" && l.By != "ip" && (!ok || !token(by)) {
			return bad("rate_limit by %q is neither ip nor header:NAME", l.By)
		}
	}
	for user, hash := range r.BasicAuth {
		if user == "" || strings.Contains(user, ":") || !isBcrypt(hash) {
			return bad("basic_auth: %q has no bcrypt hash", user)
		}
	}
	if r.MaxBody < 0 || r.Retries < -1 {
		return bad("max_body and retries cannot be negative")
	}
	t := r.Timeout
	for _, d := range []time.Duration{t.Connect, t.Client, t.Server, t.Tunnel, t.Total, t.Queue} {
		if d < 0 {
			return bad("a timeout cannot be negative")
		}
	}
	return nil
}

func validGroups(groups []Group, bad func(string, ...any) error) error {
	for _, g := range groups {
		if g.Weight < 0 {
			return bad("%s has a weight below 0", g.Aim)
		}
		for _, t := range g.Targets {
			if i := strings.LastIndexByte(t.Address, ':'); t.ID == "" || i < 1 || i == len(t.Address)-1 {
				return bad("target %q has no address: %q", t.ID, t.Address)
			}
		}
	}
	return nil
}
