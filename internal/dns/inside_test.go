package dns_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"
	wire "github.com/miekg/dns"

	"github.com/tenderhq/tender/internal/dns"
)

// inside serves in for containers, which are on loopback here.
func inside(t *testing.T, s *dns.Server, in dns.Inside) (addr string) {
	t.Helper()
	packet, stream := sockets(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.ServeInside(ctx, in, []net.PacketConn{packet}, []net.Listener{stream}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return packet.LocalAddr().String()
}

func TestContainersAreAnsweredInTheirNetworksAlone(t *testing.T) {
	s, outside := serve(t, dns.Options{}, shop())
	here := inside(t, s, dns.Inside{Address: "10.1.0.1", Networks: []string{"127.0.0.0/8"}, Consul: true})
	own := inside(t, s, dns.Inside{Address: "10.2.0.1", Networks: []string{"127.0.0.0/8"}})
	elsewhere := inside(t, s, dns.Inside{Address: "10.3.0.1", Networks: []string{"10.3.0.0/24"}, Consul: true})
	for _, network := range []string{"udp", "tcp"} {
		for _, tt := range []struct {
			name string
			addr string
			kind uint16
			want string
		}{
			{"web-2.shop.tender", here, wire.TypeA, "NOERROR aa\nweb-2.shop.tender. 5 IN A 10.0.0.2"},
			{"consul", here, wire.TypeA, "NOERROR aa\nconsul. 5 IN A 10.1.0.1"},
			{"CONSUL", here, wire.TypeA, "NOERROR aa\nCONSUL. 5 IN A 10.1.0.1"},
			{"consul", here, wire.TypeAAAA, "NOERROR aa\nauthority consul. 5 IN SOA ns.consul. hostmaster.consul. 0 3600 600 86400 5"},
			{"consul", own, wire.TypeA, "NOERROR aa\nauthority consul. 5 IN SOA ns.consul. hostmaster.consul. 0 3600 600 86400 5"},
			{"consul", outside, wire.TypeA, "NOERROR aa\nauthority consul. 5 IN SOA ns.consul. hostmaster.consul. 0 3600 600 86400 5"},
		} {
			if diff := cmp.Diff(tt.want, show(exchange(t, network, tt.addr, question(tt.name, tt.kind)))); diff != "" {
				t.Errorf("%s over %s at %s (-want +got):\n%s", tt.name, network, tt.addr, diff)
			}
		}
	}
	if got := show(exchange(t, "udp", elsewhere, question("web.shop.tender", wire.TypeA))); got != "REFUSED" {
		t.Errorf("from outside of the network: %s", got)
	}
	if _, _, err := (&wire.Client{Net: "tcp"}).Exchange(question("web.shop.tender", wire.TypeA), elsewhere); err == nil {
		t.Error("from outside of the network, over TCP: it is answered")
	}
}

func TestContainersReadTheirOwnCatalogue(t *testing.T) {
	p := shop()
	p.Services = append(p.Services, dns.Service{
		Project: "bank", Name: "web", Catalog: "shop-web", Tags: []string{"secret"}, Ports: []dns.Port{{Number: 1}},
		Endpoints: []dns.Endpoint{{ID: "gggggggggggggggggggg", Address: "10.5.0.1", Healthy: true}},
	})
	s, _ := serve(t, dns.Options{}, p)
	at := func(in dns.Inside) *httptest.Server {
		t.Helper()
		h, err := s.ConsulInside(in)
		if err != nil {
			t.Fatal(err)
		}
		web := httptest.NewServer(h)
		t.Cleanup(web.Close)
		return web
	}
	web := at(dns.Inside{Address: "10.1.0.1", Networks: []string{"127.0.0.0/8"}, Projects: []string{"shop"}})
	c, err := api.NewClient(&api.Config{Address: web.URL})
	if err != nil {
		t.Fatal(err)
	}
	services, meta, err := c.Catalog().Services(nil)
	if err != nil || meta.LastIndex == 0 {
		t.Fatal(meta, err)
	}
	if diff := cmp.Diff(map[string][]string{"postgres": {}, "shop-sick": {}, "shop-web": {"public", "v2"}}, services); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	healthy, _, err := c.Health().Service("shop-web", "", true, nil)
	if err != nil || len(healthy) != 2 {
		t.Errorf("passing: %v, %v", healthy, err)
	}
	err = c.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "mine", Port: 1, Address: "10.0.0.66"})
	if err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("registered from inside: %v", err)
	}
	resp, err := http.Get(at(dns.Inside{Address: "10.3.0.1", Networks: []string{"10.3.0.0/24"}, Projects: []string{"shop"}}).URL + "/v1/catalog/services")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("from outside of the network: %s", resp.Status)
	}
	if err := (dns.Inside{Address: "10.3.0.1", Networks: []string{"x"}}).Validate(); err == nil {
		t.Error("a network that is none is taken")
	}
}

// Any user of the host could read the catalogue of a network without a token, by its gateway: that is the host's own address.
func TestTheHostIsNoContainer(t *testing.T) {
	s, _ := serve(t, dns.Options{}, shop())
	in := dns.Inside{Address: "127.0.0.1", Networks: []string{"127.0.0.0/8"}, Projects: []string{"shop"}}
	at := inside(t, s, in)
	if got := show(exchange(t, "udp", at, question("web.shop.tender", wire.TypeA))); got != "REFUSED" {
		t.Errorf("over UDP: %s", got)
	}
	h, err := s.ConsulInside(in)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/v1/catalog/services", nil)
	for from, want := range map[string]int{"127.0.0.1:999": http.StatusForbidden, "[::ffff:127.0.0.1]:999": http.StatusForbidden, "127.0.0.9:999": http.StatusOK} {
		r.RemoteAddr = from
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != want {
			t.Errorf("from %s: %d", from, w.Code)
		}
	}
}
