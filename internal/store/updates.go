package store

import (
	"fmt"
	"time"
)

const updatesTable = `
CREATE TABLE image_updates (
	project   TEXT NOT NULL,
	service   TEXT NOT NULL,
	digest    TEXT NOT NULL,
	reference TEXT NOT NULL,
	state     TEXT NOT NULL, -- trying, done, denied, rolled back, failed, superseded
	why       TEXT NOT NULL,
	at        INTEGER NOT NULL,
	PRIMARY KEY (project, service, digest)
) STRICT;
CREATE INDEX image_updates_at ON image_updates (at);
`

// What is kept of automatic updates: of one service, and of all.
const (
	keepUpdates    = 50
	keepAllUpdates = 20_000
)

// UpdateTrying is the state of an update that was begun; how it ended is the state of its rollout,
// or UpdateDenied.
const (
	UpdateTrying = "trying"
	UpdateDenied = "denied"
)

// ImageUpdate is an image that a service was to move to by itself, and what came of it.
type ImageUpdate struct {
	Project, Service  string
	Digest, Reference string
	State, Why        string
	At                time.Time
}

// PutImageUpdate writes what is known of a digest, and drops the oldest beyond what is kept.
func (tx *Tx) PutImageUpdate(u ImageUpdate) error {
	_, err := tx.exec(`INSERT OR REPLACE INTO image_updates (project, service, digest, reference, state, why, at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		u.Project, u.Service, u.Digest, u.Reference, u.State, u.Why, stamp(u.At))
	if err == nil {
		_, err = tx.exec(`DELETE FROM image_updates WHERE project = ?1 AND service = ?2 AND rowid NOT IN (
			SELECT rowid FROM image_updates WHERE project = ?1 AND service = ?2 ORDER BY at DESC, rowid DESC LIMIT ?3)`, u.Project, u.Service, keepUpdates)
	}
	if err == nil {
		_, err = tx.exec(`DELETE FROM image_updates WHERE rowid IN (SELECT rowid FROM image_updates ORDER BY at DESC, rowid DESC LIMIT -1 OFFSET ?)`, keepAllUpdates)
	}
	if err != nil {
		return fmt.Errorf("write the update of %s of %s: %w", u.Service, u.Project, err)
	}
	return nil
}

// ForgetImageUpdate drops what is known of a digest: it may be tried again.
func (tx *Tx) ForgetImageUpdate(u ImageUpdate) error {
	_, err := tx.exec(`DELETE FROM image_updates WHERE project = ? AND service = ? AND digest = ?`, u.Project, u.Service, u.Digest)
	if err != nil {
		return fmt.Errorf("forget the update of %s of %s: %w", u.Service, u.Project, err)
	}
	return nil
}

// ImageUpdates returns those of a project, or of all, the newest first.
func (tx *Tx) ImageUpdates(project string) ([]ImageUpdate, error) {
	list, err := collect(tx, func(scan func(...any) error) (u ImageUpdate, err error) {
		var at int64
		err = scan(&u.Project, &u.Service, &u.Digest, &u.Reference, &u.State, &u.Why, &at)
		u.At = moment(at)
		return u, err
	}, `SELECT project, service, digest, reference, state, why, at FROM image_updates WHERE project = ?1 OR ?1 = '' ORDER BY at DESC, rowid DESC`, project)
	if err != nil {
		return nil, fmt.Errorf("read updates of images: %w", err)
	}
	return list, nil
}
