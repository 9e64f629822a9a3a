package deploy

import (
	"context"
	"fmt"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// ServiceImage is the image that a service is wanted with.
type ServiceImage struct {
	Project string
	Service tender.Service
	Image   tender.ImageID
	// Generation is the one that wants it, without what its files hold.
	Generation store.Generation
	Stopped    bool
	// Busy says why nothing may be changed now: "": it may.
	Busy string
}

// Images returns those of all services that are wanted, by project.
func (l *Loop) Images(ctx context.Context) (all []ServiceImage, err error) {
	err = l.o.Store.View(ctx, func(tx *store.Tx) error {
		all = nil
		names, err := tx.Projects()
		for _, name := range names {
			if err != nil {
				return err
			}
			var r records
			if r, err = read(tx, name); err != nil || r.head.Down != nil {
				continue
			}
			busy := ""
			for _, o := range r.open { // any of them
				busy = fmt.Sprintf("rollout %d of %s runs", o.ID, o.Service)
			}
			for _, s := range r.head.Services {
				if s.Gone {
					continue
				}
				i := ServiceImage{Project: name, Service: s.Service, Image: s.Image, Generation: r.head, Stopped: s.Stopped, Busy: busy}
				if i.Busy == "" && s.Halted != "" {
					i.Busy = "its rollout is paused"
				}
				all = append(all, i)
			}
		}
		return err
	})
	return all, err
}

// Files are those of a generation, by their sha256 in hex.
func (l *Loop) Files(ctx context.Context, g store.Generation) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := l.o.Store.View(ctx, func(tx *store.Tx) error {
		for _, sum := range g.Files {
			content, err := tx.File(sum)
			if err != nil {
				return err
			}
			files[sum] = content
		}
		return nil
	})
	return files, err
}

// Announce tells whoever listens.
func (l *Loop) Announce(n News) { l.tell(n) }
