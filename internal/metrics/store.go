package metrics

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/compression"
	"golang.org/x/sys/unix"
)

const (
	maxSamples   = 20_000_000 // in memory for one query
	queryTimeout = 2 * time.Minute
	lookback     = 5 * time.Minute

	// How late a sample may be. Clocks differ, and who pushes may try again.
	late = 10 * time.Minute

	flushDeadline = 10 * time.Second // for what is to be sent on, at the end
)

// open opens the store, and again without what is damaged.
func (d *DB) open() error {
	if err := d.damage.blocks(); err != nil {
		return fmt.Errorf("open the store of samples: %w", err)
	}
	undo, err := d.damage.spareWAL()
	if err != nil {
		return fmt.Errorf("open the store of samples: %w", err)
	}
	lost, err := d.damage.mend()
	if err != nil {
		return fmt.Errorf("open the store of samples: %w", err)
	}
	for try := 0; ; try++ {
		err = d.openOnce()
		if err == nil {
			break
		}
		// The next try counts anew, and in a registry that knows nothing yet.
		d.registry, d.bounds = prometheus.NewRegistry(), newBounds(d.o.Limit)
		if try == 1 || !d.damage.head(err) {
			return fmt.Errorf("open the store of samples: %w", err)
		}
	}
	if d.counter("prometheus_tsdb_wal_corruptions_total") > 0 {
		lost = errors.Join(lost, errUnread)
	}
	undo(lost)
	d.reserve.look()
	d.tsdb.DisableCompactions() // Run compacts, where a panic ends nothing else
	d.remote = remote.NewStorage(d.quiet, d.registry, d.tsdb.StartTime, d.o.Dir, flushDeadline, d, false)
	d.tsdb.SetWriteNotified(d.remote)
	d.all = storage.NewFanout(d.quiet, d.tsdb, d.remote)
	return nil
}

func (d *DB) openOnce() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	t := tsdb.DefaultOptions()
	t.RetentionDuration, t.MaxBytes = d.o.Age.Milliseconds(), d.o.Size
	t.WALCompression = compression.Snappy
	t.WALSegmentSize = 32 << 20
	// Maps of series by number, which are dealt out evenly: up to 65,000 there are at most eight in a map,
	// and of so few one is found without hashing. It costs 2 MB when there are few.
	t.StripeSize = 1 << 13
	t.EnableExemplarStorage, t.MaxExemplars = true, 5000
	t.OutOfOrderTimeWindow = late.Milliseconds()
	t.SeriesLifecycleCallback = d.bounds
	t.BlockQuerierFunc = func(b tsdb.BlockReader, from, to int64) (storage.Querier, error) {
		if d.damage.has(b.Meta().ULID.String()) { // until the store looks at its blocks again
			return storage.NoopQuerier(), nil
		}
		return tsdb.NewBlockQuerier(b, from, to)
	}
	t.BlockChunkQuerierFunc = func(b tsdb.BlockReader, from, to int64) (storage.ChunkQuerier, error) {
		if d.damage.has(b.Meta().ULID.String()) {
			return storage.NoopChunkedQuerier(), nil
		}
		return tsdb.NewBlockChunkQuerier(b, from, to)
	}
	var db *tsdb.DB
	t.BlocksToDelete = func(blocks []*tsdb.Block) map[ulid.ULID]struct{} {
		if db == nil { // not open yet
			return nil
		}
		d.reserve.look() // chunks are moved next
		return d.pressed(blocks, tsdb.DefaultBlocksToDelete(db)(blocks))
	}
	db, err = tsdb.Open(d.o.Dir, d.quiet, d.registry, t, nil)
	d.tsdb = db
	return err
}

// pressed adds the oldest block to those that go if the disk is short.
func (d *DB) pressed(blocks []*tsdb.Block, gone map[ulid.ULID]struct{}) map[ulid.ULID]struct{} {
	var s unix.Statfs_t
	if d.o.Free == 0 || len(gone) > 0 || len(blocks) == 0 || unix.Statfs(d.o.Dir, &s) != nil {
		return gone
	}
	free := int64(s.Bavail) * s.Bsize
	if free >= d.o.Free {
		return gone
	}
	oldest := blocks[0]
	for _, b := range blocks {
		if b.MinTime() < oldest.MinTime() {
			oldest = b
		}
	}
	d.log.Warn("samples are removed to keep the disk free", "free", free, "wanted", d.o.Free, "bytes", oldest.Size())
	if gone == nil {
		gone = map[ulid.ULID]struct{}{}
	}
	gone[oldest.Meta().ULID] = struct{}{}
	return gone
}

// Get is for the sender, which asks who scrapes what kinds of series there are.
func (d *DB) Get() (*scrape.Manager, error) {
	if s := d.scraping.Load(); s != nil {
		return s.manager, nil
	}
	return nil, errors.New("nothing is scraped yet")
}

// compact writes what is old enough into blocks, and removes what is too old.
func (d *DB) compact(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			d.log.Error("panic in the store of samples", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return d.tsdb.Compact(ctx)
}
