package docker

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
)

// Name implements engine.Engine.
func (e *Engine) Name(ctx context.Context, id string) error {
	c, err := e.c().ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return wrap(err, "name %s", short(id))
	}
	l := c.Container.Config.Labels
	if l[labelProject] == "" {
		return nil // made by somebody else: its name is its own
	}
	slot, _ := strconv.Atoi(l[labelSlot])
	_, s, err := e.service(tender.Service{Name: l[labelService], Spec: []byte(l[labelSpec])})
	if err != nil {
		return fmt.Errorf("name %s: %w", short(id), err)
	}
	plain := plainName(l[labelProject], s, slot)
	if strings.TrimPrefix(c.Container.Name, "/") == plain {
		return nil
	}
	_, err = e.c().ContainerRename(ctx, id, client.ContainerRenameOptions{NewName: plain})
	e.seen.touch(id)
	return wrap(err, "name %s %s", short(id), plain)
}

// Start implements engine.Engine.
func (e *Engine) Start(ctx context.Context, id string) error {
	defer e.seen.touch(id)
	if _, err := e.c().ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return e.startError(ctx, id, short(id), err)
	}
	return nil
}

// Stop implements engine.Engine. A negative grace is the container's own.
func (e *Engine) Stop(ctx context.Context, id string, grace time.Duration) error {
	defer e.seen.touch(id)
	_, err := e.c().ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: timeout(grace)})
	return wrap(err, "stop %s", short(id))
}

// Restart implements engine.Engine. A negative grace is the container's own.
func (e *Engine) Restart(ctx context.Context, id string, grace time.Duration) error {
	defer e.seen.touch(id)
	if _, err := e.c().ContainerRestart(ctx, id, client.ContainerRestartOptions{Timeout: timeout(grace)}); err != nil {
		return e.startError(ctx, id, short(id), err)
	}
	return nil
}

// timeout is in whole seconds, rounded up.
func timeout(grace time.Duration) *int {
	if grace < 0 {
		return nil
	}
	if n := seconds(grace); n != nil {
		return n
	}
	return new(int)
}

// Signal implements engine.Engine.
func (e *Engine) Signal(ctx context.Context, id, signal string) error {
	defer e.seen.touch(id)
	_, err := e.c().ContainerKill(ctx, id, client.ContainerKillOptions{Signal: signal})
	return wrap(err, "signal %s", short(id))
}

// Pause implements engine.Engine.
func (e *Engine) Pause(ctx context.Context, id string) error {
	defer e.seen.touch(id)
	_, err := e.c().ContainerPause(ctx, id, client.ContainerPauseOptions{})
	return wrap(err, "pause %s", short(id))
}

// Unpause implements engine.Engine.
func (e *Engine) Unpause(ctx context.Context, id string) error {
	defer e.seen.touch(id)
	_, err := e.c().ContainerUnpause(ctx, id, client.ContainerUnpauseOptions{})
	return wrap(err, "unpause %s", short(id))
}

// Remove implements engine.Engine.
func (e *Engine) Remove(ctx context.Context, id string, grace time.Duration, volumes bool) error {
	var names []string
	if volumes {
		// Inherited ones have a name for the engine, which therefore would keep them.
		c, err := e.c().ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if err != nil && kind(err) != tender.NotFound {
			return wrap(err, "remove %s", short(id))
		}
		if err == nil {
			for _, name := range anonymous(c.Container) {
				names = append(names, name)
			}
		}
	}
	if err := e.Stop(ctx, id, grace); err != nil && tender.KindOf(err) != tender.NotFound {
		return err
	}
	if err := e.remove(ctx, id); err != nil {
		return err
	}
	return e.removeVolumes(ctx, names)
}
