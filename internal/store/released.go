package store

import (
	"fmt"
	"time"
)

const releasedTable = `
CREATE TABLE released (
	project TEXT PRIMARY KEY,
	at      INTEGER NOT NULL
) STRICT;
`

// Release forgets a project and remembers that this was asked for, so that
// nobody takes its instances for those of a project that was lost.
func (tx *Tx) Release(project string, at time.Time) error {
	if err := tx.Forget(project); err != nil {
		return err
	}
	if _, err := tx.exec(`INSERT OR REPLACE INTO released (project, at) VALUES (?, ?)`, project, stamp(at)); err != nil {
		return fmt.Errorf("release %s: %w", project, err)
	}
	return nil
}

// Released names the projects that were released and not taken back since.
func (tx *Tx) Released() ([]string, error) {
	names, err := collect(tx, func(scan func(...any) error) (name string, err error) {
		return name, scan(&name)
	}, `SELECT project FROM released ORDER BY project`)
	if err != nil {
		return nil, fmt.Errorf("read released projects: %w", err)
	}
	return names, nil
}

// takeBack ends a release: the project has a generation again.
func (tx *Tx) takeBack(project string) error {
	if _, err := tx.exec(`DELETE FROM released WHERE project = ?`, project); err != nil {
		return fmt.Errorf("take %s back: %w", project, err)
	}
	return nil
}
