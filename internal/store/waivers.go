package store

import (
	"fmt"
	"time"

	"github.com/tenderhq/tender"
)

const waiversTable = `
CREATE TABLE waivers (
	id      INTEGER PRIMARY KEY AUTOINCREMENT,
	finding TEXT NOT NULL,
	scope   TEXT NOT NULL, -- '' any
	reason  TEXT NOT NULL,
	who     TEXT NOT NULL,
	made    INTEGER NOT NULL,
	until   INTEGER NOT NULL
) STRICT;
`

// keepExpired is how long a waiver that has ended is told of.
const keepExpired = 365 * 24 * time.Hour

// Waivers returns them, those that end first first; what has ended is among them for a year.
func (tx *Tx) Waivers() ([]tender.Waiver, error) {
	list, err := collect(tx, func(scan func(...any) error) (w tender.Waiver, err error) {
		var made, until int64
		err = scan(&w.ID, &w.Finding, &w.Scope, &w.Reason, &w.By, &made, &until)
		w.Made, w.Until = moment(made), moment(until)
		return w, err
	}, `SELECT id, finding, scope, reason, who, made, until FROM waivers ORDER BY until, id`)
	if err != nil {
		return nil, fmt.Errorf("read waivers: %w", err)
	}
	return list, nil
}

// AddWaiver writes one and returns its number. It drops those that ended long before.
func (tx *Tx) AddWaiver(w tender.Waiver) (id int64, err error) {
	if _, err := tx.exec(`DELETE FROM waivers WHERE until < ?`, stamp(w.Made.Add(-keepExpired))); err != nil {
		return 0, fmt.Errorf("drop old waivers: %w", err)
	}
	r, err := tx.exec(`INSERT INTO waivers (finding, scope, reason, who, made, until) VALUES (?, ?, ?, ?, ?, ?)`,
		w.Finding, w.Scope, w.Reason, w.By, stamp(w.Made), stamp(w.Until))
	if err == nil {
		id, err = r.LastInsertId()
	}
	if err != nil {
		return 0, fmt.Errorf("write waiver of %s: %w", w.Finding, err)
	}
	return id, nil
}

// RemoveWaiver removes one; NotFound if there is none of that number.
func (tx *Tx) RemoveWaiver(id int64) error {
	r, err := tx.exec(`DELETE FROM waivers WHERE id = ?`, id)
	if err != nil {
		return fmt.Errorf("remove waiver %d: %w", id, err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return tender.Errorf(tender.NotFound, "there is no waiver %d", id).Hint("tender policy waivers lists them")
	}
	return nil
}
