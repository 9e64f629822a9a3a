package store

import (
	"fmt"
	"time"
)

const scalingsTable = `
CREATE TABLE scalings (
	id      INTEGER PRIMARY KEY AUTOINCREMENT,
	project TEXT NOT NULL,
	service TEXT NOT NULL,
	at      INTEGER NOT NULL,
	who     TEXT NOT NULL,
	before  INTEGER NOT NULL,
	after   INTEGER NOT NULL,
	cause   TEXT NOT NULL
) STRICT;
CREATE INDEX scalings_service ON scalings (project, service, id);
`

// keepScalings is how many changes of the count of one service are kept.
const keepScalings = 200

// Scaling is a change of how many instances a service has.
type Scaling struct {
	Project, Service string
	At               time.Time
	Who              string // a person, or Autoscale
	From, To         int
	Cause            string
}

// Autoscale is who changes counts as x-tender.scale says.
const Autoscale = "autoscale"

// Counted says of what is wanted now when, by whom and why its count was last
// changed.
type Counted struct {
	At    time.Time `json:"at"`
	Added time.Time `json:"added,omitzero"` // when the count last grew
	Who   string    `json:"who"`
	From  int       `json:"from"`
	Cause string    `json:"cause,omitempty"`
}

// After is what a service's record says once its count was changed.
func (c *Counted) After(s Scaling) *Counted {
	next := &Counted{At: s.At, Who: s.Who, From: s.From, Cause: s.Cause}
	if c != nil {
		next.Added = c.Added
	}
	if s.To > s.From {
		next.Added = s.At
	}
	return next
}

// AddScaling writes a change down and drops the oldest of its service.
func (tx *Tx) AddScaling(s Scaling) error {
	_, err := tx.exec(`INSERT INTO scalings (project, service, at, who, before, after, cause) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		s.Project, s.Service, stamp(s.At), s.Who, s.From, s.To, s.Cause)
	if err == nil {
		_, err = tx.exec(`DELETE FROM scalings WHERE project = ?1 AND service = ?2 AND id <= (
			SELECT id FROM scalings WHERE project = ?1 AND service = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)`, s.Project, s.Service, keepScalings)
	}
	if err != nil {
		return fmt.Errorf("write how %s of %s was scaled: %w", s.Service, s.Project, err)
	}
	return nil
}

// Rescale makes n what is wanted of a service by the newest generation itself, and
// writes down why. It makes no generation: those are what people asked for, and only
// so many are kept.
func (tx *Tx) Rescale(s Scaling) error {
	err := tx.setService(s.Project, s.Service, func(w *WantedService) {
		w.Service.Replicas, w.Counted = s.To, w.Counted.After(s)
	})
	if err != nil {
		return err
	}
	return tx.AddScaling(s)
}

// Scalings returns the changes of a project, or of one service of it, the newest first.
func (tx *Tx) Scalings(project, service string) ([]Scaling, error) {
	list, err := collect(tx, func(scan func(...any) error) (s Scaling, err error) {
		var at int64
		err = scan(&s.Project, &s.Service, &at, &s.Who, &s.From, &s.To, &s.Cause)
		s.At = moment(at)
		return s, err
	}, `SELECT project, service, at, who, before, after, cause FROM scalings WHERE project = ?1 AND (service = ?2 OR ?2 = '') ORDER BY id DESC`, project, service)
	if err != nil {
		return nil, fmt.Errorf("read how %s was scaled: %w", project, err)
	}
	return list, nil
}
