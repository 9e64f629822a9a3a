package metrics

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"golang.org/x/sys/unix"
)

const (
	damagedDir = "damaged"
	reasonFile = "reason.txt"
	maxDamaged = 16 // the oldest go, so that damage does not fill the disk
)

// damage sets aside what cannot be read, so that the rest can be.
type damage struct {
	dir string // of the store
	log *slog.Logger

	looking sync.Mutex // the last to look knows the most

	mu  sync.Mutex
	all []string // names below damaged
}

func newDamage(dir string, log *slog.Logger) *damage { return &damage{dir: dir, log: log} }

// blocks sets aside those that cannot be opened.
func (d *damage) blocks() error {
	d.look()
	entries, err := os.ReadDir(d.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err != nil || !e.IsDir() {
			continue
		}
		if err := openable(filepath.Join(d.dir, e.Name())); err != nil && !ofMachine(err) {
			if err := d.move(e.Name(), err, e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// ofMachine reports whether an error speaks of the machine, not of what is stored: it says
// nothing about damage, and goes when there is room again.
func ofMachine(err error) bool {
	for _, e := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EMFILE, unix.ENFILE, unix.ENOMEM, fs.ErrPermission} {
		if errors.Is(err, e) || strings.Contains(err.Error(), e.Error()) { // not everybody wraps
			return true
		}
	}
	return false
}

func openable(dir string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	b, err := tsdb.OpenBlock(nil, dir, nil, nil)
	if err != nil {
		return err
	}
	return b.Close()
}

// spareWAL links what was written last to a place of its own: mending what cannot be
// read of it removes all that follows. undo takes the links away, or keeps them because of why.
func (d *damage) spareWAL() (undo func(why error), err error) {
	d.unfinished()
	spare := filepath.Join(d.dir, damagedDir, sparePrefix+stamp())
	if err := os.RemoveAll(spare); err != nil {
		return nil, err
	}
	for _, part := range []string{"wal", wlog.WblDirName} {
		root := filepath.Join(d.dir, part)
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			to := filepath.Join(spare, part, strings.TrimPrefix(path, root))
			if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
				return err
			}
			return os.Link(path, to)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.log.Warn("what was written last has no second copy while it is read", "err", err)
			break
		}
	}
	return func(why error) {
		if _, err := os.Stat(spare); err != nil {
			return
		}
		if why != nil {
			d.note(filepath.Base(spare), why)
			return
		}
		if err := os.RemoveAll(spare); err != nil {
			d.log.Warn("links to what was written last stay", "err", err)
		}
		_ = os.Remove(filepath.Join(d.dir, damagedDir)) // goes if it is empty
		d.look()
	}, nil
}

const sparePrefix = "wal-"

var errUnread = errors.New("a part of what was written last could not be read; all of it is here as it was")

// unfinished looks at the links of a process that ended while it read: unless they are all
// that is left of something, nothing is damaged.
func (d *damage) unfinished() {
	all, _ := filepath.Glob(filepath.Join(d.dir, damagedDir, sparePrefix+"*")) //nolint:errcheck // the pattern is good
	for _, spare := range all {
		if _, err := os.Stat(filepath.Join(spare, reasonFile)); err == nil {
			continue
		}
		alone := false
		err := filepath.WalkDir(spare, func(_ string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			info, err := e.Info()
			if err == nil {
				s, ok := info.Sys().(*syscall.Stat_t)
				alone = alone || !ok || s.Nlink < 2
			}
			return err
		})
		if err != nil || alone {
			d.note(filepath.Base(spare), errUnread)
			continue
		}
		if err := os.RemoveAll(spare); err != nil {
			d.log.Warn("links to what was written last stay", "err", err)
		}
	}
}

// head sets aside all that is not yet in blocks, because of why; false: that would not help.
func (d *damage) head(why error) bool {
	if strings.Contains(why.Error(), "lock DB directory") || ofMachine(why) {
		return false
	}
	moved := false
	name := "head-" + stamp()
	// References to series count anew then: those of sources would be others' series.
	for _, part := range []string{"wal", wlog.WblDirName, "chunks_head", sourcesDir} {
		if _, err := os.Stat(filepath.Join(d.dir, part)); err != nil {
			continue
		}
		if err := d.move(part, why, filepath.Join(name, part)); err != nil {
			d.log.Error("what is damaged cannot be set aside", "err", err)
			return false
		}
		moved = true
	}
	return moved
}

// chunkIn is how the store says that it cannot read one; the block's name there is
// not to be relied on.
var chunkIn = regexp.MustCompile(`cannot populate chunk (\d+) from block \S+: (.+)`)

// asked looks at the error of a query: the block whose chunk cannot be read is set
// aside, and left out from then on.
func (d *DB) asked(err error) {
	m := chunkIn.FindStringSubmatch(err.Error())
	if m == nil {
		return
	}
	ref, _ := strconv.ParseUint(m[1], 10, 64) //nolint:errcheck // they are digits
	for _, b := range d.tsdb.Blocks() {
		name := b.Meta().ULID.String()
		why := unread(b, chunks.ChunkRef(ref))
		if why == nil || !strings.Contains(m[2], why.Error()) || d.damage.has(name) {
			continue
		}
		if err := d.damage.move(name, err, name); err != nil { // it may have been compacted away
			d.log.Warn("a damaged block stays where it is", "block", name, "err", err)
		}
	}
}

// unread is why a chunk of a block cannot be read.
func unread(b *tsdb.Block, ref chunks.ChunkRef) (err error) {
	defer func() {
		if p := recover(); p != nil { // the reference is another block's
			err = nil
		}
	}()
	r, err := b.Chunks()
	if err != nil {
		return err
	}
	defer r.Close()
	_, _, err = r.ChunkOrIterable(chunks.Meta{Ref: ref})
	return err
}

// move takes a part of the store to the damaged ones.
func (d *damage) move(part string, why error, name string) error {
	to := filepath.Join(d.dir, damagedDir, name)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(d.dir, part), to); err != nil {
		return err
	}
	d.note(strings.Split(name, string(filepath.Separator))[0], why)
	return nil
}

// note says that it is there and why.
func (d *damage) note(name string, why error) {
	place := filepath.Join(d.dir, damagedDir, name)
	first, _, _ := strings.Cut(why.Error(), "\n")
	d.log.Error("a damaged part of the store of samples was set aside", "at", place, "err", first)
	if err := os.WriteFile(filepath.Join(place, reasonFile), []byte(why.Error()+"\n"), 0o600); err != nil {
		d.log.Warn("why a part of the store of samples was set aside is not kept", "err", err)
	}
	d.look()
}

// look reads what lies there; of more than maxDamaged the oldest go.
func (d *damage) look() {
	d.looking.Lock()
	defer d.looking.Unlock()
	entries, _ := os.ReadDir(filepath.Join(d.dir, damagedDir)) //nolint:errcheck // no folder: nothing is damaged
	var found []string
	age := map[string]time.Time{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !e.IsDir() {
			continue
		}
		found = append(found, e.Name())
		age[e.Name()] = info.ModTime()
	}
	slices.SortFunc(found, func(a, b string) int {
		return age[a].Compare(age[b])
	})
	for len(found) > maxDamaged {
		if err := os.RemoveAll(filepath.Join(d.dir, damagedDir, found[0])); err != nil {
			d.log.Warn("an old damaged part of the store of samples stays", "err", err)
		}
		found = found[1:]
	}
	d.mu.Lock()
	d.all = found
	d.mu.Unlock()
}

func (d *damage) list() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.all)
}

func (d *damage) has(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.all, name)
}

func stamp() string { return time.Now().UTC().Format("20060102T150405.000000000Z") }

// caught turns a panic of the store into an error, once in the log.
func (d *DB) caught(p any) error {
	d.counts.panics.Inc()
	d.log.Error("panic in the store of samples", "panic", p, "stack", string(debug.Stack()))
	return fmt.Errorf("the store of samples: panic: %v", p)
}
