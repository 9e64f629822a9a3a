package collect

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"strings"
	"sync/atomic"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

const (
	streamBatch = 64 << 10
	streamWait  = 200 * time.Millisecond
	streamPause = 30 * time.Second // between two attempts, at most
)

// stream follows an instance over the engine's API, where its files cannot be read.
// It goes on by time, so that lines can be lost: the engine drops what was
// rotated away while it sends, and a stream that breaks does not say where.
type stream struct {
	c    *Collector
	who  Identity
	why  string
	gone atomic.Bool
	wake chan struct{}

	parser *parser
	labels logs.Labels
	place  logs.Place // Offset is the time of the last line in nanoseconds, Head the hash of its content
	buf    []byte
	marks  []mark
	goes   [2]verdict
}

// mark says which line ends at a place of the buffer.
type mark struct {
	end  int
	time int64
	hash uint64
}

// message is one line, or part of one, as the engine sent it.
type message struct {
	stderr bool
	time   int64
	stamp  string
	text   string // with the newline, where it has one
}

// ask follows an instance over the API and says once what that means.
func (c *Collector) ask(who Identity, why string, state tender.State) {
	if c.o.API == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.streams[who.ID]; ok {
		s.gone.Store(false) // it was missing in one picture alone
		if state == tender.Running {
			s.nudge()
		}
		return
	}
	s := &stream{c: c, who: who, why: "followed over the engine's API, lines may be lost at rotations and restarts: " + why, wake: make(chan struct{}, 1)}
	r, err := newRules(who.Logs)
	if err != nil {
		r = &rules{}
	}
	labels, names := labelsOf(who, nil)
	s.labels, s.parser = labels, newParser(r, names)
	if last, ok := c.o.Store.Last(who.ID); ok {
		s.place = last
	}
	c.once("api "+who.Project+"/"+who.Service+why, "a log is followed over the engine's API: lines may be lost at rotations and restarts", "instance", who.Instance, "why", why)
	c.streams[who.ID] = s
	if c.ctx != nil {
		ctx := c.ctx
		c.work.Go(func() { s.run(ctx) })
	}
}

func (s *stream) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *stream) run(ctx context.Context) {
	pause := time.Second
	for ctx.Err() == nil {
		got, err := s.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if s.gone.Load() || tender.KindOf(err) == tender.NotFound {
			break
		}
		if got {
			pause = time.Second
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-time.After(pause):
		}
		pause = min(2*pause, streamPause)
	}
	s.c.mu.Lock()
	delete(s.c.streams, s.who.ID)
	s.c.mu.Unlock()
}

// follow reads one answer of the engine to its end. got: there was a new line.
func (s *stream) follow(ctx context.Context) (got bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// What the last answer left, because it could not be stored, comes again.
	s.buf, s.marks = s.buf[:0], s.marks[:0]
	since := time.Time{}
	if s.place.Offset > 0 {
		since = time.Unix(0, s.place.Offset)
	}
	body, tty, err := s.c.o.API(ctx, s.who.ID, since)
	if err != nil {
		return false, err
	}
	lines := make(chan message, 256)
	failed := make(chan error, 1)
	go func() {
		defer close(lines)
		failed <- messages(ctx, body, tty, lines)
	}()
	defer func() {
		cancel()
		body.Close()
		for range lines { // until the reader has ended
		}
	}()
	skip := s.place.Head
	timer := time.NewTimer(streamWait)
	defer timer.Stop()
	for {
		select {
		case m, ok := <-lines:
			if !ok {
				return got, errors.Join(s.emit(ctx, true), <-failed)
			}
			// What was stored before: older, or of the same moment up to the line that was the last.
			hash := m.hash()
			if m.time < s.place.Offset && skip != 0 {
				continue
			}
			if skip != 0 && m.time == s.place.Offset {
				if hash == skip {
					skip = 0
				}
				continue
			}
			skip, got = 0, true
			s.take(m, hash)
			if len(s.buf) > streamBatch {
				if err := s.emit(ctx, false); err != nil {
					return got, err
				}
				timer.Reset(streamWait)
			}
		case <-timer.C:
			if err := s.emit(ctx, true); err != nil {
				return got, err
			}
			timer.Reset(streamWait)
		case <-ctx.Done():
			return got, ctx.Err()
		}
	}
}

func (m message) hash() uint64 {
	h := fnv.New64a()
	io.WriteString(h, m.text) //nolint:errcheck // a hash takes everything
	return h.Sum64()
}

// take writes a line as the engine's files have it, which the parser reads.
func (s *stream) take(m message, hash uint64) {
	s.buf = append(s.buf, logKey...)
	s.buf = escape(s.buf, m.text)
	if m.stderr {
		s.buf = append(s.buf, errEnd...)
	} else {
		s.buf = append(s.buf, outEnd...)
	}
	s.buf = append(append(append(s.buf, timeKey...), m.stamp...), '"', '}', '\n')
	s.marks = append(s.marks, mark{len(s.buf), m.time, hash})
}

func (s *stream) emit(ctx context.Context, last bool) error {
	if len(s.buf) == 0 {
		return nil
	}
	s.parser.goes = s.goes
	used, _ := s.parser.block(s.buf, last || len(s.buf) > maxBlock)
	n := 0
	for n < len(s.marks) && s.marks[n].end <= used {
		n++
	}
	if n == 0 {
		return nil
	}
	m := s.marks[n-1]
	to := logs.Place{Seq: 1, Offset: m.time, Head: m.hash, HeadSize: 1}
	if err := s.c.o.Store.Append(ctx, logs.Batch{Source: s.who.ID, From: s.place, To: to, Labels: s.labels, Rows: s.parser.rows.list}); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	s.place, s.goes = to, s.parser.after
	s.c.count(len(s.parser.rows.list), used)
	s.buf = append(s.buf[:0], s.buf[used:]...)
	s.marks = append(s.marks[:0], s.marks[n:]...)
	for i := range s.marks {
		s.marks[i].end -= used
	}
	return nil
}

// messages reads what the engine sends: frames of a message each, or, from a
// terminal, lines.
func messages(ctx context.Context, r io.Reader, tty bool, out chan<- message) error {
	in := bufio.NewReaderSize(r, 64<<10)
	var clock clock
	var head [8]byte
	for {
		var m message
		var body []byte
		var err error
		if tty {
			body, err = in.ReadSlice('\n')
			if errors.Is(err, bufio.ErrBufferFull) {
				err = nil
			}
		} else {
			if _, err = io.ReadFull(in, head[:]); err == nil {
				n := binary.BigEndian.Uint32(head[4:])
				if n > maxEntry {
					return fmt.Errorf("the engine sends a message of %d bytes", n)
				}
				m.stderr = head[0] == 2
				body = make([]byte, n)
				if _, err = io.ReadFull(in, body); err != nil {
					body = nil // cut off: it comes whole the next time
				}
			}
		}
		if len(body) > 0 {
			stamp, text, _ := strings.Cut(string(body), " ")
			if ns, ok := clock.engine([]byte(stamp)); ok {
				m.time, m.stamp, m.text = ns, stamp, text
			} else {
				m.time = time.Now().UnixNano()
				m.stamp, m.text = time.Unix(0, m.time).UTC().Format(time.RFC3339Nano), string(body)
			}
			select {
			case out <- m:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
