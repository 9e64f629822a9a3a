package metrics

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	reserveFile  = "reserve"
	reserveBytes = 32 << 20 // of 100,000 series that go on to their next chunk at once
)

// reserve is room on the disk for what the library cannot bear to be refused: it moves chunks from memory
// to files every minute in a goroutine of its own, where a full disk is a panic, and the end of the process.
type reserve struct {
	dir string
	log *slog.Logger

	mu   sync.Mutex
	on   bool
	gone bool // given up, and not taken again yet
}

func newReserve(dir string, log *slog.Logger, on bool) *reserve {
	return &reserve{dir: dir, log: log, on: on}
}

// look gives the room up when there is hardly any other, and takes it again when there is. It is called
// in the goroutine that moves chunks, before it does.
func (r *reserve) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	var s unix.Statfs_t
	if !r.on || unix.Statfs(r.dir, &s) != nil {
		return
	}
	free := int64(s.Bavail) * s.Bsize
	path := filepath.Join(r.dir, reserveFile)
	info, err := os.Stat(path)
	here := err == nil && info.Size() >= reserveBytes
	switch {
	case here && free < reserveBytes/2:
		if err := os.Remove(path); err != nil {
			r.log.Warn("room on the disk that was kept for chunks is not given up", "err", err)
			return
		}
		r.gone = true
		r.log.Error("the disk is full: samples are refused until there is room", "free", free)
	case !here && free >= reserveBytes+reserveBytes/2:
		if err := take(path); errors.Is(err, unix.EOPNOTSUPP) { // nothing can be kept free there
			r.on = false
		} else if err != nil {
			r.log.Warn("no room on the disk is kept for chunks", "err", err)
			return
		}
		r.gone = false
	case !here:
		r.gone = true // until then there may be more chunks than there is room
	default:
		r.gone = false
	}
}

func take(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, reserveBytes), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// full is why nothing is to be written; nil: it can be.
func (r *reserve) full() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return fmt.Errorf("write samples: %w", unix.ENOSPC)
	}
	return nil
}
