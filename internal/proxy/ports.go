package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	firstListen = 2 * time.Second // how long a Set waits until new ports are listened on, or cannot be
	listenAgain = time.Second     // between tries
)

// ports are the ports of the table, each listened on while Run runs.
type ports struct {
	mu      sync.Mutex
	ctx     context.Context // of Run; nil: it does not run
	wanted  []Port
	open    map[string]*port // by ID
	stop    chan struct{}    // closes when a drain is over: what is left is cut
	splices map[*splice]bool
	work    sync.WaitGroup // listeners and all that came in by them
}

// port is one of them. What the table says of it may change while it is open.
type port struct {
	spec    atomic.Pointer[Port]
	problem atomic.Pointer[string] // why it cannot be listened on
	cancel  context.CancelFunc
	tried   chan struct{} // closes after the first try to listen
	closed  chan struct{} // closes when it is listened on no more
	room    chan struct{} // one place for each connection
}

// setPorts opens and closes what is new and gone. A port that another program
// has is tried again and again; its report says why.
func (s *Server) setPorts(list []Port) {
	p := &s.ports
	p.mu.Lock()
	p.wanted = list
	var fresh []*port
	if p.ctx != nil {
		fresh = s.movePorts()
	}
	p.mu.Unlock()
	limit := time.NewTimer(firstListen)
	defer limit.Stop()
	for _, one := range fresh {
		select {
		case <-one.tried:
		case <-limit.C:
			return
		}
	}
}

// startPorts opens them for as long as ctx goes on. What it returns waits for
// what is under way then, until ctx of its own ends, and cuts the rest.
func (s *Server) startPorts(ctx context.Context) (drain func(ctx context.Context)) {
	p := &s.ports
	p.mu.Lock()
	p.ctx, p.open, p.stop, p.splices = ctx, map[string]*port{}, make(chan struct{}), map[*splice]bool{}
	s.movePorts()
	p.mu.Unlock()
	return func(ctx context.Context) {
		p.mu.Lock()
		p.ctx = nil
		for _, one := range p.open {
			one.cancel()
		}
		p.mu.Unlock()
		done := make(chan struct{})
		go func() {
			p.work.Wait()
			close(done)
		}()
		select {
		case <-done:
		case <-ctx.Done():
			p.cut()
			<-done
		}
	}
}

// movePorts makes what is open what is wanted; p.mu is held.
func (s *Server) movePorts() (fresh []*port) {
	p := &s.ports
	wanted := map[string]*Port{}
	for i := range p.wanted {
		wanted[p.wanted[i].ID] = &p.wanted[i]
	}
	// Closed before others open: an address may go from one to another.
	for id, one := range p.open {
		now, was := wanted[id], one.spec.Load()
		if now != nil && now.Address == was.Address && now.Protocol == was.Protocol {
			one.spec.Store(now)
			continue
		}
		one.cancel()
		<-one.closed
		delete(p.open, id)
	}
	for id, w := range wanted {
		if p.open[id] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(p.ctx)
		one := &port{cancel: cancel, tried: make(chan struct{}), closed: make(chan struct{}), room: make(chan struct{}, portRoom)}
		one.spec.Store(w)
		p.open[id] = one
		fresh = append(fresh, one)
		p.work.Go(func() { s.servePort(ctx, one) })
	}
	return fresh
}

// servePort listens until ctx ends. It ends with what came in.
func (s *Server) servePort(ctx context.Context, p *port) {
	var work sync.WaitGroup
	defer work.Wait()
	defer close(p.closed)
	tried := sync.OnceFunc(func() { close(p.tried) })
	defer tried()
	spec := p.spec.Load()
	for ctx.Err() == nil {
		var err error
		if spec.Protocol == "udp" {
			var c net.PacketConn
			if c, err = s.o.ListenPacket(ctx, "udp", spec.Address); err == nil {
				p.problem.Store(nil)
				tried()
				err = s.acceptPackets(ctx, p, c, &work)
			}
		} else {
			var l net.Listener
			if l, err = s.o.Listen(ctx, "tcp", spec.Address); err == nil {
				p.problem.Store(nil)
				tried()
				err = s.acceptStreams(ctx, p, l, &work)
			}
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		text := fmt.Sprintf("listen on %s: %v", spec.Address, err)
		if before := p.problem.Swap(&text); before == nil || *before != text {
			s.log.Error("port is not served; trying again", "port", spec.ID, "err", err)
		}
		tried()
		select {
		case <-ctx.Done():
		case <-time.After(listenAgain):
		}
	}
}

// join keeps one, so that it can be cut; false: it must not begin any more.
func (p *ports) join(one *splice) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.stop:
		return false
	default:
	}
	p.splices[one] = true
	return true
}

func (p *ports) part(one *splice) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.splices, one)
}

// cut ends what a drain has not.
func (p *ports) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.stop)
	for one := range p.splices {
		one.cut.Store(true)
		one.reset()
	}
}

// problem says why a port of the table is not listened on; "" where it is.
func (p *ports) problem(id string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.open[id]; one != nil {
		if text := one.problem.Load(); text != nil {
			return *text
		}
	}
	return ""
}

// addrPort returns the address of either end of a connection.
func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return unmap(a.AddrPort())
	case *net.UDPAddr:
		return unmap(a.AddrPort())
	}
	return netip.AddrPort{}
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func orElse(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}
