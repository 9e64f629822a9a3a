package edge

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// logMax is how large a log file gets; the one before it is kept.
const logMax = 5 << 20

// LogFile is a log of bounded size for an edge that nobody listens to. What is
// written past it to standard error, as by a crash, lands in the same file.
type LogFile struct {
	path string

	mu   sync.Mutex
	f    *os.File
	size int64
}

// OpenLog appends to path.
func OpenLog(path string) (*LogFile, error) {
	l := &LogFile{path: path}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return l, nil
}

// open is called with l.mu held, or before anybody writes.
func (l *LogFile) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	if l.f != nil {
		l.f.Close()
	}
	l.f, l.size = f, info.Size()
	return unix.Dup3(int(f.Fd()), int(os.Stderr.Fd()), 0)
}

func (l *LogFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size+int64(len(p)) > logMax && l.size > 0 {
		if err := os.Rename(l.path, l.path+".1"); err == nil {
			if err := l.open(); err != nil {
				return 0, err
			}
		}
	}
	n, err := l.f.Write(p)
	l.size += int64(n)
	return n, err
}
