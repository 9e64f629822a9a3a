package docker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// newcomer is a container that a Scale is about to start.
type newcomer struct {
	slot    int
	id      string
	name    string
	plain   string
	made    bool // by this call
	heir    bool // it holds volumes of the one it replaces
	missing []endpoint
	hooks   bool // post_start is to be run
}

// Scale implements engine.Engine.
//
// The newcomers are created before those in w.Drop are stopped, and started
// after. So the gap is short, and a call that is cut off leaves, at every
// moment, one container that holds the anonymous volumes of the slot.
func (e *Engine) Scale(ctx context.Context, w engine.Want) error {
	if err := e.negotiate(ctx, false); err != nil {
		return err
	}
	if err := e.scale(ctx, w); err != nil {
		return fmt.Errorf("scale %s@%s: %w", w.Service.Name, w.Service.Revision, err)
	}
	return nil
}

func (e *Engine) scale(ctx context.Context, w engine.Want) error {
	var coming []*newcomer
	var holders map[string]string // name to id, of what the project has of this service
	if len(w.Slots) > 0 {
		list, err := e.c().ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).
			Add("label", composeProject+"="+w.Project, composeService+"="+w.Service.Name)})
		if err != nil {
			return wrap(err, "list containers")
		}
		holders = map[string]string{}
		for _, c := range list.Items {
			holders[nameOf(c.Names)] = c.ID
		}
		if coming, err = e.prepare(ctx, w, list.Items, holders); err != nil {
			return err
		}
	}
	if err := each(len(w.Drop), func(i int) error { return e.stopAndRemove(ctx, w.Drop[i], w.StopIn) }); err != nil {
		e.undo(ctx, coming)
		return err
	}
	return each(len(coming), func(i int) error {
		c := coming[i]
		if holder := holders[c.plain]; c.name != c.plain && (holder == "" || slices.Contains(w.Drop, holder)) {
			// The name came free just now. If somebody else took it, Name is asked for later.
			_, err := e.c().ContainerRename(ctx, c.id, client.ContainerRenameOptions{NewName: c.plain})
			if err != nil && kind(err) != tender.Conflict {
				return wrap(err, "rename %s", c.name)
			}
		}
		return e.startNew(ctx, c)
	})
}

// prepare finds or makes a container for each slot and returns those that do not run.
func (e *Engine) prepare(ctx context.Context, w engine.Want, there []container.Summary, holders map[string]string) ([]*newcomer, error) {
	_, s, err := e.service(w.Service)
	if err != nil {
		return nil, err
	}
	bySlot := map[int][]container.Summary{}
	for _, c := range there {
		if c.Labels[labelRevision] != w.Service.Revision || c.Labels[composeOneoff] == "True" || slices.Contains(w.Drop, c.ID) {
			continue
		}
		if slot, err := strconv.Atoi(c.Labels[labelSlot]); err == nil {
			bySlot[slot] = append(bySlot[slot], c)
		}
	}
	var coming []*newcomer
	for _, slot := range w.Slots {
		n := &newcomer{slot: slot, plain: plainName(w.Project, s, slot), hooks: len(s.PostStart) > 0}
		have := bySlot[slot]
		// The liveliest first: of two in one slot, which a lost race of two daemons could leave, that one counts.
		slices.SortFunc(have, func(a, b container.Summary) int { return rank(a.State) - rank(b.State) })
		switch {
		case len(have) == 0:
		case have[0].State == container.StateRunning || have[0].State == container.StateRestarting:
			continue
		case have[0].State == container.StatePaused:
			if _, err := e.c().ContainerUnpause(ctx, have[0].ID, client.ContainerUnpauseOptions{}); err != nil {
				return nil, wrap(err, "unpause %s", nameOf(have[0].Names))
			}
			continue
		case have[0].State == container.StateDead || have[0].State == container.StateRemoving:
			if err := e.remove(ctx, have[0].ID); err != nil {
				return nil, err
			}
		default:
			n.id, n.name = have[0].ID, nameOf(have[0].Names)
		}
		coming = append(coming, n)
	}
	if len(coming) == 0 {
		return nil, nil
	}
	img, ref, err := e.image(ctx, w.Image)
	if err != nil {
		return nil, err
	}
	allAtOnce, err := e.atLeast(ctx, "1.44")
	if err != nil {
		return nil, err
	}
	err = each(len(coming), func(i int) error {
		n := coming[i]
		gone := ""
		if n.id != "" {
			// One that the list still had may have been on its way out.
			if err := e.complete(ctx, w, img, n); tender.KindOf(err) != tender.NotFound {
				return err
			}
			gone, n.id, n.missing = n.id, "", nil
		}
		inherited := map[string]string{}
		if from := w.Inherit[n.slot]; from != "" {
			old, err := e.c().ContainerInspect(ctx, from, client.ContainerInspectOptions{})
			switch {
			case err == nil:
				inherited = anonymous(old.Container)
			case kind(err) != tender.NotFound:
				return wrap(err, "inspect %s", from)
			}
		}
		r, err := e.translate(ctx, w, img, n.slot, inherited)
		if err != nil {
			return err
		}
		if err := e.seat(ctx, w, n.slot, r.host, r.endpoints); err != nil {
			return err
		}
		r.config.Image = ref
		n.heir = len(inherited) > 0
		if !allAtOnce && len(r.endpoints) > 1 {
			n.missing = r.endpoints[1:]
			r.endpoints = r.endpoints[:1]
		}
		holder, taken := holders[n.plain]
		taken = taken && holder != gone
		beside := n.plain + "-" + w.Service.Revision
		names := []string{n.plain, beside, beside + "-" + strings.ToLower(rand.Text()[:4])}
		if taken {
			names = names[1:]
		}
		for _, n.name = range names {
			n.id, n.made, err = e.createOnce(ctx, r, n.name, w, n.slot)
			if err == nil || kind(err) != tender.Conflict {
				break
			}
		}
		if err == nil && !n.made {
			return e.complete(ctx, w, img, n)
		}
		return createError(n.name, err)
	})
	if err != nil {
		e.undo(ctx, coming)
		return nil, err
	}
	return coming, nil
}

// rank orders states by how much life is in them.
func rank(s container.ContainerState) int {
	return slices.Index([]container.ContainerState{
		container.StateRunning, container.StateRestarting, container.StatePaused, container.StateExited,
		container.StateCreated, container.StateDead, container.StateRemoving,
	}, s)
}

// complete finds out what a container that a killed call left behind still lacks.
func (e *Engine) complete(ctx context.Context, w engine.Want, img image.InspectResponse, n *newcomer) error {
	c, err := e.c().ContainerInspect(ctx, n.id, client.ContainerInspectOptions{})
	if err != nil {
		return wrap(err, "inspect %s", n.name)
	}
	n.heir = len(anonymous(c.Container)) > 0
	if c.Container.NetworkSettings == nil {
		return nil
	}
	p, s, err := e.service(w.Service)
	if err != nil {
		return err
	}
	endpoints, err := e.endpoints(ctx, p, s, w, n.slot)
	if err != nil {
		return err
	}
	for _, ep := range endpoints {
		if _, ok := c.Container.NetworkSettings.Networks[ep.network]; !ok {
			n.missing = append(n.missing, ep)
		}
	}
	return e.seat(ctx, w, n.slot, c.Container.HostConfig, n.missing)
}

// undo removes what this call made and could not start. One that holds
// inherited volumes stays, or they would belong to nobody: the next call finds it.
func (e *Engine) undo(ctx context.Context, made []*newcomer) {
	ctx = context.WithoutCancel(ctx)
	for _, n := range made {
		if !n.made || n.id == "" || n.heir {
			continue
		}
		if err := e.remove(ctx, n.id); err != nil {
			e.o.Log.Warn("leftover", "container", n.name, "err", err)
		}
	}
}

func (e *Engine) create(ctx context.Context, r recipe, name string) (id string, err error) {
	o := client.ContainerCreateOptions{Name: name, Config: r.config, HostConfig: r.host, Platform: r.platform}
	if len(r.endpoints) > 0 {
		o.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{}}
		for _, ep := range r.endpoints {
			o.NetworkingConfig.EndpointsConfig[ep.network] = ep.settings
		}
	}
	made, err := e.c().ContainerCreate(ctx, o)
	for _, warning := range made.Warnings {
		e.o.Log.Warn("engine warns", "container", name, "warning", warning)
	}
	return made.ID, err
}

// reserved is how long a name may be taken while no container with it can be seen:
// longer than a busy machine needs to create one.
const reserved = time.Minute

// createOnce creates a container under name, or finds the one that a call which
// was cut off is still making there: the engine goes on without its caller.
func (e *Engine) createOnce(ctx context.Context, r recipe, name string, w engine.Want, slot int) (id string, made bool, err error) {
	for since := time.Now(); ; {
		id, err = e.create(ctx, r, name)
		if err == nil || kind(err) != tender.Conflict {
			return id, err == nil, err
		}
		there, lookErr := e.c().ContainerInspect(ctx, name, client.ContainerInspectOptions{})
		if lookErr == nil {
			l := there.Container.Config.Labels
			if l[labelProject] == w.Project && l[labelService] == w.Service.Name && l[labelRevision] == w.Service.Revision &&
				l[labelSlot] == strconv.Itoa(slot) && l[composeOneoff] != "True" && !slices.Contains(w.Drop, there.Container.ID) {
				return there.Container.ID, false, nil
			}
			return "", false, err
		}
		if kind(lookErr) != tender.NotFound {
			return "", false, lookErr
		}
		// The name is reserved before the container can be seen. Another name would double the slot.
		if time.Since(since) > reserved {
			return "", false, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return "", false, ctx.Err()
		}
	}
}

func (e *Engine) startNew(ctx context.Context, n *newcomer) error {
	for _, ep := range n.missing {
		_, err := e.c().NetworkConnect(ctx, ep.network, client.NetworkConnectOptions{Container: n.id, EndpointConfig: ep.settings})
		if err != nil && !strings.Contains(err.Error(), "already exists in network") {
			e.undo(ctx, []*newcomer{n})
			return wrap(err, "connect %s to %s", n.name, ep.network)
		}
	}
	defer e.seen.touch(n.id)
	if _, err := e.c().ContainerStart(ctx, n.id, client.ContainerStartOptions{}); err != nil {
		err = e.startError(ctx, n.id, n.name, err)
		e.undo(ctx, []*newcomer{n})
		return err
	}
	if !n.hooks {
		return nil
	}
	if err := e.postStart(ctx, n.id); err != nil {
		// What is left of it must not count as started.
		e.undo(ctx, []*newcomer{n})
		if n.heir || !n.made {
			_, stopErr := e.c().ContainerStop(context.WithoutCancel(ctx), n.id, client.ContainerStopOptions{})
			err = errors.Join(err, wrap(stopErr, "stop %s", n.name))
		}
		return err
	}
	return nil
}

// image finds what to create from: the reference if it still is that image, else the image by its id.
func (e *Engine) image(ctx context.Context, want tender.ImageID) (image.InspectResponse, string, error) {
	refs := []string{want.Reference}
	if repository := repositoryOf(want.Reference); want.Digest != "" && repository != "" {
		refs = append(refs, repository+"@"+want.Digest)
	}
	for _, ref := range append(refs, want.ID) {
		if ref == "" {
			continue
		}
		got, err := e.c().ImageInspect(ctx, ref)
		if err != nil {
			if kind(err) == tender.NotFound {
				continue
			}
			return image.InspectResponse{}, "", wrap(err, "inspect image %s", ref)
		}
		if want.ID == "" && want.Digest == "" || want.Same(imageID(ref, got.InspectResponse)) {
			return got.InspectResponse, ref, nil
		}
	}
	out := tender.Errorf(tender.NotFound, "image %s is not there any more", want.Reference)
	if want.Digest != "" {
		return image.InspectResponse{}, "", out.Hint("tender pull, or docker pull %s@%s", repositoryOf(want.Reference), want.Digest)
	}
	return image.InspectResponse{}, "", out.Hint("tender pull, or tender build; then tender up")
}

// stopAndRemove lets a container end, in its own time where grace is nil, and
// removes it; its volumes stay.
func (e *Engine) stopAndRemove(ctx context.Context, id string, grace *time.Duration) error {
	defer e.seen.touch(id)
	e.preStop(ctx, id)
	in := time.Duration(-1)
	if grace != nil {
		in = *grace
	}
	if _, err := e.c().ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: timeout(in)}); err != nil && kind(err) != tender.NotFound {
		return wrap(err, "stop %s", short(id))
	}
	return e.remove(ctx, id)
}

// remove asks again while somebody else's removal goes on. The engine's own wait for a removal is
// not used: one that begins as the container goes never ends.
func (e *Engine) remove(ctx context.Context, id string) error {
	defer e.seen.touch(id)
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		_, err := e.c().ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true})
		if err == nil || kind(err) == tender.NotFound {
			return nil
		}
		if !strings.Contains(err.Error(), "is already in progress") {
			return wrap(err, "remove %s", short(id))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func short(id string) string { return id[:min(len(id), 12)] }

func nameOf(names []string) string {
	for _, n := range names {
		// A link shows as /OTHER/ALIAS beside the container's own name.
		if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
			return n
		}
	}
	return ""
}
