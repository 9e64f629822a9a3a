package store

import (
	"fmt"
	"time"
)

const hostImagesTable = `
CREATE TABLE host_images (
	id   TEXT PRIMARY KEY, -- the engine's
	ref  TEXT NOT NULL,    -- what it was called when it came
	how  TEXT NOT NULL,    -- pulled, built, loaded
	came INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
`

// HostImage is an image of the engine that Tender brought there.
type HostImage struct {
	ID        string // the engine's
	Reference string // what it was called when it came
	How       string // pulled, built, loaded
	Came      time.Time
}

// PutHostImage writes one; of the same ID the newer one counts.
func (tx *Tx) PutHostImage(i HostImage) error {
	if _, err := tx.exec(`INSERT OR REPLACE INTO host_images (id, ref, how, came) VALUES (?, ?, ?, ?)`, i.ID, i.Reference, i.How, stamp(i.Came)); err != nil {
		return fmt.Errorf("write that image %s came: %w", i.Reference, err)
	}
	return nil
}

// HostImages returns those that Tender brought, by ID.
func (tx *Tx) HostImages() ([]HostImage, error) {
	list, err := collect(tx, func(scan func(...any) error) (i HostImage, err error) {
		var came int64
		err = scan(&i.ID, &i.Reference, &i.How, &came)
		i.Came = moment(came)
		return i, err
	}, `SELECT id, ref, how, came FROM host_images ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("read which images came: %w", err)
	}
	return list, nil
}

// RemoveHostImage forgets one that came before; none is no error.
func (tx *Tx) RemoveHostImage(id string, before time.Time) error {
	if _, err := tx.exec(`DELETE FROM host_images WHERE id = ? AND came < ?`, id, stamp(before)); err != nil {
		return fmt.Errorf("forget image %s: %w", id, err)
	}
	return nil
}
