package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
	"github.com/tenderhq/tender/internal/vault"
)

// Mounted is a revision whose files lie on the host now.
type Mounted struct {
	Project  string `json:"project"`
	Service  string `json:"service"`
	Revision string `json:"revision"`
	Secrets  int    `json:"secrets"`
}

// Mount is tender secret mount: it puts the secrets of everything that may run
// into the run directory, and needs no engine for that. At boot it comes before
// the engine, which starts instances by itself and finds the run directory
// empty. One that cannot be delivered stops none of the others. A data directory
// without a store is one of a Tender that was never started: there is nothing to do.
func Mount(ctx context.Context, c Config, o Options) (done []Mounted, err error) {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if _, err := os.Stat(filepath.Join(c.DataDir, storeFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	st, err := store.Open(c.DataDir, store.Options{Log: log.With("part", "store")})
	if tender.KindOf(err) == tender.Conflict {
		return nil, tender.Errorf(tender.Conflict, "%w", err).Hint("there is nothing to do: that one delivers secrets itself when it starts")
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	var all []sealed
	if err := st.View(ctx, func(tx *store.Tx) (err error) {
		all, err = mayRun(tx)
		return err
	}); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, nil // a key is not made for nothing
	}
	v, recovery, err := vault.Init(ctx, st, vault.Options{KeyFile: c.Key})
	if err != nil {
		return nil, err
	}
	if err := keepRecovery(c, recovery, log); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.RunDir, 0o755); err != nil { // as serve does, which finds it made
		return nil, fmt.Errorf("make the run directory: %w", err)
	}
	b := &backend{config: c, store: st, vault: v}
	var errs []error
	for _, r := range all {
		_, err := b.deliver(ctx, r.project, r.service)
		switch {
		case err == nil:
			done = append(done, Mounted{r.project, r.service.Name, r.service.Revision, len(r.service.Secrets)})
		case !r.wanted && tender.KindOf(err) == tender.NotFound:
			// Of a revision that is on its way out a version may be gone already.
			log.Warn("secrets of an old revision are gone", "project", r.project, "service", r.service.Name, "revision", r.service.Revision, "err", err)
		default:
			errs = append(errs, fmt.Errorf("mount %s: %w", r.project, err))
		}
	}
	if len(errs) == 1 {
		return done, errs[0]
	}
	return done, errors.Join(errs...)
}

// sealed is a revision that has secrets.
type sealed struct {
	project string
	service tender.Service
	wanted  bool
}

// mayRun returns the revisions with secrets that an instance may be of when the
// engine starts: what is wanted, and both ends of a rollout that has not ended well.
func mayRun(tx *store.Tx) (out []sealed, err error) {
	projects, err := tx.Projects()
	if err != nil {
		return nil, err
	}
	for _, p := range projects {
		g, err := tx.Head(p)
		if err != nil {
			return nil, err
		}
		if g.Down != nil {
			continue
		}
		last, err := tx.LastRollouts(p)
		if err != nil {
			return nil, err
		}
		for _, s := range g.Services {
			if s.Stopped || s.Gone {
				continue
			}
			if len(s.Service.Secrets) > 0 {
				out = append(out, sealed{p, s.Service, true})
			}
			for _, r := range last {
				if r.Service != s.Service.Name || r.State == store.RolloutDone {
					continue
				}
				for _, revision := range []string{r.From, r.To} {
					if revision == "" || revision == s.Service.Revision {
						continue
					}
					old, err := tx.Revision(p, r.Service, revision)
					if tender.KindOf(err) == tender.NotFound {
						continue
					}
					if err != nil {
						return nil, err
					}
					if len(old.Service.Secrets) > 0 {
						out = append(out, sealed{p, old.Service, false})
					}
				}
			}
		}
	}
	return out, nil
}
