package proxy

import (
	"bytes"
	"io"
	"net"
	"sync"
)

const inputSize = 32 << 10

var inputs = sync.Pool{New: func() any { b := make([]byte, inputSize); return &b }}

// input reads a connection to a target. Its buffer is borrowed for one exchange.
type input struct {
	conn    net.Conn
	pooled  *[]byte
	pool    *sync.Pool // of pooled
	buf     []byte
	at, end int
	read    bool // something came since borrow
}

func (i *input) borrow() { i.borrowFrom(&inputs) }

func (i *input) borrowFrom(pool *sync.Pool) {
	i.pool, i.pooled = pool, pool.Get().(*[]byte)
	i.buf, i.at, i.end, i.read = *i.pooled, 0, 0, false
}

func (i *input) release() {
	if i.pooled != nil {
		i.pool.Put(i.pooled)
		i.pooled, i.buf, i.at, i.end = nil, nil, 0, 0
	}
}

// unread puts a byte behind what is held.
func (i *input) unread(b byte) {
	i.buf = append(i.buf[:i.end:i.end], b)
	i.end = len(i.buf)
	i.buf = i.buf[:cap(i.buf)]
}

func (i *input) held() []byte { return i.buf[i.at:i.end] }

func (i *input) skip(n int) {
	if i.at += n; i.at == i.end {
		i.at, i.end = 0, 0
	}
}

// fill reads once. A full buffer grows up to the bound of a head.
func (i *input) fill() error {
	if i.end == len(i.buf) {
		if i.at > 0 {
			i.end = copy(i.buf, i.buf[i.at:i.end])
			i.at = 0
		} else {
			if len(i.buf) > maxHead {
				return nonsense("a head or line of more than %d bytes", maxHead)
			}
			more := make([]byte, min(2*len(i.buf), maxHead+1))
			copy(more, i.buf)
			i.buf = more
		}
	}
	n, err := i.conn.Read(i.buf[i.end:])
	i.end += n
	if n > 0 {
		i.read = true
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// head returns everything up to and with the first empty line, if it is all there.
// scanned is how far an earlier call looked.
func (i *input) head(scanned int) (head []byte, seen int) {
	b := i.held()
	for at := scanned; ; {
		n := bytes.IndexByte(b[at:], '\n')
		if n < 0 {
			return nil, at
		}
		line := b[at : at+n]
		next := at + n + 1
		if len(line) == 0 && at > 0 || len(line) == 1 && line[0] == '\r' && at > 0 {
			return b[:next], next
		}
		at = next
	}
}

// line returns one line without its end, if it is all there. It ends with CR LF and nothing else.
func (i *input) line() (line []byte, n int, err error) {
	b := i.held()
	end := bytes.IndexByte(b, '\n')
	if end > 4096 || end < 0 && len(b) > 4096 {
		return nil, 0, nonsense("a chunk's line of more than 4096 bytes")
	}
	if end < 0 {
		return nil, 0, nil
	}
	if end == 0 || b[end-1] != '\r' {
		return nil, 0, nonsense("a chunk's line that does not end with CR LF")
	}
	return b[:end-1], end + 1, nil
}
