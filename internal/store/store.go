// Package store keeps what people decided and what happened, in one SQLite
// file. It hides SQL, migrations, the lock against a second daemon and what to
// do when the disk is full; the daemon, deploy and vault knock. Each noun has a
// file of its own with its table and the methods of Tx that read and write it.
//
// It never holds what is there now (that is asked of the engine), never a
// secret's plain value, and never a token itself.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tenderhq/tender"
)

// fileName is the database in the data directory.
const fileName = "tender.db"

// Options of Open; the zero value works.
type Options struct {
	Log *slog.Logger // default: none
	// Reserve is how many bytes are set aside for a full disk; default 8 MiB, < 0: none.
	Reserve int64

	migrations []string // tests put shorter and longer lists here
}

// Store is the open file. It is safe for concurrent use: many readers, one
// writer at a time.
type Store struct {
	dir    string
	log    *slog.Logger
	lock   *os.File
	writer *sql.DB
	reader *sql.DB

	reserve reserve
}

// Open opens the store in dir, makes it where there is none, and brings it to
// this binary's schema; before it does so it leaves a copy of the old file.
// Conflict: another process has it. Unavailable: a newer Tender wrote it.
func Open(dir string, o Options) (*Store, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Reserve == 0 {
		o.Reserve = 8 << 20
	}
	if o.migrations == nil {
		o.migrations = migrations
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, log: o.Log, lock: lock, reserve: reserve{path: filepath.Join(dir, "reserve"), size: o.Reserve}}
	if err := s.open(o.migrations); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.reserve.fill(); err != nil {
		s.log.Warn("no room for the reserve of the store", "dir", dir, "error", err)
	}
	return s, nil
}

func (s *Store) open(steps []string) error {
	path := filepath.Join(s.dir, fileName)
	// SQLite gives its journal the mode of the database, so that one is made first.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	// FULL: a generation that was accepted is still there after a power cut.
	s.writer, err = sql.Open("sqlite", dsn(path, "_txlock=immediate", "_pragma=journal_mode(WAL)", "_pragma=synchronous(FULL)"))
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	s.writer.SetMaxOpenConns(1)
	if err := s.check(); err != nil {
		return err
	}
	if err := s.migrate(steps); err != nil {
		return err
	}
	s.reader, err = sql.Open("sqlite", dsn(path, "_txlock=deferred", "_pragma=query_only(1)"))
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	s.reader.SetMaxOpenConns(4)
	s.reader.SetMaxIdleConns(2)
	return nil
}

func dsn(path string, args ...string) string {
	path = strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path)
	args = append(args, "_pragma=busy_timeout(5000)", "_pragma=foreign_keys(1)")
	return "file:" + path + "?" + strings.Join(args, "&")
}

// check reads the whole file once, so that damage is found now and not in the
// middle of a rollout. A store of 10 MB takes about 20 ms.
func (s *Store) check() error {
	var word string
	if err := s.writer.QueryRow("PRAGMA quick_check(1)").Scan(&word); err != nil {
		return s.explain(fmt.Errorf("check store: %w", err))
	}
	if word != "ok" {
		return s.damaged(errors.New(word))
	}
	return nil
}

// Close ends what is open and gives the directory free. Closing again does nothing.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.reader, s.writer} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if err := s.lock.Close(); !errors.Is(err, os.ErrClosed) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Dir is the data directory, as an absolute path.
func (s *Store) Dir() string { return s.dir }

// Tx is one transaction. Nouns add methods to it; it is good until the function
// that got it returns.
type Tx struct{ tx *sql.Tx }

func (tx *Tx) exec(query string, args ...any) (sql.Result, error) { return tx.tx.Exec(query, args...) }

func (tx *Tx) row(query string, args ...any) *sql.Row { return tx.tx.QueryRow(query, args...) }

// View runs read on an unchanging picture of the store. Views do not wait for
// updates.
func (s *Store) View(ctx context.Context, read func(*Tx) error) error {
	tx, err := s.reader.BeginTx(ctx, nil)
	if err != nil {
		return s.explain(fmt.Errorf("read store: %w", err))
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	return s.explain(read(&Tx{tx}))
}

// Update runs write in a transaction that is on disk when Update returns nil,
// and has left no trace when it returns an error. write may run a second time
// when the disk was full and the reserve made room: it must have no effects
// outside of the transaction, and must not call Update itself; a View in it sees
// what was there before.
func (s *Store) Update(ctx context.Context, write func(*Tx) error) error {
	err := s.update(ctx, write)
	if isFull(err) && s.reserve.release() {
		s.log.Error("disk full: the reserve of the store was released", "dir", s.dir)
		err = s.update(ctx, write)
	}
	return s.explain(err)
}

func (s *Store) update(ctx context.Context, write func(*Tx) error) error {
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("write store: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if err := write(&Tx{tx}); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("write store: %w", err)
	}
	return nil
}

// Spare is Unavailable while the reserve is gone because the disk was full:
// what is left is for the record of what happens, not for new generations.
// It sets the reserve aside again as soon as there is room.
func (s *Store) Spare() error {
	if err := s.reserve.fill(); err != nil {
		return tender.Errorf(tender.Unavailable, "the disk that holds %s is full: %w", s.dir, err).
			Hint("make room there (df -h %s), then try again; what runs goes on running", s.dir)
	}
	return nil
}

// stamp and moment are how times lie in the file: nanoseconds since 1970 in
// UTC, 0 for none.
func stamp(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func moment(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// collect runs a query and turns each row into a T.
func collect[T any](tx *Tx, scan func(scan func(...any) error) (T, error), query string, args ...any) ([]T, error) {
	rows, err := tx.tx.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	var out []T
	for rows.Next() {
		v, err := scan(rows.Scan)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}
