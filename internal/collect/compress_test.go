package collect

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

// steps are what the engine does, one after the other, for one rotation with
// compressing: the next one begins only when they are done.
func (b *box) steps() []func() {
	path := b.path()
	do := func(err error) {
		b.t.Helper()
		if err != nil && !os.IsNotExist(err) {
			b.t.Fatal(err)
		}
	}
	name := func(n int) string { return path + "." + strconv.Itoa(n) + ".gz" }
	list := []func(){
		func() { b.write(20) },
		func() { do(os.Remove(name(b.max - 1))) },
	}
	for i := b.max - 1; i > 1; i-- {
		list = append(list, func() { do(os.Rename(name(i-1), name(i))) })
	}
	zip := func(part int) func() {
		return func() {
			raw, err := os.ReadFile(path + ".1")
			do(err)
			var packed bytes.Buffer
			z := gzip.NewWriter(&packed)
			_, _ = z.Write(raw)
			_ = z.Close()
			f, err := os.OpenFile(name(1), os.O_CREATE|os.O_WRONLY, 0o600)
			do(err)
			_, err = f.Write(packed.Bytes()[:packed.Len()*part/2])
			do(err)
			do(f.Close())
		}
	}
	return append(list,
		func() { do(os.Rename(path, path+".1")) },
		func() { b.write(0) },
		zip(0),
		func() { b.write(3) },
		zip(1),
		zip(2),
		func() { do(os.Remove(path + ".1")) },
	)
}

// hand is a collector without anybody who runs: the test says who does what, when.
func (b *box) hand(m *memory) *Collector {
	b.t.Helper()
	c, err := New(Options{Store: m, Dir: filepath.Join(b.root, "tender"), Home: "/var/lib/tender", Node: "here", Local: true})
	if err != nil {
		b.t.Fatal(err)
	}
	m.tell = c.Durable
	if c.watcher != nil {
		b.t.Cleanup(c.watcher.close)
	}
	return c
}

// kill leaves of c what a kill -9 leaves.
func (c *Collector) kill(m *memory) {
	m.crash()
	for _, t := range c.all() {
		for _, f := range t.chain {
			f.f.Close()
		}
	}
	clear(c.tails)
}

// restart begins as New does.
func (c *Collector) restart(m *memory, b *box) {
	m.dead = false
	c.follow(Identity{ID: b.id, Path: b.path(), Project: "shop", Service: "web", Instance: "shop-web-1"})
}

// readAll reads what there is.
func readAll(t testing.TB, c *Collector) {
	t.Helper()
	for _, f := range c.all() {
		for full := true; full; {
			var err error
			if _, full, err = f.drain(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A kill -9 at any step of the engine's, and a start at a later one, twice.
func TestAKillAtAnyStepOfCompressing(t *testing.T) {
	const rotations = 2
	all := len((&box{max: 5}).steps()) * rotations
	first := newBox(t)
	c := first.hand(newMemory(t)) // one for all: to end its watch takes longer than all else
	for kill := 0; kill <= all; kill++ {
		for _, away := range []int{0, 1, 4, 12} {
			start := kill + away
			if start > all {
				continue
			}
			again := start + (all-start)/2
			read := []string{"nothing", "some", "all"}[(kill+away)%3]
			b, m := newBox(t), newMemory(t)
			b.max = 5
			b.write(3)
			var steps []func()
			for range rotations {
				steps = append(steps, b.steps()...)
			}
			m.tell, c.o.Store = c.Durable, m
			c.restart(m, b)
			for i := range all + 1 {
				if i == kill {
					if i%2 == 0 { // else nothing of it is durable
						m.flush()
					}
					c.kill(m)
				}
				if i == start {
					c.restart(m, b)
				}
				if i == again && i > start {
					c.kill(m)
					c.restart(m, b)
				}
				for _, f := range c.all() {
					f.look()
				}
				if read == "all" || read == "some" && i%3 == 0 {
					readAll(t, c)
				}
				if i < all {
					steps[i]()
				}
			}
			for _, f := range c.all() {
				f.look()
			}
			readAll(t, c)
			m.flush()
			c.kill(m)
			t.Run(fmt.Sprintf("read %s, kill at %d, start at %d, again at %d", read, kill, start, again), func(t *testing.T) {
				inOrder(t, m.rows(b.id), 1, b.n)
				if g := m.gaps[b.id]; len(g) > 0 {
					t.Errorf("gaps %v", g)
				}
			})
			if t.Failed() {
				return
			}
			_ = os.RemoveAll(b.root)
		}
	}
}

// A picture that was taken before a container was made says nothing of it: to end
// its tail would take its links away while the engine writes.
func TestAnOldPictureMustNotEndATail(t *testing.T) {
	b, m := newBox(t), newMemory(t)
	b.write(20)
	c := b.hand(m)
	for _, picture := range [][]tender.Instance{{b.instance()}, {{ID: b.id, State: tender.Created}}, {}} {
		c.See(picture)
		for _, f := range c.all() {
			if f.gone {
				t.Errorf("ended by %v", picture)
			}
		}
		if !c.Follows(b.id) {
			t.Errorf("not followed after %v", picture)
		}
	}
}

// One that is not ours for a while, and then again, goes on where it was handed in,
// and what the store says of the end then takes no links away.
func TestAReturnMustGoOnWhereItWas(t *testing.T) {
	b, m := newBox(t), newMemory(t)
	b.zip, b.max = true, 5
	b.write(20)
	var foreign atomic.Bool
	c, end := b.run(m, func(o *Options) {
		o.Settings = func(string, string) (tender.Logs, bool) { return tender.Logs{}, !foreign.Load() }
	})
	c.See([]tender.Instance{b.instance()})
	m.await(b.id, count(20))
	foreign.Store(true)
	c.See([]tender.Instance{b.instance()})
	for deadline := time.Now().Add(time.Minute); len(c.all()) > 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	foreign.Store(false)
	c.See([]tender.Instance{b.instance()})
	m.flush()
	if len(b.links()) != 1 {
		t.Errorf("links %v", b.links())
	}
	b.write(20)
	inOrder(t, m.await(b.id, count(40)), 1, 40)
	m.crash()
	end()
	b.rotate()
	b.write(20)
	_, _ = b.run(m)
	inOrder(t, m.await(b.id, count(b.n)), 1, b.n)
	if len(m.gaps[b.id]) > 0 {
		t.Errorf("gaps %v", m.gaps[b.id])
	}
}

// The file that is stored last may have no link: its rest is in what the engine made of it.
func TestTheRestOfACompressedFileMustBeRead(t *testing.T) {
	b, m := newBox(t), newMemory(t)
	b.zip = true
	b.write(20)
	c, end := b.run(m)
	c.See([]tender.Instance{b.instance()})
	m.await(b.id, count(20))
	m.flush()
	end()
	if err := os.RemoveAll(filepath.Join(b.root, "tender-logs")); err != nil {
		t.Fatal(err)
	}
	b.write(20)
	b.rotate()
	b.write(20)
	c, _ = b.run(m)
	c.See([]tender.Instance{b.instance()})
	inOrder(t, m.await(b.id, count(b.n)), 1, b.n)
	if len(m.gaps[b.id]) > 0 {
		t.Errorf("gaps %v", m.gaps[b.id])
	}
}

// A container that is followed late has many files to unpack, and the watch of its
// folder is set already: who was told of the next file meanwhile began as well, and the
// current file came to lie between old ones.
func TestAFileThatComesWhileATailBeginsMustWait(t *testing.T) {
	b, m := newBox(t), newMemory(t)
	b.zip, b.max = true, 40
	for range 12 {
		b.write(2000)
		b.rotate()
	}
	c, end := b.run(m)
	seen := make(chan struct{})
	go func() {
		defer close(seen)
		c.See([]tender.Instance{b.instance()})
	}()
	for range 20 { // the engine keeps them all
		b.write(20)
		b.rotate()
	}
	<-seen
	b.write(20)
	m.crash() // what it began with shows in what it left
	end()
	_, _ = b.run(m)
	inOrder(t, m.await(b.id, count(b.n)), 1, b.n)
	if len(m.gaps[b.id]) > 0 {
		t.Errorf("gaps %v", m.gaps[b.id])
	}
}

// The engine was killed while it compressed, or the disk has a bad place: the whole file was
// lost. What is before the damage is kept, and what is missing is said.
func TestADamagedFileIsReadUpToTheDamage(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(*os.File, int64) error
		known  bool // how many bytes are missing
		whole  bool // nothing can be read
	}{
		"torn": {damage: func(f *os.File, size int64) error { return f.Truncate(size / 2) }},
		"bad": {damage: func(f *os.File, size int64) error {
			_, err := f.WriteAt(bytes.Repeat([]byte{0xff}, 512), size/2)
			return err
		}, known: true},
		"headless": {damage: func(f *os.File, _ int64) error { _, err := f.WriteAt(make([]byte, 512), 0); return err }, whole: true},
	} {
		t.Run(name, func(t *testing.T) {
			b, m := newBox(t), newMemory(t)
			b.zip, b.max = true, 5
			b.write(20)
			c2, end := b.run(m)
			c2.See([]tender.Instance{b.instance()})
			m.await(b.id, count(20))
			m.flush()
			end()
			b.rotate()
			b.write(4000)
			plain, err := os.Stat(b.path())
			if err != nil {
				t.Fatal(err)
			}
			b.rotate()
			b.write(20)
			f, err := os.OpenFile(b.path()+".1.gz", os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			st, err := f.Stat()
			if err == nil {
				err = c.damage(f, st.Size())
			}
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
			_, _ = b.run(m)
			rows := m.await(b.id, func(rows []string) bool { return slices.Contains(rows, fmt.Sprintf(`{"n":%d}`, b.n)) })
			torn := len(rows) - 20
			inOrder(t, rows[:torn], 1, torn)
			inOrder(t, rows[torn:], b.n-19, b.n)
			if c.whole != (torn == 20) || torn >= 4020 {
				t.Errorf("%d rows of the damaged file are kept", torn-20)
			}
			want := int64(-1)
			if c.known {
				want = plain.Size()
				for n := 21; n <= torn; n++ {
					want -= int64(len(record(fmt.Sprintf(`{"n":%d}`+"\n", n), "stdout", noon.Add(time.Duration(n)))))
				}
			}
			if got := m.gaps[b.id]; len(got) != 1 || got[0] != want {
				t.Errorf("gaps %v, want %d", got, want)
			}
		})
	}
}

// undertaker removes a container the moment that another one is looked up.
type undertaker struct {
	*memory
	first, other string
	once         sync.Once
	t            *testing.T
}

func (u *undertaker) Last(source string) (logs.Place, bool) {
	if source == u.first {
		u.once.Do(func() {
			if err := os.RemoveAll(u.other); err != nil {
				u.t.Error(err)
			}
		})
	}
	return u.memory.Last(source)
}

// While the files of the first container of a picture are unpacked the others may be
// removed: nothing of them was open, and all of it was lost.
func TestAContainerRemovedBehindAnotherMustBeRead(t *testing.T) {
	one, m := newBox(t), newMemory(t)
	two := &box{t: t, root: one.root, id: strings.Repeat("b", 64), max: 5, zip: true}
	if err := os.MkdirAll(two.dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	one.write(20)
	for range 3 {
		two.write(20)
		two.rotate()
	}
	two.write(20)
	c, _ := one.run(m, func(o *Options) { o.Store = &undertaker{memory: m, first: one.id, other: two.dir(), t: t} })
	c.See([]tender.Instance{one.instance(), two.instance()})
	inOrder(t, m.await(one.id, count(20)), 1, 20)
	inOrder(t, m.await(two.id, count(80)), 1, 80)
	if len(m.gaps) > 0 {
		t.Errorf("gaps %v", m.gaps)
	}
}
