package edge

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// names serves DNS, and tries again while its addresses cannot be had: the
// proxy does not wait for it.
func (e *edge) names(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() {
		if err := e.dns.Run(ctx); err != nil {
			e.log.Error("checks of registered services ended", "err", err)
		}
	})
	for said := ""; len(e.config.DNS) > 0 && ctx.Err() == nil; {
		err := e.serveNames(ctx)
		if err != nil && ctx.Err() == nil {
			if text := err.Error(); text != said {
				e.log.Error("dns does not serve; trying again", "err", err)
				said = text
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
}

func (e *edge) serveNames(ctx context.Context) (err error) {
	var packets []net.PacketConn
	var listeners []net.Listener
	defer func() {
		if err == nil {
			return
		}
		for _, p := range packets {
			p.Close()
		}
		for _, l := range listeners {
			l.Close()
		}
	}()
	for _, a := range e.config.DNS {
		p, err := e.sockets.ListenPacket(ctx, "udp", a)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", a, err)
		}
		packets = append(packets, p)
		l, err := e.sockets.Listen(ctx, "tcp", a)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", a, err)
		}
		listeners = append(listeners, l)
	}
	return e.dns.Serve(ctx, packets, listeners)
}
