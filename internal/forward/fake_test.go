package forward

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tenderhq/tender/internal/logs"
)

// shelf is a Source in memory.
type shelf struct {
	mu     sync.Mutex
	blocks []block
	grown  chan struct{}
	read   int // blocks handed out
	fail   error
}

type block struct {
	labels logs.Labels
	rows   []entry
}

type entry struct {
	time   int64
	text   string
	fields []logs.Field
}

func newShelf() *shelf { return &shelf{grown: make(chan struct{})} }

// begin is the time of the first row.
var begin = time.Date(2026, 11, 29, 12, 59, 59, 0, time.UTC)

func labelsOf(pairs ...string) (l logs.Labels) {
	for i := 0; i < len(pairs); i += 2 {
		l = append(l, logs.Field{Name: pairs[i], Value: pairs[i+1]})
	}
	slices.SortFunc(l, func(a, b logs.Field) int { return strings.Compare(a.Name, b.Name) })
	return l
}

var web = labelsOf("instance", "shop-web-1", "node", "host1", "project", "shop", "revision", "7f3a", "service", "web", "stream", "stdout")

func (s *shelf) put(l logs.Labels, rows ...entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocks = append(s.blocks, block{l, rows})
	close(s.grown)
	s.grown = make(chan struct{})
}

// lines are n rows with the texts "line FROM", "line FROM+1" ...
func lines(from, n int) (out []entry) {
	for i := range n {
		out = append(out, plain(from+i, fmt.Sprintf("line %d", from+i)))
	}
	return out
}

func plain(nth int, text string) entry {
	return entry{begin.Add(time.Duration(nth) * time.Millisecond).UnixNano(), text, []logs.Field{{Name: "message", Value: text}}}
}

func cursorOf(n int) logs.Cursor {
	c, err := logs.ParseCursor(strconv.Itoa(n))
	if err != nil {
		panic(err)
	}
	return c
}

func placeOf(c logs.Cursor) int {
	n, err := strconv.Atoi(c.String())
	if err != nil {
		panic(err)
	}
	return n
}

func (s *shelf) Read(ctx context.Context, after logs.Cursor, most int, fn func(logs.Chunk, logs.Cursor) error) error {
	for n, i := 0, placeOf(after); ; i++ {
		s.mu.Lock()
		if s.fail != nil || i >= len(s.blocks) || most > 0 && n >= most || ctx.Err() != nil {
			defer s.mu.Unlock()
			return errors.Join(s.fail, ctx.Err())
		}
		b := s.blocks[i]
		s.read++
		s.mu.Unlock()
		n += len(b.rows)
		if err := fn(chunk{b}, cursorOf(i+1)); err != nil {
			if errors.Is(err, logs.ErrStop) {
				return nil
			}
			return err
		}
	}
}

func (s *shelf) Grown() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grown
}

func (s *shelf) Newest() logs.Cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cursorOf(len(s.blocks))
}

func (s *shelf) Watch(func([]logs.Gone)) {}

func (s *shelf) Behind(after logs.Cursor) (rows, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.blocks[placeOf(after):] {
		for _, r := range b.rows {
			rows++
			bytes += int64(len(r.text))
		}
	}
	return rows, bytes
}

type chunk struct{ block }

func (c chunk) Labels() logs.Labels { return c.labels }
func (c chunk) Times() (out []int64) {
	for _, r := range c.rows {
		out = append(out, r.time)
	}
	return out
}
func (c chunk) Column(string) []string        { panic("not asked for") }
func (c chunk) Columns() []string             { panic("not asked for") }
func (c chunk) Text(dst []byte, i int) []byte { return append(dst, c.rows[i].text...) }

func (c chunk) Fields(dst []logs.Field, i int) []logs.Field { return append(dst, c.rows[i].fields...) }

// memory is a Keeper.
type memory struct {
	mu      sync.Mutex
	states  map[string]State
	letters []Letter
	saves   int
	fail    error
}

func (m *memory) Load(_ context.Context, name string) (State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.states[name], m.fail
}

func (m *memory) Save(_ context.Context, name string, s State, dead []Letter) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if m.states == nil {
		m.states = map[string]State{}
	}
	s.Known = true
	m.states[name] = s
	m.letters = append(m.letters, dead...)
	m.saves++
	return nil
}

func (m *memory) state(name string) State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.states[name]
}

// parse reads a configuration that must be right.
func parse(t *testing.T, text string) []Config {
	t.Helper()
	c, err := parseText(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return c
}

func parseText(text string) ([]Config, error) {
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil {
		return nil, err
	}
	return Parse(&n)
}

// secrets are those of the tests.
func secrets(_ context.Context, name string) ([]byte, error) {
	v := map[string]string{"es": "a2V5", "s3": "AKID:SECRET", "sign": "shared", "token": "tok"}[name]
	if v == "" {
		return nil, fmt.Errorf("there is no secret %q", name)
	}
	return []byte(v + "\n"), nil
}

// start runs the sinks until the test ends, or until stop.
func start(t *testing.T, text string, src Source, k Keeper) (s *Sinks, stop func()) {
	t.Helper()
	s = New(parse(t, text), Options{Source: src, Keeper: k, Secret: secrets, Host: "host1", pause: 20 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return s, stop
}

// soon waits for a state, however long a busy machine takes.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// only returns the one status.
func only(s *Sinks) Status { return s.Status(time.Now())[0] }

func decode(t *testing.T, b []byte) (v map[string]any) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Errorf("%v in %s", err, b)
	}
	return v
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// protoField is a field of a message.
type protoField struct {
	number int
	value  []byte // of those with a length
}

func fieldsOf(b []byte) func(func(protoField) bool) {
	return func(yield func(protoField) bool) {
		for len(b) > 0 {
			number, kind, n := protowire.ConsumeTag(b)
			if n < 0 {
				return
			}
			b = b[n:]
			var v []byte
			if kind == protowire.BytesType {
				v, _ = protowire.ConsumeBytes(b)
			}
			if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
				return
			}
			b = b[n:]
			if !yield(protoField{int(number), v}) {
				return
			}
		}
	}
}

// dead returns the dead letters so far.
func (m *memory) dead() []Letter {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.letters)
}
