package store

import (
	"fmt"
	"time"
)

const auditTables = `
CREATE TABLE audit (
	id      INTEGER PRIMARY KEY AUTOINCREMENT,
	time    INTEGER NOT NULL,
	who     TEXT NOT NULL,
	what    TEXT NOT NULL,
	project TEXT NOT NULL,
	detail  TEXT NOT NULL,
	outcome TEXT NOT NULL -- '' it was done, else the error
) STRICT;
`

// KeepAudit is how many lines of the audit are kept.
const KeepAudit = 10_000

// Audit is one line of who did what.
type Audit struct {
	Time    time.Time
	Who     string
	What    string
	Project string
	Detail  string
	Outcome string // empty: it was done, else the error
}

// AddAudit writes a line and drops the oldest beyond KeepAudit.
func (tx *Tx) AddAudit(a Audit) error {
	r, err := tx.exec(`INSERT INTO audit (time, who, what, project, detail, outcome) VALUES (?, ?, ?, ?, ?, ?)`,
		stamp(a.Time), a.Who, a.What, a.Project, a.Detail, a.Outcome)
	if err != nil {
		return fmt.Errorf("write audit: %w", err)
	}
	id, err := r.LastInsertId()
	if err != nil {
		return fmt.Errorf("write audit: %w", err)
	}
	if _, err := tx.exec(`DELETE FROM audit WHERE id <= ?`, id-KeepAudit); err != nil {
		return fmt.Errorf("shorten audit: %w", err)
	}
	return nil
}

// Audits returns the newest lines first. project "": all; limit <= 0: all that
// are kept.
func (tx *Tx) Audits(project string, limit int) ([]Audit, error) {
	if limit <= 0 {
		limit = -1
	}
	scan := func(scan func(...any) error) (a Audit, err error) {
		var at int64
		err = scan(&at, &a.Who, &a.What, &a.Project, &a.Detail, &a.Outcome)
		a.Time = moment(at)
		return a, err
	}
	list, err := collect(tx, scan, `SELECT time, who, what, project, detail, outcome FROM audit
		WHERE project = ?1 OR ?1 = '' ORDER BY id DESC LIMIT ?2`, project, limit)
	if err != nil {
		return nil, fmt.Errorf("read audit: %w", err)
	}
	return list, nil
}
