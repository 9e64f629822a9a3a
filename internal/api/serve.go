package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Serving is how Serve serves; the zero value works.
type Serving struct {
	Log   *slog.Logger  // default: none
	Grace time.Duration // for requests that are under way at the end; default 10 s
}

// Serve answers on all listeners until ctx ends or one of them breaks, and
// closes them. At the end what would go on for ever (events, logs, terminals)
// is told so and cut, short requests are finished, and after the grace all
// connections are closed. It returns nil when ctx ended it.
func Serve(ctx context.Context, h http.Handler, listeners []net.Listener, o Serving) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Grace <= 0 {
		o.Grace = 10 * time.Second
	}
	s := &stop{ctx: ctx}
	base, cut := context.WithCancel(context.WithValue(context.WithoutCancel(ctx), stopKey{}, s))
	defer cut()
	server := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       ConnContext,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}
	broken := make(chan error, len(listeners))
	var serving sync.WaitGroup
	for _, l := range listeners {
		serving.Go(func() { broken <- server.Serve(l) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-broken:
	}

	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.Grace)
	defer cancel()
	if late := server.Shutdown(limit); late != nil {
		o.Log.Warn("requests cut at the end of the grace", "grace", o.Grace)
		cut()
		late = server.Close()
		err = errors.Join(err, late)
	}
	serving.Wait()
	hijacked := make(chan struct{})
	go func() {
		s.busy.Wait()
		close(hijacked)
	}()
	select {
	case <-hijacked:
	case <-limit.Done():
		o.Log.Warn("streams still open at the end of the grace", "grace", o.Grace)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
