package edge

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tenderhq/tender/internal/proxy"
)

// AccessDir lies in Config.Dir: a folder for each edge that runs, with its access
// log in it, which it holds locked while it lives. The lines are written as the
// engine's json-file driver does, and rotated so, for who collects logs.
const AccessDir = "access"

// AccessFile is the log in such a folder.
const AccessFile = "access-json.log"

const (
	accessQueue = 8192     // requests that wait to be written
	accessMax   = 10 << 20 // bytes of a file
	accessFiles = 3        // with the current one
	accessBlock = 64 << 10 // bytes written at once
	accessPause = time.Second / 4
	accessText  = 4 << 10  // bytes of what a client wrote: a head may be far longer, and there may be thousands
	accessFree  = 16 << 10 // bytes of a line that is kept for the next one
)

// accessLog writes a line for each request, and never makes one wait: what the
// disk does not take in time is dropped and counted.
type accessLog struct {
	log     *slog.Logger
	path    string
	lock    *os.File
	lines   chan []byte
	free    chan []byte
	dropped atomic.Int64
	f       *os.File
	size    int64
}

func openAccess(dir string, log *slog.Logger) (*accessLog, error) {
	a := &accessLog{log: log, lines: make(chan []byte, accessQueue), free: make(chan []byte, 256)}
	folder := filepath.Join(dir, AccessDir, fmt.Sprintf("%d-%d", time.Now().UnixNano(), os.Getpid()))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("open the access log: %w", err)
	}
	a.path = filepath.Join(folder, AccessFile)
	var err error
	if a.lock, err = os.OpenFile(filepath.Join(folder, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err == nil {
		err = syscall.Flock(int(a.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err == nil {
		a.f, err = os.OpenFile(a.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("open the access log: %w", err)
	}
	return a, nil
}

// add is called by each request at its end.
func (a *accessLog) add(x *proxy.Access) {
	var b []byte
	select {
	case b = <-a.free:
	default:
		b = make([]byte, 0, 1024)
	}
	b = accessLine(b[:0], x)
	select {
	case a.lines <- b:
	default:
		a.dropped.Add(1)
	}
}

// run writes until ctx ends, and then what waits.
func (a *accessLog) run(ctx context.Context) {
	var block []byte
	tick := time.NewTicker(accessPause)
	defer tick.Stop()
	write := func() {
		if len(block) > 0 {
			a.write(block)
			block = block[:0]
		}
	}
	for {
		select {
		case b := <-a.lines:
			block = append(block, b...)
			if cap(b) <= accessFree {
				select {
				case a.free <- b:
				default:
				}
			}
			if len(block) >= accessBlock {
				write()
			}
		case <-tick.C:
			write()
			if n := a.dropped.Swap(0); n > 0 {
				a.log.Warn("requests are missing in the access log: the disk is too slow", "requests", n)
			}
		case <-ctx.Done():
			for {
				select {
				case b := <-a.lines:
					block = append(block, b...)
					continue
				default:
				}
				write()
				a.f.Close()
				a.lock.Close()
				return
			}
		}
	}
}

// write appends whole lines, and begins the next file when this one is full.
func (a *accessLog) write(b []byte) {
	if a.size > 0 && a.size+int64(len(b)) > accessMax {
		for i := accessFiles - 1; i > 1; i-- {
			_ = os.Rename(a.path+"."+strconv.Itoa(i-1), a.path+"."+strconv.Itoa(i)) // the first time there is none
		}
		if a.f != nil {
			a.f.Close()
			a.f = nil
		}
		if os.Rename(a.path, a.path+".1") == nil {
			a.size = 0
		}
	}
	if a.f == nil {
		var err error
		if a.f, err = os.OpenFile(a.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			a.dropped.Add(1)
			return // tried again with the next block
		}
	}
	n, err := a.f.Write(b)
	a.size += int64(n)
	if err != nil {
		a.dropped.Add(1)
	}
}

// accessLine appends a record of the engine's form, with a JSON object in it.
func accessLine(b []byte, x *proxy.Access) []byte {
	b = append(b, `{"log":"{`...)
	text := func(name, value string) {
		if value == "" {
			return
		}
		if len(value) > accessText {
			value = strings.ToValidUTF8(value[:accessText], "") + "…"
		}
		b = append(append(append(b, `\"`...), name...), `\":\"`...)
		b = append(doubly(b, value), `\",`...)
	}
	number := func(name string, value int64) {
		b = append(append(append(b, `\"`...), name...), `\":`...)
		b = append(strconv.AppendInt(b, value, 10), ',')
	}
	level := "info"
	switch {
	case x.Status >= 500 || x.Status == 0:
		level = "error"
	case x.Status >= 400:
		level = "warn"
	}
	text("level", level)
	if x.Client.IsValid() {
		text("client", x.Client.String())
	}
	text("method", x.Method)
	text("host", x.Host)
	text("path", x.URI)
	text("protocol", x.Protocol)
	number("status", int64(x.Status))
	number("bytes_in", int64(x.In))
	number("size", int64(x.Out))
	number("duration_ms", x.Took.Milliseconds())
	text("route", x.Route)
	text("to_project", x.Project)
	text("to_service", x.Aim)
	text("to_instance", x.Target)
	text("to_revision", x.Revision)
	text("referer", x.Referer)
	text("agent", x.Agent)
	b[len(b)-1] = '}'
	b = append(b, `\n","stream":"stdout","time":"`...)
	return append(time.Now().UTC().AppendFormat(b, time.RFC3339Nano), '"', '}', '\n')
}

// doubly appends s as it stands in a JSON string inside of a JSON string.
func doubly(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', '\\', '\\', c)
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\', '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			b = append(b, c)
		}
	}
	return b
}
