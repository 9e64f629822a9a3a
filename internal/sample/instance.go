package sample

import "time"

// Instance is one to be sampled: what the engine knows of it, so that nobody has
// to be asked.
type Instance struct {
	ID       string // the engine's, in full
	Name     string // that of its slot: it does not change when a rollout ends
	Project  string
	Service  string
	Revision string
	Image    string

	PID     int    // of its first process, as the host counts; 0: it does not run
	Running bool   // or paused
	Health  string // Docker's word; "" without a healthcheck
	// Ended: it has run and does not run now; ExitCode is what it ended with.
	Ended    bool
	ExitCode int
	Restarts int
	// OOMs is how often the engine told that memory ran out, as far as it is known.
	OOMs             int
	Created, Started time.Time
}
