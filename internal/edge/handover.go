package edge

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	tender "github.com/tenderhq/tender"
)

// Protocol is the version of the hand-over. An edge hands over to its own
// version and to the next.
const Protocol = 1

// How it goes. The new edge asks with an HTTP request, which the old one may
// refuse; then both speak in lines on the same connection, the old one only
// when it is asked, so that a socket never travels with another message's bytes:
//
//	new  next            old  {"name": "tcp *:80"} and the socket itself, or {"end": true}
//	new  ready           old  {"released": true, "carried": ...}, and accepts nothing more
//	new  named           the socket's path is the new one's; the old one drains and ends
const (
	sayNext  = "next"
	sayReady = "ready"
	sayNamed = "named"
)

// Hello is how a new edge introduces itself.
type Hello struct {
	Protocol int    `json:"protocol"`
	Format   int    `json:"format"` // of the tables it knows
	Version  string `json:"version"`
	PID      int    `json:"pid"`
}

// patience is how long each side waits for the other's next word. Between "next"
// and "ready" the new edge starts, which takes certificates and ports.
const patience = 30 * time.Second

type handed struct {
	Name     string             `json:"name,omitempty"`
	End      bool               `json:"end,omitempty"`
	Released bool               `json:"released,omitempty"`
	Carried  map[string]Carried `json:"carried,omitempty"`
}

// before is the edge whose place this one takes.
type before struct {
	conn     *net.UnixConn
	files    map[string]*os.File
	names    []string // of files, which go to whoever asks for them
	released chan struct{}
	carried  map[string]Carried
}

// takeOver asks the edge at socket for what it listens on. It returns nil when
// none answers there, and an error when it refuses.
func takeOver(ctx context.Context, socket string, hello Hello) (*before, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask the edge at %s: %w", socket, err)
	}
	b := &before{conn: c.(*net.UnixConn), files: map[string]*os.File{}, released: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := b.ask(hello); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *before) ask(hello Hello) error {
	if err := b.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	body, err := json.Marshal(hello)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodPost, "http://edge/hello", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "tender-edge")
	if err := req.Write(b.conn); err != nil {
		return fmt.Errorf("say hello to the edge: %w", err)
	}
	// Byte by byte: what is read too much may carry sockets, which a plain read would close.
	res, err := http.ReadResponse(bufio.NewReaderSize(oneByOne{b.conn}, 16), req)
	if err != nil {
		return fmt.Errorf("hear the edge: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("the edge that serves does not hand over: %w", readProblem(res))
	}
	for {
		m, f, err := b.next()
		if err != nil {
			return fmt.Errorf("take over sockets: %w", err)
		}
		if m.End {
			return nil
		}
		b.files[m.Name] = f
		b.names = append(b.names, m.Name)
	}
}

// next asks for one more socket.
func (b *before) next() (m handed, f *os.File, err error) {
	if err := b.say(sayNext); err != nil {
		return m, nil, err
	}
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	var line []byte
	for !bytes.HasSuffix(line, []byte("\n")) {
		n, oobn, _, _, err := b.conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return m, f, err
		}
		if n == 0 && oobn == 0 {
			return m, f, io.ErrUnexpectedEOF
		}
		line = append(line, buf[:n]...)
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return m, f, err
		}
		for _, msg := range msgs {
			fds, err := unix.ParseUnixRights(&msg)
			if err != nil {
				return m, f, err
			}
			for _, fd := range fds {
				if f != nil {
					f.Close()
				}
				f = os.NewFile(uintptr(fd), "socket")
			}
		}
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, f, err
	}
	if !m.End && f == nil {
		return m, nil, fmt.Errorf("%s came without its socket", m.Name)
	}
	return m, f, nil
}

func (b *before) say(word string) error {
	if err := b.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := io.WriteString(b.conn, word+"\n")
	return err
}

// ready tells the old edge that this one serves; it has let go when ready returns.
func (b *before) ready() error {
	if err := b.say(sayReady); err != nil {
		return fmt.Errorf("tell the edge before that this one is ready: %w", err)
	}
	var m handed
	if err := json.NewDecoder(b.conn).Decode(&m); err != nil || !m.Released {
		return fmt.Errorf("wait for the edge before to let go: %w", err)
	}
	b.carried = m.Carried
	close(b.released)
	return nil
}

// named tells the old edge that its path is taken.
func (b *before) named() error {
	defer b.conn.Close()
	return b.say(sayNamed)
}

func (b *before) close() {
	b.conn.Close()
	for _, f := range b.files {
		f.Close()
	}
}

type oneByOne struct{ io.Reader }

func (o oneByOne) Read(p []byte) (int, error) { return o.Reader.Read(p[:min(1, len(p))]) }

// hand answers a new edge's hello.
func (e *edge) hand(w http.ResponseWriter, r *http.Request) {
	var hello Hello
	if err := json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(&hello); err != nil {
		problem(w, tender.Errorf(tender.Invalid, "read the hello: %w", err))
		return
	}
	if err := admit(hello); err != nil {
		e.log.Warn("hand-over refused", "to", hello.Version, "pid", hello.PID, "err", err)
		problem(w, err)
		return
	}
	if !e.handing.CompareAndSwap(serving, handingOver) {
		problem(w, tender.Errorf(tender.Conflict, "this edge hands over to another one already"))
		return
	}
	err := e.handTo(w, hello)
	if err != nil && e.handing.CompareAndSwap(handingOver, serving) {
		e.log.Error("hand-over broken off, this edge serves on", "to", hello.Version, "pid", hello.PID, "err", err)
		return
	}
	if err != nil {
		e.log.Warn("the new edge went away after it took over", "pid", hello.PID, "err", err)
	}
}

// admit says whether an edge that says h can go on with what this one has.
func admit(h Hello) error {
	if h.Protocol != Protocol && h.Protocol != Protocol+1 {
		return tender.Errorf(tender.Conflict, "version %s speaks hand-over protocol %d, this edge %d", h.Version, h.Protocol, Protocol).
			Hint("upgrade one version at a time, or stop this edge first: what is under way ends within its drain")
	}
	if h.Format != Format && h.Format != Format+1 {
		return tender.Errorf(tender.Conflict, "version %s knows tables of format %d, the one served has %d", h.Version, h.Format, Format).
			Hint("upgrade one version at a time")
	}
	return nil
}

func (e *edge) handTo(w http.ResponseWriter, hello Hello) error {
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return errors.New("the connection cannot be taken over")
	}
	c, rw, err := hijacker.Hijack()
	if err != nil {
		return err
	}
	defer c.Close()
	served := e.version() // a table that is being set is on disk once this returns, before the new edge reads it
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return errors.New("sockets travel over a unix socket only")
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tender-edge\r\n\r\n"); err != nil {
		return err
	}
	e.log.Info("handing over", "to", hello.Version, "pid", hello.PID, "table", served)
	names := e.sockets.names()
	for {
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		line, err := rw.ReadString('\n')
		if err != nil {
			return err
		}
		switch line {
		case sayNext + "\n":
			if len(names) == 0 {
				err = sayJSON(conn, handed{End: true})
			} else {
				err = e.send(conn, names[0])
				names = names[1:]
			}
			if err != nil {
				return err
			}
		case sayReady + "\n":
			if !e.handing.CompareAndSwap(handingOver, handedOver) {
				return errors.New("this edge ends")
			}
			err := sayJSON(conn, handed{Released: true, Carried: e.carry()})
			close(e.succeeded)
			if err != nil {
				return err
			}
		case sayNamed + "\n":
			close(e.replaced)
			return nil
		default:
			return fmt.Errorf("unknown word %q", line)
		}
	}
}

// send sends one socket with its name. Nothing closes one meanwhile: tables are
// not taken during a hand-over.
func (e *edge) send(conn *net.UnixConn, name string) error {
	raw, err := e.sockets.get(name).SyscallConn()
	if err != nil {
		return err
	}
	body, err := json.Marshal(handed{Name: name})
	if err != nil {
		return err
	}
	var failed error
	// Not File(): a descriptor taken with its Fd would make the shared socket blocking for both.
	err = raw.Control(func(fd uintptr) {
		_, _, failed = conn.WriteMsgUnix(append(body, '\n'), unix.UnixRights(int(fd)), nil)
	})
	return errors.Join(err, failed)
}

func sayJSON(w io.Writer, m handed) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = w.Write(append(body, '\n'))
	return err
}
