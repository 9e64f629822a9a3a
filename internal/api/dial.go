package api

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/tenderhq/tender"
)

func dialTCP(u *url.URL) func(ctx context.Context) (net.Conn, error) {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	address := net.JoinHostPort(u.Hostname(), port)
	if u.Scheme == "http" {
		var d net.Dialer
		return func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
	}
	// HTTP/1.1 only: exec and attach take the connection over.
	d := tls.Dialer{Config: &tls.Config{ServerName: u.Hostname(), NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}}
	return func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
}

// dialSSH runs tender dial-stdio on the other host, which connects its standard
// input and output with the daemon's socket there. ssh does the rest: keys,
// known hosts, jump hosts.
func dialSSH(ctx context.Context, u *url.URL) (net.Conn, error) {
	args := []string{"-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "-T"}
	if u.Port() != "" {
		args = append(args, "-p", u.Port())
	}
	if name := u.User.Username(); name != "" {
		args = append(args, "-l", name)
	}
	args = append(args, "--", u.Hostname(), "tender", "dial-stdio")
	// The connection outlives the request that made it.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "ssh", args...)
	c := &sshConn{cmd: cmd, host: u.Host}
	cmd.Stderr = &c.complaint
	c.wait = sync.OnceFunc(func() { _ = cmd.Wait() }) // what it has to say is in complaint
	var err error
	if c.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if c.out, err = cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, tender.Errorf(tender.Unavailable, "connect to %s: %w", u.Host, err).Hint("install the ssh client")
	}
	return c, nil
}

// sshConn is a connection through a running ssh.
type sshConn struct {
	cmd       *exec.Cmd
	host      string
	in        io.WriteCloser
	out       io.ReadCloser
	complaint tail
	wait      func()
}

// Read tells what ssh had to say when it ends without a word from the daemon.
func (c *sshConn) Read(p []byte) (int, error) {
	n, err := c.out.Read(p)
	if n == 0 && errors.Is(err, io.EOF) {
		c.wait() // so that its complaint is whole
		if text := c.complaint.String(); text != "" {
			return 0, tender.Errorf(tender.Unavailable, "connect to %s: %s", c.host, text).
				Hint("try: ssh %s tender version", c.host)
		}
	}
	return n, err
}

func (c *sshConn) Write(p []byte) (int, error) { return c.in.Write(p) }
func (c *sshConn) CloseWrite() error           { return c.in.Close() }

func (c *sshConn) Close() error {
	_ = c.in.Close()
	_ = c.cmd.Process.Kill() // it may have ended already
	c.wait()
	return nil
}

type sshAddr string

func (sshAddr) Network() string  { return "ssh" }
func (a sshAddr) String() string { return string(a) }

func (c *sshConn) LocalAddr() net.Addr  { return sshAddr("local") }
func (c *sshConn) RemoteAddr() net.Addr { return sshAddr(c.host) }

// ssh notices a dead connection itself (ServerAliveInterval).
func (c *sshConn) SetDeadline(time.Time) error      { return nil }
func (c *sshConn) SetReadDeadline(time.Time) error  { return nil }
func (c *sshConn) SetWriteDeadline(time.Time) error { return nil }

// tail keeps the last 4 KiB that were written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	t.b = t.b[max(0, len(t.b)-4096):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}

// Stdio connects in and out with the daemon until it hangs up: the other end of
// an ssh:// address (tender dial-stdio).
func (c *Client) Stdio(ctx context.Context, in io.Reader, out io.Writer) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return c.unreachable(ctx, err)
	}
	defer conn.Close() //nolint:errcheck // everything was copied, or ctx ended
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	// Nobody waits for this one: reading a standard input cannot be interrupted.
	go func() {
		_, _ = io.Copy(conn, in)
		if h, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = h.CloseWrite()
		}
	}()
	if _, err := io.Copy(out, conn); err != nil && ctx.Err() == nil {
		return c.unreachable(ctx, err)
	}
	return nil
}
