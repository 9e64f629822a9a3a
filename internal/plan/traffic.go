package plan

import "github.com/tenderhq/tender"

// Lane is what an instance gets of its service's traffic at the edge. Lanes are
// made of the same input as the plan, so that a table can be made anew at any
// time.
type Lane struct {
	Service  string
	Revision string
	ID       string // of the instance
	// Share is its revision's share of the service's traffic, in per mille. The instances of one
	// revision have the same.
	Share int
	State LaneState
}

// LaneState is what an instance may get.
type LaneState string

const (
	In      LaneState = "in"      // serves
	Leaving LaneState = "leaving" // nothing new; what is under way ends
	Out     LaneState = "out"     // not ready: nothing
)

// Traffic is what the edge says of a service that routes or ports of the edge
// lead to.
type Traffic struct {
	// Away says why the edge does not tell; empty: it does.
	Away string
	// Instances is what it has of each instance in the table that it serves now, by id.
	Instances map[string]Flow
	// Revisions is what it has counted since it started.
	Revisions map[string]tender.Served
}

// Flow is one instance at the edge.
type Flow struct {
	State LaneState
	Open  int // requests and connections under way
}
