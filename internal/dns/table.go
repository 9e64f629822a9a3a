package dns

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// The zones that are answered from the picture alone.
const (
	zoneTender = "tender"
	zoneConsul = "consul"
)

// table holds every answer, ready to be copied behind a question. It is made once for each picture.
type table struct {
	names map[string]*entry // by name in wire format, lower case
	zones []zone
	ttl   uint32
	// services has the full names of all services, which instances must not take: the
	// service web-1 is not hidden by the first instance of web.
	services map[string]bool
	// have tells while the table is made which records are in it: two instances may share an
	// address. nil afterwards.
	have map[string]bool
}

// zone is a zone of ours. Its soa is what stands behind the owner's name of the record in
// negative answers, and lacks nothing but that name.
type zone struct {
	wire []byte
	soa  []byte
}

// entry is a name. One without records exists, but has nothing (NODATA).
type entry struct {
	name              string
	a, aaaa, srv, ptr []record
	host              []record // CNAME: foreign services may be registered under a host's name
	soa               []record // of a zone itself
}

// record is a resource record whose owner is the name asked for, and what goes with it in the additional section.
type record struct {
	wire  []byte
	extra []byte
	host  string // where a CNAME leads
}

// of returns the records of a type.
func (e *entry) of(kind uint16) []record {
	switch kind {
	case dns.TypeA:
		return e.a
	case dns.TypeAAAA:
		return e.aaaa
	case dns.TypeSRV:
		return e.srv
	case dns.TypePTR:
		return e.ptr
	case dns.TypeSOA:
		return e.soa
	case dns.TypeANY: // a subset is enough (RFC 8482)
		for _, set := range [][]record{e.a, e.aaaa, e.ptr, e.soa} {
			if len(set) > 0 {
				return set
			}
		}
	}
	return nil
}

// zone returns the zone that a name lies in.
func (t *table) zone(name []byte) *zone {
	for i := range t.zones {
		z := t.zones[i].wire
		if len(name) < len(z) || string(name[len(name)-len(z):]) != string(z) {
			continue
		}
		// It must end with whole labels: "xtender." with the byte 6 inside is another name.
		for off := 0; off <= len(name)-len(z); off += 1 + int(name[off]) {
			if off == len(name)-len(z) {
				return &t.zones[i]
			}
		}
	}
	return nil
}

func makeTable(o *Options, p *Picture) *table {
	t := &table{names: map[string]*entry{}, services: map[string]bool{}, have: map[string]bool{}, ttl: uint32(o.TTL / time.Second)}
	for _, name := range []string{zoneTender, zoneConsul} {
		wire, _ := wireName(name)
		z := zone{wire: wire, soa: t.soa(name, uint32(p.Index))}
		t.zones = append(t.zones, z)
		t.at(name, name).soa = []record{{wire: append([]byte{0xc0, headerLen}, z.soa...)}}
	}
	for _, name := range []string{"service.consul", "node.consul", "addr.consul"} {
		t.at(name, zoneConsul)
	}
	for _, s := range p.Services {
		t.services[strings.ToLower(s.Name+"."+s.Project+"."+zoneTender)] = true
	}
	for i := range p.Services {
		t.service(&p.Services[i])
		t.instances(&p.Services[i])
	}
	t.consul(o, p)
	t.have = nil
	return t
}

// service adds SERVICE.PROJECT.tender and its SRV names.
func (t *table) service(s *Service) {
	if s.Project == "" {
		return
	}
	name := s.Name + "." + s.Project + "." + zoneTender
	e := t.at(name, zoneTender)
	if e == nil {
		return
	}
	for i := range s.Ports {
		// Exists also without instances, so that "none now" is told from "no such port".
		for _, n := range portNames(&s.Ports[i]) {
			t.at(n+"."+name, zoneTender)
		}
	}
	for i := range s.Endpoints {
		ep := &s.Endpoints[i]
		if !ep.Healthy {
			continue
		}
		t.address(e, ep)
		target := t.target(s, ep)
		t.addSRV(e, ep, s.port(ep), target)
		for j := range s.Ports {
			for _, n := range portNames(&s.Ports[j]) {
				if e := t.at(n+"."+name, zoneTender); e != nil {
					number := s.Ports[j].Number
					if j == 0 && ep.Port > 0 {
						number = ep.Port
					}
					t.addSRV(e, ep, number, target)
				}
			}
		}
	}
}

// portNames returns the labels that SRV queries name a port with: _http._tcp, _8080._tcp.
func portNames(p *Port) []string {
	protocol := p.Protocol
	if protocol == "" {
		protocol = "tcp"
	}
	out := []string{"_" + strconv.Itoa(p.Number) + "._" + protocol}
	if p.Name != "" && p.Name != strconv.Itoa(p.Number) {
		out = append(out, "_"+p.Name+"._"+protocol)
	}
	return out
}

// target is the name of one endpoint, as SRV and PTR give it.
func (t *table) target(s *Service, e *Endpoint) string {
	if n := s.slotName(e) + "." + s.Project + "." + zoneTender; e.Slot > 0 && !t.services[strings.ToLower(n)] {
		return n
	}
	return cmp.Or(e.Name, e.ID) + "." + s.Name + "." + s.Project + "." + zoneTender
}

// instances adds SERVICE-N.PROJECT.tender, INSTANCE.SERVICE.PROJECT.tender and the way back from an address.
func (t *table) instances(s *Service) {
	if s.Project == "" {
		return
	}
	suffix := "." + s.Project + "." + zoneTender
	for i := range s.Endpoints {
		ep := &s.Endpoints[i]
		names := []string{ep.Name + "." + s.Name + suffix, ep.ID + "." + s.Name + suffix}
		if len(ep.ID) > 12 {
			names = append(names, ep.ID[:12]+"."+s.Name+suffix)
		}
		if n := s.slotName(ep); n != "" {
			names = append(names, n+suffix, strconv.Itoa(ep.Slot)+"."+s.Name+suffix)
		}
		seen := map[*entry]bool{}
		for _, n := range names {
			if t.services[strings.ToLower(n)] {
				continue
			}
			e := t.at(n, zoneTender)
			if e == nil || seen[e] {
				continue
			}
			seen[e] = true
			if ep.Healthy {
				t.address(e, ep)
				t.addSRV(e, ep, s.port(ep), t.target(s, ep))
			}
		}
		if ip, ok := ep.ip(); ok {
			t.pointer(ip, t.target(s, ep))
		}
	}
}

// pointer adds the PTR record of an address.
func (t *table) pointer(ip netip.Addr, target string) {
	reverse, err := dns.ReverseAddr(ip.String())
	if err != nil {
		return
	}
	rdata, ok := wireName(target)
	if !ok {
		return
	}
	if e := t.at(strings.TrimSuffix(reverse, "."), ""); e != nil {
		t.add(e, &e.ptr, record{wire: t.record(dns.TypePTR, rdata)})
	}
}

// consul adds NAME.service.consul with its tags, nodes, and addresses as names. As with
// Consul, a service of which nothing is healthy has no name.
func (t *table) consul(o *Options, p *Picture) {
	for i := range p.Services {
		s := &p.Services[i]
		name := s.catalogued()
		if name == "" {
			continue
		}
		for j := range s.Endpoints {
			ep := &s.Endpoints[j]
			if !ep.Healthy {
				continue
			}
			target := t.addr(o, ep)
			names := []string{name, "_" + name + "._tcp"}
			for _, tag := range s.Tags {
				names = append(names, tag+"."+name)
				if tag != "tcp" {
					names = append(names, "_"+name+"._"+tag)
				}
			}
			for _, n := range names {
				for _, suffix := range []string{".service.consul", ".service." + o.Datacenter + ".consul"} {
					e := t.at(n+suffix, zoneConsul)
					if e == nil {
						continue
					}
					t.address(e, ep)
					t.addSRV(e, ep, s.port(ep), target)
				}
			}
		}
	}
	for _, n := range nodesOf(o, p) {
		ep := Endpoint{Address: n.Address}
		for _, suffix := range []string{".node.consul", ".node." + o.Datacenter + ".consul"} {
			if e := t.at(n.Name+suffix, zoneConsul); e != nil {
				t.address(e, &ep)
			}
		}
	}
}

// addr adds the name that Consul gives to an address and returns it: 0a000005.addr.dc1.consul.
func (t *table) addr(o *Options, ep *Endpoint) string {
	ip, ok := ep.ip()
	if !ok {
		return ""
	}
	name := hex.EncodeToString(ip.AsSlice()) + ".addr." + o.Datacenter + ".consul"
	if e := t.at(name, zoneConsul); e != nil && len(e.a)+len(e.aaaa) == 0 {
		t.address(e, ep)
	}
	return name
}

// at returns the entry of a name, making it and every name above it up to the zone: a
// name with names below it exists. nil: DNS has no such name.
func (t *table) at(name, top string) *entry {
	wire, ok := wireName(name)
	if !ok {
		return nil
	}
	e := t.names[string(wire)]
	if e == nil {
		e = &entry{name: string(wire)}
		t.names[string(wire)] = e
		if _, above, more := strings.Cut(name, "."); more && top != "" && name != top {
			t.at(above, top)
		}
	}
	return e
}

// address adds A, AAAA or CNAME.
func (t *table) address(e *entry, ep *Endpoint) {
	ip, ok := ep.ip()
	switch {
	case ok && ip.Is4():
		t.add(e, &e.a, record{wire: t.record(dns.TypeA, ip.AsSlice())})
	case ok:
		t.add(e, &e.aaaa, record{wire: t.record(dns.TypeAAAA, ip.AsSlice())})
	default:
		if host, ok := wireName(strings.TrimSuffix(ep.Address, ".")); ok {
			t.add(e, &e.host, record{wire: t.record(dns.TypeCNAME, host), host: ep.Address})
		}
	}
}

// add appends r to a set of e, unless it is there.
func (t *table) add(e *entry, set *[]record, r record) {
	key := e.name + string(r.wire)
	if !t.have[key] {
		t.have[key] = true
		*set = append(*set, r)
	}
}

// addSRV adds an SRV record that leads to target, with the target's address beside it.
func (t *table) addSRV(e *entry, ep *Endpoint, port int, target string) {
	if port <= 0 || port > 65535 {
		return
	}
	if _, ok := ep.ip(); !ok {
		target = strings.TrimSuffix(ep.Address, ".")
	}
	host, ok := wireName(target)
	if !ok {
		return
	}
	rdata := binary.BigEndian.AppendUint16(nil, 1)
	rdata = binary.BigEndian.AppendUint16(rdata, uint16(min(max(ep.Weight, 1), 65535)))
	rdata = binary.BigEndian.AppendUint16(rdata, uint16(port))
	rdata = append(rdata, host...)
	r := record{wire: t.record(dns.TypeSRV, rdata)}
	if ip, ok := ep.ip(); ok {
		kind := dns.TypeA
		if !ip.Is4() {
			kind = dns.TypeAAAA
		}
		r.extra = append(host, t.record(kind, ip.AsSlice())[2:]...)
	}
	t.add(e, &e.srv, r)
}

// record returns a record whose owner is a pointer to the question's name.
func (t *table) record(kind uint16, rdata []byte) []byte {
	b := []byte{0xc0, headerLen}
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, dns.ClassINET)
	b = binary.BigEndian.AppendUint32(b, t.ttl)
	b = binary.BigEndian.AppendUint16(b, uint16(len(rdata)))
	return append(b, rdata...)
}

// soa returns the SOA record of a zone without its owner's name.
func (t *table) soa(name string, serial uint32) []byte {
	rr := &dns.SOA{
		Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: t.ttl},
		Ns:  "ns." + name + ".", Mbox: "hostmaster." + name + ".",
		Serial: serial, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: t.ttl,
	}
	buf := make([]byte, 512)
	n, err := dns.PackRR(rr, buf, 0, nil, false)
	if err != nil {
		panic(fmt.Sprintf("pack the SOA of %s: %v", name, err)) // nothing in it comes from outside
	}
	return buf[1:n]
}
