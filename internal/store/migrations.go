package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tenderhq/tender"
)

// migrations lead from an empty file to this binary's schema, in this order.
// They only go forward: one that has been released is never changed, a change
// of a table is a new entry at the end. The SQL lies in the file of its noun.
var migrations = []string{
	secretsTables + tokensTables + auditTables,
	generationsTables + revisionsTables + rolloutsTables,
	releasedTable,
	routesTable,
	sinksTables,
	sinksExpired,
	scalingsTable,
	rulesTable,
	waiversTable + scansTable,
	imagesTables,
	accountsTable,
	cachedTable,
	updatesTable,
	promotionsTable,
	hostImagesTable + scanVerdicts,
}

// applicationID marks the file as ours ("TNDR").
const applicationID = 0x544e4452

// keepCopies is how many copies made before migrations stay.
const keepCopies = 2

func (s *Store) migrate(steps []string) error {
	var version, app, tables int
	err := errors.Join(
		s.writer.QueryRow("PRAGMA user_version").Scan(&version),
		s.writer.QueryRow("PRAGMA application_id").Scan(&app),
		s.writer.QueryRow("SELECT count(*) FROM sqlite_schema").Scan(&tables),
	)
	if err != nil {
		return s.explain(fmt.Errorf("read the schema of the store: %w", err))
	}
	if app != applicationID && (tables > 0 || version > 0) {
		return tender.Errorf(tender.Invalid, "%s is a database of another program", filepath.Join(s.dir, fileName)).
			Hint("give tender serve a --data-dir of its own")
	}
	if version > len(steps) {
		return s.newer(version, len(steps))
	}
	if version == len(steps) {
		return nil
	}
	if version > 0 {
		if err := s.copyAside(version); err != nil {
			return s.explain(fmt.Errorf("copy the store before its upgrade: %w", err))
		}
	}
	for n := version + 1; n <= len(steps); n++ {
		err := s.update(context.Background(), func(tx *Tx) error {
			_, err := tx.exec(fmt.Sprintf("%s;\nPRAGMA application_id = %d; PRAGMA user_version = %d", steps[n-1], applicationID, n))
			return err
		})
		if err != nil {
			return s.explain(fmt.Errorf("bring the store to schema %d: %w", n, err))
		}
		s.log.Info("store upgraded", "schema", n, "dir", s.dir)
	}
	return nil
}

func (s *Store) newer(version, known int) error {
	e := tender.Errorf(tender.Unavailable, "a newer Tender has written %s (schema %d, this one knows %d)", filepath.Join(s.dir, fileName), version, known)
	best := ""
	for _, c := range s.copies() {
		if c.schema <= known {
			best = c.path
		}
	}
	if best == "" {
		return e.Hint("use the newer tender again; there is no copy from before it in %s", s.dir)
	}
	path := filepath.Join(s.dir, fileName)
	return e.Hint("use the newer tender again, or go back to the copy made before its upgrade and lose what was done since: rm -f %s-wal %s-shm && cp %s %s", path, path, best, path)
}

// oldFile is a copy of the store that was made before a migration.
type oldFile struct {
	schema int
	path   string
}

// copies returns the copies that are there, oldest schema first.
func (s *Store) copies() []oldFile {
	var out []oldFile
	found, _ := filepath.Glob(filepath.Join(s.dir, fileName+".schema*"))
	for _, path := range found {
		_, number, _ := strings.Cut(filepath.Base(path), ".schema")
		if n, err := strconv.Atoi(number); err == nil {
			out = append(out, oldFile{n, path})
		}
	}
	slices.SortFunc(out, func(a, b oldFile) int { return cmp.Compare(a.schema, b.schema) })
	return out
}

// copyAside writes a whole copy beside the file and drops all but the newest.
func (s *Store) copyAside(version int) error {
	path := filepath.Join(s.dir, fmt.Sprintf("%s.schema%d", fileName, version))
	temp := path + ".temp"
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	if _, err := s.writer.Exec("VACUUM INTO ?", temp); err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(temp, 0o600), syncPath(temp), os.Rename(temp, path), syncPath(s.dir)); err != nil {
		return err
	}
	have := s.copies()
	for _, c := range have[:max(0, len(have)-keepCopies)] {
		if err := os.Remove(c.path); err != nil {
			return err
		}
	}
	return nil
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
