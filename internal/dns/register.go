package dns

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	// bodyMax bounds a request's body, in bytes. The others are Consul's own bounds, where it has some.
	bodyMax      = 64 << 10
	nameMax      = 255
	tagsMax      = 128
	metaMax      = 64
	metaKeyMax   = 128
	metaValueMax = 512
	checksMax    = 16 // of one service
	outputMax    = 4096
	shortestTTL  = time.Second
	// shortestCritical is the least DeregisterCriticalServiceAfter, as in Consul.
	shortestCritical = time.Minute
)

// registration is a foreign service: one instance that somebody registered and keeps alive.
type registration struct {
	ID      string            `json:"id"`
	Name    string            `json:"name"`
	Address string            `json:"address"`
	Port    int               `json:"port,omitempty"`
	Weight  int               `json:"weight,omitempty"`
	Tags    []string          `json:"tags,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"`
	Checks  []ttlCheck        `json:"checks,omitempty"`
}

// ttlCheck is critical unless somebody says something else within each TTL.
type ttlCheck struct {
	ID     string        `json:"id"`
	Name   string        `json:"name,omitempty"`
	Notes  string        `json:"notes,omitempty"`
	Status string        `json:"status"`
	Output string        `json:"output,omitempty"`
	TTL    time.Duration `json:"ttl"`             // nanoseconds
	Remove time.Duration `json:"after,omitempty"` // when to remove the service after it became critical; 0: never

	deadline time.Time // when it becomes critical
	critical time.Time // since when it is
}

// clone is for changes: those who read never see one half done.
func (r *registration) clone() *registration {
	c := *r
	c.Checks = slices.Clone(r.Checks)
	return &c
}

// healthy reports whether DNS gives it out: Consul does so with a warning, too.
func (r *registration) healthy() bool {
	return !slices.ContainsFunc(r.Checks, func(c ttlCheck) bool { return c.Status == critical })
}

// foreign returns what is registered as services of the picture. s.mu is held.
func (s *Server) foreign() []Service {
	var out []Service
	for _, id := range slices.Sorted(maps.Keys(s.registered)) {
		out = append(out, s.registered[id].service(s.o.Node))
	}
	return out
}

func (r *registration) service(node string) Service {
	e := Endpoint{ID: r.ID, Address: r.Address, Port: r.Port, Weight: r.Weight, Healthy: r.healthy(), Node: node}
	for _, c := range r.Checks {
		e.Checks = append(e.Checks, Check{ID: c.ID, Name: c.Name, Status: c.Status, Output: c.Output, Notes: c.Notes, Type: "ttl"})
	}
	return Service{Name: r.Name, Catalog: r.Name, Tags: r.Tags, Meta: r.Meta, Foreign: true, Endpoints: []Endpoint{e}}
}

// span is a time as Consul's clients write it: "10s", or nanoseconds.
type span time.Duration

func (d *span) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		if text == "" {
			return nil
		}
		v, err := time.ParseDuration(text)
		*d = span(v)
		return err
	}
	var n int64
	if err := json.Unmarshal(b, &n); err != nil {
		return fmt.Errorf("%s is no duration, such as \"10s\"", b)
	}
	*d = span(n)
	return nil
}

// askedService is a service as a client registers it. Consul takes two spellings of longer names.
type askedService struct {
	ID, Name, Address, Kind string
	Port                    int
	Tags                    []string
	Meta                    map[string]string
	Weights                 *weights
	Check                   *askedCheck
	Checks                  []askedCheck
	Connect, Proxy          json.RawMessage
}

// askedCheck is a check as a client registers it.
type askedCheck struct {
	ID, CheckID, Name, Notes, Status, Output string

	ServiceID string
	TTL       span

	CheckIDToo   string `json:"check_id"`
	ServiceIDToo string `json:"service_id"`

	DeregisterCriticalServiceAfter    span
	DeregisterCriticalServiceAfterToo span `json:"deregister_critical_service_after"`

	HTTP, TCP, UDP, GRPC, AliasService, AliasNode, DockerContainerID, H2PING, OSService string

	Args, ScriptArgs []string
}

// read decodes a body of bounded size.
func read(r *http.Request, v any) error {
	b, err := io.ReadAll(io.LimitReader(r.Body, bodyMax+1))
	if err != nil {
		return refuse(http.StatusBadRequest, "Request decode failed: %v", err)
	}
	if len(b) > bodyMax {
		return refuse(http.StatusRequestEntityTooLarge, "Request body too large: at most %d bytes", bodyMax)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return refuse(http.StatusBadRequest, "Request decode failed: %v", err)
	}
	return nil
}

// registration checks what a client asks for. from is the client's own address.
func (a *askedService) registration(from string, now time.Time) (*registration, error) {
	bad := func(format string, args ...any) (*registration, error) {
		return nil, refuse(http.StatusBadRequest, format, args...)
	}
	id := cmp.Or(a.ID, a.Name)
	switch {
	case a.Name == "":
		return bad("Missing service name")
	case !plainText(a.Name, nameMax) || strings.Contains(a.Name, "/"):
		return bad("Invalid service name %.80q", a.Name)
	case !plainText(id, nameMax):
		return bad("Invalid service ID %.80q", id)
	case a.Port < 0 || a.Port > 65535:
		return bad("Invalid service port %d", a.Port)
	case a.Kind != "" && a.Kind != "typical" || given(a.Connect) || given(a.Proxy):
		return bad("Tender has no service mesh: Kind, Connect and Proxy are not supported")
	case len(a.Tags) > tagsMax:
		return bad("Too many tags: at most %d", tagsMax)
	case len(a.Meta) > metaMax:
		return bad("Node metadata cannot contain more than %d key/value pairs", metaMax)
	}
	for _, t := range a.Tags {
		if !plainText(t, nameMax) {
			return bad("Invalid tag %.80q", t)
		}
	}
	for k, v := range a.Meta {
		if !plainText(k, metaKeyMax) || len(v) > metaValueMax {
			return bad("Invalid metadata %.80q: keys have at most %d bytes, values %d", k, metaKeyMax, metaValueMax)
		}
	}
	out := &registration{ID: id, Name: a.Name, Address: cmp.Or(a.Address, from), Port: a.Port, Tags: a.Tags, Meta: a.Meta}
	if _, err := netip.ParseAddr(out.Address); err != nil {
		if _, ok := wireName(strings.TrimSuffix(out.Address, ".")); !ok || !plainText(out.Address, nameMax) {
			return bad("Invalid service address %.80q", out.Address)
		}
	}
	if a.Weights != nil {
		if a.Weights.Passing < 1 || a.Weights.Passing > 65535 {
			return bad("Invalid weight %d: 1 to 65535", a.Weights.Passing)
		}
		out.Weight = a.Weights.Passing
	}
	checks := a.Checks
	if a.Check != nil {
		checks = append([]askedCheck{*a.Check}, checks...)
	}
	if len(checks) > checksMax {
		return bad("Too many checks: at most %d", checksMax)
	}
	for i := range checks {
		fallback := "service:" + id
		if len(checks) > 1 {
			fallback = fmt.Sprintf("service:%s:%d", id, i+1)
		}
		c, err := checks[i].check(fallback, "Service '"+a.Name+"' check", now)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out.Checks, func(o ttlCheck) bool { return o.ID == c.ID }) {
			return bad("Check ID %.80q is given twice", c.ID)
		}
		out.Checks = append(out.Checks, c)
	}
	return out, nil
}

func (a *askedCheck) check(id, name string, now time.Time) (ttlCheck, error) {
	bad := func(format string, args ...any) (ttlCheck, error) {
		return ttlCheck{}, refuse(http.StatusBadRequest, format, args...)
	}
	c := ttlCheck{
		ID: cmp.Or(a.CheckID, a.CheckIDToo, a.ID, id), Name: cmp.Or(a.Name, name), Notes: a.Notes, Output: a.Output,
		Status: cmp.Or(a.Status, critical), TTL: time.Duration(a.TTL),
		Remove: time.Duration(cmp.Or(a.DeregisterCriticalServiceAfter, a.DeregisterCriticalServiceAfterToo)),
	}
	others := []string{a.HTTP, a.TCP, a.UDP, a.GRPC, a.AliasService, a.AliasNode, a.DockerContainerID, a.H2PING, a.OSService}
	switch {
	case strings.Join(others, "") != "" || len(a.Args)+len(a.ScriptArgs) > 0:
		return bad("Only TTL checks are supported: set TTL, and report with /v1/agent/check/pass/%s", c.ID)
	case c.TTL < shortestTTL || c.TTL > 365*24*time.Hour:
		return bad("Invalid TTL %v: a second to a year", c.TTL)
	case !known(c.Status):
		return bad("Invalid check status %.80q", c.Status)
	case !plainText(c.ID, nameMax) || len(c.Name) > nameMax || len(c.Notes) > outputMax:
		return bad("Invalid check %.80q: too long, or not printable", c.ID)
	case c.Remove < 0:
		return bad("Invalid DeregisterCriticalServiceAfter %v", c.Remove)
	}
	if c.Remove > 0 {
		c.Remove = max(c.Remove, shortestCritical)
	}
	c.Output = c.Output[:min(len(c.Output), outputMax)]
	c.renew(now)
	return c, nil
}

// renew begins a check's next TTL.
func (c *ttlCheck) renew(now time.Time) {
	c.deadline = now.Add(c.TTL)
	switch {
	case c.Status != critical:
		c.critical = time.Time{}
	case c.critical.IsZero():
		c.critical = now
	}
}

func known(status string) bool { return status == passing || status == warning || status == critical }

// given reports whether a client has set a value that is not its type's zero.
func given(raw json.RawMessage) bool {
	t := strings.TrimSpace(string(raw))
	return t != "" && t != "null" && t != "{}"
}

// plainText reports whether s can be a name: not empty, not too long, nothing that a terminal obeys.
func plainText(s string, most int) bool {
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd })
}

// client returns the address of who asks; a service that names none is there, unless
// that is this host itself.
func (s *Server) client(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return s.o.Address
	}
	a, err := netip.ParseAddr(host)
	if err != nil || a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() {
		return s.o.Address
	}
	return a.Unmap().String()
}

func (s *Server) putService(r *http.Request) (any, error) {
	var a askedService
	if err := read(r, &a); err != nil {
		return nil, err
	}
	replace, err := flag(r, "replace-existing-checks")
	if err != nil {
		return nil, err
	}
	now := time.Now()
	reg, err := a.registration(s.client(r), now)
	if err != nil {
		return nil, err
	}
	return nil, s.change(func(all map[string]*registration) error {
		old := all[reg.ID]
		if old == nil && len(all) >= s.o.Registrations {
			return refuse(http.StatusTooManyRequests, "too many registered services: at most %d", s.o.Registrations)
		}
		if old != nil {
			reg.inherit(old, replace)
			if len(reg.Checks) > checksMax {
				return refuse(http.StatusBadRequest, "Too many checks: at most %d", checksMax)
			}
		}
		for _, c := range reg.Checks {
			if owner := holder(all, c.ID); owner != nil && owner.ID != reg.ID {
				return refuse(http.StatusBadRequest, "Check ID %.80q belongs to service %.80q", c.ID, owner.ID)
			}
		}
		all[reg.ID] = reg
		return nil
	})
}

// inherit takes over what checks said before: a client that registers again at each start
// does not become critical by that.
func (r *registration) inherit(old *registration, replace bool) {
	for _, was := range old.Checks {
		i := slices.IndexFunc(r.Checks, func(c ttlCheck) bool { return c.ID == was.ID })
		switch {
		case i >= 0:
			c := &r.Checks[i]
			c.Status, c.Output, c.critical = was.Status, was.Output, was.critical
		case !replace:
			r.Checks = append(r.Checks, was)
		}
	}
}

func (s *Server) deleteService(r *http.Request) (any, error) {
	id := r.PathValue("id")
	return nil, s.change(func(all map[string]*registration) error {
		if all[id] == nil {
			return refuse(http.StatusNotFound, "Unknown service ID %q. Ensure that the service ID is passed, not the service name.", id)
		}
		delete(all, id)
		return nil
	})
}

// agentServices lists what was registered here; what Tender runs is in the catalogue.
func (s *Server) agentServices(*http.Request) (any, error) {
	out := map[string]agentEntry{}
	for l := range s.registeredHere() {
		out[l.id()] = s.agentEntry(l)
	}
	return out, nil
}

func (s *Server) agentService(r *http.Request) (any, error) {
	for l := range s.registeredHere() {
		if l.id() == r.PathValue("id") {
			return s.agentEntry(l), nil
		}
	}
	return nil, refuse(http.StatusNotFound, "unknown service ID: %s", r.PathValue("id"))
}

func (s *Server) agentChecks(*http.Request) (any, error) {
	out := map[string]wireCheck{}
	for l := range s.registeredHere() {
		for _, c := range s.wireChecks(l) {
			out[c.CheckID] = c
		}
	}
	return out, nil
}
