package scan

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tenderhq/tender"
)

// OSVDumps is where OSV publishes its dumps.
const OSVDumps = "https://osv-vulnerabilities.storage.googleapis.com"

// UpdateOptions say what to bring up to date, and from where.
type UpdateOptions struct {
	// From is an http(s) URL, a folder, or a .tar or .zip, with <Ecosystem>/all.zip in
	// it; "" is OSVDumps.
	From string
	// Ecosystems are OSV's names without a release: Debian, npm. None: those that the
	// index has.
	Ecosystems []string
	All        bool // everything that From has
	Whole      bool // load all again, even if nothing has changed
	Now        time.Time
	Client     *http.Client
	Report     func(Progress)
}

// Progress is told from time to time.
type Progress struct {
	Ecosystem string
	Stage     string // download, load
	Done      int64  // bytes, or advisories
	Total     int64  // 0: unknown
}

// Updated is what became of one ecosystem.
type Updated struct {
	Ecosystem  string
	How        string // unchanged, changed (what was new), whole
	Changed    int    // advisories that were fetched
	Advisories int
	Skipped    int // that could not be read
	Bytes      int64
	Err        error
}

const (
	fewChanges = 500 // more are cheaper as one download
	wholeAfter = 7 * 24 * time.Hour
)

// Update brings an index up to date. Each ecosystem is replaced at once or stays as it
// was; the error of one does not keep the others back. It fails as a whole when the
// folder or the source cannot be used, or another update runs.
func (db *DB) Update(ctx context.Context, o UpdateOptions) ([]Updated, error) {
	if o.From == "" {
		o.From = OSVDumps
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	if o.Report == nil {
		o.Report = func(Progress) {}
	}
	if err := os.MkdirAll(db.dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(db.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, tender.Errorf(tender.Conflict, "the advisories are being updated by another process").Hint("wait for it")
	}
	sweep(db.dir)
	u := &update{db: db, o: o, state: readState(db.dir)}
	if err := u.find(ctx); err != nil {
		return nil, err
	}
	if len(u.names) == 0 {
		return nil, tender.Errorf(tender.Invalid, "no ecosystem is asked for, and %s is empty", db.dir).Hint("name some: Debian, npm")
	}
	for _, name := range u.names {
		if !ecosystemName(name) {
			return nil, tender.Errorf(tender.Invalid, "%q is not the name of an ecosystem", name).Hint("one of OSV's, without a release: Debian, npm, PyPI")
		}
		done := u.one(ctx, name)
		u.done = append(u.done, done)
		if ctx.Err() != nil {
			return u.done, ctx.Err()
		}
	}
	return u.done, writeState(db.dir, u.state)
}

// sweep removes what an update that was killed has left. The lock is held.
func sweep(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		for _, prefix := range []string{".new-", ".run-", ".get-"} {
			if strings.HasPrefix(e.Name(), prefix) {
				_ = os.Remove(filepath.Join(dir, e.Name()))
			}
		}
	}
}

// update is one run.
type update struct {
	db    *DB
	o     UpdateOptions
	state map[string]sourceState
	names []string
	done  []Updated
}

func (u *update) remote() bool {
	return strings.HasPrefix(u.o.From, "https://") || strings.HasPrefix(u.o.From, "http://")
}

// find settles which ecosystems there are to do.
func (u *update) find(ctx context.Context) error {
	u.names = slices.Clone(u.o.Ecosystems)
	if len(u.names) == 0 {
		u.names = u.db.Ecosystems()
	}
	if !u.remote() {
		if _, err := os.Stat(u.o.From); err != nil {
			return tender.Errorf(tender.Invalid, "read advisories: %v", err).Hint("a folder, .tar or .zip with <Ecosystem>/all.zip in it, or an https URL")
		}
	}
	if !u.o.All {
		return nil
	}
	var err error
	if u.remote() {
		var b []byte
		if b, err = u.text(ctx, "ecosystems.txt"); err != nil {
			return err
		}
		u.names = nil
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); ecosystemName(line) {
				u.names = append(u.names, line)
			}
		}
		return nil
	}
	u.names, err = mirrored(u.o.From)
	return err
}

// mirrored lists the ecosystems of a local mirror.
func mirrored(from string) ([]string, error) {
	var names []string
	note := func(name string) error {
		if dir, file := path.Split(path.Clean(name)); file == "all.zip" {
			names = appendNew(names, path.Base(dir))
		}
		return nil
	}
	if info, err := os.Stat(from); err == nil && info.IsDir() {
		found, err := filepath.Glob(filepath.Join(from, "*", "all.zip"))
		for _, f := range found {
			_ = note(filepath.ToSlash(f))
		}
		return names, err
	}
	err := archived(from, func(name string, _ int64, _ io.Reader) error { return note(name) })
	return names, err
}

// errFound ends a walk through an archive.
var errFound = errors.New("found")

// archived calls each with the members of a .tar or .zip.
func archived(from string, each func(name string, size int64, in io.Reader) error) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if strings.EqualFold(filepath.Ext(from), ".zip") {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		budget := &budgetReader{src: f, left: zipDirectory}
		z, err := zip.NewReader(budget, info.Size())
		if err != nil {
			return fmt.Errorf("read %s: %w", from, err)
		}
		budget.left = -1
		for _, m := range z.File {
			in, err := m.Open()
			if err != nil {
				return fmt.Errorf("read %s: %w", from, err)
			}
			err = each(m.Name, int64(m.UncompressedSize64), in)
			_ = in.Close()
			if err != nil {
				return err
			}
		}
		return nil
	}
	t := tar.NewReader(bufio.NewReaderSize(f, 1<<18))
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", from, err)
		}
		if err := each(h.Name, h.Size, t); err != nil {
			return err
		}
	}
}

func (u *update) one(ctx context.Context, name string) Updated {
	var done Updated
	var err error
	if u.remote() {
		done, err = u.fromServer(ctx, name)
	} else {
		done, err = u.fromMirror(ctx, name)
	}
	done.Ecosystem = name
	if err != nil {
		done.Err = fmt.Errorf("advisories of %s: %w", name, err)
	}
	return done
}

// current opens what the index has; nil when that is nothing usable.
func (u *update) current(name string) *fileReader {
	r, _, err := openIndex(indexPath(u.db.dir, name))
	if err != nil {
		return nil
	}
	return r
}

func (u *update) unchanged(name string, r *fileReader, s sourceState) Updated {
	s.Checked = u.o.Now.UTC()
	u.state[name] = s
	return Updated{How: "unchanged", Advisories: r.meta.Advisories}
}

func (u *update) fromMirror(ctx context.Context, name string) (Updated, error) {
	at := filepath.Join(u.o.From, name, "all.zip")
	info, err := os.Stat(u.o.From)
	if err != nil {
		return Updated{}, err
	}
	if !info.IsDir() {
		at = u.o.From
	} else if info, err = os.Stat(at); err != nil {
		return Updated{}, err
	}
	tag := fmt.Sprintf("%d-%d", info.Size(), info.ModTime().UnixNano())
	s := u.state[name]
	if r := u.current(name); r != nil {
		defer r.close()
		if s.From == u.o.From && s.Tag == tag && !u.o.Whole {
			return u.unchanged(name, r, s), nil
		}
	}
	dump := at
	if at == u.o.From {
		f, err := os.CreateTemp(u.db.dir, ".get-*")
		if err != nil {
			return Updated{}, err
		}
		defer func() { _, _ = f.Close(), os.Remove(f.Name()) }()
		err = archived(at, func(member string, _ int64, in io.Reader) error {
			if dir, file := path.Split(path.Clean(member)); file != "all.zip" || path.Base(dir) != name {
				return nil
			}
			n, err := io.Copy(f, io.LimitReader(in, zipMost+1))
			if err == nil && n > zipMost {
				err = fmt.Errorf("dump is larger than %d bytes", int64(zipMost))
			}
			if err == nil {
				err = errFound
			}
			return err
		})
		if err == nil {
			err = fmt.Errorf("%s has no %s/all.zip", at, name)
		}
		if !errors.Is(err, errFound) {
			return Updated{}, err
		}
		dump = f.Name()
	}
	return u.whole(ctx, name, dump, sourceState{From: u.o.From, Tag: tag})
}

// whole loads a dump that lies in a file.
func (u *update) whole(ctx context.Context, name, dump string, s sourceState) (Updated, error) {
	f, err := os.Open(dump)
	if err != nil {
		return Updated{}, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return Updated{}, err
	}
	b := &builder{dir: u.db.dir}
	defer b.close()
	if err := b.loadZip(ctx, f, info.Size(), name, func(done, total int) {
		u.o.Report(Progress{name, "load", int64(done), int64(total)})
	}); err != nil {
		return Updated{}, err
	}
	meta, err := b.write(name, u.o.Now, nil, nil)
	if err != nil {
		return Updated{}, err
	}
	s.Checked, s.Whole = u.o.Now.UTC(), u.o.Now.UTC()
	u.state[name] = s
	return Updated{How: "whole", Changed: meta.Advisories, Advisories: meta.Advisories, Skipped: meta.Skipped, Bytes: info.Size()}, nil
}

// fromServer asks for the list of modifications first. Few are fetched one by one.
func (u *update) fromServer(ctx context.Context, name string) (Updated, error) {
	s := u.state[name]
	r := u.current(name)
	if r != nil {
		defer r.close()
	}
	if r == nil || s.From != u.o.From || u.o.Whole {
		s = sourceState{From: u.o.From}
	}
	known := r != nil && !s.Whole.IsZero()
	// Taken before the dump, so that what changes in between is seen the next time.
	list, err := u.get(ctx, name+"/modified_id.csv", s.ListTag)
	switch {
	case err == nil:
		defer list.drop()
	case errors.Is(err, errAbsent):
	default:
		return Updated{}, err
	}
	if err == nil {
		if list.same && known {
			return u.unchanged(name, r, s), nil
		}
		s.ListTag = list.tag
		if known && u.o.Now.Sub(s.Whole) < wholeAfter {
			done, enough, err := u.changes(ctx, name, r, list, s)
			if enough || err != nil {
				return done, err
			}
		}
	}
	if !known {
		s.Tag = ""
	}
	dump, err := u.get(ctx, name+"/all.zip", s.Tag)
	if err != nil {
		return Updated{}, err
	}
	defer dump.drop()
	if dump.same {
		return u.unchanged(name, r, s), nil
	}
	s.Tag = dump.tag
	return u.whole(ctx, name, dump.path, s)
}

// changes brings in what a list says is newer. enough is false when all should be
// loaded instead.
func (u *update) changes(ctx context.Context, name string, r *fileReader, list *got, s sourceState) (done Updated, enough bool, err error) {
	b, err := os.ReadFile(list.path)
	if err != nil {
		return done, false, err
	}
	listed, changed := modifiedSince(b, r.meta.Newest)
	// A list that lacks half of what there was is not believed.
	if len(listed) < r.meta.Advisories/2 || len(changed) > fewChanges {
		return done, false, nil
	}
	into := &builder{dir: u.db.dir}
	defer into.close()
	for i, id := range changed {
		u.o.Report(Progress{name, "download", int64(i), int64(len(changed))})
		one, err := u.text(ctx, name+"/"+id+".json")
		if errors.Is(err, errAbsent) {
			delete(listed, id)
			continue
		}
		if err != nil {
			return done, false, err
		}
		done.Bytes += int64(len(one))
		if err := into.advisory(one, nil, name, id); err != nil {
			return done, false, err
		}
	}
	if into.skipped > 0 {
		return done, false, nil
	}
	fetched := map[string]bool{}
	for _, id := range changed {
		fetched[id] = true
	}
	meta, err := into.write(name, u.o.Now, r, func(id string) bool { return listed[id] && !fetched[id] })
	if err != nil {
		return done, false, err
	}
	s.Checked = u.o.Now.UTC()
	u.state[name] = s
	done.How, done.Changed, done.Advisories = "changed", len(changed), meta.Advisories
	return done, true, nil
}

// modifiedSince reads lines of "2024-05-01T10:00:00Z,ID".
func modifiedSince(b []byte, since time.Time) (listed map[string]bool, changed []string) {
	listed = map[string]bool{}
	for line := range bytes.Lines(b) {
		when, id, ok := strings.Cut(strings.TrimSpace(string(line)), ",")
		id = id[strings.LastIndexByte(id, '/')+1:]
		t, err := time.Parse(time.RFC3339Nano, when)
		if !ok || err != nil || id == "" || listed[id] {
			continue
		}
		listed[id] = true
		// What has the very second of the newest may have come after it.
		if !t.Before(since) {
			changed = append(changed, id)
		}
	}
	return listed, changed
}
