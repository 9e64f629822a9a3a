// Package forward sends on what the log store keeps: to Elasticsearch, Loki, an
// OTLP receiver, a syslog server, S3 or a webhook.
//
// The daemon knocks. Each sink reads the store by itself, in the order in which
// blocks became durable, and moves its cursor only behind what the other side has
// taken: at least once, in order, and nothing is lost while the other side is away
// for as long as the store keeps it. Sinks know nothing of each other, so a slow
// one holds up nobody. The room never changes the store, never drops a row in
// silence, and never holds a secret for longer than a request.
package forward

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tenderhq/tender/internal/logs"
)

// Source is what is read: *logs.Store.
type Source interface {
	// Read hands out whole blocks after a cursor, each with the cursor behind it,
	// until fn got at least max rows or nothing more is there.
	Read(ctx context.Context, after logs.Cursor, max int, fn func(logs.Chunk, logs.Cursor) error) error
	// Grown is closed when the next block becomes durable.
	Grown() <-chan struct{}
	// Newest is the cursor behind all that is durable.
	Newest() logs.Cursor
	// Behind counts what is durable after a cursor.
	Behind(after logs.Cursor) (rows, bytes int64)
	// Watch has fn called with what retention takes.
	Watch(fn func([]logs.Gone))
}

// Keeper remembers how far each sink has come.
type Keeper interface {
	// Load returns the zero State for a sink that was never saved.
	Load(ctx context.Context, name string) (State, error)
	// Save writes the state and the letters that came up since the last Save, both or neither.
	Save(ctx context.Context, name string, s State, dead []Letter) error
}

// State is what a sink remembers.
type State struct {
	Known   bool   // it was saved before
	Cursor  string // logs.Cursor: all before it was taken by the other side, or is a dead letter
	Sent    int64  // rows that the other side has taken; those sent twice count twice
	Bytes   int64  // of them, as they travelled before compression
	Failed  int64  // requests that must be repeated
	Refused int64  // rows that the other side will never take: the dead letters
	Expired int64  // rows that were gone from the store before they were sent
}

// Letter is a row that the other side refused for what is in it.
type Letter struct {
	Time   time.Time // when it was refused
	Row    time.Time // the row's own
	Labels string
	Text   string // what was sent, its first 4 KiB
	Reason string
}

// Options of New.
type Options struct {
	Source Source
	Keeper Keeper
	// Secret returns the newest value of a secret. It is asked for each request, so a
	// rotated one is used at once.
	Secret func(ctx context.Context, name string) ([]byte, error)
	Host   string // how this host is called where a row has no label node
	Log    *slog.Logger
	pause  time.Duration // before the second try; 0: a second
}

// Sinks are all that are configured.
type Sinks struct {
	list []*sink
}

// New makes the sinks. Nothing is sent before Run.
func New(configs []Config, o Options) *Sinks {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Sinks{}
	for _, c := range configs {
		s.list = append(s.list, newSink(c, c.wire(o), o))
	}
	if len(s.list) > 0 {
		o.Source.Watch(func(gone []logs.Gone) {
			for _, one := range s.list {
				one.gone(gone)
			}
		})
	}
	return s
}

// Run sends until ctx ends. What was read and not yet taken is read again by the
// next Run.
func (s *Sinks) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, one := range s.list {
		wg.Go(func() { one.run(ctx) })
	}
	<-ctx.Done()
	wg.Wait()
	return nil
}

// Status of every sink, by name.
func (s *Sinks) Status(now time.Time) []Status {
	out := make([]Status, 0, len(s.list))
	for _, one := range s.list {
		out = append(out, one.status(now))
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Status is how a sink fares.
type Status struct {
	Name, Kind, Where string
	// Phase: starting, sending, waiting (the other side is away or asks for patience),
	// idle (all that is durable was taken).
	Phase string
	State
	Lag       time.Duration // age of the oldest row that was not yet taken; 0: none waits
	Rows      int64         // that wait, of all projects and services
	Waiting   int64         // bytes of them
	Tries     int           // in vain since the last success
	Next      time.Time     // of the next try, while waiting
	Last      time.Time     // success since the start; zero: none
	Error     string        // the last one
	ErrorTime time.Time
}

// The phases of a sink.
const (
	Starting = "starting"
	Sending  = "sending"
	Waiting  = "waiting"
	Idle     = "idle"
)
