package collect

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

// memory is a store that forgets what was not flushed when it is killed.
type memory struct {
	mu      sync.Mutex
	durable map[string][]string
	fresh   map[string][]string
	gaps    map[string][]int64
	labels  map[string]logs.Labels
	to      map[string]logs.Place // of fresh
	last    map[string]logs.Place
	dead    bool
	tell    func(string, logs.Place)
	t       testing.TB
	changed chan struct{}
}

func newMemory(t testing.TB) *memory {
	return &memory{
		durable: map[string][]string{}, fresh: map[string][]string{}, gaps: map[string][]int64{}, labels: map[string]logs.Labels{},
		to: map[string]logs.Place{}, last: map[string]logs.Place{}, t: t, changed: make(chan struct{}),
	}
}

func (m *memory) Append(_ context.Context, b logs.Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return io.ErrClosedPipe
	}
	from, known := m.to[b.Source]
	if !known {
		from = m.last[b.Source]
	}
	if b.From.Seq != from.Seq || b.From.Offset != from.Offset {
		m.t.Errorf("%s: a batch from %v follows one to %v", b.Source, b.From, from)
	}
	for i := range b.Rows {
		m.fresh[b.Source] = append(m.fresh[b.Source], string(b.Rows[i].Text(nil)))
	}
	if b.Gap != 0 {
		m.gaps[b.Source] = append(m.gaps[b.Source], b.Gap)
	}
	m.to[b.Source], m.labels[b.Source] = b.To, b.Labels
	close(m.changed)
	m.changed = make(chan struct{})
	return nil
}

func (m *memory) Last(source string) (logs.Place, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.last[source]
	return p, ok
}

// flush makes what was appended durable.
func (m *memory) flush() {
	m.mu.Lock()
	tell, to := m.tell, m.to
	m.to = map[string]logs.Place{}
	for source, rows := range m.fresh {
		m.durable[source] = append(m.durable[source], rows...)
	}
	m.fresh = map[string][]string{}
	for source, p := range to {
		m.last[source] = p
	}
	m.mu.Unlock()
	for source, p := range to {
		tell(source, p)
	}
}

// crash loses what was not flushed.
func (m *memory) crash() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fresh, m.to, m.dead = map[string][]string{}, map[string]logs.Place{}, true
}

func (m *memory) rows(source string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Concat(m.durable[source], m.fresh[source])
}

// await waits until the rows of source are as is asks.
func (m *memory) await(source string, is func([]string) bool) []string {
	m.t.Helper()
	deadline := time.After(time.Minute)
	for {
		m.mu.Lock()
		changed := m.changed
		m.mu.Unlock()
		rows := m.rows(source)
		if is(rows) {
			return rows
		}
		select {
		case <-changed:
		case <-deadline:
			m.t.Fatalf("%s has %d rows: %.300q", source, len(rows), rows)
		}
	}
}

// box is an engine as the collector sees it: folders with files.
type box struct {
	t    testing.TB
	root string // of the data root
	id   string
	max  int
	zip  bool
	n    int
}

func newBox(t testing.TB) *box {
	b := &box{t: t, root: t.TempDir(), id: strings.Repeat("a", 64), max: 3}
	if err := os.MkdirAll(b.dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *box) dir() string  { return filepath.Join(b.root, "containers", b.id) }
func (b *box) path() string { return filepath.Join(b.dir(), b.id+"-json.log") }

// write appends n numbered lines.
func (b *box) write(n int) {
	b.t.Helper()
	f, err := os.OpenFile(b.path(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	for range n {
		b.n++
		if _, err := f.WriteString(record(fmt.Sprintf(`{"n":%d}`, b.n)+"\n", "stdout", noon.Add(time.Duration(b.n)))); err != nil {
			b.t.Fatal(err)
		}
	}
}

// rotate does what the engine does.
func (b *box) rotate() {
	b.t.Helper()
	if b.max < 2 {
		if err := os.Truncate(b.path(), 0); err != nil {
			b.t.Fatal(err)
		}
		return
	}
	ext := ""
	if b.zip {
		ext = ".gz"
	}
	for i := b.max - 1; i > 1; i-- {
		_ = os.Rename(b.path()+"."+strconv.Itoa(i-1)+ext, b.path()+"."+strconv.Itoa(i)+ext)
	}
	if err := os.Rename(b.path(), b.path()+".1"); err != nil {
		b.t.Fatal(err)
	}
	if b.zip {
		raw, err := os.ReadFile(b.path() + ".1")
		if err != nil {
			b.t.Fatal(err)
		}
		f, err := os.Create(b.path() + ".1.gz")
		if err != nil {
			b.t.Fatal(err)
		}
		z := gzip.NewWriter(f)
		_, _ = z.Write(raw)
		_ = z.Close()
		_ = f.Close()
		_ = os.Remove(b.path() + ".1")
	}
	b.write(0)
}

func (b *box) instance() tender.Instance {
	return tender.Instance{
		ID: b.id, Name: "shop-web-1-abc", Project: "shop", Service: "web", Revision: "abc", State: tender.Running, Started: noon,
		LogDriver: "json-file", LogPath: b.path(),
	}
}

// run starts a collector; the function that it returns ends it.
func (b *box) run(m *memory, change ...func(*Options)) (*Collector, func()) {
	b.t.Helper()
	o := Options{Store: m, Dir: filepath.Join(b.root, "tender"), Home: "/var/lib/tender", Node: "here", Local: true}
	for _, f := range change {
		f(&o)
	}
	c, err := New(o)
	if err != nil {
		b.t.Fatal(err)
	}
	m.mu.Lock()
	m.dead, m.tell = false, c.Durable
	m.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Run(ctx)
	}()
	end := sync.OnceFunc(func() {
		cancel()
		<-done
	})
	b.t.Cleanup(end)
	return c, end
}

func (b *box) links() (out []string) {
	all, _ := filepath.Glob(filepath.Join(b.root, "tender-logs", "*", "*", "0*"))
	for _, l := range all {
		out = append(out, filepath.Base(l)[:12])
	}
	return out
}

// inOrder checks that rows are the lines from to to, each once and in order.
func inOrder(t testing.TB, rows []string, from, to int) {
	t.Helper()
	for i, r := range rows {
		if want := fmt.Sprintf(`{"n":%d}`, from+i); r != want {
			t.Fatalf("row %d is %s, want %s", i, r, want)
		}
	}
	if len(rows) != to-from+1 {
		t.Fatalf("%d rows, want %d to %d", len(rows), from, to)
	}
}

func count(n int) func([]string) bool { return func(rows []string) bool { return len(rows) >= n } }

func TestATailMustSurviveRotationsKillsAndRemoval(t *testing.T) {
	for _, zip := range []bool{false, true} {
		t.Run(fmt.Sprintf("compress %v", zip), func(t *testing.T) {
			b, m := newBox(t), newMemory(t)
			b.zip = zip
			b.write(10)
			b.rotate()
			b.write(10) // history that was there before us
			c, end := b.run(m)
			c.See([]tender.Instance{b.instance()})
			m.await(b.id, count(20))
			m.flush()
			if got, want := m.labels[b.id].String(), `{instance="shop-web-1", node="here", project="shop", revision="abc", service="web"}`; got != want {
				t.Errorf("labels %s, want %s", got, want)
			}

			// Faster than the reader: each file is seen the moment it comes.
			for range 5 {
				b.write(200)
				b.rotate()
				m.await(b.id, count(b.n-199))
			}
			m.await(b.id, count(b.n))
			// Killed before it was flushed: the spool has what was rotated away.
			m.crash()
			end()
			b.write(50)
			b.rotate()
			b.write(50)
			_, end = b.run(m) // it knows whom to follow before anybody tells it
			m.await(b.id, count(b.n))
			m.flush()
			inOrder(t, m.rows(b.id), 1, b.n)
			if len(m.gaps[b.id]) != 0 {
				t.Errorf("gaps %v", m.gaps[b.id])
			}
			if links := b.links(); len(links) != 1 {
				t.Errorf("links %v: what is stored was not released", links)
			}

			// Removed right after its last line, while we are away.
			end()
			b.write(7)
			spooled, _ := filepath.Glob(filepath.Join(b.root, "tender-logs", "*", "*", "0*"))
			if err := os.RemoveAll(b.dir()); err != nil {
				t.Fatal(err)
			}
			c, _ = b.run(m)
			c.See(nil)
			m.await(b.id, count(b.n))
			inOrder(t, m.rows(b.id), 1, b.n)
			deadline := time.Now().Add(time.Minute)
			for len(spooled) > 0 && time.Now().Before(deadline) {
				m.flush()
				c.mu.Lock()
				n := len(c.ending) + len(c.tails)
				c.mu.Unlock()
				if n == 0 {
					break
				}
				time.Sleep(time.Millisecond)
			}
			if links := b.links(); len(links) != 0 {
				t.Errorf("links %v of a container that is gone and stored", links)
			}
		})
	}
}

// A container that is being removed loses one file after the other: those that are
// left must not be taken for new ones.
func TestARemovalInTheMiddleMustNotDouble(t *testing.T) {
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprintf("while serve is away %v", away), func(t *testing.T) {
			b, m := newBox(t), newMemory(t)
			b.write(100)
			c, end := b.run(m)
			c.See([]tender.Instance{b.instance()})
			for range 2 {
				m.await(b.id, count(b.n))
				b.rotate()
				b.write(100)
			}
			m.await(b.id, count(b.n))
			m.flush()
			if away {
				end()
			}
			if err := os.Remove(b.path()); err != nil {
				t.Fatal(err)
			}
			if away {
				c, _ = b.run(m)
			}
			for _, f := range c.all() {
				f.look()
			}
			c.See([]tender.Instance{b.instance()})
			if err := os.RemoveAll(b.dir()); err != nil {
				t.Fatal(err)
			}
			c.See([]tender.Instance{b.instance()}) // the picture is behind
			c.See(nil)
			for deadline := time.Now().Add(time.Minute); len(c.all()) > 0 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			inOrder(t, m.rows(b.id), 1, b.n)
			if s := c.Status(); len(m.gaps[b.id]) > 0 || s.Files > 0 || s.API > 0 {
				t.Errorf("gaps %v, status %+v", m.gaps[b.id], s)
			}
		})
	}
}

// A file that the engine removed between its opening and its link would be unknown
// after a kill, and its compressed twin older than what is known.
func TestAFileThatIsGoneBeforeItsLinkIsCopied(t *testing.T) {
	b := newBox(t)
	b.write(10)
	f, err := openFile(b.path())
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(b.path())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(b.path()); err != nil {
		t.Fatal(err)
	}
	s := spool{t.TempDir()}
	f.seq = 7
	if err := s.link(f); err != nil {
		t.Fatal(err)
	}
	kept := s.open()
	if len(kept) != 1 || kept[0].seq != 7 {
		t.Fatalf("the spool has %v", s.names())
	}
	if got, err := io.ReadAll(kept[0].f); err != nil || string(got) != string(want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
}

// A kill -9 while a compressed file is unpacked leaves half of it behind.
func TestHalfAnUnpackedFileMustNotBeRead(t *testing.T) {
	b, m := newBox(t), newMemory(t)
	b.zip = true
	b.write(10)
	c, end := b.run(m)
	c.See([]tender.Instance{b.instance()})
	m.await(b.id, count(10))
	m.flush()
	end()
	b.rotate()
	b.write(100)
	raw, err := os.ReadFile(b.path())
	if err != nil {
		t.Fatal(err)
	}
	b.rotate()
	b.write(100)
	half := filepath.Join(c.spoolOf(filepath.Join(b.root, "containers"), b.id).dir, "000000000002-gz.new")
	if err := os.WriteFile(half, raw[:len(raw)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	_, _ = b.run(m)
	inOrder(t, m.await(b.id, count(b.n)), 1, b.n)
	if len(m.gaps[b.id]) > 0 {
		t.Errorf("gaps %v", m.gaps[b.id])
	}
}

// What was rotated away while nobody looked is lost, and the rows say so.
func TestWhatIsLostMustBeSaid(t *testing.T) {
	b, m := newBox(t), newMemory(t)
	b.write(10)
	c, end := b.run(m)
	c.See([]tender.Instance{b.instance()})
	m.await(b.id, count(10))
	m.flush()
	end()
	for range 5 {
		b.write(10)
		b.rotate()
	}
	b.write(10)
	_, _ = b.run(m)
	rows := m.await(b.id, func(r []string) bool { return len(r) > 0 && r[len(r)-1] == fmt.Sprintf(`{"n":%d}`, b.n) })
	// 1 to 20 are in the file that the spool held, 41 and later in those that are there.
	inOrder(t, rows[:20], 1, 20)
	inOrder(t, rows[20:], 41, b.n)
	if got := m.gaps[b.id]; !slices.Equal(got, []int64{-1}) {
		t.Errorf("gaps %v", got)
	}
}

// A store that takes nothing must not fill the engine's disk: the oldest files go,
// and how much that was is known.
func TestTheSpoolIsBounded(t *testing.T) {
	b, m := newBox(t), newMemory(t)
	hold := make(chan struct{})
	b.write(100)
	size := int64(len(record(`{"n":111}`+"\n", "stdout", noon)))
	c, _ := b.run(m, func(o *Options) { o.Store, o.MaxSpool = slow{m, hold}, 500*size })
	c.See([]tender.Instance{b.instance()})
	for range 12 {
		b.rotate()
		b.write(100)
		for _, f := range c.all() {
			f.look()
		}
	}
	if n := len(b.links()); n > 6 {
		t.Errorf("%d files are kept", n)
	}
	close(hold)
	rows := m.await(b.id, func(r []string) bool { return len(r) > 0 && r[len(r)-1] == fmt.Sprintf(`{"n":%d}`, b.n) })
	var lost int64
	for _, g := range m.gaps[b.id] {
		lost += g
	}
	if missing := int64(b.n - len(rows)); missing < 500 || lost < missing*(size-4) || lost > missing*(size+4) {
		t.Errorf("%d lines are missing, the gap says %d bytes", missing, lost)
	}
}

// slow is a store that takes nothing until it may.
type slow struct {
	*memory
	hold chan struct{}
}

func (s slow) Append(ctx context.Context, b logs.Batch) error {
	select {
	case <-s.hold:
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.memory.Append(ctx, b)
}

// With max-file 1 the engine empties the file in place.
func TestAnEmptiedFileMustBeReadAnew(t *testing.T) {
	b, m := newBox(t), newMemory(t)
	b.max = 1
	b.write(10)
	c, end := b.run(m)
	c.See([]tender.Instance{b.instance()})
	m.await(b.id, count(10))
	b.rotate()
	b.write(3)
	inOrder(t, m.await(b.id, count(13)), 1, 13)
	m.flush()
	end()
	b.rotate()
	b.write(20) // as long as what was there, and not the same
	_, _ = b.run(m)
	inOrder(t, m.await(b.id, count(33)), 1, 33)
	if got := m.gaps[b.id]; len(got) != 2 {
		t.Errorf("gaps %v", got)
	}
}

// A container that is made and gone between two pictures is followed because its
// folder was seen.
func TestAShortLifeMustBeSeen(t *testing.T) {
	b, m := newBox(t), newMemory(t)
	c, _ := b.run(m)
	c.See([]tender.Instance{b.instance()})
	b.id = strings.Repeat("b", 64)
	if err := os.Mkdir(b.dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`{"ID":"%s","Name":"/shop-job-1","Config":{"Labels":{"tender.home":"/var/lib/tender","com.docker.compose.project":"shop","com.docker.compose.service":"job"}}}`, b.id)
	if err := os.WriteFile(filepath.Join(b.dir(), "config.v2.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	b.write(3)
	inOrder(t, m.await(b.id, count(3)), 1, 3)
	if m.labels[b.id].Get("instance") != "shop-job-1" {
		t.Errorf("labels %s", m.labels[b.id])
	}
}

// The daemon starts a part that has ended anew.
func TestACollectorMayRunTwice(t *testing.T) {
	b, m := newBox(t), newMemory(t)
	b.write(10)
	c, end := b.run(m)
	c.See([]tender.Instance{b.instance()})
	m.await(b.id, count(10))
	end()
	b.write(5)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Run(ctx)
	}()
	inOrder(t, m.await(b.id, count(15)), 1, 15)
	cancel()
	<-done
}

// A picture that is older than a container leaves it out. It is back in the next one,
// before what was read of it is durable.
func TestAnInstanceThatIsBackMustNotDouble(t *testing.T) {
	b, m := newBox(t), newMemory(t)
	b.write(10)
	c, end := b.run(m)
	for n := range 3 {
		c.See([]tender.Instance{b.instance()})
		m.await(b.id, count(10+5*n))
		c.See(nil)
		for deadline := time.Now().Add(time.Minute); c.Follows(b.id); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("it is still followed")
			}
		}
		b.write(5)
		if n == 1 {
			b.rotate()
		}
	}
	c.See([]tender.Instance{b.instance()})
	inOrder(t, m.await(b.id, count(25)), 1, 25)
	m.flush() // of what it had when it was left, too: the links of today stay
	b.rotate()
	b.write(5)
	inOrder(t, m.await(b.id, count(30)), 1, 30)
	m.flush()
	end()
	_, _ = b.run(m)
	b.write(5)
	inOrder(t, m.await(b.id, count(35)), 1, 35)
	if len(m.gaps[b.id]) > 0 {
		t.Errorf("gaps %v", m.gaps[b.id])
	}
}

// Lines that one entry is made of may lie in two files.
func TestAnEntryAcrossARotation(t *testing.T) {
	b, m := newBox(t), newMemory(t)
	put := func(text string) {
		f, err := os.OpenFile(b.path(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_, _ = f.WriteString(record(text, "stderr", noon))
	}
	put("Traceback (most recent call last):\n")
	put("  File \"x\"\n")
	b.rotate()
	put("    boom\n")
	put("ValueError: no\n")
	put("next\n")
	c, _ := b.run(m)
	c.See([]tender.Instance{b.instance()})
	rows := m.await(b.id, count(2))
	if want := "Traceback (most recent call last):\n  File \"x\"\n    boom\nValueError: no"; rows[0] != want || rows[1] != "next" {
		t.Errorf("got %q", rows)
	}
}

// The log options labels and env come with each line, and become labels.
func TestTheEnginesAttributesAreLabels(t *testing.T) {
	b, m := newBox(t), newMemory(t)
	line := strings.Replace(record("x\n", "stdout", noon), `,"time"`, `,"attrs":{"a.b":"one","service":"mine"},"time"`, 1)
	if err := os.WriteFile(b.path(), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _ := b.run(m, func(o *Options) {
		o.Settings = func(string, string) (tender.Logs, bool) {
			return tender.Logs{Labels: map[string]string{"tier": "front"}}, true
		}
	})
	c.See([]tender.Instance{b.instance()})
	m.await(b.id, count(1))
	if got, want := m.labels[b.id].String(), `{a_b="one", instance="shop-web-1", node="here", project="shop", revision="abc", service="web", service_label="mine", tier="front"}`; got != want {
		t.Errorf("labels %s, want %s", got, want)
	}
}

// Where the files cannot be read the engine is asked, goes on by time, and nothing
// comes twice.
func TestTheAPIMustNotDouble(t *testing.T) {
	m := newMemory(t)
	b := newBox(t)
	var mu sync.Mutex
	var asked []time.Time
	frame := func(n int) string {
		text := fmt.Sprintf("%s {\"n\":%d}\n", noon.Add(time.Duration(n)*time.Millisecond).Format(time.RFC3339Nano), n)
		return string([]byte{1, 0, 0, 0, 0, 0, 0, byte(len(text))}) + text
	}
	api := func(_ context.Context, _ string, since time.Time) (io.ReadCloser, bool, error) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, since)
		switch len(asked) {
		case 1:
			return io.NopCloser(strings.NewReader(frame(1) + frame(2) + frame(3) + frame(4)[:9])), false, nil
		case 2:
			return io.NopCloser(strings.NewReader(frame(3) + frame(4) + frame(5))), false, nil
		}
		return nil, false, tender.Errorf(tender.NotFound, "gone")
	}
	c, _ := b.run(m, func(o *Options) { o.API = api })
	i := b.instance()
	i.LogDriver = "journald"
	c.See([]tender.Instance{i})
	if s := c.Status(); s.API != 1 || len(s.Lossy) != 1 || !strings.Contains(s.Lossy[0], "its log driver is journald") {
		t.Errorf("status %+v", s)
	}
	c.mu.Lock()
	s := c.streams[i.ID]
	c.mu.Unlock()
	rows := m.await(i.ID, func(r []string) bool { s.nudge(); return len(r) >= 5 })
	inOrder(t, rows, 1, 5)
}
