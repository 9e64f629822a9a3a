package scan

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tenderhq/tender"
)

// DB is the index of advisories in a folder: one file for each ecosystem, opened when
// it is first asked. Update may replace files meanwhile, from this process or another:
// questions that run go on with what they have, later ones see the new. A damaged file
// is set aside under a name that ends in .damaged, and told; the others go on. It may
// be used by many at once.
type DB struct {
	dir string

	mu   sync.Mutex
	open map[string]*openFile
}

// openFile is a file that is being asked.
type openFile struct {
	info  os.FileInfo
	users int // guarded by DB.mu, as is stale
	stale bool

	mu     sync.Mutex // one question at a time: a reader holds one block
	reader *fileReader
}

// OpenDB opens the index in a folder, which need not be there yet.
func OpenDB(dir string) *DB { return &DB{dir: dir, open: map[string]*openFile{}} }

// Close lets go of all files. Questions that run are answered.
func (db *DB) Close() {
	db.mu.Lock()
	defer db.mu.Unlock()
	for base := range db.open {
		db.forget(base)
	}
}

// forget is called with the lock held.
func (db *DB) forget(base string) {
	f := db.open[base]
	delete(db.open, base)
	if f == nil {
		return
	}
	f.stale = true
	if f.users == 0 {
		f.reader.close()
	}
}

func indexPath(dir, base string) string { return filepath.Join(dir, url.PathEscape(base)+fileSuffix) }

func (db *DB) with(base string, use func(*fileReader) error) error {
	f, err := db.acquire(base)
	if errors.Is(err, fs.ErrNotExist) {
		return tender.Errorf(tender.Unavailable, "there are no advisories of %s", base).Hint("tender image db update")
	}
	if err == nil {
		f.mu.Lock()
		err = use(f.reader)
		f.mu.Unlock()
		db.release(f)
	}
	if err != nil {
		db.setAside(base, f)
		return tender.Errorf(tender.Unavailable, "the advisories of %s are damaged and were set aside: %v", base, err).Hint("tender image db update")
	}
	return nil
}

func (db *DB) acquire(base string) (*openFile, error) {
	path := indexPath(db.dir, base)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if f := db.open[base]; f != nil {
		if os.SameFile(info, f.info) && info.ModTime().Equal(f.info.ModTime()) && info.Size() == f.info.Size() {
			f.users++
			return f, nil
		}
		db.forget(base)
	}
	r, info, err := openIndex(path)
	if err != nil {
		return nil, err
	}
	f := &openFile{info: info, users: 1, reader: r}
	db.open[base] = f
	return f, nil
}

func openIndex(path string) (*fileReader, os.FileInfo, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil {
		var r *fileReader
		if r, err = newFileReader(file, info.Size()); err == nil {
			return r, info, nil
		}
	}
	_ = file.Close()
	return nil, nil, err
}

func (db *DB) release(f *openFile) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if f.users--; f.users == 0 && f.stale {
		f.reader.close()
	}
}

// setAside gives a damaged file another name, unless a whole one has taken its place.
func (db *DB) setAside(base string, f *openFile) {
	path := indexPath(db.dir, base)
	info, err := os.Stat(path)
	db.mu.Lock()
	defer db.mu.Unlock()
	if err == nil && (f == nil || os.SameFile(info, f.info)) {
		_ = os.Rename(path, path+".damaged") // on a disk that is read-only it stays, and is told again
	}
	if f == nil || db.open[base] == f {
		db.forget(base)
	}
}

// Ecosystems lists what the index has advisories of, by name.
func (db *DB) Ecosystems() []string { return indexed(db.dir) }

func indexed(dir string) []string {
	entries, _ := os.ReadDir(dir) // no folder: nothing in it
	var names []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), fileSuffix)
		if base, err := url.PathUnescape(name); ok && err == nil {
			names = append(names, base)
		}
	}
	slices.Sort(names)
	return names
}

// Age says how old the index is. Updated is when the ecosystem that waited longest was
// last compared with its source. Its zero value: there is none.
func (db *DB) Age() (Age, error) {
	var age Age
	var problems []error
	state := readState(db.dir)
	for _, base := range db.Ecosystems() {
		var meta fileMeta
		if err := db.with(base, func(f *fileReader) error { meta = f.meta; return nil }); err != nil {
			problems = append(problems, err)
			continue
		}
		updated := meta.Made
		if s := state[base]; s.Checked.After(updated) {
			updated = s.Checked
		}
		if age.Updated.IsZero() || updated.Before(age.Updated) {
			age.Updated = updated
		}
		if meta.Newest.After(age.Newest) {
			age.Newest = meta.Newest
		}
		age.Advisories += meta.Advisories
		age.Ecosystems = append(age.Ecosystems, base)
	}
	return age, errors.Join(problems...)
}

// Stale is the warning about an index that was not updated for longer than most; ""
// when there is nothing to warn of.
func (a Age) Stale(now time.Time, most time.Duration) string {
	if a.Updated.IsZero() {
		return "there are no advisories yet: tender image db update"
	}
	old := now.Sub(a.Updated)
	if old <= most {
		return ""
	}
	days := int(old / (24 * time.Hour))
	if days < 2 {
		return fmt.Sprintf("the advisories are %d hours old: tender image db update", int(old/time.Hour))
	}
	return fmt.Sprintf("the advisories are %d days old: tender image db update", days)
}

// sourceState is what is remembered of a source between updates. Losing it costs no
// more than a download.
type sourceState struct {
	From    string    `json:"from"`
	Tag     string    `json:"tag,omitempty"`     // of all.zip: ETag, or size and time of a file
	ListTag string    `json:"listTag,omitempty"` // of modified_id.csv
	Checked time.Time `json:"checked"`
	Whole   time.Time `json:"whole"` // when all was last loaded
}

const stateName = "state.json"

func readState(dir string) map[string]sourceState {
	state := map[string]sourceState{}
	if b, err := os.ReadFile(filepath.Join(dir, stateName)); err == nil {
		if json.Unmarshal(b, &state) != nil {
			return map[string]sourceState{}
		}
	}
	return state
}

func writeState(dir string, state map[string]sourceState) error {
	b, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = replace(f.Name(), filepath.Join(dir, stateName))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
