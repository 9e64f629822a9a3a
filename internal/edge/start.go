package edge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	tender "github.com/tenderhq/tender"
)

// begin waits until all is listened on, and takes the place of the edge before.
func (e *edge) begin(ctx context.Context, b *before, parts chan error) (net.Listener, error) {
	wanted := e.wanted()
	if err := e.claimed(ctx, b, wanted, parts); err != nil {
		return nil, err
	}
	if b != nil {
		if err := b.ready(); err != nil {
			return nil, err
		}
		e.counts.inherit(b.carried)
		if names := e.sockets.drop(wanted); len(names) > 0 {
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

// wanted are the keys of all that the configuration and the table name.
func (e *edge) wanted() map[string]bool {
	all := map[string]bool{}
	if len(e.table.Proxy.Routes) > 0 {
		for _, a := range slices.Concat(e.config.HTTP, e.config.HTTPS) {
			all[key("tcp", a)] = true
		}
	}
	for _, a := range e.config.DNS {
		all[key("tcp", a)], all[key("udp", a)] = true, true
	}
	for _, in := range e.table.Inside {
		for _, k := range e.inside.ports.keys(in) {
			all[k] = true
		}
	}
	for _, p := range e.table.Proxy.Ports {
		all[key(p.Protocol, p.Address)] = true
	}
	return all
}

// claimed waits until proxy and dns have asked for all that the edge before has
// and this one wants: only then may that one let go. What can be opened only
// then does not hold it up: connections wait in the sockets meanwhile. An
// address that cannot be had ends a hand-over, since the one before serves; with
// none before, the others are served, and the proxy's report says what is not.
func (e *edge) claimed(ctx context.Context, b *before, wanted map[string]bool, parts chan error) error {
	var keys []string
	if len(e.table.Proxy.Routes) > 0 {
		for _, a := range slices.Concat(e.config.HTTP, e.config.HTTPS) {
			keys = append(keys, key("tcp", a))
		}
	}
	if b != nil {
		for _, k := range b.names {
			if wanted[k] {
				keys = append(keys, k)
			}
		}
	}
	limit, cancel := context.WithTimeout(ctx, patience/2)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond) // a problem opens no socket
	defer tick.Stop()
	for {
		n, changed := e.sockets.missing(keys)
		if n == 0 {
			return nil
		}
		if problems := e.proxy.Report().Problems; len(problems) > 0 {
			if b == nil {
				return nil
			}
			return tender.Errorf(tender.Unavailable, "%s", strings.Join(problems, "; ")).Hint("ss -ltnup shows which; stop it, or choose another address")
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-e.sockets.late:
			return nil
		case err := <-parts:
			return errors.Join(err, ctx.Err())
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.Done():
			e.log.Warn("not everything is listened on yet", "missing", n)
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
