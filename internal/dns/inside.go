package dns

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	tender "github.com/tenderhq/tender"
)

// Inside is where the containers of some networks ask: the host's own address in
// such a network. It travels as JSON.
type Inside struct {
	Address string `json:"address"`
	// Networks are those of whom is answered, as prefixes; everybody else is refused, the host itself too.
	Networks []string `json:"networks"`
	// Projects are those whose services Consul's API shows, beside what was registered.
	Projects []string `json:"projects,omitempty"`
	// Consul: the name consul leads to Address. Not where a project has a service of its own under that name.
	Consul bool `json:"consul,omitempty"`
}

// inside is Inside, read.
type inside struct {
	address  netip.Addr
	networks []netip.Prefix
	projects []string
	named    bool
}

// Validate says what is wrong with it.
func (in Inside) Validate() error {
	_, err := in.read()
	return err
}

func (in Inside) read() (*inside, error) {
	out := &inside{projects: in.Projects, named: in.Consul}
	var err error
	if out.address, err = netip.ParseAddr(in.Address); err != nil {
		return nil, tender.Errorf(tender.Invalid, "%q is no address", in.Address)
	}
	for _, n := range in.Networks {
		p, err := netip.ParsePrefix(n)
		if err != nil {
			return nil, tender.Errorf(tender.Invalid, "%q is no network", n)
		}
		out.networks = append(out.networks, p)
	}
	return out, nil
}

// consul is what answers for the name consul itself; nil: the rest of the server does.
func (in *inside) consul(t *table, q *query) []record {
	if in == nil || !in.named || q.kind != dns.TypeA && q.kind != dns.TypeANY || string(q.wire()) != "\x06consul\x00" || !in.address.Is4() {
		return nil
	}
	return []record{{wire: t.record(dns.TypeA, in.address.AsSlice())}}
}

// ServeInside is Serve for the containers of some networks.
func (s *Server) ServeInside(ctx context.Context, in Inside, packets []net.PacketConn, listeners []net.Listener) error {
	read, err := in.read()
	if err != nil {
		return err
	}
	return s.serve(ctx, read, packets, listeners)
}

// ConsulInside returns Consul's paths for the containers of some networks: what
// of the catalogue is theirs, to be read and not to be changed, since nobody there is asked for a token.
func (s *Server) ConsulInside(in Inside) (http.Handler, error) {
	read, err := in.read()
	if err != nil {
		return nil, err
	}
	all := s.consul(func(c *catalog) *catalog { return c.only(read.projects) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		switch {
		case err != nil || !s.allowed(read, from.Addr()):
			http.Error(w, "this address answers the containers of its networks alone", http.StatusForbidden)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			http.Error(w, "Permission denied: this address can only be read. Register over Tender's own API, with a token", http.StatusForbidden)
		default:
			all.ServeHTTP(w, r)
		}
	}), nil
}

// only is the part of a catalogue that belongs to some projects, and what nobody's project is.
func (c *catalog) only(projects []string) *catalog {
	out := *c
	out.services = map[string]*listed{}
	for name, l := range c.services {
		mine := *l
		mine.entries, mine.tags = nil, nil
		for _, e := range l.entries {
			if !e.service.Foreign && !slices.Contains(projects, e.service.Project) {
				continue
			}
			mine.entries = append(mine.entries, e)
			mine.tags = append(mine.tags, e.service.Tags...)
		}
		if len(mine.entries) == 0 {
			continue
		}
		slices.Sort(mine.tags)
		mine.tags = slices.Compact(mine.tags)
		out.services[name] = &mine
	}
	return &out
}
