package docker

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// postStart runs the hooks of a container that has just started, one after the
// other. The first that fails is the error: such an instance has not started.
func (e *Engine) postStart(ctx context.Context, id string) error {
	s, running, err := e.hooked(ctx, id)
	if tender.KindOf(err) == tender.NotFound {
		return nil // it has ended and is removed already, as who started it has asked for
	}
	if err != nil || !running {
		return err
	}
	for _, h := range s.PostStart {
		if err := e.hook(ctx, id, h); err != nil {
			return fmt.Errorf("post_start of %s: %w", s.Name, err)
		}
	}
	return nil
}

// preStop runs the hooks of a container that is about to be stopped. One that
// fails is told and does not keep the instance: nothing would ever stop it.
func (e *Engine) preStop(ctx context.Context, id string) {
	s, running, err := e.hooked(ctx, id)
	if err != nil || !running {
		return // the stop that follows says what is wrong
	}
	for _, h := range s.PreStop {
		if err := e.hook(ctx, id, h); err != nil && tender.KindOf(err) != tender.NotFound {
			e.o.Log.Warn("pre_stop failed", "service", s.Name, "container", short(id), "err", err)
			return
		}
	}
}

// hooked reads the service of a container from its label. Containers that
// Docker Compose made do not say what their hooks are.
func (e *Engine) hooked(ctx context.Context, id string) (s types.ServiceConfig, running bool, err error) {
	c, err := e.c().ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return s, false, wrap(err, "inspect %s", short(id))
	}
	l := c.Container.Config.Labels
	if c.Container.State == nil || !strings.Contains(l[labelSpec], "post_start:") && !strings.Contains(l[labelSpec], "pre_stop:") {
		return s, false, nil
	}
	_, s, err = e.service(tender.Service{Name: l[labelService], Spec: []byte(l[labelSpec])})
	return s, c.Container.State.Running && !c.Container.State.Paused, err
}

// hook runs one command inside of a container to its end.
func (e *Engine) hook(ctx context.Context, id string, h types.ServiceHook) error {
	s, err := e.Exec(ctx, id, engine.ExecOptions{
		Cmd: h.Command, User: h.User, Privileged: h.Privileged, WorkingDir: h.WorkingDir, Env: environment(h.Environment),
	})
	if err != nil {
		return err
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { s.Close() })()
	var said, complained tail
	if _, err := stdcopy.StdCopy(&said, &complained, s.Output); err != nil {
		return fmt.Errorf("output of %s: %w", strings.Join(h.Command, " "), err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	code, err := s.Exit(ctx)
	if err != nil || code == 0 {
		return err
	}
	text := bytes.TrimSpace(complained.b)
	if len(text) == 0 {
		text = bytes.TrimSpace(said.b)
	}
	if len(text) > 0 {
		return fmt.Errorf("%s ended with %d: %s", strings.Join(h.Command, " "), code, text)
	}
	return fmt.Errorf("%s ended with %d", strings.Join(h.Command, " "), code)
}

// tail keeps the last 1 KiB of what is written to it.
type tail struct{ b []byte }

var _ io.Writer = (*tail)(nil)

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	t.b = bytes.ToValidUTF8(t.b[max(0, len(t.b)-1024):], nil)
	return len(p), nil
}
