package deploy

import (
	"context"

	"github.com/tenderhq/tender/internal/engine"
)

// Want is what an instance of a service is made from, as it is wanted now,
// with its files on the host: for tender run, which makes one beside the slots.
// NotFound: there is no such project or service.
func (l *Loop) Want(ctx context.Context, project, service string) (engine.Want, error) {
	r, err := l.records(ctx, project)
	if err != nil {
		return engine.Want{}, err
	}
	s, ok := r.service(service)
	if !ok {
		return engine.Want{}, noService(project, service)
	}
	files, err := l.o.Deliver(ctx, project, s.Service)
	if err != nil {
		return engine.Want{}, err
	}
	w := wantOf(r.head, s)
	w.Files = files
	return w, nil
}
