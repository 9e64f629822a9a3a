package enginetest

import (
	"context"
	"fmt"

	"github.com/tenderhq/tender/internal/engine"
)

// unread is how many events one who listens may be behind; more are lost.
const unread = 1024

// Events implements engine.Reader: create, start, die and destroy.
func (f *Fake) Events(ctx context.Context, project string, started func(), report func(engine.Event)) error {
	if err := f.called("Events", ""); err != nil {
		return err
	}
	in := make(chan engine.Event, unread)
	f.mu.Lock()
	if f.listeners == nil {
		f.listeners = map[chan engine.Event]bool{}
	}
	f.listeners[in] = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.listeners, in)
	}()
	started()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-in:
			if project == "" || e.Project == project {
				report(e)
			}
		}
	}
}

// happens tells who listens; f.mu is held.
func (f *Fake) happens(i *instance, action string) {
	if i.Oneoff {
		return
	}
	e := engine.Event{
		Time: f.now(), Project: i.Project, Service: i.Service, ID: i.ID, Name: i.Name, Action: action,
		Attributes: map[string]string{"name": i.Name, "image": i.Image},
	}
	if action == "die" {
		e.Attributes["exitCode"] = fmt.Sprint(i.ExitCode)
	}
	for in := range f.listeners {
		select {
		case in <- e:
		default:
		}
	}
}
