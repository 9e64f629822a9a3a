package docker

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
)

// answer is what the engine said, without its standing introduction.
type answer struct{ error }

func (a answer) Error() string {
	return strings.TrimPrefix(a.error.Error(), "Error response from daemon: ")
}
func (a answer) Unwrap() error { return a.error }

// wrap says what was being done and gives an engine's error its kind.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf(format+": %w", append(args, err)...)
	}
	if own, ok := errors.AsType[*tender.Error](err); ok {
		return tender.Errorf(own.Kind, format+": %w", append(args, err)...)
	}
	out := tender.Errorf(kind(err), format+": %w", append(args, error(answer{err}))...)
	switch {
	case out.Kind == tender.Unavailable:
		out = out.Hint("is the engine running? try: systemctl start docker; tender doctor")
	case strings.Contains(out.Msg, "no space left on device"):
		out = out.Hint("the engine's disk is full: make room there (docker system df; docker image prune), then tender up again; what runs goes on running")
	}
	return out
}

func kind(err error) tender.Kind {
	switch {
	case client.IsErrConnectionFailed(err), cerrdefs.IsUnavailable(err):
		return tender.Unavailable
	case cerrdefs.IsNotFound(err):
		return tender.NotFound
	case cerrdefs.IsConflict(err), cerrdefs.IsAlreadyExists(err):
		return tender.Conflict
	case cerrdefs.IsUnauthorized(err), cerrdefs.IsPermissionDenied(err):
		return tender.Denied
	case cerrdefs.IsInvalidArgument(err):
		return tender.Invalid
	}
	return tender.Internal
}

// each does something with n things, at most atOnce side by side, and joins the errors.
func each(n int, do func(int) error) error {
	errs := make([]error, n)
	room := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i := range n {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			errs[i] = do(i)
		})
	}
	all.Wait()
	return join(errs)
}

// join returns the one error as it is, or several as one that keeps the kind of the first.
func join(errs []error) error {
	var first *tender.Error
	var all []error
	for _, err := range errs {
		if err == nil {
			continue
		}
		all = append(all, err)
		if own, ok := errors.AsType[*tender.Error](err); ok && first == nil {
			first = own
		}
	}
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	}
	// Ten instances of one service fail for one reason: say it once.
	same := true
	for _, err := range all {
		same = same && err.Error() == all[0].Error()
	}
	if same {
		return all[0]
	}
	if first == nil {
		return errors.Join(all...)
	}
	out := tender.Errorf(first.Kind, "%w", errors.Join(all...))
	if advice := tender.AdviceOf(first); advice != "" {
		out = out.Hint("%s", advice)
	}
	return out
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
