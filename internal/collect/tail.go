package collect

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenderhq/tender/internal/logs"
)

const (
	firstBlock = 256 << 10
	// maxBlock holds the longest entry with what the other stream says meanwhile.
	maxBlock = 8 << 20

	poll    = 100 * time.Millisecond // while lines come
	quiet   = 500 * time.Millisecond // without one: from then on an event tells
	careful = 10 * time.Second       // a look without any event, in case one was lost
	unaided = time.Second            // a look where files cannot be watched

	turn = 32 // reads of a block, then others have theirs

	// An entry that the next line may go on with is ended after joined without one,
	// a line that the engine cut after parted.
	joined = 250 * time.Millisecond
	parted = 5 * time.Second
)

// tail follows one container. The watcher opens each new file the moment it is
// there; the reader may be as far behind as it likes.
type tail struct {
	c     *Collector
	id    string
	is    atomic.Pointer[Identity]
	dir   string // the container's
	base  string
	spool spool
	wake  chan struct{}

	mu       sync.Mutex
	begun    bool    // before that nobody but begin looks
	chain    []*file // what is to be read, the oldest first
	newest   uint64  // inode of the newest file that was ever in it
	seq      uint64
	heads    []uint64      // how the files began that have a successor, the last ones
	gone     bool          // nothing will be written any more
	ended    bool          // all is read and handed in
	handed   logs.Place    // up to which all is handed in or dropped; without a hash
	released atomic.Uint64 // links before this file are gone
	// labels and parser change together, between two batches.
	labels logs.Labels
	parser *parser

	// Only the reader has these.
	off   int64
	place logs.Place
	saved []byte // read and not yet handed in, with where it is from
	segs  []seg
	parts bool // saved begins a line that the engine cut
	goes  [2]verdict
	attrs string
	full  logs.Labels // with those of attrs
}

// seg says which file the block's bytes from at on are from.
type seg struct {
	at   int
	file *file
	off  int64
}

// begin opens what there is to read, the spooled files first, and finds the place
// from which to go on. held are files that were opened before, for the case that the
// container has gone since. Errors: the files cannot be read; then nobody reads this tail.
func (t *tail) begin(last logs.Place, known bool, held []*rotated) error {
	// The folder is watched already: who is told of a new file waits.
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := os.MkdirAll(t.spool.dir, 0o700); err != nil {
		release(held)
		return fmt.Errorf("make the spool: %w", err)
	}
	list, gone, err := rotations(t.dir, t.base)
	if gone {
		list = held
	} else {
		release(held)
	}
	if err != nil {
		return err
	}
	t.gone = gone
	defer closePacked(slices.Clone(list))
	kept := t.spool.open()
	recognize(list, kept, last, known)
	if !hasCurrent(list) {
		// The engine is removing the container, or between two files: what is there and not known says nothing.
		list = slices.DeleteFunc(list, func(r *rotated) bool {
			if r.seq == 0 && r.file != nil {
				r.file.f.Close()
			}
			return r.seq == 0
		})
	}

	chain := kept
	if len(kept) > 0 {
		t.newest = kept[len(kept)-1].ino
	}
	newest := -1 // the newest file that was seen before
	for i, r := range list {
		if r.seq > 0 {
			newest = i
		}
	}
	t.seq = last.Seq
	for _, f := range kept {
		t.seq = max(t.seq, f.seq)
	}
	// The last file we knew is not there: others may have come and gone.
	var lost int64
	if newest < 0 && (known || len(kept) > 0) {
		lost = -1
	}
	for i, r := range list {
		inSpool := slices.ContainsFunc(kept, func(f *file) bool { return r.seq > 0 && f.seq == r.seq })
		if inSpool || r.seq == 0 && i < newest { // or stored long ago
			t.remember(r.head(headSize))
			if r.file != nil {
				r.file.f.Close()
			}
		} else {
			// New, or the one that is stored last and not in the spool: it may go on where that ends.
			seq := cmp.Or(r.seq, t.seq+1)
			missing := int64(0)
			if r.zip && !t.unpack(r, seq, &missing) {
				lost = -1
				continue
			}
			r.file.seq, t.seq = seq, max(t.seq, seq)
			if r.seq == 0 {
				r.file.gap, lost = lost, 0
			}
			lost = plus(lost, missing)
			chain = append(chain, r.file)
		}
		if r.file != nil {
			t.newest = r.file.ino
		}
	}
	slices.SortStableFunc(chain, func(a, b *file) int { return int(int64(a.seq) - int64(b.seq)) })
	t.place = last
	t.start(chain, last, known)
	for _, f := range t.chain {
		if err := t.spool.link(f); err != nil {
			t.c.spoolTrouble(err)
		}
	}
	if len(t.chain) > 0 {
		t.off = t.chain[0].start
	}
	t.begun = true
	return nil
}

// recognize finds which of a container's files were seen before: those that the
// spool holds, by their inode, or by their beginning where the engine has
// compressed them; and the one that is stored last.
func recognize(list []*rotated, kept []*file, last logs.Place, known bool) {
	for _, r := range list {
		for _, f := range kept {
			if r.file != nil && r.file.dev == f.dev && r.file.ino == f.ino {
				r.seq = max(r.seq, f.seq) // one that was truncated in place has several
			}
			if r.zip && r.twin(f) {
				r.seq = f.seq
			}
		}
		if r.seq > 0 || !known || last.HeadSize == 0 {
			continue
		}
		head, k := r.head(last.HeadSize)
		if k == last.HeadSize && head == last.Head && !slices.ContainsFunc(kept, func(f *file) bool { return f.seq == last.Seq }) {
			r.seq = last.Seq
		}
	}
}

// start keeps of chain what is not yet stored.
func (t *tail) start(chain []*file, last logs.Place, known bool) {
	for len(chain) > 0 && known && chain[0].seq < last.Seq {
		chain[0].f.Close()
		chain = chain[1:]
	}
	if len(chain) > 0 && known {
		f := chain[0]
		switch {
		case f.seq > last.Seq:
			if f.gap == 0 {
				f.gap = -1
			}
		case !f.begins(last): // truncated in place
			t.again(f, 0, -1)
		case f.size() < last.Offset:
			// The machine went down before the engine's bytes were on the disk; ours were. What comes is new.
			t.again(f, f.size(), 0)
		default:
			f.start = last.Offset
		}
	}
	t.chain = chain
}

// again gives a file whose bytes are not those any more that they were another
// number, so that their places differ.
func (t *tail) again(f *file, start, gap int64) {
	t.seq++
	f.seq, f.start, f.gap, f.linked = t.seq, start, gap, false
	f.head, f.headSize = 0, 0
}

// look opens what has come since. It is called by the watcher and by the reader.
func (t *tail) look() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone || !t.begun {
		return
	}
	current := inodeOf(filepath.Join(t.dir, t.base))
	if current == 0 && dirThere(t.dir) || current == t.newest && current != 0 {
		return // between two files, or in the middle of a removal; or nothing new
	}
	list, gone, err := rotations(t.dir, t.base)
	if gone {
		t.gone = true
		return
	}
	if err != nil {
		t.c.log.Warn("a log's folder cannot be read", "instance", t.is.Load().Instance, "err", err)
		return
	}
	defer closePacked(list)
	if !hasCurrent(list) {
		closeAll(list)
		return
	}
	from := slices.IndexFunc(list, func(r *rotated) bool { return r.file != nil && r.file.ino == t.newest }) + 1
	if from == 0 && len(t.chain) > 0 { // the engine may have compressed it meanwhile
		f := t.chain[len(t.chain)-1]
		from = slices.IndexFunc(list, func(r *rotated) bool { return r.zip && r.twin(f) }) + 1
	}
	var lost int64
	if from == 0 && t.newest != 0 {
		lost = -1
	}
	for i, r := range list {
		if i < from || from == 0 && t.had(r) {
			if r.file != nil {
				r.file.f.Close()
			}
			continue
		}
		missing := int64(0)
		if r.zip && !t.unpack(r, t.seq+1, &missing) {
			lost = -1
			continue
		}
		if n := len(t.chain); n > 0 {
			t.remember(headOf(t.chain[n-1].f, headSize))
		}
		t.seq++
		r.file.seq = t.seq
		r.file.gap, lost = lost, missing
		if err := t.spool.link(r.file); err != nil {
			t.c.spoolTrouble(err)
		}
		t.chain = append(t.chain, r.file)
		t.newest = r.file.ino
	}
	t.bound()
}

// unpack opens what a compressed file holds, and says what is missing behind it. false:
// there is nothing to read in it.
func (t *tail) unpack(r *rotated, seq uint64, missing *int64) bool {
	f, rest, err := t.spool.unpack(r, seq)
	if err != nil {
		t.c.log.Warn("a rotated log file cannot be read", "instance", t.is.Load().Instance, "err", err)
		return false
	}
	if rest != 0 {
		t.c.log.Warn("a rotated log file is damaged: what is before the damage is read", "instance", t.is.Load().Instance, "bytes", f.size())
	}
	r.file, *missing = f, rest
	return true
}

// plus adds what was lost; -1 is some.
func plus(a, b int64) int64 {
	if a < 0 || b < 0 {
		return -1
	}
	return a + b
}

// remember notes the beginning of a file that has a successor.
func (t *tail) remember(head uint64, n int) {
	const most = 64
	if n == headSize {
		t.heads = append(t.heads, head)
		t.heads = t.heads[max(0, len(t.heads)-most):]
	}
}

// had reports whether a file was in the chain before: one that is found when the
// newest is not there any more, because the container is being removed.
func (t *tail) had(r *rotated) bool {
	head, n := r.head(headSize)
	return n == headSize && slices.Contains(t.heads, head)
}

// bound gives the oldest files up that wait to be read, where the store takes them
// so slowly that they would fill the disk. It needs t.mu.
func (t *tail) bound() {
	var waiting int64
	for _, f := range t.chain {
		waiting += f.size()
	}
	// The first is being read, the last is the engine's own.
	for len(t.chain) > 3 && waiting > t.c.o.MaxSpool {
		f, next := t.chain[1], t.chain[2]
		n := f.size()
		waiting -= n
		if next.gap >= 0 && f.gap >= 0 {
			next.gap += f.gap + n - f.start
		}
		if next.gap == 0 {
			next.gap = -1
		}
		f.seal()
		_ = os.Remove(t.spool.path(f)) // what stays is released later
		t.chain = slices.Delete(t.chain, 1, 2)
	}
}

func (t *tail) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// run reads until ctx ends, or until there is nothing more to come.
func (t *tail) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	t.publish()
	seen := time.Now()
	for ctx.Err() == nil {
		got, full, err := t.drain(ctx)
		if err != nil {
			if ctx.Err() == nil {
				t.c.log.Error("a log is not read any further", "instance", t.is.Load().Instance, "err", err)
				select {
				case <-ctx.Done():
				case <-time.After(unaided): // and then from where it was
				}
				continue
			}
			return
		}
		now := time.Now()
		if got {
			seen = now
		}
		if full {
			continue // others may have had their turn
		}
		t.mu.Lock()
		gone := t.gone
		t.mu.Unlock()
		patience := joined
		if t.parts {
			patience = parted
		}
		if len(t.saved) > 0 && (gone || now.Sub(seen) >= patience) {
			if err := t.finish(ctx); err != nil && ctx.Err() == nil {
				t.c.log.Error("the end of a log is not stored", "instance", t.is.Load().Instance, "err", err)
				select {
				case <-ctx.Done():
				case <-time.After(unaided):
				}
			}
			continue
		}
		if gone {
			if t.over() {
				return
			}
			continue
		}
		wait := poll
		if now.Sub(seen) >= quiet && len(t.saved) == 0 {
			if t.sleepy() {
				continue // something came while the watch was set
			}
			wait = careful
			if !t.armed() {
				wait = unaided
			}
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-t.wake:
		case <-timer.C:
			if wait >= unaided {
				t.look()
			}
		}
	}
}

// over marks the end of a log of which all is handed in. It looks once more first.
func (t *tail) over() bool {
	t.mu.Lock()
	if len(t.chain) > 1 || len(t.chain) == 1 && t.chain[0].size() > t.off {
		t.mu.Unlock()
		return false
	}
	t.ended = true
	for _, f := range t.chain {
		f.f.Close()
	}
	t.chain = nil
	t.mu.Unlock()
	t.c.over(t)
	return true
}

// sleepy sets a watch on the current file, and reports whether there is something
// to read after all.
func (t *tail) sleepy() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.chain) == 0 {
		return false
	}
	f := t.chain[len(t.chain)-1]
	if w := t.c.watcher; w != nil {
		if err := w.once(f.f, func(event) { t.nudge() }); err != nil {
			t.c.unwatchable(err)
		}
	}
	return len(t.chain) > 1 || f.size() != t.off
}

func (t *tail) armed() bool { return t.c.watcher != nil && !t.c.unwatched.Load() }
