package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	tender "github.com/tenderhq/tender"
)

const routesTable = `
CREATE TABLE routes (
	project TEXT NOT NULL,
	route   TEXT NOT NULL, -- tender.Route.ID
	state   TEXT NOT NULL, -- JSON: RouteState
	PRIMARY KEY (project, route)
) STRICT;
`

// RouteState is what people have asked of a route beside what the file says:
// it stands until they take it back, or the file says other targets.
type RouteState struct {
	Project string `json:"-"`
	Route   string `json:"-"`
	// Paused: requests wait.
	Paused *Pause `json:"paused,omitempty"`
	// Weights stand for those of the file, by the name of the aim; nil: the file's.
	Weights map[string]int `json:"weights,omitempty"`
	// Walk is the newest move of traffic in steps, under way or ended.
	Walk *Walk `json:"walk,omitempty"`
}

// Pause holds requests back.
type Pause struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"` // then they go on by themselves
	Who   string    `json:"who"`
}

// Walk moves the traffic of a route to one of its aims, step by step.
type Walk struct {
	Aim     string         `json:"aim"`
	Steps   []int          `json:"steps"`  // percent
	Every   time.Duration  `json:"every"`  // how long each step is watched
	Errors  float64        `json:"errors"` // share of failed requests above which it goes back
	Before  map[string]int `json:"before"` // weights to go back to
	Step    int            `json:"step"`   // index of the one that stands
	Since   time.Time      `json:"since"`  // when it began
	Served  tender.Served  `json:"served"` // the aim's counts at that moment
	Who     string         `json:"who"`
	Started time.Time      `json:"started"`
	Ended   time.Time      `json:"ended,omitzero"`
	// State: walking, done, back, stopped. Reason says why it is one of the last two.
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// The states of a Walk.
const (
	WalkOn      = "walking"
	WalkDone    = "done"
	WalkBack    = "back"
	WalkStopped = "stopped"
)

// RouteStates returns those of a project; "": of all.
func (tx *Tx) RouteStates(project string) ([]RouteState, error) {
	list, err := collect(tx, func(scan func(...any) error) (r RouteState, err error) {
		var state string
		if err := scan(&r.Project, &r.Route, &state); err != nil {
			return r, err
		}
		return r, json.Unmarshal([]byte(state), &r)
	}, `SELECT project, route, state FROM routes WHERE ?1 = '' OR project = ?1 ORDER BY project, route`, project)
	if err != nil {
		return nil, fmt.Errorf("read states of routes: %w", err)
	}
	return list, nil
}

// RouteState returns that of one route; the zero state where nothing was asked.
func (tx *Tx) RouteState(project, route string) (RouteState, error) {
	r := RouteState{Project: project, Route: route}
	var state string
	err := tx.row(`SELECT state FROM routes WHERE project = ? AND route = ?`, project, route).Scan(&state)
	if errors.Is(err, sql.ErrNoRows) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(state), &r)
	}
	if err != nil {
		return r, fmt.Errorf("read state of route %s: %w", route, err)
	}
	return r, nil
}

// SetRouteState writes one; one that says nothing is taken away.
func (tx *Tx) SetRouteState(r RouteState) error {
	var err error
	if r.Paused == nil && r.Weights == nil && r.Walk == nil {
		_, err = tx.exec(`DELETE FROM routes WHERE project = ? AND route = ?`, r.Project, r.Route)
	} else {
		var b []byte
		if b, err = json.Marshal(r); err == nil {
			_, err = tx.exec(`INSERT OR REPLACE INTO routes (project, route, state) VALUES (?, ?, ?)`, r.Project, r.Route, string(b))
		}
	}
	if err != nil {
		return fmt.Errorf("write state of route %s: %w", r.Route, err)
	}
	return nil
}
