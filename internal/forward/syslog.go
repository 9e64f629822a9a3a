package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// dialTime bounds connecting, with TLS.
	dialTime = 10 * time.Second
	// confirmTime bounds how long the other host may take to confirm a batch.
	confirmTime = 30 * time.Second
)

// syslog sends RFC 5424 messages over TCP or TLS, with octet counting (RFC 6587, 5425).
//
// The protocol has no acknowledgement. A batch counts as taken when the other
// host's kernel has confirmed all of its bytes and the connection still stands;
// whatever happens before, the whole batch is sent again.
type syslog struct {
	address  string
	tls      *tls.Config // nil: in the clear
	facility int
	host     string

	conn  net.Conn // the one that is written to
	plain *net.TCPConn
	gone  chan error // the other side has closed it, and why
}

func syslogConfig(s *section, c *Config) {
	t := s.security()
	u := s.address("url", s.must("url", "tls://logs.example.com:6514"), "tls://logs.example.com:6514", t, []string{"tcp"}, []string{"tls"})
	if u.Hostname() != "" && (u.Port() == "" || strings.Trim(u.Path, "/") != "") {
		s.fail(s.value("url"), "write it like tls://logs.example.com:6514", "%s.url: want a host and a port", s.path)
	}
	facility, err := strconv.Atoi(s.text("facility", "16"))
	if err != nil || facility < 0 || facility > 23 {
		s.fail(s.value("facility"), "a number from 0 to 23; 16 is local0", "%s.facility is not known", s.path)
	}
	c.Where = u.Host
	c.Size, c.Request = 1*mB, 256*kB
	c.make = func(_ Config, o Options) wire {
		w := &syslog{address: u.Host, facility: facility, host: o.Host}
		if u.Scheme == "tls" {
			w.tls = t.config()
			w.tls.ServerName = u.Hostname()
		}
		return w
	}
}

// word makes what RFC 5424 takes in a header: printable ASCII, not empty, bounded.
func word(v string, most int) string {
	v = strings.Map(func(r rune) rune {
		if r < 0x21 || r > 0x7e {
			return '_'
		}
		return r
	}, v)
	if v == "" {
		return "-"
	}
	return v[:min(len(v), most)]
}

// dataName makes an SD-NAME.
func dataName(v string) string {
	return strings.Map(func(r rune) rune {
		if r == '=' || r == ']' || r == '"' {
			return '_'
		}
		return r
	}, word(v, 32))
}

var dataValue = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`)

func (w *syslog) encode(dst []byte, r *row) []byte {
	severity := 6
	if s, ok := severities[strings.ToLower(r.field("level"))]; ok {
		severity = s.syslog
	} else if r.labels.Get("stream") == "stderr" {
		severity = 4
	}
	host := r.labels.Get("node")
	if host == "" {
		host = w.host
	}
	m := fmt.Appendf(nil, "<%d>1 %s %s %s %s - ", 8*w.facility+severity, time.Unix(0, r.time).UTC().Format("2006-01-02T15:04:05.000000Z"),
		word(host, 255), word(r.labels.Get("service"), 48), word(r.labels.Get("instance"), 128))
	if len(r.labels) == 0 {
		m = append(m, '-')
	} else {
		// 32473 is the number that RFC 5612 keeps for whoever has none.
		m = append(m, "[labels@32473"...)
		for _, l := range r.labels {
			m = fmt.Appendf(m, ` %s="%s"`, dataName(l.Name), dataValue.Replace(strings.ToValidUTF8(l.Value, "\uFFFD")))
		}
		m = append(m, ']')
	}
	m = append(append(m, ' '), r.text...)
	dst = strconv.AppendInt(dst, int64(len(m)), 10)
	return append(append(dst, ' '), m...)
}

func (w *syslog) text(body []byte) string { return string(body) }

func (w *syslog) close() {
	if w.conn != nil {
		w.conn.Close()
		<-w.gone
		w.conn = nil
	}
}

func (w *syslog) dial(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", w.address)
	if err != nil {
		return err
	}
	w.plain, _ = conn.(*net.TCPConn)
	if w.tls != nil {
		over := tls.Client(conn, w.tls)
		if err := over.HandshakeContext(ctx); err != nil {
			conn.Close()
			return fmt.Errorf("TLS with %s: %w", w.address, err)
		}
		conn = over
	}
	w.conn = conn
	w.gone = make(chan error, 1)
	// Nothing is ever said by a syslog server: what ends the wait is the end.
	go func(gone chan<- error) {
		_, err := io.Copy(io.Discard, conn)
		if err == nil {
			err = errors.New("the other side has closed the connection")
		}
		gone <- err
		close(gone)
	}(w.gone)
	return nil
}

func (w *syslog) send(ctx context.Context, _ string, items []item) (v verdict, err error) {
	if w.conn != nil {
		select { // closed while there was nothing to send
		case <-w.gone:
			w.conn.Close()
			w.conn = nil
		default:
		}
	}
	if w.conn == nil {
		if err := w.dial(ctx); err != nil {
			return v, err
		}
	}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if err := w.conn.SetWriteDeadline(time.Now().Add(confirmTime)); err != nil {
		return v, err
	}
	// After that one, which would take back the end of a ctx that is over already.
	stop := context.AfterFunc(ctx, func() { _ = w.plain.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	size := 0
	for _, it := range items {
		size += len(it.body)
	}
	b := make([]byte, 0, size)
	for _, it := range items {
		b = append(b, it.body...)
	}
	if _, err := w.conn.Write(b); err != nil {
		return v, err
	}
	return v, w.confirm(ctx)
}

// confirm waits until nothing is left that the other host's kernel has not confirmed.
func (w *syslog) confirm(ctx context.Context) error {
	raw, err := w.plain.SyscallConn()
	if err != nil {
		return err
	}
	end := time.After(confirmTime)
	for wait := time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		left, lerr := 0, error(nil)
		if err := raw.Control(func(fd uintptr) { left, lerr = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil {
			return err
		}
		if lerr != nil {
			return fmt.Errorf("ask for what is not confirmed: %w", lerr)
		}
		select {
		case err := <-w.gone:
			// The batch may have been cut.
			w.conn.Close()
			w.conn = nil
			return err
		default:
		}
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end:
			return fmt.Errorf("%s does not confirm: %d bytes wait", w.address, left)
		case <-time.After(wait):
		}
	}
}
