package daemon

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine"
)

// Run starts one instance of a service beside its slots, with what the service
// needs running first, and connects to it.
func (b *backend) Run(ctx context.Context, who api.Person, project, service string, r api.ExecRequest, report func(api.Event)) (api.Stream, error) {
	report = stamped(report, project)
	w, err := b.loop.Want(ctx, project, service)
	if err != nil {
		return api.Stream{}, err
	}
	b.audit(ctx, who, "run", project, service)
	if !r.NoDeps {
		if err := b.startNeeds(ctx, who, project, w.Service, report); err != nil {
			return api.Stream{}, err
		}
	}
	name := r.Name
	if name == "" {
		var random [6]byte
		rand.Read(random[:]) //nolint:errcheck // it never fails: the program ends when there is no randomness
		name = fmt.Sprintf("%s-%s-run-%s", project, service, hex.EncodeToString(random[:]))
	}
	id, err := b.engine.Oneoff(ctx, w, engine.OneoffOptions{
		Name: name, Cmd: r.Cmd, Entrypoint: r.Entrypoint, Env: r.Env, User: r.User, WorkingDir: r.WorkingDir,
		TTY: r.TTY, Stdin: r.Stdin, Labels: r.Labels, Ports: r.Ports, Remove: r.Remove,
	})
	if err != nil {
		return api.Stream{}, err
	}
	if r.Detach {
		if err := b.engine.Start(ctx, id); err != nil {
			return api.Stream{}, err
		}
		report(api.Event{Kind: api.KindEnded, Instance: name, Text: "started " + name})
		return api.Stream{Instance: name}, nil
	}
	// Attached before its start, so that not a word is missed.
	s, err := b.engine.Attach(ctx, id, r.Stdin)
	if err != nil {
		return api.Stream{}, err
	}
	if err := b.engine.Start(ctx, id); err != nil {
		s.Close()
		if rerr := b.engine.Remove(context.WithoutCancel(ctx), id, 0, true); rerr != nil {
			b.log.Warn("one-off instance stays", "instance", name, "err", rerr)
		}
		return api.Stream{}, err
	}
	if r.TTY && r.Width > 0 && s.Resize != nil {
		// A terminal of the wrong size is no reason not to run.
		_ = s.Resize(ctx, r.Width, r.Height)
	}
	return stream(name, s), nil
}

// startNeeds starts what a service depends on, and waits for it.
func (b *backend) startNeeds(ctx context.Context, who api.Person, project string, s tender.Service, report func(api.Event)) error {
	var names []string
	for _, d := range s.DependsOn {
		if d.Required {
			names = append(names, d.Service)
		}
	}
	if len(names) == 0 {
		return nil
	}
	a, err := b.loop.Change(ctx, who.Name, project, deploy.Change{Verb: "start", Services: names})
	if err != nil || a.Nothing {
		return err
	}
	result, err := b.end(ctx, project, a, false, report)
	if err == nil && result.Outcome != deploy.Converged {
		err = tender.Errorf(tender.Unavailable, "what %s needs did not come: %s", s.Name, result.Text).Hint("%s", result.Hint)
	}
	return err
}
