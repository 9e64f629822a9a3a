package daemon

import (
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// eachHead shows the newest generation of each project, in the order of their names.
func eachHead(tx *store.Tx, show func(project string, g store.Generation) error) error {
	names, err := tx.Projects()
	if err != nil {
		return err
	}
	for _, name := range names {
		g, err := tx.Head(name)
		if tender.KindOf(err) == tender.NotFound {
			continue
		}
		if err == nil {
			err = show(name, g)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ofHead is what was read out of the newest generation of a project.
type ofHead[T any] struct {
	n  int
	at time.Time
	is T
}

// readHeads reads something out of each project's newest generation, in the order of their
// names, and takes it from before where that is of the same one. The number alone does not
// tell: a project that was removed and comes again counts anew.
func readHeads[T any](tx *store.Tx, before map[string]ofHead[T], read func(store.Generation) T) (names []string, all map[string]ofHead[T], err error) {
	if names, err = tx.Projects(); err != nil {
		return nil, nil, err
	}
	all = make(map[string]ofHead[T], len(names))
	for _, name := range names {
		g, err := tx.Head(name)
		if err != nil {
			return nil, nil, err
		}
		h, known := before[name]
		if !known || h.n != g.N || !h.at.Equal(g.At) {
			h = ofHead[T]{n: g.N, at: g.At, is: read(g)}
		}
		all[name] = h
	}
	return names, all, nil
}
