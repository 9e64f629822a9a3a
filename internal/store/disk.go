package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tenderhq/tender"
)

// lockDir takes the directory for this process. The kernel gives it free when
// the process ends, however it ends.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock store: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close() //nolint:errcheck // read only from here on
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock store %s: %w", path, err)
		}
		holder, _ := os.ReadFile(path)
		pid := strings.TrimSpace(string(holder))
		if pid == "" {
			pid = "unknown"
		}
		return nil, tender.Errorf(tender.Conflict, "another Tender (process %s) already uses %s", pid, dir).
			Hint("use that one, stop it first (kill %s), or give this one another --data-dir", pid)
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		return nil, errors.Join(fmt.Errorf("lock store %s: %w", path, err), f.Close())
	}
	return f, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// reserve is a file that takes up room until the disk is full.
type reserve struct {
	path string
	size int64

	mu   sync.Mutex
	held bool
}

// fill sets the room aside, if that has not been done.
func (r *reserve) fill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held || r.size <= 0 {
		return nil
	}
	f, err := os.OpenFile(r.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, r.size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		// Some file systems cannot: real bytes take up room everywhere.
		_, err = f.WriteAt(make([]byte, r.size), 0)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(r.path))
	}
	r.held = true
	return nil
}

// release gives the room free and reports whether there was any.
func (r *reserve) release() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.held {
		return false
	}
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	r.held = false
	return true
}

// code returns SQLite's primary result code of err, 0 if it has none.
func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

func isFull(err error) bool {
	return code(err) == sqlite3.SQLITE_FULL || err != nil && errors.Is(err, unix.ENOSPC)
}

// explain turns what SQLite says into what to do about it.
func (s *Store) explain(err error) error {
	switch code(err) {
	case sqlite3.SQLITE_FULL:
		return tender.Errorf(tender.Unavailable, "the disk that holds %s is full: %w", s.dir, err).
			Hint("make room there (df -h %s), then try again; what runs goes on running", s.dir)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return s.damaged(err)
	}
	return err
}

func (s *Store) damaged(err error) error {
	path := filepath.Join(s.dir, fileName)
	hint := fmt.Sprintf("containers run on. Put back a backup of %s, or move the file away (mv %s %s.damaged), start tender serve, set the secrets again and run tender up for each project",
		s.dir, path, path)
	if c := s.copies(); len(c) > 0 {
		hint = fmt.Sprintf("containers run on. Put back a backup of %s, or the copy made at the last upgrade: stop tender serve, mv %s %s.damaged, rm -f %s-wal %s-shm, cp %s %s",
			s.dir, path, path, path, path, c[len(c)-1].path, path)
	}
	return tender.Errorf(tender.Internal, "the store %s is damaged: %w", path, err).Hint("%s", hint)
}
