package edge

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	wire "github.com/miekg/dns"

	"github.com/tenderhq/tender/internal/dns"
)

func TestContainersAreAnswered(t *testing.T) {
	s, err := dns.New(dns.Options{NoForward: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Set(dns.Picture{Services: []dns.Service{{
		Project: "shop", Name: "web", Ports: []dns.Port{{Number: 80}},
		Endpoints: []dns.Endpoint{{ID: "a", Address: "10.0.0.1", Healthy: true}},
	}}})
	host, port, _ := net.SplitHostPort(free(t))
	_, api, _ := net.SplitHostPort(free(t))
	// Somebody else has the port of Consul's API first.
	other, err := net.Listen("tcp", net.JoinHostPort(host, api))
	if err != nil {
		t.Fatal(err)
	}
	i := newInsides(s, newSockets(nil, nil), slog.New(slog.DiscardHandler))
	i.ports = ports{port, api}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		i.run(ctx)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	// On loopback here; what comes from the host's own address is refused.
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	client := &http.Client{Transport: &http.Transport{DialContext: from.DialContext, DisableKeepAlives: true}}
	names := func() bool {
		m := new(wire.Msg).SetQuestion("web.shop.tender.", wire.TypeA)
		got, _, err := (&wire.Client{Net: "tcp", Dialer: from}).Exchange(m, net.JoinHostPort(host, port))
		return err == nil && len(got.Answer) == 1
	}
	catalogue := func() bool {
		r, err := client.Get("http://" + net.JoinHostPort(host, api) + "/v1/catalog/services")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		return err == nil && strings.Contains(string(b), "shop-web")
	}
	in := dns.Inside{Address: host, Networks: []string{"127.0.0.0/8"}, Projects: []string{"shop"}}
	i.set([]dns.Inside{in})
	until(t, "names are answered", names)
	until(t, "and it is said what is not", func() bool {
		p := i.problems()
		return len(p) == 1 && strings.Contains(p[0], "Consul's API for containers at "+host) && strings.Contains(p[0], "another program has that port")
	})
	if _, _, err := (&wire.Client{Net: "tcp"}).Exchange(new(wire.Msg).SetQuestion("web.shop.tender.", wire.TypeA), net.JoinHostPort(host, port)); err == nil {
		t.Error("the host is answered where its containers ask")
	}
	other.Close()
	until(t, "the catalogue is answered once its port is free", catalogue)
	until(t, "and nothing is wrong any more", func() bool { return len(i.problems()) == 0 })
	i.set(nil)
	until(t, "nobody asks there any more, and nobody is answered", func() bool { return !names() && !catalogue() })
	i.set([]dns.Inside{in})
	until(t, "and again", func() bool { return names() && catalogue() })
}
