package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tenderhq/tender"
)

const rolloutsTables = `
CREATE TABLE rollouts (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	project    TEXT NOT NULL,
	service    TEXT NOT NULL,
	generation INTEGER NOT NULL,
	revision   TEXT NOT NULL, -- to
	state      TEXT NOT NULL, -- open, done, rolled back, failed, superseded
	reason     TEXT NOT NULL,
	started    INTEGER NOT NULL,
	ended      INTEGER NOT NULL,
	detail     TEXT NOT NULL  -- JSON: the rest of Rollout
) STRICT;
CREATE INDEX rollouts_service ON rollouts (project, service, state);
CREATE TABLE rollout_steps (
	rollout INTEGER NOT NULL REFERENCES rollouts ON DELETE CASCADE,
	time    INTEGER NOT NULL,
	text    TEXT NOT NULL
) STRICT;
CREATE INDEX rollout_steps_rollout ON rollout_steps (rollout);
`

const (
	// keepRollouts is how many rollouts of one service are kept.
	keepRollouts = 100
	// keepSteps is how many steps of one rollout are kept: a hopeless one must not grow for ever.
	keepSteps = 500
)

// States of a rollout.
const (
	RolloutOpen       = "open"
	RolloutDone       = "done"
	RolledBack        = "rolled back"
	RolloutFailed     = "failed"
	RolloutSuperseded = "superseded"
)

// Rollout is the move of a service from one revision to another.
type Rollout struct {
	ID         int64     `json:"-"`
	Project    string    `json:"-"`
	Service    string    `json:"-"`
	Generation int       `json:"-"`
	To         string    `json:"-"` // revision
	State      string    `json:"-"`
	Reason     string    `json:"-"` // why it ended as it did
	Started    time.Time `json:"-"`
	Ended      time.Time `json:"-"`

	From      string         `json:"from,omitempty"` // revision; empty: first deploy
	FromImage tender.ImageID `json:"from_image"`
	ToImage   tender.ImageID `json:"to_image"`
	Who       string         `json:"who"`
	// Strategy for people: "rolling start-first", "rolling stop-first", "recreate", "blue-green", "canary", "first deploy".
	Strategy string `json:"strategy"`
	// Asked is the strategy said on the command line.
	Asked string `json:"asked,omitempty"`
	// StopIn is the grace of what it stops, as the command line said; nil: that of each instance.
	StopIn  *time.Duration `json:"stop_in,omitempty"`
	First   bool           `json:"first,omitempty"`   // nothing was there before
	Back    bool           `json:"back,omitempty"`    // a failure goes back to From
	Reverse bool           `json:"reverse,omitempty"` // it is such a way back
	// Stale are the ids of the instances that were there when it began, and of those of the job before it.
	Stale []string `json:"stale,omitempty"`
	Diff  string   `json:"diff,omitempty"` // of the two specs; never a secret

	// Shifts are the shares of the traffic that it was given, the newest last.
	Shifts []Shift `json:"shifts,omitempty"`
	// Checked: what it was asked through the edge was answered well.
	Checked bool `json:"checked,omitempty"`
	// HoldBy holds it before the next step; with HoldEach at each step anew, unless Resumed, which counts
	// from 1, is the step that it is at.
	HoldBy   string `json:"hold_by,omitempty"`
	HoldEach bool   `json:"hold_each,omitempty"`
	Resumed  int    `json:"resumed,omitempty"`
	Aborted  string `json:"aborted,omitempty"` // by whom
	// Begin is what the edge had counted when it began; Proof, what came of it.
	Begin *Counts `json:"begin,omitempty"`
	Proof *Proof  `json:"proof,omitempty"`

	// Steps is what happened, in order. Only Rollout fills it.
	Steps []Step `json:"-"`
}

// Held says at whose word it waits before its next step; empty: it does not.
func (r *Rollout) Held() string {
	if r.HoldEach && (r.Resumed == len(r.Shifts)+1 || len(r.Shifts) == 0 && r.Strategy == tender.Canary) {
		return ""
	}
	return r.HoldBy
}

// Beside reports whether old and new stand side by side as a whole, and share
// the traffic by Shifts.
func (r *Rollout) Beside() bool {
	return r.Strategy == tender.BlueGreen || r.Strategy == tender.Canary || len(r.Shifts) > 0
}

// Promoted reports whether the new revision was given all of the traffic.
func (r *Rollout) Promoted() bool {
	return len(r.Shifts) > 0 && r.Shifts[len(r.Shifts)-1].Share >= 1000
}

// Returns makes r, which goes back to where open came from, a way back of the
// same kind. What open had not replaced yet gets all of the traffic at once.
func (r *Rollout) Returns(open Rollout, now time.Time) {
	if !open.Beside() {
		return
	}
	r.Asked = tender.BlueGreen
	if r.To == open.From && !open.Promoted() {
		r.Shifts = []Shift{{At: now, Share: 1000}}
	}
}

// Shift is one step that gave traffic to the new revision.
type Shift struct {
	At    time.Time `json:"at"`
	Share int       `json:"share"` // per mille
	// Counts is what the edge had counted by revision then, since Counting.
	Counts   map[string]tender.Served `json:"counts,omitempty"`
	Counting time.Time                `json:"counting,omitzero"`
}

// Counts is what the edge had counted by revision at some time, since Counting.
type Counts struct {
	Revisions map[string]tender.Served `json:"revisions,omitempty"`
	Counting  time.Time                `json:"counting,omitzero"`
}

// Proof is what a rollout leaves when it has ended.
type Proof struct {
	Verdict string `json:"verdict"`
	// Served is what the edge counted per revision while it ran, the old one first; empty: the edge does not serve it.
	Served []ServedBy `json:"served,omitempty"`
	// Partial: the edge began to count anew meanwhile, so that these are a part.
	Partial bool    `json:"partial,omitempty"`
	Health  []Vital `json:"health,omitempty"`
	Drains  []Drain `json:"drains,omitempty"`
}

// ServedBy is what one revision served.
type ServedBy struct {
	Revision string        `json:"revision"`
	Digest   string        `json:"digest"` // of its image, or the image's id
	Served   tender.Served `json:"served"`
	// Failed is what went wrong of it: what the edge could not bring home, and what was answered with 5xx.
	Failed uint64        `json:"failed"`
	P99    time.Duration `json:"p99,omitempty"` // a bound under which 99 % of its latencies stayed
}

// Sum says in a few words what was served.
func (p *Proof) Sum() string {
	var requests, failed uint64
	for _, s := range p.Served {
		requests, failed = requests+s.Served.Requests, failed+s.Failed
	}
	text := fmt.Sprintf("%d requests while it ran, %d failed", requests, failed)
	if p.Partial {
		text += " (a part: the edge began to count anew)"
	}
	return text
}

// Vital is how an instance of the new revision was when the rollout ended.
type Vital struct {
	Instance string        `json:"instance"`
	State    string        `json:"state"`              // healthy, running, exited with 1
	After    time.Duration `json:"after,omitempty"`    // from its start to that state
	Restarts int           `json:"restarts,omitempty"` // by the engine
}

// Drain is how an instance left the traffic.
type Drain struct {
	Instance string        `json:"instance"`
	Took     time.Duration `json:"took"`
	Cut      int           `json:"cut,omitempty"`     // requests and connections that were under way still
	Skipped  string        `json:"skipped,omitempty"` // why it was not waited for
}

// Step is one line of a rollout's proof.
type Step struct {
	Time time.Time
	Text string
}

// AddRollout writes an open rollout and returns its id.
func (tx *Tx) AddRollout(r Rollout) (int64, error) {
	doing := func(err error) error { return fmt.Errorf("open rollout of %s/%s: %w", r.Project, r.Service, err) }
	detail, err := json.Marshal(r)
	if err != nil {
		return 0, doing(err)
	}
	res, err := tx.exec(`INSERT INTO rollouts (project, service, generation, revision, state, reason, started, ended, detail)
		VALUES (?, ?, ?, ?, 'open', '', ?, 0, ?)`, r.Project, r.Service, r.Generation, r.To, stamp(r.Started), string(detail))
	if err != nil {
		return 0, doing(err)
	}
	id, err := res.LastInsertId()
	if err != nil {
		return 0, doing(err)
	}
	// The last good one stays however many failed since.
	_, err = tx.exec(`DELETE FROM rollouts WHERE project = ?1 AND service = ?2
		AND id <= (SELECT id FROM rollouts WHERE project = ?1 AND service = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)
		AND id <> (SELECT coalesce(max(id), 0) FROM rollouts WHERE project = ?1 AND service = ?2 AND state = 'done')`,
		r.Project, r.Service, keepRollouts)
	if err != nil {
		return 0, doing(err)
	}
	return id, nil
}

// EndRollout closes a rollout if it is open, and reports whether it was.
func (tx *Tx) EndRollout(id int64, state, reason string, at time.Time) (bool, error) {
	res, err := tx.exec(`UPDATE rollouts SET state = ?, reason = ?, ended = ? WHERE id = ? AND state = 'open'`, state, reason, stamp(at), id)
	if err != nil {
		return false, fmt.Errorf("close rollout %d: %w", id, err)
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// ChangeRollout changes what an open rollout says of itself, and reports
// whether it is open.
func (tx *Tx) ChangeRollout(id int64, change func(*Rollout)) (bool, error) {
	doing := func(err error) error { return fmt.Errorf("write rollout %d: %w", id, err) }
	r, err := scanRollout(tx.row(rolloutColumns+`WHERE id = ? AND state = 'open'`, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, doing(err)
	}
	change(&r)
	detail, err := json.Marshal(r)
	if err == nil {
		_, err = tx.exec(`UPDATE rollouts SET detail = ? WHERE id = ?`, string(detail), id)
	}
	if err != nil {
		return false, doing(err)
	}
	return true, nil
}

// AddStep adds a line to the proof of a rollout.
func (tx *Tx) AddStep(id int64, at time.Time, text string) error {
	_, err := tx.exec(`INSERT INTO rollout_steps (rollout, time, text) SELECT ?1, ?2, ?3
		WHERE (SELECT count(*) FROM rollout_steps WHERE rollout = ?1) < ?4 AND EXISTS (SELECT 1 FROM rollouts WHERE id = ?1)`,
		id, stamp(at), text, keepSteps)
	if err != nil {
		return fmt.Errorf("write step of rollout %d: %w", id, err)
	}
	return nil
}

const rolloutColumns = `SELECT id, project, service, generation, revision, state, reason, started, ended, detail FROM rollouts `

func scanRollout(scan func(...any) error) (r Rollout, err error) {
	var started, ended int64
	var detail string
	if err := scan(&r.ID, &r.Project, &r.Service, &r.Generation, &r.To, &r.State, &r.Reason, &started, &ended, &detail); err != nil {
		return r, err
	}
	r.Started, r.Ended = moment(started), moment(ended)
	return r, json.Unmarshal([]byte(detail), &r)
}

// Rollout returns one rollout with its steps.
func (tx *Tx) Rollout(id int64) (Rollout, error) {
	r, err := scanRollout(tx.row(rolloutColumns+`WHERE id = ?`, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return r, tender.Errorf(tender.NotFound, "no rollout %d", id).Hint("tender history shows the rollouts that are kept")
	}
	if err != nil {
		return r, fmt.Errorf("read rollout %d: %w", id, err)
	}
	r.Steps, err = collect(tx, func(scan func(...any) error) (s Step, err error) {
		var at int64
		err = scan(&at, &s.Text)
		s.Time = moment(at)
		return s, err
	}, `SELECT time, text FROM rollout_steps WHERE rollout = ? ORDER BY rowid`, id)
	if err != nil {
		return r, fmt.Errorf("read rollout %d: %w", id, err)
	}
	return r, nil
}

// Rollouts returns the rollouts of a project, or of one service of it, the
// newest first and without their steps.
func (tx *Tx) Rollouts(project, service string) ([]Rollout, error) {
	return tx.rollouts(`WHERE project = ?1 AND (service = ?2 OR ?2 = '') ORDER BY id DESC`, project, service)
}

// RolloutsSince returns the rollouts that generation n of a project or a later one opened.
func (tx *Tx) RolloutsSince(project string, n int) ([]Rollout, error) {
	return tx.rollouts(`WHERE project = ? AND generation >= ? ORDER BY id DESC`, project, n)
}

// OpenRollouts returns the open rollouts of a project.
func (tx *Tx) OpenRollouts(project string) ([]Rollout, error) {
	return tx.rollouts(`WHERE project = ? AND state = 'open' ORDER BY id`, project)
}

// LastRollouts returns the newest rollout of each service of a project.
func (tx *Tx) LastRollouts(project string) ([]Rollout, error) {
	return tx.rollouts(`WHERE id IN (SELECT max(id) FROM rollouts WHERE project = ? GROUP BY service) ORDER BY id`, project)
}

// GoodRollouts returns, per service, the newest rollout that ended well: its
// revision is proven.
func (tx *Tx) GoodRollouts(project string) ([]Rollout, error) {
	return tx.rollouts(`WHERE id IN (SELECT max(id) FROM rollouts WHERE project = ? AND state = 'done' GROUP BY service) ORDER BY id`, project)
}

func (tx *Tx) rollouts(where string, args ...any) ([]Rollout, error) {
	list, err := collect(tx, scanRollout, rolloutColumns+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read rollouts: %w", err)
	}
	return list, nil
}
