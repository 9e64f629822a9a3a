package collect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// watcher is the one inotify descriptor for all containers. Folders are watched
// for files that come and go; a log file only while nothing is written to it, and
// then for one event alone: at full speed nobody is told of every line.
type watcher struct {
	file *os.File
	fd   int
	log  *slog.Logger

	mu   sync.Mutex
	told map[int32]func(event) // by watch
}

// event is what happened, and to which name in a folder.
type event struct {
	mask uint32
	name string
}

func newWatcher(log *slog.Logger) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch files: %w", err)
	}
	// Not blocking: the runtime's poller serves it, and Close ends a Read.
	return &watcher{file: os.NewFile(uintptr(fd), "inotify"), fd: fd, log: log, told: map[int32]func(event){}}, nil
}

const (
	watchFolder = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_ONLYDIR
	watchOnce   = unix.IN_MODIFY | unix.IN_ONESHOT
)

// add calls tell for events at path, from the goroutine of run.
func (w *watcher) add(path string, mask uint32, tell func(event)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	wd, err := unix.InotifyAddWatch(w.fd, path, mask)
	if err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	w.told[int32(wd)] = tell
	return nil
}

// once calls tell when something is written to an open file, or when it is there
// no more.
func (w *watcher) once(f *os.File, tell func(event)) error {
	return w.add(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), watchOnce, tell)
}

// run reads events until close.
func (w *watcher) run(overflow func()) {
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				w.log.Error("files are not watched any more, only looked at now and then", "err", err)
			}
			return
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd, mask := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:])
			size := int(binary.NativeEndian.Uint32(b[12:]))
			name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size]), "\x00")
			b = b[unix.SizeofInotifyEvent+size:]
			if mask&unix.IN_Q_OVERFLOW != 0 {
				overflow()
				continue
			}
			w.mu.Lock()
			tell := w.told[wd]
			if mask&unix.IN_IGNORED != 0 {
				delete(w.told, wd)
			}
			w.mu.Unlock()
			if tell != nil {
				tell(event{mask, name})
			}
		}
	}
}

func (w *watcher) close() { w.file.Close() }
