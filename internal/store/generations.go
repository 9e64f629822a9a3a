package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tenderhq/tender"
)

const generationsTables = `
CREATE TABLE generations (
	project TEXT NOT NULL,
	n       INTEGER NOT NULL,
	at      INTEGER NOT NULL,
	who     TEXT NOT NULL,
	reason  TEXT NOT NULL,
	origin  INTEGER NOT NULL, -- the generation whose failure this one answers; 0: a person's
	yaml    BLOB NOT NULL,
	wanted  TEXT NOT NULL,    -- JSON: the rest of Generation
	made    TEXT NOT NULL,    -- JSON: Made; empty until its networks and volumes were made
	PRIMARY KEY (project, n)
) STRICT;
CREATE TABLE generation_files (
	project TEXT NOT NULL,
	n       INTEGER NOT NULL,
	sha256  TEXT NOT NULL,
	PRIMARY KEY (project, n, sha256),
	FOREIGN KEY (project, n) REFERENCES generations ON DELETE CASCADE
) STRICT;
CREATE TABLE files (
	sha256  TEXT PRIMARY KEY,
	content BLOB NOT NULL
) STRICT;
`

// KeepGenerations is how many generations of a project are kept.
const KeepGenerations = 20

// Generation is one accepted version of what a project wants.
type Generation struct {
	Project string    `json:"-"`
	N       int       `json:"-"` // 1, 2, ...
	At      time.Time `json:"-"`
	Who     string    `json:"-"`
	Reason  string    `json:"-"`
	// Origin is the generation whose failure this one answers; 0: a person asked for it.
	Origin int    `json:"-"`
	YAML   []byte `json:"-"` // the normal form, tender.Project.Spec

	Files        []string        `json:"files,omitempty"` // sha256 in hex of what lies in files
	ComposeFiles []string        `json:"compose_files,omitempty"`
	WorkingDir   string          `json:"working_dir,omitempty"`
	Services     []WantedService `json:"services,omitempty"` // by name
	// Routes are what the edge serves of the project.
	Routes  []tender.Route `json:"routes,omitempty"`
	Orphans bool           `json:"orphans,omitempty"`
	Down    *Down          `json:"down,omitempty"`
	// Rebuilt: it was read from the instances after the store was lost. Lost says what they could not tell.
	Rebuilt bool     `json:"rebuilt,omitempty"`
	Lost    []string `json:"lost,omitempty"`

	// Made is nil until the networks and volumes of this generation were made.
	Made *Made `json:"-"`
}

// Down is what goes beside instances and networks when a project goes.
type Down struct {
	Volumes bool           `json:"volumes,omitempty"`
	Grace   *time.Duration `json:"grace,omitempty"`
}

// Made names the networks and volumes that were made for a generation.
type Made struct {
	// Ended: it was a down, and all that was to go is gone. What comes later is not ours.
	Ended    bool     `json:"ended,omitempty"`
	Networks []string `json:"networks,omitempty"`
	Volumes  []string `json:"volumes,omitempty"`
}

// WantedService is what a generation wants of one service.
type WantedService struct {
	Service tender.Service `json:"service"` // Revision and versions set
	Image   tender.ImageID `json:"image"`
	Stopped bool           `json:"stopped,omitempty"`
	Gone    bool           `json:"gone,omitempty"`
	// GoneAt is when that was said. GoneOf are the foreign instances that were there: what others make under
	// its name later is theirs.
	GoneAt time.Time      `json:"gone_at,omitzero"`
	GoneOf []string       `json:"gone_of,omitempty"`
	StopIn *time.Duration `json:"stop_in,omitempty"`
	// RestartAfter is when a restart was asked for. RestartOf are the instances that it is about, those of
	// services that restart with this one, too, by id, and when each was started: who is still in that life is
	// restarted.
	RestartAfter time.Time            `json:"restart_after,omitzero"`
	RestartOf    map[string]time.Time `json:"restart_of,omitempty"`
	// StartAfter and StartOf say the same of instances that ended and are to be started.
	StartAfter time.Time            `json:"start_after,omitzero"`
	StartOf    map[string]time.Time `json:"start_of,omitempty"`
	RenewAnon  bool                 `json:"renew_anon,omitempty"`
	Strategy   string               `json:"strategy,omitempty"` // for the rollout of this generation
	Halted     string               `json:"halted,omitempty"`
	// Kept is the revision that was replaced and stays warm for a while.
	Kept *Kept `json:"kept,omitempty"`
	// Adopted maps ids of foreign instances to the revision they count as.
	Adopted map[string]string `json:"adopted,omitempty"`
	// Counted says why there are as many as there are; nil: the file says so.
	Counted *Counted `json:"counted,omitempty"`
}

// Kept is a revision whose instances stay until then.
type Kept struct {
	Revision string    `json:"revision"`
	Until    time.Time `json:"until"`
}

// Projects names the projects that are known, by name.
func (tx *Tx) Projects() ([]string, error) {
	names, err := collect(tx, func(scan func(...any) error) (name string, err error) {
		return name, scan(&name)
	}, `SELECT DISTINCT project FROM generations ORDER BY project`)
	if err != nil {
		return nil, fmt.Errorf("read projects: %w", err)
	}
	return names, nil
}

const generationColumns = `SELECT project, n, at, who, reason, origin, yaml, wanted, made FROM generations `

func scanGeneration(scan func(...any) error) (g Generation, err error) {
	var at int64
	var wanted, made string
	if err := scan(&g.Project, &g.N, &at, &g.Who, &g.Reason, &g.Origin, &g.YAML, &wanted, &made); err != nil {
		return g, err
	}
	g.At = moment(at)
	if err := json.Unmarshal([]byte(wanted), &g); err != nil {
		return g, err
	}
	if made != "" {
		return g, json.Unmarshal([]byte(made), &g.Made)
	}
	return g, nil
}

// Head returns the newest generation of a project: what is wanted. NotFound
// when the project is not known.
func (tx *Tx) Head(project string) (Generation, error) {
	g, err := scanGeneration(tx.row(generationColumns+`WHERE project = ? ORDER BY n DESC LIMIT 1`, project).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return g, tender.Errorf(tender.NotFound, "no project %s", project).Hint("tender ls shows the projects that are known")
	}
	if err != nil {
		return g, fmt.Errorf("read project %s: %w", project, err)
	}
	return g, nil
}

// Generation returns generation n of a project: NotFound when it is not kept.
func (tx *Tx) Generation(project string, n int) (Generation, error) {
	g, err := scanGeneration(tx.row(generationColumns+`WHERE project = ? AND n = ?`, project, n).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return g, tender.Errorf(tender.NotFound, "project %s has no generation %d", project, n).
			Hint("the last %d generations are kept", KeepGenerations)
	}
	if err != nil {
		return g, fmt.Errorf("read generation %d of %s: %w", n, project, err)
	}
	return g, nil
}

// AddGeneration writes g as the newest generation, with the files that came
// along, and drops what is older than KeepGenerations.
func (tx *Tx) AddGeneration(g Generation, files map[string][]byte) error {
	doing := func(err error) error { return fmt.Errorf("write generation %d of %s: %w", g.N, g.Project, err) }
	wanted, err := json.Marshal(g)
	if err != nil {
		return doing(err)
	}
	made := ""
	if g.Made != nil {
		b, err := json.Marshal(g.Made)
		if err != nil {
			return doing(err)
		}
		made = string(b)
	}
	if g.YAML == nil {
		g.YAML = []byte{}
	}
	_, err = tx.exec(`INSERT INTO generations (project, n, at, who, reason, origin, yaml, wanted, made) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		g.Project, g.N, stamp(g.At), g.Who, g.Reason, g.Origin, g.YAML, string(wanted), made)
	if err != nil {
		return doing(err)
	}
	for sum, content := range files {
		if content == nil {
			content = []byte{}
		}
		if _, err := tx.exec(`INSERT OR IGNORE INTO files (sha256, content) VALUES (?, ?)`, sum, content); err != nil {
			return doing(err)
		}
	}
	for _, sum := range g.Files {
		if _, err := tx.exec(`INSERT OR IGNORE INTO generation_files (project, n, sha256) VALUES (?, ?, ?)`, g.Project, g.N, sum); err != nil {
			return doing(err)
		}
	}
	if err := tx.takeBack(g.Project); err != nil {
		return err
	}
	return tx.prune(g.Project, g.N)
}

// prune drops old generations, and revisions and files that nothing names any
// more. The last good revision of each service stays, for the way back.
func (tx *Tx) prune(project string, head int) error {
	for _, q := range []string{
		`DELETE FROM generations WHERE project = ?1 AND n <= ?2`,
		`DELETE FROM revisions WHERE project = ?1 AND last <= ?2 AND NOT EXISTS (
			SELECT 1 FROM rollouts r WHERE r.project = ?1 AND r.service = revisions.service AND r.revision = revisions.revision
			AND r.id = (SELECT max(id) FROM rollouts g WHERE g.project = ?1 AND g.service = r.service AND g.state = 'done'))`,
	} {
		if _, err := tx.exec(q, project, head-KeepGenerations); err != nil {
			return fmt.Errorf("drop old generations of %s: %w", project, err)
		}
	}
	return tx.dropFiles()
}

func (tx *Tx) dropFiles() error {
	_, err := tx.exec(`DELETE FROM files WHERE sha256 NOT IN (SELECT sha256 FROM generation_files) AND sha256 NOT IN (SELECT sha256 FROM revision_files)`)
	if err != nil {
		return fmt.Errorf("drop old files: %w", err)
	}
	return nil
}

// SetMade records that the networks and volumes of a generation are there.
func (tx *Tx) SetMade(project string, n int, m Made) error {
	b, err := json.Marshal(m)
	if err == nil {
		_, err = tx.exec(`UPDATE generations SET made = ? WHERE project = ? AND n = ?`, string(b), project, n)
	}
	if err != nil {
		return fmt.Errorf("write generation %d of %s: %w", n, project, err)
	}
	return nil
}

// SetHalted records that a paused rollout leaves a service as it is.
func (tx *Tx) SetHalted(project, service, why string) error {
	return tx.setService(project, service, func(s *WantedService) { s.Halted = why })
}

// SetKept records that the revision before stays for a while.
func (tx *Tx) SetKept(project, service string, k *Kept) error {
	return tx.setService(project, service, func(s *WantedService) { s.Kept = k })
}

// setService changes what the newest generation says of a service.
func (tx *Tx) setService(project, service string, change func(*WantedService)) error {
	g, err := tx.Head(project)
	if err != nil {
		return err
	}
	for i := range g.Services {
		if g.Services[i].Service.Name == service {
			change(&g.Services[i])
		}
	}
	b, err := json.Marshal(g)
	if err == nil {
		_, err = tx.exec(`UPDATE generations SET wanted = ? WHERE project = ? AND n = ?`, string(b), project, g.N)
	}
	if err != nil {
		return fmt.Errorf("write generation %d of %s: %w", g.N, project, err)
	}
	return nil
}

// File returns the content of a file by its sha256 in hex.
func (tx *Tx) File(sum string) ([]byte, error) {
	var content []byte
	err := tx.row(`SELECT content FROM files WHERE sha256 = ?`, sum).Scan(&content)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, tender.Errorf(tender.NotFound, "no file with sha256 %s", sum)
	}
	if err != nil {
		return nil, fmt.Errorf("read file %s: %w", sum, err)
	}
	return content, nil
}

// Forget drops everything that is known of a project. Secrets, tokens and the
// audit stay.
func (tx *Tx) Forget(project string) error {
	for _, table := range []string{"generations", "revisions", "rollouts", "jobs", "routes", "scalings"} {
		if _, err := tx.exec(`DELETE FROM `+table+` WHERE project = ?`, project); err != nil {
			return fmt.Errorf("forget %s: %w", project, err)
		}
	}
	return tx.dropFiles()
}
