// Package sample reads what instances and their host use: processor, memory,
// network, disks, from the files in which the kernel says so. It runs where
// instances are and hands rounds of points to whoever keeps them; it keeps
// nothing itself, and asks the engine for nothing that a file can say.
package sample

import "time"

// Kind says how values of a series follow each other.
type Kind uint8

const (
	Gauge   Kind = iota // as it is now
	Counter             // grows, and begins anew at 0
)

// Label is one of a series.
type Label struct{ Name, Value string }

// Series is what a point belongs to. Who samples makes it once and hands out the
// same pointer in every round, as long as what it measures lives: who keeps may
// remember things by the pointer.
type Series struct {
	Name   string // as cAdvisor or the node exporter call it
	Help   string
	Kind   Kind
	Labels []Label // sorted by name, without the name of the series; never changed
}

// Point is one value, in the unit that the name of its series ends in.
type Point struct {
	Series *Series
	Value  float64
}

// Round is all that one source saw at one time. A series of the source that was in
// its round before and is not in this one has ended.
type Round struct {
	Source string
	At     time.Time
	Points []Point
}
