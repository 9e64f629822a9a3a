package logs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tenderhq/tender"
)

// Store keeps logs in a folder of its own.
//
// Rows wait in the buffer of their source, at most FlushAfter long or until they
// make a block. A block is written to the live segment, with the next number, and
// is durable after the next sync. What nobody writes any more is merged and retired
// by Run.
type Store struct {
	o     Options
	log   *slog.Logger
	dir   string
	lock  *os.File
	files files

	presses   chan *press    // as many as may be in use
	unpackers chan *unpacker // those that are free
	ahead     chan struct{}  // has one for each goroutine that a Scan has beside its caller's

	unflushed atomic.Int64     // bytes in buffers
	spares    atomic.Int32     // builders that are held
	upkeep    sync.Mutex       // one merges or retires at a time
	short     bool             // of the disk, and it was said; guarded by upkeep
	late      map[*entry]int64 // gone without marks for their sources, which are owed; guarded by upkeep

	// mu is taken after buffer.order and before buffer.mu.
	mu       sync.RWMutex
	buffers  map[string]*buffer
	streams  map[string]*stream
	sources  map[string]string // one copy of each name
	segs     []*segment        // in the order of from
	last     map[string]mark   // durable, by source
	unsynced []mark            // written, in order
	told     []mark            // durable, and Durable is to be called
	telling  bool              // somebody does
	durable  uint64            // number of the last durable block
	written  uint64            // number of the last block
	grown    chan struct{}
	follows  map[*follower]struct{}
	watchers []func([]Gone)
	closed   bool
	failing  error // why the last write went wrong
	stats    Stats

	// write is taken after buffer.order, never under mu.
	write   sync.Mutex
	live    *segment
	liveF   *os.File
	rolled  []*os.File // synced, to be closed by sync
	nextSeg uint64
	number  uint64 // of the last block
	broken  error  // a sync failed: what is on disk is known only after a new Open

	syncing sync.Mutex   // taken before write
	freeNow func() int64 // for tests; nil: asks the disk
	room    chan struct{}
	freed   sync.Mutex // guards room
}

// mark is how far a source is on disk.
type mark struct {
	source string
	to     Place
	number uint64 // of the block that says so
}

// stream is what all rows with the same labels share.
type stream struct {
	key              string
	labels, out, err Labels // out and err with "stream"
	project, service string
}

func newStream(labels Labels) *stream {
	labels = cloneLabels(labels)
	st := &stream{key: streamKey(labels), labels: labels, project: labels.Get("project"), service: labels.Get("service")}
	st.out, st.err = withStream(labels, "stdout"), withStream(labels, "stderr")
	return st
}

func (o Options) filled(dir string) Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.FlushAfter <= 0 {
		o.FlushAfter = 2 * time.Second
	}
	if o.MaxRows <= 0 {
		o.MaxRows = 32768
	}
	o.MaxRows = min(o.MaxRows, maxRowsRead/4)
	if o.MaxBytes <= 0 {
		o.MaxBytes = 8 << 20
	}
	o.MaxBytes = min(o.MaxBytes, maxSection/2)
	if o.Retention.Age <= 0 {
		o.Retention.Age = 14 * 24 * time.Hour
	}
	if o.Retention.Size <= 0 {
		o.Retention.Size = 20 << 30
	}
	if o.FreeBytes == 0 {
		o.FreeBytes = 1 << 30
		var fs syscall.Statfs_t
		if syscall.Statfs(dir, &fs) == nil {
			o.FreeBytes = min(o.FreeBytes, int64(fs.Blocks/20)*fs.Bsize)
		}
	}
	return o
}

// Open opens the store in dir, and makes it if it is not there. It recovers from
// whatever end the last process had: a torn end is cut off, a damaged block passed
// over and counted. A second Open of one folder is refused.
func Open(dir string, o Options) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open logs: %w", err)
	}
	o = o.filled(dir)
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open logs: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, tender.Errorf(tender.Conflict, "the logs in %s are open in another process", dir).
				Hint("stop the other tender serve, or give this one a data directory of its own")
		}
		return nil, fmt.Errorf("open logs: lock: %w", err)
	}
	s := &Store{
		o: o, log: o.Log, dir: dir, lock: lock,
		presses: make(chan *press, 2), unpackers: make(chan *unpacker, 2),
		ahead:   make(chan struct{}, runtime.GOMAXPROCS(0)-1),
		buffers: map[string]*buffer{}, streams: map[string]*stream{}, sources: map[string]string{},
		last: map[string]mark{}, grown: make(chan struct{}), follows: map[*follower]struct{}{},
		room: make(chan struct{}), nextSeg: 1,
	}
	for range cap(s.presses) {
		p, err := newPress()
		if err != nil {
			return nil, errors.Join(err, lock.Close())
		}
		s.presses <- p
	}
	if err := s.recover(); err != nil {
		s.files.closeAll()
		return nil, errors.Join(fmt.Errorf("open logs: %w", err), lock.Close())
	}
	return s, nil
}

// unpacker returns one that is free; give it back.
func (s *Store) unpacker() (*unpacker, error) {
	select {
	case u := <-s.unpackers:
		return u, nil
	default:
		return newUnpacker()
	}
}

func (s *Store) giveBack(u *unpacker) {
	u.shrink()
	select {
	case s.unpackers <- u:
	default:
		u.zstd.Close()
	}
}

// recover reads what is on disk.
func (s *Store) recover() error {
	segs, leftover, err := findSegments(s.dir)
	if err != nil {
		return err
	}
	for _, path := range leftover {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	u, err := s.unpacker()
	if err != nil {
		return err
	}
	defer s.giveBack(u)
	// A kill between the making of a segment and its header leaves less than one.
	if n := len(segs); n > 0 {
		if info, err := os.Stat(segs[n-1].path); err != nil {
			return err
		} else if info.Size() < segmentHeader {
			s.nextSeg = segs[n-1].to + 1
			if err := os.Remove(segs[n-1].path); err != nil {
				return err
			}
			segs = segs[:n-1]
		}
	}
	for _, seg := range segs {
		seg.files = &s.files
		s.nextSeg = max(s.nextSeg, seg.to+1)
		if err := s.load(seg); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(seg.path), err)
		}
	}
	if err := s.cut(segs, u); err != nil {
		return err
	}
	s.segs = segs
	for _, seg := range segs {
		if seg.base > 0 {
			s.number = max(s.number, seg.base-1)
		}
		for _, e := range seg.blocks {
			s.adopt(e)
			s.number = max(s.number, e.head.last)
			if e.source == "" {
				continue
			}
			if m, ok := s.last[e.source]; !ok || m.number < e.head.last {
				s.last[e.source] = mark{e.source, e.to, e.head.last}
			}
		}
	}
	s.durable, s.written = s.number, s.number
	return nil
}

func (s *Store) load(seg *segment) error {
	f, err := os.Open(seg.path)
	if err != nil {
		return err
	}
	err = seg.load(f, func(off, size int64, reason string) {
		s.stats.Damaged++
		s.log.Error("logs are damaged", "file", seg.path, "offset", off, "bytes", size, "reason", reason)
	})
	return errors.Join(err, f.Close())
}

// adopt shares what many blocks have in common.
func (s *Store) adopt(e *entry) {
	key := streamKey(e.labels)
	st, ok := s.streams[key]
	if !ok {
		st = newStream(e.labels)
		s.streams[key] = st
	}
	e.stream, e.labels = st, nil
	name, ok := s.sources[e.source]
	if !ok {
		name = e.source
		s.sources[name] = name
	}
	e.source = name
}

// cut ends the newest segment before the first block that is not there whole. All
// before that segment was synced when it was made, and blocks say how far it was
// itself when they were written: up to there what is missing was damaged later, and
// what follows it is good. Behind, a power cut may have kept a block and lost the one
// before it, so nothing more is taken.
func (s *Store) cut(segs []*segment, u *unpacker) error {
	if len(segs) == 0 {
		return nil
	}
	seg := segs[len(segs)-1]
	if seg.from != seg.to || seg.take != 0 {
		return nil // was synced before it got its name
	}
	synced := uint64(0)
	if seg.base > 0 {
		synced = seg.base - 1
	}
	for _, e := range seg.blocks {
		synced = max(synced, e.synced)
	}
	f, err := os.OpenFile(seg.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	good, number := int64(segmentHeader), synced
	for k, e := range seg.blocks {
		torn := e.first > number+1
		if e.first > synced && !torn {
			err := verify(f, e.off, &e.head, u)
			var d *damage
			if torn = errors.As(err, &d); err != nil && !torn {
				return errors.Join(err, f.Close())
			}
		}
		if torn {
			seg.blocks = seg.blocks[:k]
			break
		}
		good, number = e.off+e.head.size, max(number, e.head.last)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if rest := info.Size() - good; rest > 0 {
		s.stats.Torn += rest
		s.log.Warn("cut the torn end of the logs", "file", seg.path, "bytes", rest)
		err = f.Truncate(good)
	}
	seg.size = good
	// What a kill left in the page cache is about to be promised.
	return errors.Join(err, f.Sync(), f.Close())
}

// Stats returns the numbers of the store.
func (s *Store) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := s.stats
	st.Unflushed = s.unflushed.Load()
	st.Segments = len(s.segs)
	st.Newest = Cursor{s.durable}
	used, oldest := map[*stream]bool{}, int64(math.MaxInt64)
	for _, seg := range s.segs {
		st.Bytes += seg.size
		for _, e := range seg.blocks {
			if e.rows == 0 {
				continue
			}
			st.Blocks++
			st.Rows += int64(e.rows)
			used[e.stream] = true
			oldest = min(oldest, e.min)
		}
	}
	st.Streams = len(used)
	if st.Rows > 0 {
		st.Oldest = time.Unix(0, oldest).UTC()
	}
	if s.failing != nil {
		st.Failing = s.failing.Error()
	}
	return st
}

// Last returns the place up to which all of a source is on disk.
func (s *Store) Last(source string) (Place, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	m, ok := s.last[source]
	return m.to, ok
}

// Grown returns a channel that is closed when the next block becomes durable. Take
// it before Read, so that nothing falls between the two.
func (s *Store) Grown() <-chan struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.grown
}

// Run flushes, merges and retires until ctx ends; then it writes what is in memory
// and closes the store.
func (s *Store) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var keeper sync.WaitGroup
	keeper.Go(func() { s.keep(ctx) })
	tick := time.NewTicker(s.o.FlushAfter)
	defer tick.Stop()
	var err error
	for err == nil {
		select {
		case <-ctx.Done():
			cancel()
			keeper.Wait()
			return s.Close()
		case <-tick.C:
			// A full disk shows in Stats, and in Append waiting; only a broken store ends.
			if ferr := s.Flush(ctx); ferr != nil {
				s.write.Lock()
				err = s.broken
				s.write.Unlock()
			}
		}
	}
	cancel()
	keeper.Wait()
	return errors.Join(err, s.Close())
}

// keep merges and retires.
func (s *Store) keep(ctx context.Context) {
	tick := time.NewTicker(max(10*time.Second, s.o.FlushAfter))
	defer tick.Stop()
	for n := 0; ; n++ {
		if n%6 == 0 {
			if err := s.retire(time.Now()); err != nil {
				s.log.Error("retire logs", "error", err)
			}
		}
		if err := s.merge(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("merge logs", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Close writes what is in memory and closes the store. Run does it by itself.
func (s *Store) Close() error {
	s.upkeep.Lock()
	defer s.upkeep.Unlock()
	s.mu.Lock()
	already := s.closed
	s.closed = true // nothing more is taken in
	follows := slices.Collect(maps.Keys(s.follows))
	s.mu.Unlock()
	if already {
		return nil
	}
	for _, f := range follows {
		f.end()
	}
	err := s.Flush(context.Background())
	s.write.Lock()
	defer s.write.Unlock()
	s.broken = errClosed
	for _, f := range s.rolled {
		_ = f.Close() // it is synced
	}
	if s.liveF != nil {
		err = errors.Join(err, s.liveF.Close())
	}
	s.live, s.liveF, s.rolled = nil, nil, nil
	s.files.closeAll()
	for {
		select {
		case u := <-s.unpackers:
			u.zstd.Close()
		default:
			return errors.Join(err, s.lock.Close())
		}
	}
}
