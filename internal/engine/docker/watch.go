package docker

import (
	"context"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
)

// told are the events that can change what List answers. The filter is the
// engine's: health probes alone make hundreds of exec events per second.
var told = []string{
	"create", "start", "die", "stop", "destroy", "rename", "pause", "unpause", "oom", "health_status", "update",
	"connect", "disconnect",
}

// Watch implements engine.Reader.
func (e *Engine) Watch(ctx context.Context, started, changed func()) error {
	// A connection anew may be an engine anew.
	if err := e.negotiate(ctx, true); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := e.c().Events(ctx, client.EventsListOptions{Filters: make(client.Filters).
		Add("type", string(events.ContainerEventType), string(events.NetworkEventType), string(events.VolumeEventType)).
		Add("event", told...)})
	select {
	case err := <-stream.Err:
		return wrap(err, "watch engine %s", e.host)
	default:
	}
	e.seen.watching(1)
	defer e.seen.watching(-1)
	started()
	for {
		select {
		case m := <-stream.Messages:
			switch m.Type {
			case events.ContainerEventType:
				e.seen.touch(m.Actor.ID)
				if m.Action == events.ActionOOM {
					e.seen.short(m.Actor.ID)
				}
				if m.Actor.Attributes[composeProject] == "" {
					continue // nobody's that List would show
				}
			case events.NetworkEventType:
				if id := m.Actor.Attributes["container"]; id != "" {
					e.seen.touch(id)
				}
			}
			changed()
		case err := <-stream.Err:
			if ctx.Err() != nil {
				return nil
			}
			return wrap(err, "watch engine %s", e.host)
		}
	}
}
