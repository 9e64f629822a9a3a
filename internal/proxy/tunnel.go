package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// tunnels are the upgraded connections, which net/http does not count.
type tunnels struct {
	mu   sync.Mutex
	open map[io.Closer]struct{}
	shut bool
	wg   sync.WaitGroup
}

// add says whether c may live.
func (t *tunnels) add(c io.Closer) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shut {
		return false
	}
	if t.open == nil {
		t.open = map[io.Closer]struct{}{}
	}
	t.open[c] = struct{}{}
	t.wg.Add(1)
	return true
}

func (t *tunnels) remove(c io.Closer) {
	t.mu.Lock()
	delete(t.open, c)
	t.mu.Unlock()
	t.wg.Done()
}

// close ends all of them.
func (t *tunnels) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.shut = true
	for c := range t.open {
		c.Close()
	}
}

// wait returns when none is left; when ctx ends they are closed.
func (t *tunnels) wait(ctx context.Context) {
	stop := context.AfterFunc(ctx, t.close)
	defer stop()
	t.mu.Lock()
	t.shut = true
	t.mu.Unlock()
	t.wg.Wait()
}

// tunnel takes both connections over after 101 and copies both ways until both have ended.
func (x *exchange) tunnel(c *conn) error {
	a := &x.ans
	if !strings.EqualFold(a.upgrade, x.upgrade) {
		err := nonsense("an upgrade to %.40q, where %.40q was asked for", a.upgrade, x.upgrade)
		x.o.failed, x.o.broken, x.o.status = true, true, http.StatusBadGateway
		x.page(http.StatusBadGateway, "")
		return err
	}
	return x.join(c, c.in.held(), a.fields)
}

// duplex is what a tunnel is made of.
type duplex interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
}

// join hijacks the client's connection and ties it to the target's.
func (x *exchange) join(target duplex, early []byte, list []field) error {
	client, rw, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		x.o.failed, x.o.status = true, http.StatusBadGateway
		x.page(http.StatusBadGateway, "")
		return err
	}
	defer client.Close()
	both := pair{client, target}
	if !x.s.tunnels.add(both) {
		return errGone
	}
	defer x.s.tunnels.remove(both)
	x.sent = true
	x.o.status = http.StatusSwitchingProtocols
	x.o.took = time.Since(x.tryAt)
	h := make(http.Header, len(list)+2)
	for _, f := range list {
		h[f.key] = append(h[f.key], f.value)
	}
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{x.upgrade}
	x.dress(h)
	if x.route.Sticky && x.revision == "" {
		if v := x.route.stick(x.t); v != x.cookie {
			k := http.Cookie{Name: x.route.cookieName, Value: v, Path: x.route.Path, HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: x.https()}
			h.Add("Set-Cookie", k.String())
		}
	}
	_ = client.SetDeadline(time.Time{})
	_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = h.Write(rw)
	_, _ = rw.WriteString("\r\n")
	_, _ = rw.Write(early)
	if err := rw.Flush(); err != nil {
		return errClient
	}

	var last atomic.Int64
	last.Store(time.Now().UnixNano())
	tunnel := x.route.Timeout.Tunnel
	var in, out int64
	var up, down error
	done := make(chan struct{})
	go func() {
		defer close(done)
		in, up = x.s.pour(target, client, rw.Reader, &last, tunnel)
		if up != nil {
			both.Close()
		}
	}()
	out, down = x.s.pour(client, target, nil, &last, tunnel)
	if down != nil {
		both.Close()
	}
	<-done
	x.o.in, x.o.out = uint64(in), uint64(out)+uint64(len(early))
	// A tunnel has no end that could be told from a cut but by who ended it, and when.
	x.s.tunnels.mu.Lock()
	shut := x.s.tunnels.shut
	x.s.tunnels.mu.Unlock()
	x.o.cut = up == nil && down == nil && x.t.closed.Load() || down != nil && x.t.closed.Load() || shut && (up != nil || down != nil)
	return nil
}

type pair struct{ a, b io.Closer }

func (p pair) Close() error { return errors.Join(p.a.Close(), p.b.Close()) }

// pour copies one direction until it ends, and ends it on the other side. With
// nothing either way for as long as a tunnel may be silent it gives up.
func (s *Server) pour(to io.Writer, from duplex, buffered io.Reader, last *atomic.Int64, silence time.Duration) (int64, error) {
	pooled := s.bytes.Get().(*[]byte)
	defer s.bytes.Put(pooled)
	buf := *pooled
	var n int64
	if b, ok := buffered.(interface {
		Buffered() int
		Discard(int) (int, error)
		Peek(int) ([]byte, error)
	}); ok && b.Buffered() > 0 {
		early, _ := b.Peek(b.Buffered())
		m, err := to.Write(early)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	var set time.Time
	for {
		if now := time.Now(); now.Sub(set) > min(silence/4, 10*time.Second) {
			set = now
			_ = from.SetReadDeadline(now.Add(silence))
		}
		m, err := from.Read(buf)
		if m > 0 {
			last.Store(time.Now().UnixNano())
			w, werr := to.Write(buf[:m])
			n += int64(w)
			if werr != nil {
				return n, werr
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			half, ok := to.(interface{ CloseWrite() error })
			if !ok {
				return n, net.ErrClosed
			}
			return n, half.CloseWrite()
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Now().UnixNano()-last.Load() < int64(silence):
			set = time.Time{} // the other way is alive
		default:
			return n, err
		}
	}
}
