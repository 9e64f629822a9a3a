package proxy

import (
	"net/netip"

	tender "github.com/tenderhq/tender"
)

// Format is the version of Table. A proxy takes tables of its own format and of
// the one before.
const Format = 1

// Table is all that the proxy serves. It travels to the edge as JSON and lies
// on its disk, so that a change of a field's meaning is a change of Format.
type Table struct {
	Format int `json:"format"`
	// Version grows with each table that serve makes; reports carry it.
	Version uint64  `json:"version"`
	Routes  []Route `json:"routes,omitempty"`
	Ports   []Port  `json:"ports,omitempty"`
	// Trusted are the proxies in front whose X-Forwarded-For, Forwarded and PROXY headers are believed.
	Trusted []netip.Prefix `json:"trusted,omitempty"`
}

// Route is one route of a project, with where its requests go now.
type Route struct {
	// ID names it in reports and commands: PROJECT/HOST/PATH, or PROJECT/SERVICE:PORT where hosts are not said.
	ID      string   `json:"id"`
	Project string   `json:"project"`
	Hosts   []string `json:"hosts,omitempty"`
	Path    string   `json:"path"`
	tender.RouteOptions
	// Groups share the requests by their weights. One group is one revision of one service, or one URL.
	Groups []Group `json:"groups,omitempty"`
	Paused bool    `json:"paused,omitempty"` // requests wait, up to timeout.queue
}

// Group is where a share of a route goes.
type Group struct {
	Aim      string   `json:"aim"` // service or URL
	Revision string   `json:"revision,omitempty"`
	Weight   int      `json:"weight"` // relative; 0: takes nothing new but what sticks to it
	Targets  []Target `json:"targets,omitempty"`
}

// Target is one instance, or an address outside.
type Target struct {
	ID   string `json:"id"`   // of the instance; of an address outside its URL
	Name string `json:"name"` // web-1
	// Address is IP:PORT, or host:port of a URL, which is resolved anew as it is dialled.
	Address string `json:"address"`
	TLS     bool   `json:"tls,omitempty"` // of https:// URLs
	// Leaving: it gets nothing new, not even what sticks to it; what is under way ends.
	Leaving bool `json:"leaving,omitempty"`
	// Down: serve knows that it does not serve (unhealthy, starting); it is a target again when serve says so.
	Down bool `json:"down,omitempty"`
}

// Port is a port of the host that the edge holds for a service (publish: proxy).
type Port struct {
	ID       string `json:"id"` // PROJECT/SERVICE:PORT/PROTOCOL
	Project  string `json:"project"`
	Service  string `json:"service"`
	Address  string `json:"address"`  // [HOSTIP]:PORT to listen on
	Protocol string `json:"protocol"` // tcp, udp
	// Balance: "" or "round-robin", "least-conn", "random-two", "hash:ip".
	Balance string              `json:"balance,omitempty"`
	Timeout tender.RouteTimeout `json:"timeout"`
	// Transparent: the service sees the client's address, where the kernel allows it.
	Transparent bool `json:"transparent,omitempty"`
	// ProxyIn: clients begin with a PROXY header (believed from Trusted). ProxyOut: version 1 or 2 is sent to targets.
	ProxyIn  bool    `json:"proxy_in,omitempty"`
	ProxyOut int     `json:"proxy_out,omitempty"`
	Groups   []Group `json:"groups,omitempty"`
}

// Report is what the proxy has served since it started. Counters only grow; a
// target that has left the table stays in the report for ten minutes.
type Report struct {
	Version uint64        `json:"version"` // of the table that is served
	Routes  []RouteReport `json:"routes"`
	Ports   []RouteReport `json:"ports"` // Served.Requests are connections
	// Problems say which addresses of HTTP and HTTPS are not listened on, and why.
	Problems []string `json:"problems,omitempty"`
}

// RouteReport is one route or port of a Report.
type RouteReport struct {
	ID      string        `json:"id"`
	Project string        `json:"project"`
	Served  tender.Served `json:"served"` // the sum of its targets, and what found none
	// Problem says why a port, or none of the addresses of a route, is listened on: another program has it.
	Problem string         `json:"problem,omitempty"`
	Waiting int            `json:"waiting"` // requests held because it is paused or nothing serves
	Targets []TargetReport `json:"targets"`
	// Certificates are those of its hosts, where it is served over TLS.
	Certificates []CertReport `json:"certificates,omitempty"`
}

// TargetReport is one target of a RouteReport.
type TargetReport struct {
	ID       string        `json:"id"`
	Name     string        `json:"name"`
	Aim      string        `json:"aim"`
	Revision string        `json:"revision,omitempty"`
	Address  string        `json:"address"`
	Weight   int           `json:"weight"` // of its group
	State    string        `json:"state"`  // up, down, ejected, leaving, gone
	Reason   string        `json:"reason,omitempty"`
	Since    int64         `json:"since"` // unix milliseconds of the last change of State
	Open     int           `json:"open"`  // requests and connections under way now
	Served   tender.Served `json:"served"`
	Checks   []Check       `json:"checks,omitempty"` // the last ten, the newest last
}

// Check is one answer to an active health check.
type Check struct {
	At     int64   `json:"at"` // unix milliseconds
	OK     bool    `json:"ok"`
	Text   string  `json:"text"` // "200 OK", "connection refused"
	Millis float64 `json:"millis"`
}
