package proxy

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"net/http"
)

const (
	trailersMax = 4 << 10  // bytes of a request's trailers
	excessMax   = 16 << 10 // bytes that frame chunks beyond what reasonable ones need
)

// body is that of a request on a line. It is read by one goroutine at a time.
type body struct {
	l       *line
	chunked bool
	left    int64 // of the body, or of the chunk
	inside  bool  // a chunk has begun, and its end has not been read
	tail    bool  // trailers follow
	excess  int64
	done    bool // read to its end
	expect  bool // the client waits for 100
	err     error
}

func (b *body) Read(p []byte) (int, error) {
	if b.done {
		return 0, io.EOF
	}
	if b.err != nil {
		return 0, b.err
	}
	if b.expect {
		b.expect = false
		b.l.turn.reply.goOn()
	}
	n, err := b.read(p)
	if b.done {
		b.l.hush()
	}
	if err != nil && !errors.Is(err, io.EOF) && !isDeadline(err) {
		b.err = err
	}
	return n, err
}

// Close is of no use: what is left is seen to at the end of the answer.
func (*body) Close() error { return nil }

func (b *body) read(p []byte) (int, error) {
	if !b.chunked {
		n, err := b.some(p)
		if b.left == 0 {
			b.done = true
			return n, io.EOF
		}
		return n, err
	}
	for {
		switch {
		case b.left > 0:
			n, err := b.some(p)
			if n == 0 && err == nil && len(p) > 0 {
				continue
			}
			return n, err
		case b.tail:
			return 0, b.trailers()
		case b.inside:
			line, n, err := b.line()
			if err != nil {
				return 0, err
			}
			if len(line) > 0 {
				return 0, nonsense("a chunk longer than it said")
			}
			b.l.in.skip(n)
			b.inside = false
		default:
			line, n, err := b.line()
			if err != nil {
				return 0, err
			}
			if b.left, err = parseChunk(line); err != nil {
				return 0, err
			}
			// The smallest frames of many small chunks are no attack; long extensions are.
			b.excess = max(0, b.excess+int64(len(line))+2-16-2*b.left)
			if b.excess > excessMax {
				return 0, nonsense("chunks that are mostly extensions")
			}
			b.l.in.skip(n)
			b.inside, b.tail = b.left > 0, b.left == 0
		}
	}
}

// some reads what there is of b.left.
func (b *body) some(p []byte) (int, error) {
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	in := &b.l.in
	if held := in.held(); len(held) > 0 {
		n := copy(p, held)
		in.skip(n)
		b.left -= int64(n)
		return n, nil
	}
	n, err := b.l.c.Read(p)
	b.left -= int64(n)
	if n > 0 {
		err = nil
	}
	return n, unexpected(err)
}

// line is the next line among chunks, which l.in still holds, and its size there.
func (b *body) line() ([]byte, int, error) {
	for {
		line, n, err := b.l.in.line()
		if err != nil || n > 0 {
			return line, n, err
		}
		if err := b.l.in.fill(); err != nil {
			return nil, 0, unexpected(err)
		}
	}
}

// trailers are read to their end, and then given to the request at once. Nothing
// is taken before all is here, so that a deadline may come between.
func (b *body) trailers() error {
	in := &b.l.in
	var h http.Header
	for seen := 0; ; {
		held := in.held()[seen:]
		end := bytes.IndexByte(held, '\n')
		if seen+max(end, 0) > trailersMax || end < 0 && seen+len(held) > trailersMax {
			return nonsense("trailers of more than %d bytes", trailersMax)
		}
		if end < 0 {
			if err := in.fill(); err != nil {
				return unexpected(err)
			}
			continue
		}
		if end == 0 || held[end-1] != '\r' {
			return nonsense("a line among trailers that does not end with CR LF")
		}
		seen += end + 1
		if end == 1 {
			in.skip(seen)
			break
		}
		k, v, err := parseField(string(held[:end-1]))
		if err != nil {
			return err
		}
		if h == nil {
			h = http.Header{}
		}
		h[k] = append(h[k], v)
	}
	r := b.l.turn.r
	if r.Trailer == nil {
		r.Trailer = h
	} else {
		maps.Copy(r.Trailer, h)
	}
	b.done = true
	return io.EOF
}
