package edge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// begin waits until all is listened on, and takes the place of the edge before.
func (e *edge) begin(ctx context.Context, b *before, parts chan error) (net.Listener, error) {
	if err := e.claimed(ctx, b, parts); err != nil {
		return nil, err
	}
	if b != nil {
		if err := b.ready(); err != nil {
			return nil, err
		}
		e.counts.inherit(b.carried)
		if names := e.sockets.drop(); len(names) > 0 {
			e.log.Info("no longer listened on", "sockets", names)
		}
	}
	// Renamed over the old one, so that there is no moment without a socket.
	path := e.config.Socket + ".new"
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open the edge's socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("open the edge's socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // by then the path may be another's
	err = os.Chmod(path, 0o600)
	if err == nil {
		err = os.Rename(path, e.config.Socket)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("open the edge's socket: %w", err)
	}
	if b != nil {
		if err := b.named(); err != nil {
			e.log.Warn("the edge before was not told that it is replaced", "err", err)
		}
	}
	return l, nil
}

// claimed waits until proxy and dns have asked for all that the edge before has:
// only then may that one let go. What else routes need is listened on by then, or
// the proxy's report says why not.
func (e *edge) claimed(ctx context.Context, b *before, parts chan error) error {
	var fronts, inherited []string
	if len(e.table.Proxy.Routes) > 0 {
		for _, a := range slices.Concat(e.config.HTTP, e.config.HTTPS) {
			fronts = append(fronts, key("tcp", a))
		}
	}
	if b != nil {
		also := map[string]bool{}
		for _, k := range fronts {
			also[k] = true
		}
		for _, a := range e.config.DNS {
			also[key("udp", a)], also[key("tcp", a)] = true, true
		}
		for _, p := range e.table.Proxy.Ports {
			also[key(p.Protocol, p.Address)] = true
		}
		for _, k := range b.names {
			if also[k] {
				inherited = append(inherited, k)
			}
		}
	}
	limit, cancel := context.WithTimeout(ctx, patience/2)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond) // a problem opens no socket
	defer tick.Stop()
	for {
		n, changed := e.sockets.missing(inherited)
		m, _ := e.sockets.missing(fronts)
		if n == 0 && (m == 0 || len(e.proxy.Report().Problems) > 0) {
			return nil
		}
		select {
		case <-changed:
		case <-tick.C:
		case err := <-parts:
			return errors.Join(err, ctx.Err())
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.Done():
			e.log.Warn("not everything is listened on yet", "missing", n+m)
			return nil
		}
	}
}

// lock waits until no other edge of this directory is starting.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the edge's start: %w", err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return sync.OnceFunc(func() { f.Close() }), nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock the edge's start: %w", err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}
