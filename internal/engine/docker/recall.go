package docker

import (
	"context"
	"strconv"
	"strings"

	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// Recall implements engine.Reader: it reads the labels back.
func (e *Engine) Recall(ctx context.Context, id string) (engine.Want, error) {
	got, err := e.c().ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return engine.Want{}, wrap(err, "inspect %s", id)
	}
	if got.Container.Config == nil || got.Container.Config.Labels[labelSpec] == "" {
		return engine.Want{}, tender.Errorf(tender.NotFound, "%s does not carry what it was made from", strings.TrimPrefix(got.Container.Name, "/"))
	}
	l := got.Container.Config.Labels
	w := engine.Want{
		Project:    l[labelProject],
		Service:    tender.Service{Name: l[labelService], Revision: l[labelRevision], Spec: []byte(l[labelSpec])},
		WorkingDir: l[composeWorkingDir],
	}
	w.Generation, _ = strconv.Atoi(l[labelGeneration])
	w.Image, _ = imageOf(l)
	if files := l[composeFiles]; files != "" {
		w.ComposeFiles = strings.Split(files, ",")
	}
	return w, nil
}
