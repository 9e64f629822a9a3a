package logs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	maxUnflushed = 32 << 20 // bytes in memory, of all sources
	maxSpare     = 6        // builders that keep the memory of a big block for the next one
)

var errClosed = errors.New("the logs are closed")

// buffer gathers the rows of one source (or, of those that come without places, of
// one stream).
type buffer struct {
	order sync.Mutex // held from sealing to writing, so that blocks come in order
	queue []*sealed  // sealed and not yet written; guarded by Store.mu

	mu       sync.Mutex
	stream   *stream
	b        *builder // nil: nothing waits
	spare    *builder // of the block before, while the source is busy
	source   string
	from, to Place
	idle     int // flushes without a row
}

// sealed is a block that waits to be written.
type sealed struct {
	stream   *stream
	b        *builder
	source   string
	from, to Place
	size     int

	mu   sync.Mutex
	seen *view
}

// look shows the rows; what it returns is shared.
func (p *sealed) look() *view {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen == nil {
		p.seen = p.b.view(p.stream)
	}
	return p.seen
}

func streamKey(l Labels) string {
	var b []byte
	for _, f := range l {
		b = putString(putString(b, f.Name), f.Value)
	}
	return string(b)
}

func cloneLabels(l Labels) Labels {
	c := make(Labels, len(l))
	for i, f := range l {
		c[i] = Field{string([]byte(f.Name)), string([]byte(f.Value))}
	}
	slices.SortStableFunc(c, func(a, b Field) int {
		if a.Name < b.Name {
			return -1
		}
		if a.Name > b.Name {
			return 1
		}
		return 0
	})
	return c
}

func withStream(l Labels, value string) Labels {
	c := slices.Clone(l)
	i, found := slices.BinarySearchFunc(c, "stream", func(f Field, n string) int {
		if f.Name < n {
			return -1
		}
		if f.Name > n {
			return 1
		}
		return 0
	})
	if found {
		c[i].Value = value
		return c
	}
	return slices.Insert(c, i, Field{"stream", value})
}

// check refuses what no block can hold.
func (b *Batch) check() error {
	if len(b.Rows) > maxRowsRead/4 {
		return fmt.Errorf("append logs: a batch of %d rows; at most %d", len(b.Rows), maxRowsRead/4)
	}
	size := len(b.Source)
	for _, l := range b.Labels {
		size += len(l.Name) + len(l.Value)
	}
	if size > maxLabels {
		return fmt.Errorf("append logs: labels of %d bytes; at most %d", size, maxLabels)
	}
	for i := range b.Rows {
		r := &b.Rows[i]
		size += len(r.Shape)
		for j := range r.Fields {
			size += len(r.Fields[j].Name) + len(r.Fields[j].Value)
		}
		if len(r.Fields) > maxColumns {
			return fmt.Errorf("append logs: a row with %d fields; at most %d", len(r.Fields), maxColumns)
		}
	}
	if size > maxRow {
		return fmt.Errorf("append logs: a batch of %d bytes; at most %d", size, maxRow)
	}
	return nil
}

// Append takes a batch in. It copies what it keeps, and waits while too much is
// not yet on disk. A batch is kept whole or, after a kill, not at all.
func (s *Store) Append(ctx context.Context, b Batch) error {
	if err := b.check(); err != nil {
		return err
	}
	if err := s.await(ctx); err != nil {
		return err
	}
	for {
		buf, err := s.grab(&b)
		if err != nil {
			return err
		}
		if buf.b != nil && (len(buf.b.times) > 0 && len(buf.b.times)+len(b.Rows) > s.o.MaxRows || !sameLabels(buf.stream.labels, b.Labels)) {
			buf.mu.Unlock()
			s.ease(buf)
			continue
		}
		full := s.take(buf, &b)
		st := buf.stream
		buf.mu.Unlock()
		s.publish(st, &b)
		if full {
			s.ease(buf)
		}
		return nil
	}
}

// grab returns the buffer for b, locked.
func (s *Store) grab(b *Batch) (*buffer, error) {
	key := "s" + b.Source
	if b.Source == "" {
		key = "l" + streamKey(cloneLabels(b.Labels))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	buf, ok := s.buffers[key]
	if !ok {
		name := string([]byte(b.Source))
		buf = &buffer{source: name}
		s.buffers[key] = buf
	}
	buf.mu.Lock()
	if buf.stream == nil || buf.b == nil && !sameLabels(buf.stream.labels, b.Labels) {
		labels := cloneLabels(b.Labels)
		k := streamKey(labels)
		st, ok := s.streams[k]
		if !ok {
			st = newStream(labels)
			s.streams[k] = st
		}
		buf.stream = st
	}
	return buf, nil
}

// sameLabels compares what is sorted with what may not be.
func sameLabels(a, b Labels) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return streamKey(a) == streamKey(cloneLabels(b))
		}
	}
	return true
}

// take copies a batch into a buffer that is locked, and says that it is full.
func (s *Store) take(buf *buffer, b *Batch) bool {
	before := 0
	if buf.b == nil {
		buf.from = b.From
		if buf.b = buf.spare; buf.b == nil {
			buf.b = newBuilder()
		}
		buf.spare = nil
	} else {
		before = buf.b.size()
	}
	if b.Gap != 0 {
		r := gapRow(b)
		buf.b.add(&r)
	}
	for i := range b.Rows {
		buf.b.add(&b.Rows[i])
	}
	buf.to, buf.idle = b.To, 0
	s.unflushed.Add(int64(buf.b.size() - before))
	return buf.b.full(&s.o)
}

// gapRow is what is kept of lines that are known to be lost.
func gapRow(b *Batch) Row {
	r := Row{Time: time.Now().UnixNano()}
	if len(b.Rows) > 0 {
		r.Time = b.Rows[0].Time
	}
	level := Field{"level", "warn"}
	if b.Gap < 0 {
		r.Shape = "lines before this one were lost, nobody knows how many bytes of them"
		r.Fields = []Field{{"gap", "-1"}, level}
		return r
	}
	r.Shape = "lines before this one were lost, \x00 bytes of them"
	r.Fields = []Field{{"gap", strconv.FormatInt(b.Gap, 10)}, level}
	return r
}

// await returns when there is room in memory. It makes some by writing what is biggest.
func (s *Store) await(ctx context.Context) error {
	for s.unflushed.Load() > maxUnflushed {
		s.freed.Lock()
		room := s.room
		s.freed.Unlock()
		if buf := s.biggest(); buf != nil && s.ease(buf) {
			continue
		}
		again := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			again.Stop()
			return context.Cause(ctx)
		case <-room:
		case <-again.C:
		}
		again.Stop()
	}
	return nil
}

func (s *Store) biggest() *buffer {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var best *buffer
	most := 0
	for _, buf := range s.buffers {
		size := 0
		for _, p := range buf.queue {
			size += p.size
		}
		buf.mu.Lock()
		if buf.b != nil {
			size += buf.b.size()
		}
		buf.mu.Unlock()
		if size > most {
			best, most = buf, size
		}
	}
	return best
}

// ease writes a buffer and says whether that went well; if not, the rows stay in
// memory, the log has said why, and they are tried again.
func (s *Store) ease(buf *buffer) bool { return s.flushBuffer(buf) == nil }

// Flush writes and syncs all that was appended before it.
func (s *Store) Flush(ctx context.Context) error {
	s.mu.RLock()
	all := make([]*buffer, 0, len(s.buffers))
	for _, buf := range s.buffers {
		all = append(all, buf)
	}
	s.mu.RUnlock()
	var first error
	for _, buf := range all {
		if err := s.flushBuffer(buf); err != nil && first == nil {
			first = err
		}
		if ctx.Err() != nil && first == nil {
			first = context.Cause(ctx)
		}
	}
	if err := s.sync(); err != nil {
		first = errors.Join(first, err)
	}
	s.drop()
	if first != nil {
		return fmt.Errorf("flush logs: %w", first)
	}
	return nil
}

// drop forgets buffers that were idle for a while.
func (s *Store) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, buf := range s.buffers {
		buf.mu.Lock()
		if buf.b == nil && len(buf.queue) == 0 {
			if buf.idle++; buf.idle > 1 {
				s.spare(buf.spare)
				buf.spare = nil
			}
			// Who holds order writes for it just now.
			if buf.idle > 100 && buf.order.TryLock() {
				delete(s.buffers, key)
				buf.order.Unlock()
			}
		}
		buf.mu.Unlock()
	}
}

// flushBuffer writes what is in a buffer.
func (s *Store) flushBuffer(buf *buffer) error {
	buf.order.Lock()
	defer buf.order.Unlock()
	s.mu.Lock()
	buf.mu.Lock()
	if buf.b != nil {
		p := &sealed{stream: buf.stream, b: buf.b, source: buf.source, from: buf.from, to: buf.to, size: buf.b.size()}
		buf.b = nil
		buf.queue = append(buf.queue, p)
	}
	buf.mu.Unlock()
	queue := slices.Clone(buf.queue)
	s.mu.Unlock()
	for _, p := range queue {
		if err := s.store(p, func() { buf.queue = buf.queue[1:] }); err != nil {
			s.mu.Lock()
			fresh := s.failing == nil
			s.failing = err
			s.mu.Unlock()
			if fresh {
				s.log.Error("logs cannot be written; they wait in memory", "error", err)
			}
			return err
		}
		s.unflushed.Add(-int64(p.size))
		s.freed.Lock()
		close(s.room)
		s.room = make(chan struct{})
		s.freed.Unlock()
		s.reuse(buf, p)
	}
	return nil
}

// reuse keeps the builder of a big block for the next one of its source, as long as
// not too many do so.
func (s *Store) reuse(buf *buffer, p *sealed) {
	p.mu.Lock()
	held := p.b.held
	b := p.b.reset()
	p.mu.Unlock()
	if held && !b.held {
		s.spares.Add(-1)
	}
	if p.size < 256<<10 {
		s.spare(b)
		return
	}
	if !b.held {
		if s.spares.Add(1) > maxSpare {
			s.spares.Add(-1)
			return
		}
		b.held = true
	}
	buf.mu.Lock()
	old := buf.spare
	buf.spare = b
	buf.mu.Unlock()
	s.spare(old)
}

// spare lets go of a builder.
func (s *Store) spare(b *builder) {
	if b != nil && b.held {
		b.held = false
		s.spares.Add(-1)
	}
}
