package forward

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tenderhq/tender/internal/logs"
)

const (
	firstPause = time.Second
	lastPause  = time.Minute
	// longestPause bounds what the other side may ask for.
	longestPause = 10 * time.Minute
	// saveEvery is how much sending is at most repeated after a kill, beside the batch
	// that was under way.
	saveEvery = time.Second
	// letterBytes of a refused row are kept.
	letterBytes = 4 << 10
	// lettersHeld is how many dead letters wait for a Save at most.
	lettersHeld = 200
)

// sink reads the store and sends to one place.
type sink struct {
	config Config
	wire   wire
	source Source
	keeper Keeper
	log    *slog.Logger
	first  time.Duration // of the pauses

	cursor logs.Cursor // behind what was taken
	saved  time.Time
	dirty  bool
	dead   []Letter // since the last save

	mu     sync.Mutex
	state  State
	now    Status // but for State, Lag, Rows and Waiting
	oldest int64  // time of the oldest row in hand; 0: none
	at     logs.Cursor
	inHand logs.Cursor // behind what was read, if that is later
	loaded bool
	lost   bool        // since the last save
	early  []logs.Gone // that went before it was known how far the sink is
}

func newSink(c Config, w wire, o Options) *sink {
	return &sink{
		config: c, wire: w, source: o.Source, keeper: o.Keeper, log: o.Log.With("sink", c.Name), first: cmp.Or(o.pause, firstPause),
		now: Status{Name: c.Name, Kind: c.Kind, Where: c.Where, Phase: Starting},
	}
}

// run sends until ctx ends.
func (s *sink) run(ctx context.Context) {
	defer s.wire.close()
	for tries := 0; ; tries++ {
		err := s.load(ctx)
		if err == nil {
			break
		}
		if s.fail(ctx, err, tries, 0) != nil {
			return
		}
	}
	for {
		b, err := s.fill(ctx)
		if err == nil {
			err = s.deliver(ctx, b)
		}
		if err != nil {
			break // ctx has ended: nothing else ends either of them
		}
		s.reached(b)
		if time.Since(s.saved) >= saveEvery || s.cursor == s.source.Newest() {
			s.save(ctx)
		}
	}
	// What was taken is not to be sent again, only because it is time to go.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	s.save(last)
}

func (s *sink) load(ctx context.Context) error {
	st, err := s.keeper.Load(ctx, s.config.Name)
	if err != nil {
		return err
	}
	cursor, err := logs.ParseCursor(st.Cursor)
	if err != nil {
		return err
	}
	if newest := s.source.Newest(); cursor.After(newest) {
		s.log.Warn("the store of logs has begun anew, and so does the sink", "cursor", st.Cursor)
		cursor = logs.Cursor{}
		st.Cursor = cursor.String()
	}
	if !st.Known && s.config.FromNow {
		cursor = s.source.Newest()
		st.Cursor = cursor.String()
		// So that a restart before the first row does not choose a later beginning.
		if err := s.keeper.Save(ctx, s.config.Name, st, nil); err != nil {
			return err
		}
	}
	s.cursor = cursor
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.at, s.inHand, s.loaded = st, cursor, cursor, true
	s.expired(s.early)
	s.early = nil
	return nil
}

// batch is what is sent before the cursor moves.
type batch struct {
	id     string // of its beginning
	items  []item
	cursor logs.Cursor // behind it
	buf    []byte
	ends   []int // of the bodies in buf
}

// fill reads until there is enough to send. It returns an empty batch where blocks
// were passed of which nothing matches, and an error only if ctx ends.
func (s *sink) fill(ctx context.Context) (*batch, error) {
	b := &batch{id: s.cursor.String(), cursor: s.cursor}
	var full <-chan time.Time // the first row has waited long enough
	for tries := 0; ; {
		grown := s.source.Grown() // before the look, so that nothing falls between the two
		err := s.source.Read(ctx, b.cursor, 0, func(c logs.Chunk, behind logs.Cursor) error {
			// A block may come in two chunks: then it is read when the cursor moves.
			moved := behind != b.cursor
			s.add(b, c, behind)
			if moved && len(b.buf) >= s.config.Size {
				return logs.ErrStop
			}
			return nil
		})
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			if err := s.fail(ctx, err, tries, 0); err != nil {
				return nil, err
			}
			tries++
			continue
		case len(b.buf) >= s.config.Size:
			return b.seal(), nil
		case len(b.items) == 0 && b.cursor != s.cursor:
			return b, nil
		case len(b.items) == 0:
			s.phase(Idle, 0)
		case full == nil:
			full = time.After(s.config.Wait)
			s.phase(Sending, b.items[0].time)
		}
		tries = 0
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-grown:
		case <-full:
			return b.seal(), nil
		}
	}
}

// add takes what matches of a chunk into the batch.
func (s *sink) add(b *batch, c logs.Chunk, behind logs.Cursor) {
	b.cursor = behind
	s.mu.Lock()
	s.inHand = behind
	s.mu.Unlock()
	labels := c.Labels()
	if !s.config.Match.holds(labels) {
		return
	}
	// The chunk's memory is its own, and goes.
	own := make(logs.Labels, len(labels))
	for i, l := range labels {
		own[i] = logs.Field{Name: strings.Clone(l.Name), Value: strings.Clone(l.Value)}
	}
	r := row{stream: &stream{labels: own, key: own.String()}}
	place := behind.String() + "."
	for i, t := range c.Times() {
		r.time = t
		r.text = c.Text(r.text[:0], i)
		r.fields = c.Fields(r.fields[:0], i)
		r.place = place + strconv.Itoa(i)
		b.buf = s.wire.encode(b.buf, &r)
		b.ends = append(b.ends, len(b.buf))
		b.items = append(b.items, item{stream: r.stream, time: t})
	}
}

// seal points the items at their bodies, once the buffer does not grow any more.
func (b *batch) seal() *batch {
	from := 0
	for i, end := range b.ends {
		b.items[i].body = b.buf[from:end:end]
		from = end
	}
	return b
}

// reached moves the cursor behind a batch.
func (s *sink) reached(b *batch) {
	s.cursor, s.dirty = b.cursor, true
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Known, s.state.Cursor = true, b.cursor.String()
	s.at, s.oldest = b.cursor, 0
}

// gone takes note of what the store has no more.
func (s *sink) gone(list []logs.Gone) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loaded {
		s.early = append(s.early, list...)
		return
	}
	s.expired(list)
}

// expired counts what is neither sent nor read; under mu.
func (s *sink) expired(list []logs.Gone) {
	rows := int64(0)
	for _, g := range list {
		if g.Behind.After(s.inHand) && s.config.Match.of(g.Project, g.Service) {
			rows += g.Rows
		}
	}
	if rows == 0 {
		return
	}
	s.state.Expired += rows
	s.lost = true
	s.log.Error("rows were gone before they were sent", "where", s.config.Where, "rows", rows)
}

// save writes the state. What cannot be written is tried again with the next
// batch: then more is repeated after a kill, and nothing is lost.
func (s *sink) save(ctx context.Context) {
	s.mu.Lock()
	st := s.state
	s.dirty = s.dirty || s.lost
	s.lost = false
	s.mu.Unlock()
	if !s.dirty && len(s.dead) == 0 {
		return
	}
	s.saved = time.Now()
	if err := s.keeper.Save(ctx, s.config.Name, st, s.dead); err != nil {
		s.log.Error("cursor not saved", "err", err)
		s.note(err)
		return
	}
	s.dirty, s.dead = false, nil
}

// fail notes what went wrong and waits before the next try, for as long as the
// other side asks or longer with each try. It returns an error only if ctx ends.
func (s *sink) fail(ctx context.Context, err error, tries int, after time.Duration) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	wait := lastPause
	if tries < 6 {
		wait = min(s.first<<tries, lastPause)
	}
	// Many hosts that lost the same other side are not to come back in step.
	wait += time.Duration(rand.Int64N(int64(wait)/5 + 1))
	wait = max(wait, min(after, longestPause))
	if tries == 0 {
		s.log.Warn("not taken, trying again", "where", s.config.Where, "pause", wait, "err", err)
	}
	s.note(err)
	s.mu.Lock()
	s.state.Failed++
	s.now.Phase, s.now.Tries, s.now.Next = Waiting, tries+1, time.Now().Add(wait)
	s.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}

func (s *sink) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Error, s.now.ErrorTime = err.Error(), time.Now()
}

func (s *sink) phase(phase string, oldest int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Phase, s.oldest = phase, oldest
}

// taken counts rows that the other side has taken.
func (s *sink) taken(items []item, except []int) {
	var n, bytes int64
	for i := range items {
		if _, left := slices.BinarySearch(except, i); !left {
			n++
			bytes += int64(len(items[i].body))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Sent += n
	s.state.Bytes += bytes
	if n > 0 {
		s.now.Last = time.Now()
	}
}

// bury makes a dead letter of an item.
func (s *sink) bury(ctx context.Context, it item, reason string) {
	text := s.wire.text(it.body)
	text = strings.ToValidUTF8(text[:min(len(text), letterBytes)], "\uFFFD")
	now := time.Now()
	s.dead = append(s.dead, Letter{
		Time: now.UTC(), Row: time.Unix(0, it.time).UTC(), Labels: it.stream.key, Text: text,
		Reason: strings.ToValidUTF8(reason[:min(len(reason), letterBytes)], "\uFFFD"),
	})
	s.dirty = true
	s.mu.Lock()
	first := s.state.Refused == 0
	s.state.Refused++
	s.mu.Unlock()
	s.note(errors.New(reason))
	if first {
		s.log.Warn("row refused for good, see tender logs sinks --dead", "where", s.config.Where, "reason", reason)
	}
	if len(s.dead) >= lettersHeld {
		s.save(ctx)
		// The store of the letters is away: the count stays true, and memory bounded.
		if len(s.dead) >= lettersHeld {
			s.dead = s.dead[len(s.dead)/2:]
		}
	}
}

func (s *sink) status(now time.Time) Status {
	s.mu.Lock()
	out, oldest, at := s.now, s.oldest, s.at
	out.State = s.state
	s.mu.Unlock()
	out.Rows, out.Waiting = s.source.Behind(at)
	if oldest > 0 {
		out.Lag = max(0, now.Sub(time.Unix(0, oldest)))
	}
	if out.Phase != Waiting {
		out.Next = time.Time{}
	}
	return out
}
