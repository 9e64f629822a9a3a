package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tenderhq/tender"
)

const revisionsTables = `
CREATE TABLE revisions (
	project  TEXT NOT NULL,
	service  TEXT NOT NULL,
	revision TEXT NOT NULL,
	made     INTEGER NOT NULL,
	last     INTEGER NOT NULL, -- the last generation that wanted it
	spec     TEXT NOT NULL,    -- JSON: tender.Service
	image    TEXT NOT NULL,    -- JSON: tender.ImageID
	rejected TEXT NOT NULL,    -- why it failed; '' it did not
	PRIMARY KEY (project, service, revision)
) STRICT;
CREATE TABLE revision_files (
	project  TEXT NOT NULL,
	service  TEXT NOT NULL,
	revision TEXT NOT NULL,
	sha256   TEXT NOT NULL,
	PRIMARY KEY (project, service, revision, sha256),
	FOREIGN KEY (project, service, revision) REFERENCES revisions ON DELETE CASCADE
) STRICT;
CREATE TABLE jobs (
	id       INTEGER PRIMARY KEY AUTOINCREMENT,
	project  TEXT NOT NULL,
	service  TEXT NOT NULL,
	revision TEXT NOT NULL,
	rollout  INTEGER NOT NULL, -- the rollout that it ran before; 0: for its own revision
	code     INTEGER NOT NULL,
	ended    INTEGER NOT NULL
) STRICT;
CREATE INDEX jobs_service ON jobs (project, service, revision);
`

// keepJobs is how many ends of one job are kept.
const keepJobs = 50

// Revision is one immutable version of a service.
type Revision struct {
	Project  string
	Service  tender.Service // Revision set, secrets with their versions
	Image    tender.ImageID
	Made     time.Time
	Last     int    // the last generation that wanted it
	Rejected string // why it failed; empty: it did not
}

// SaveRevision writes a revision. One that is there keeps its time; what made
// it rejected is forgotten.
func (tx *Tx) SaveRevision(r Revision) error {
	doing := func(err error) error {
		return fmt.Errorf("write revision %s of %s/%s: %w", r.Service.Revision, r.Project, r.Service.Name, err)
	}
	spec, err := json.Marshal(r.Service)
	if err != nil {
		return doing(err)
	}
	image, err := json.Marshal(r.Image)
	if err != nil {
		return doing(err)
	}
	_, err = tx.exec(`INSERT INTO revisions (project, service, revision, made, last, spec, image, rejected) VALUES (?, ?, ?, ?, ?, ?, ?, '')
		ON CONFLICT DO UPDATE SET last = excluded.last, spec = excluded.spec, image = excluded.image, rejected = ''`,
		r.Project, r.Service.Name, r.Service.Revision, stamp(r.Made), r.Last, string(spec), string(image))
	if err != nil {
		return doing(err)
	}
	for _, c := range r.Service.Configs {
		_, err := tx.exec(`INSERT OR IGNORE INTO revision_files (project, service, revision, sha256) VALUES (?, ?, ?, ?)`,
			r.Project, r.Service.Name, r.Service.Revision, c.SHA256)
		if err != nil {
			return doing(err)
		}
	}
	return nil
}

const revisionColumns = `SELECT project, spec, image, made, last, rejected FROM revisions `

func scanRevision(scan func(...any) error) (r Revision, err error) {
	var made int64
	var spec, image string
	if err := scan(&r.Project, &spec, &image, &made, &r.Last, &r.Rejected); err != nil {
		return r, err
	}
	r.Made = moment(made)
	return r, errors.Join(json.Unmarshal([]byte(spec), &r.Service), json.Unmarshal([]byte(image), &r.Image))
}

// Revision returns one revision: NotFound when it is not kept.
func (tx *Tx) Revision(project, service, revision string) (Revision, error) {
	r, err := scanRevision(tx.row(revisionColumns+`WHERE project = ? AND service = ? AND revision = ?`, project, service, revision).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return r, tender.Errorf(tender.NotFound, "service %s of %s has no revision %s", service, project, revision).
			Hint("tender history %s -p %s shows the revisions there were", service, project)
	}
	if err != nil {
		return r, fmt.Errorf("read revision %s of %s/%s: %w", revision, project, service, err)
	}
	return r, nil
}

// Revisions returns the revisions of a project that are kept, the newest first;
// project "": of all projects.
func (tx *Tx) Revisions(project string) ([]Revision, error) {
	list, err := collect(tx, scanRevision, revisionColumns+`WHERE project = ?1 OR ?1 = '' ORDER BY made DESC, revision`, project)
	if err != nil {
		return nil, fmt.Errorf("read revisions of %s: %w", project, err)
	}
	return list, nil
}

// Reject records why a revision failed.
func (tx *Tx) Reject(project, service, revision, why string) error {
	_, err := tx.exec(`UPDATE revisions SET rejected = ? WHERE project = ? AND service = ? AND revision = ?`, why, project, service, revision)
	if err != nil {
		return fmt.Errorf("reject revision %s of %s/%s: %w", revision, project, service, err)
	}
	return nil
}

// JobEnd is how a job ended.
type JobEnd struct {
	Project, Service, Revision string
	Rollout                    int64 // the rollout that it ran before; 0: for its own revision
	Code                       int
	Ended                      time.Time
}

// AddJobEnd records the end of a job.
func (tx *Tx) AddJobEnd(e JobEnd) error {
	_, err := tx.exec(`INSERT INTO jobs (project, service, revision, rollout, code, ended) VALUES (?, ?, ?, ?, ?, ?)`,
		e.Project, e.Service, e.Revision, e.Rollout, e.Code, stamp(e.Ended))
	if err == nil {
		_, err = tx.exec(`DELETE FROM jobs WHERE project = ?1 AND service = ?2 AND id NOT IN (
			SELECT id FROM jobs WHERE project = ?1 AND service = ?2 ORDER BY id DESC LIMIT ?3)`, e.Project, e.Service, keepJobs)
	}
	if err != nil {
		return fmt.Errorf("record the end of job %s/%s: %w", e.Project, e.Service, err)
	}
	return nil
}

// JobEnds returns the ends of all jobs of a project, the oldest first.
func (tx *Tx) JobEnds(project string) ([]JobEnd, error) {
	list, err := collect(tx, func(scan func(...any) error) (e JobEnd, err error) {
		var ended int64
		err = scan(&e.Project, &e.Service, &e.Revision, &e.Rollout, &e.Code, &ended)
		e.Ended = moment(ended)
		return e, err
	}, `SELECT project, service, revision, rollout, code, ended FROM jobs WHERE project = ? ORDER BY id`, project)
	if err != nil {
		return nil, fmt.Errorf("read jobs of %s: %w", project, err)
	}
	return list, nil
}

// ForgetJobs lets all jobs of a project run again.
func (tx *Tx) ForgetJobs(project string) error {
	if _, err := tx.exec(`DELETE FROM jobs WHERE project = ?`, project); err != nil {
		return fmt.Errorf("forget jobs of %s: %w", project, err)
	}
	return nil
}

// ForgetFailedJobs lets a job run again at a revision at which it failed.
func (tx *Tx) ForgetFailedJobs(project, service, revision string) error {
	_, err := tx.exec(`DELETE FROM jobs WHERE project = ? AND service = ? AND revision = ? AND code <> 0`, project, service, revision)
	if err != nil {
		return fmt.Errorf("forget failed job %s/%s: %w", project, service, err)
	}
	return nil
}
