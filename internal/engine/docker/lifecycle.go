package docker

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
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

var (
	boundPort = regexp.MustCompile(`(?:Bind for|listen (?:tcp|udp)[46]?) (\S*):(\d+)`)
	noMount   = regexp.MustCompile(`bind source path does not exist: (/[^"]+)`)
)

// startError says why a container did not start, in words that lead on.
func (e *Engine) startError(ctx context.Context, id, name string, err error) error {
	text := err.Error()
	if strings.Contains(text, "port is already allocated") || strings.Contains(text, "address already in use") {
		m := boundPort.FindStringSubmatch(text)
		if m == nil {
			return tender.Errorf(tender.Conflict, "start %s: %w", name, error(answer{err}))
		}
		if who := e.holder(context.WithoutCancel(ctx), m[2], id); who != "" {
			return tender.Errorf(tender.Conflict, "start %s: port %s is held by container %s", name, m[2], who).
				Hint("stop it (docker stop %s) or publish another port", who)
		}
		return tender.Errorf(tender.Conflict, "start %s: port %s is held by another process of the host", name, m[2]).
			Hint("find it (ss -ltnup 'sport = :%s') or publish another port", m[2])
	}
	if strings.Contains(text, "all ports are allocated") {
		return tender.Errorf(tender.Conflict, "start %s: no port of %s is free", name, e.ranges(context.WithoutCancel(ctx), id)).
			Hint("publish a longer range, one port for each replica")
	}
	if m := noMount.FindStringSubmatch(text); m != nil {
		return notMounted("start "+name, m[1])
	}
	if i := strings.Index(text, "executable file not found"); i >= 0 || strings.Contains(text, "no such file or directory: unknown") {
		return tender.Errorf(tender.Invalid, "start %s: %w", name, error(answer{err})).
			Hint("the command or entrypoint is not in the image")
	}
	// 20.10 calls a start that the runtime refused a bad request of the client's, or a fault of its own.
	if errors.Is(err, cerrdefs.ErrInternal) && strings.Contains(text, "OCI runtime create failed") {
		return tender.Errorf(tender.Invalid, "start %s: %w", name, error(answer{err}))
	}
	return wrap(err, "start %s", name)
}

// ranges are the ranges of host ports that a container may choose from.
func (e *Engine) ranges(ctx context.Context, id string) string {
	var out []string
	if c, err := e.c().ContainerInspect(ctx, id, client.ContainerInspectOptions{}); err == nil {
		for _, bindings := range c.Container.HostConfig.PortBindings {
			for _, b := range bindings {
				if strings.Contains(b.HostPort, "-") {
					out = append(out, b.HostPort)
				}
			}
		}
	}
	if len(out) == 0 {
		return "its range"
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ", ")
}

// createError says why a container could not be created.
func createError(name string, err error) error {
	if err == nil {
		return nil
	}
	if m := noMount.FindStringSubmatch(err.Error()); m != nil {
		return notMounted("create "+name, m[1])
	}
	out := wrap(err, "create %s", name)
	if own, ok := errors.AsType[*tender.Error](out); ok && own.Kind == tender.NotFound && strings.Contains(err.Error(), "network") {
		return own.Hint("tender up makes the project's networks; an external one must be there")
	}
	return out
}

func notMounted(doing, source string) error {
	return tender.Errorf(tender.NotFound, "%s: %s, which it mounts, is not there", doing, source).
		Hint("make it, or let the engine make a directory: bind: {create_host_path: true}")
}

// holder is the name of the running container that publishes port, but for id.
func (e *Engine) holder(ctx context.Context, port, id string) string {
	list, err := e.c().ContainerList(ctx, client.ContainerListOptions{Filters: make(client.Filters).Add("publish", port)})
	if err != nil {
		return ""
	}
	for _, c := range list.Items {
		for _, p := range c.Ports {
			if c.ID != id && strconv.Itoa(int(p.PublicPort)) == port {
				return nameOf(c.Names)
			}
		}
	}
	return ""
}
