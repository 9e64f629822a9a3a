package docker

import (
	"context"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"github.com/tenderhq/tender/internal/engine"
)

// Events implements engine.Reader. Labels of Docker Compose and of Tender are
// left out of the attributes: what matters of them has a field.
func (e *Engine) Events(ctx context.Context, project string, started func(), report func(engine.Event)) error {
	if err := e.negotiate(ctx, false); err != nil {
		return err
	}
	label := composeProject
	if project != "" {
		label += "=" + project
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := e.c().Events(ctx, client.EventsListOptions{
		Filters: make(client.Filters).Add("type", string(events.ContainerEventType)).Add("label", label),
	})
	select {
	case err := <-stream.Err:
		return wrap(err, "follow engine %s", e.host)
	default:
	}
	started()
	for {
		select {
		case m := <-stream.Messages:
			said := m.Actor.Attributes
			if said[composeOneoff] == "True" || said[labelKeep] != "" {
				continue
			}
			h := engine.Event{
				Time: time.Unix(0, m.TimeNano), Project: said[composeProject], Service: said[composeService],
				ID: m.Actor.ID, Name: said["name"], Action: string(m.Action), Attributes: map[string]string{},
			}
			for k, v := range said {
				if !strings.HasPrefix(k, "com.docker.compose.") && !strings.HasPrefix(k, "tender.") {
					h.Attributes[k] = v
				}
			}
			report(h)
		case err := <-stream.Err:
			if ctx.Err() != nil {
				return nil
			}
			return wrap(err, "follow engine %s", e.host)
		}
	}
}
