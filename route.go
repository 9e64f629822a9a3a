package tender

import (
	"net/netip"
	"strconv"
	"time"
)

// Route is what the edge serves, as x-tender.routes says it: hosts and a path,
// to one target or several. Defaults are applied where the comments name them.
type Route struct {
	// Service is the service under which it is written; empty: at the top of the file.
	Service string `json:"service,omitempty"`
	// Hosts are lower case, without port; "*.x" is any name below x. Empty: any host.
	Hosts []string `json:"hosts,omitempty"`
	// Path is a prefix that ends at a slash or the end of a segment; default "/". The longest wins.
	Path string `json:"path"`
	// Aims share the traffic by their weights.
	Aims []Aim `json:"aims"`
	RouteOptions
}

// ID names a route in tables, commands and reports: PROJECT/HOST/PATH with its
// first host, or PROJECT/SERVICE:PORT/PATH where it has none.
func (r Route) ID(project string) string {
	place := "*"
	switch {
	case len(r.Hosts) > 0:
		place = r.Hosts[0]
	case len(r.Aims) > 0 && r.Aims[0].Service != "":
		place = r.Aims[0].Service + ":" + strconv.Itoa(r.Aims[0].Port)
	}
	return project + "/" + place + r.Path
}

// Aim is one target of a route: a service of the project, or an address outside.
type Aim struct {
	Service string `json:"service,omitempty"`
	// Port is the container's; 0: the only one that is exposed.
	Port int `json:"port,omitempty"`
	// URL is http:// or https://, host and port, for what runs elsewhere.
	URL string `json:"url,omitempty"`
	// Weight is its share relative to the other aims'; default 1 where none says one. 0: none.
	Weight int `json:"weight"`
}

// Name is how tables and commands call it: the service, or the URL.
func (a Aim) Name() string {
	if a.Service != "" {
		return a.Service
	}
	return a.URL
}

// RouteOptions is what a route does with a request. Zero values mean off, or
// the default named.
type RouteOptions struct {
	// TLS is "auto", "internal" or "off"; "": auto where a host is said that is public (a.b, not *.b, an
	// address, or under .localhost, .test and their kin), else off. Where it is on and https is listened on,
	// plain HTTP is sent on to https.
	TLS      string `json:"tls,omitempty"`
	CertFile string `json:"cert_file,omitempty"` // on the edge's host, with KeyFile: instead of TLS auto
	KeyFile  string `json:"key_file,omitempty"`
	HSTS     bool   `json:"hsts,omitempty"`
	// Protocol spoken to the targets: "" http/1.1, "h2c", "https"; a URL's scheme says it too.
	Protocol string `json:"protocol,omitempty"`

	// Balance: "" or "round-robin", "least-conn", "random-two", "hash:ip", "hash:header:NAME", "hash:cookie:NAME".
	Balance string       `json:"balance,omitempty"`
	Sticky  bool         `json:"sticky,omitempty"` // a cookie binds a client to its aim, revision and instance while these serve
	Health  *RouteHealth `json:"health,omitempty"`
	Timeout RouteTimeout `json:"timeout"`
	// Retries of requests that are safe to repeat, on another target; default 1, -1: none. Where no
	// connection comes about nothing was sent, so that any request is tried at least 3 times more.
	Retries int `json:"retries,omitempty"`

	StripPrefix bool              `json:"strip_prefix,omitempty"`
	Headers     *RouteHeaders     `json:"headers,omitempty"`
	Redirect    *RouteRedirect    `json:"redirect,omitempty"`   // answered by the edge itself
	BasicAuth   map[string]string `json:"basic_auth,omitempty"` // user: bcrypt hash
	Allow       []netip.Prefix    `json:"allow,omitempty"`      // empty: everybody
	RateLimit   *RateLimit        `json:"rate_limit,omitempty"`
	MaxBody     int64             `json:"max_body,omitempty"` // bytes; 0: unbounded
	Compress    bool              `json:"compress,omitempty"` // gzip of text, where the client takes it
	// ErrorPage is HTML for errors of the edge's own (502, 503, 504); {{.Status}} and {{.Text}} are filled in.
	ErrorPage   string `json:"error_page,omitempty"`
	Maintenance string `json:"maintenance,omitempty"` // 503 with this text
}

// RouteHealth is the edge's own check of each target, beside the engine's.
type RouteHealth struct {
	Path     string        `json:"path"`             // default "/"; "tcp": a connection is enough
	Method   string        `json:"method,omitempty"` // default GET
	Host     string        `json:"host,omitempty"`
	Status   string        `json:"status,omitempty"`   // "200", "2xx", "200-399" (default)
	Interval time.Duration `json:"interval,omitempty"` // default 2 s
	Timeout  time.Duration `json:"timeout,omitempty"`  // default 1 s
	Up       int           `json:"up,omitempty"`       // good ones in a row until it serves; default 1
	Down     int           `json:"down,omitempty"`     // bad ones in a row until it does not; default 2
}

// RouteTimeout ends what does not move. As in HAProxy these are of inactivity;
// Total is of the whole request and off by default.
type RouteTimeout struct {
	Connect time.Duration `json:"connect,omitempty"` // default 5 s
	Client  time.Duration `json:"client,omitempty"`  // default 50 s
	Server  time.Duration `json:"server,omitempty"`  // default 50 s; upgraded connections and streams: Tunnel
	Tunnel  time.Duration `json:"tunnel,omitempty"`  // default 1 h
	Total   time.Duration `json:"total,omitempty"`
	// Queue is how long a request waits where nothing serves, or the route is paused; default 30 s.
	Queue time.Duration `json:"queue,omitempty"`
}

// RouteHeaders sets headers; an empty value removes one.
type RouteHeaders struct {
	Request  map[string]string `json:"request,omitempty"`
	Response map[string]string `json:"response,omitempty"`
}

// RouteRedirect answers with another address. {path}, {host} and {query} are filled in.
type RouteRedirect struct {
	To   string `json:"to"`
	Code int    `json:"code,omitempty"` // default 308
}

// RateLimit bounds requests per client.
type RateLimit struct {
	Requests int           `json:"requests"`
	Per      time.Duration `json:"per"`
	Burst    int           `json:"burst,omitempty"` // default Requests
	By       string        `json:"by,omitempty"`    // "" or "ip", "header:NAME"
}

// Served is what the edge has counted of a target, a revision or a route.
type Served struct {
	Requests uint64    `json:"requests"`
	Failed   uint64    `json:"failed"` // answered by the edge with 502, 503 or 504, or cut off by the target
	Class    [6]uint64 `json:"class"`  // by first digit of the status; [0]: none was sent
	// Latency counts requests up to each of LatencyBounds, and above all of them, not cumulated. It
	// ends at the head of the answer, so that a long stream is not a slow one.
	Latency  [len(LatencyBounds) + 1]uint64 `json:"latency"`
	Seconds  float64                        `json:"seconds"` // sum of latencies
	BytesIn  uint64                         `json:"bytes_in"`
	BytesOut uint64                         `json:"bytes_out"`
	// Cut are streams and upgraded connections that a drain ended; they are not Failed.
	Cut uint64 `json:"cut"`
}

// Plus is what both have counted.
func (s Served) Plus(o Served) Served {
	s.Requests += o.Requests
	s.Failed += o.Failed
	s.Seconds += o.Seconds
	s.BytesIn += o.BytesIn
	s.BytesOut += o.BytesOut
	s.Cut += o.Cut
	for i := range s.Class {
		s.Class[i] += o.Class[i]
	}
	for i := range s.Latency {
		s.Latency[i] += o.Latency[i]
	}
	return s
}

// LatencyBounds are the upper bounds of Served.Latency, in seconds.
var LatencyBounds = [...]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
