package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/tenderhq/tender/internal/dns"
)

// Where the containers of a network ask the host.
const (
	insideDNS    = "53"
	insideConsul = "8500"
)

type ports struct{ dns, consul string }

// keys are the sockets of one.
func (p ports) keys(in dns.Inside) []string {
	at := net.JoinHostPort(in.Address, p.dns)
	return []string{key("udp", at), key("tcp", at), key("tcp", net.JoinHostPort(in.Address, p.consul))}
}

// again is between two tries to listen on an address: the engine makes it when it starts, maybe after this edge.
const again = 2 * time.Second

// insides answer the containers of networks, each on the host's own address there.
type insides struct {
	dns     *dns.Server
	sockets *sockets
	log     *slog.Logger
	ports   ports
	wake    chan struct{}

	mu     sync.Mutex
	wanted map[string]dns.Inside // by address
	wrong  map[string]string     // why one does not answer
}

func newInsides(d *dns.Server, s *sockets, log *slog.Logger) *insides {
	return &insides{dns: d, sockets: s, log: log, ports: ports{insideDNS, insideConsul}, wake: make(chan struct{}, 1), wrong: map[string]string{}}
}

// set says where to answer from now on.
func (i *insides) set(all []dns.Inside) {
	i.mu.Lock()
	i.wanted = map[string]dns.Inside{}
	for _, in := range all {
		i.wanted[in.Address] = in
	}
	i.mu.Unlock()
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// problems are the addresses that do not answer, and why.
func (i *insides) problems() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Sorted(maps.Values(i.wrong))
}

// answering is one that answers.
type answering struct {
	in   dns.Inside
	stop func() // and waits for its end
	done <-chan struct{}
}

// run answers until ctx ends.
func (i *insides) run(ctx context.Context) {
	running := map[string]answering{}
	defer func() {
		for _, a := range running {
			a.stop()
		}
	}()
	kinds := map[string]func(context.Context, dns.Inside) (answering, error){"dns": i.names, "Consul's API": i.consul}
	for ctx.Err() == nil {
		i.mu.Lock()
		wanted := maps.Clone(i.wanted)
		i.mu.Unlock()
		wrong := map[string]string{}
		for name, a := range running {
			ended := false
			select {
			case <-a.done:
				ended = true
			default:
			}
			if in, stays := wanted[a.in.Address]; !stays || ended || !reflect.DeepEqual(in, a.in) {
				a.stop()
				delete(running, name)
			}
		}
		for address, in := range wanted {
			for kind, start := range kinds {
				name := kind + " for containers at " + address
				if _, ok := running[name]; ok {
					continue
				}
				// One that cannot have its port does not keep the other from its own.
				a, err := start(ctx, in)
				if err != nil {
					wrong[name] = name + ": " + err.Error()
					continue
				}
				running[name] = a
			}
		}
		i.mu.Lock()
		for name, text := range wrong {
			if i.wrong[name] != text && ctx.Err() == nil {
				i.log.Warn("containers are not answered; trying again", "why", text)
			}
		}
		i.wrong = wrong
		i.mu.Unlock()
		var timer <-chan time.Time
		if len(wanted) > 0 {
			timer = time.After(again)
		}
		select {
		case <-ctx.Done():
		case <-i.wake:
		case <-timer:
		}
	}
}

// names answers queries over UDP and TCP.
func (i *insides) names(ctx context.Context, in dns.Inside) (answering, error) {
	at := net.JoinHostPort(in.Address, i.ports.dns)
	packets, err := i.sockets.ListenPacket(ctx, "udp", at)
	if err != nil {
		return answering{}, fmt.Errorf("listen on %s: %w", at, err)
	}
	streams, err := i.sockets.Listen(ctx, "tcp", at)
	if err != nil {
		packets.Close()
		return answering{}, fmt.Errorf("listen on %s: %w", at, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := i.dns.ServeInside(ctx, in, []net.PacketConn{packets}, []net.Listener{streams}); err != nil {
			i.log.Error("dns for containers ended", "address", in.Address, "err", err)
		}
	}()
	return answering{in: in, done: done, stop: func() { cancel(); <-done }}, nil
}

// consul answers Consul's API.
func (i *insides) consul(ctx context.Context, in dns.Inside) (answering, error) {
	handler, err := i.dns.ConsulInside(in)
	if err != nil {
		return answering{}, err
	}
	at := net.JoinHostPort(in.Address, i.ports.consul)
	l, err := i.sockets.Listen(ctx, "tcp", at)
	if err != nil {
		return answering{}, fmt.Errorf("listen on %s: %w", at, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }, // so that blocking queries end, too
		ErrorLog:    slog.NewLogLogger(i.log.Handler(), slog.LevelDebug),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			i.log.Error("Consul's API for containers ended", "address", in.Address, "err", err)
		}
	}()
	stop := func() {
		cancel()
		limit, end := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer end()
		if server.Shutdown(limit) != nil {
			server.Close()
		}
		<-done
	}
	return answering{in: in, done: done, stop: stop}, nil
}
