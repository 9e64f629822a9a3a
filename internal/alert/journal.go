package alert

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// journal keeps one of Alertmanager's snapshot files: entries with their length
// before them, of which the last for a key holds. Each change is appended before
// whoever made it is answered, where Alertmanager writes all of it every 15 min.
// So a file of Alertmanager's own can be taken over, and given back.
type journal struct {
	path   string
	sync   bool // each change reaches the disk, not the kernel alone
	log    *slog.Logger
	tell   func(error) // what is not kept; nil: it is again
	gather func() ([]byte, error)
	wake   chan struct{}

	mu      sync.Mutex
	file    *os.File
	grown   int64         // bytes since it was written anew
	also    *bytes.Buffer // what is appended while it is
	failing bool
}

// grownMax is after how many bytes of changes it is written anew.
const grownMax = 1 << 20

func newJournal(path string, sync bool, log *slog.Logger, tell func(error)) *journal {
	return &journal{path: path, sync: sync, log: log, tell: tell, wake: make(chan struct{}, 1)}
}

func newReader(b []byte) io.Reader { return bytes.NewReader(b) }

// open reads the file, without an end that was torn off in a write. One that try
// cannot read is set aside and said.
func (j *journal) open(try func([]byte) error) (io.Reader, error) {
	b, err := os.ReadFile(j.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read %s: %w", j.path, err)
	}
	if n := whole(b); n < len(b) {
		j.log.Warn("the end of a file was torn off", "file", j.path, "bytes", len(b)-n)
		b = b[:n]
	}
	if err := try(b); err != nil {
		aside := fmt.Sprintf("%s.damaged-%d", j.path, time.Now().Unix())
		if rerr := os.Rename(j.path, aside); rerr != nil {
			return nil, fmt.Errorf("set the damaged %s aside: %w", j.path, rerr)
		}
		j.tell(fmt.Errorf("it was damaged (%w), lies in %s and begins anew", err, aside))
		b = nil
	}
	if err := replace(j.path, b); err != nil {
		return nil, err
	}
	if j.file, err = os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return nil, fmt.Errorf("open %s: %w", j.path, err)
	}
	return bytes.NewReader(b), nil
}

// whole is the length of all entries that are there to their end.
func whole(b []byte) int {
	n := 0
	for n < len(b) {
		size, head := binary.Uvarint(b[n:])
		if head <= 0 || size > uint64(len(b)-n-head) {
			break
		}
		n += head + int(size)
	}
	return n
}

// append adds a change. It is called under the lock of what changed, so nobody
// sees the change before it is kept.
func (j *journal) append(entry []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.also != nil {
		j.also.Write(entry)
	}
	if j.file == nil {
		return
	}
	_, err := j.file.Write(entry)
	if err == nil && j.sync {
		err = j.file.Sync()
	}
	j.grown += int64(len(entry))
	if err != nil && !j.failing {
		j.failing = true
		go j.tell(fmt.Errorf("it is not kept: %w", err)) // whoever holds our lock may hold the other's
	}
	if err != nil || j.grown > grownMax {
		select {
		case j.wake <- struct{}{}:
		default:
		}
	}
}

// run writes the file anew at times, when it has grown, and soon after a change
// could not be added.
func (j *journal) run(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-j.wake:
		}
		if err := j.compact(); err != nil {
			j.tell(fmt.Errorf("it is not kept: %w", err))
			select {
			case <-ctx.Done():
				return
			case <-time.After(5 * time.Second):
			}
			select {
			case j.wake <- struct{}{}:
			default:
			}
			continue
		}
	}
}

// compact writes only what holds. What changes meanwhile goes to both files.
func (j *journal) compact() error {
	j.mu.Lock()
	also := &bytes.Buffer{}
	j.also = also
	j.mu.Unlock()
	b, err := j.gather()

	j.mu.Lock()
	defer j.mu.Unlock()
	j.also = nil
	if err != nil {
		return fmt.Errorf("gather %s: %w", filepath.Base(j.path), err)
	}
	if err := replace(j.path, append(b, also.Bytes()...)); err != nil {
		return err
	}
	f, err := os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open %s: %w", j.path, err)
	}
	if j.file != nil {
		_ = j.file.Close() // replaced
	}
	j.file, j.grown = f, 0
	if j.failing {
		j.failing = false
		go j.tell(nil)
	}
	return nil
}

func (j *journal) close() error {
	err := j.compact()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file != nil {
		err = errors.Join(err, j.file.Close())
		j.file = nil
	}
	return err
}

// replace writes a file whole or not at all.
func replace(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}
