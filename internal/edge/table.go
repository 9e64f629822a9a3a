package edge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/dns"
	"github.com/tenderhq/tender/internal/proxy"
)

// Format is the version of Table. An edge takes tables of its own format and of
// the one before.
const Format = 1

// Table is all that the edge serves.
type Table struct {
	Format int         `json:"format"`
	Proxy  proxy.Table `json:"proxy"`
	DNS    dns.Picture `json:"dns"`
	// Inside are the networks whose containers ask this edge.
	Inside []dns.Inside `json:"inside,omitempty"`
}

// Validate says what is wrong with t, and in which route.
func (t Table) Validate() error {
	if t.Format != Format {
		return tender.Errorf(tender.Invalid, "the table has format %d, this edge knows %d", t.Format, Format).
			Hint("run the same version of tender serve and tender edge")
	}
	for _, in := range t.Inside {
		if err := in.Validate(); err != nil {
			return err
		}
	}
	return t.Proxy.Validate()
}

const tableFile = "table.json"

// loadTable reads the last good table of dir. One that cannot be used is set
// aside, and aside says where and why.
func loadTable(dir string, now time.Time) (t Table, aside, err error) {
	path := filepath.Join(dir, tableFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Table{Format: Format, Proxy: proxy.Table{Format: proxy.Format}}, nil, nil
	}
	if err != nil {
		return t, nil, fmt.Errorf("read the table: %w", err)
	}
	bad := json.Unmarshal(raw, &t)
	if bad == nil {
		bad = t.Validate()
	}
	if bad == nil {
		return t, nil, nil
	}
	away := fmt.Sprintf("%s.damaged-%d", path, now.Unix())
	if err := os.Rename(path, away); err != nil {
		return t, nil, fmt.Errorf("set the damaged table aside: %w", err)
	}
	return Table{Format: Format, Proxy: proxy.Table{Format: proxy.Format}}, fmt.Errorf("%s, now %s: %w", path, filepath.Base(away), bad), nil
}

// LastTable reads what the edge of dir was told to serve last, and changes nothing
// there. NotFound: it was told nothing.
func LastTable(dir string) (t Table, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, tableFile))
	if errors.Is(err, fs.ErrNotExist) {
		return t, tender.Errorf(tender.NotFound, "no edge has served from %s", dir)
	}
	if err == nil {
		err = json.Unmarshal(raw, &t)
	}
	if err == nil {
		err = t.Validate()
	}
	if err != nil {
		return Table{}, fmt.Errorf("read the edge's last table: %w", err)
	}
	return t, nil
}

// saveTable writes t so that a reader, after a crash too, finds the old table or
// the new one.
func saveTable(dir string, t Table) error {
	raw, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	if err := replaceFile(filepath.Join(dir, tableFile), append(raw, '\n')); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}

// replaceFile writes path whole or not at all, for root alone.
func replaceFile(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync())
	err = errors.Join(err, f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	// The rename is kept only once the directory is.
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
