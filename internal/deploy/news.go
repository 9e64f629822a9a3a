package deploy

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// News is one thing that happened.
type News struct {
	Time       time.Time
	Kind       string // see below
	Project    string
	Service    string
	Instance   string // name
	Generation int
	Rollout    int64
	Revision   string
	Text       string
	Hint       string
}

// Kinds of News.
const (
	NewsAccepted = "accepted" // a generation stands
	NewsBegun    = "begun"    // an action has begun
	NewsEnded    = "ended"    // an action has ended well
	NewsFailed   = "failed"   // an action has failed
	NewsState    = "state"    // an instance changed
	NewsRollout  = "rollout"  // a rollout began or ended
	NewsScaled   = "scaled"   // the count of a service follows what is measured
	NewsUpdate   = "update"   // a newer image: what was decided about it
	NewsPromoted = "promoted" // an image came to stand at a step of the pipeline
	NewsWarning  = "warning"
)

// backlog is how much news one listener may be behind.
const backlog = 512

// hub hands news to whoever listens and waits for nobody.
type hub struct {
	mu        sync.Mutex
	listeners map[*listener]bool
}

type listener struct {
	project string
	wake    chan struct{}

	mu    sync.Mutex
	queue []News
	lost  int
}

func (h *hub) listen(project string) *listener {
	l := &listener{project: project, wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listeners == nil {
		h.listeners = map[*listener]bool{}
	}
	h.listeners[l] = true
	return l
}

func (h *hub) leave(l *listener) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.listeners, l)
}

func (h *hub) tell(n News) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for l := range h.listeners {
		if l.project == "" || l.project == n.Project {
			l.put(n)
		}
	}
}

func (l *listener) put(n News) {
	l.mu.Lock()
	if len(l.queue) >= backlog {
		l.queue = l.queue[1:]
		l.lost++
	}
	l.queue = append(l.queue, n)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// report hands over what has come; lost news is told as a warning.
func (l *listener) report(report func(News)) {
	l.mu.Lock()
	queue, lost := l.queue, l.lost
	l.queue, l.lost = nil, 0
	l.mu.Unlock()
	if lost > 0 {
		report(News{Time: time.Now(), Kind: NewsWarning, Project: l.project, Text: fmt.Sprintf("%d events were lost: they were read too slowly", lost)})
	}
	for _, n := range queue {
		report(n)
	}
}

// Tell hands news that did not come of the loop to whoever listens.
func (l *Loop) Tell(n News) { l.tell(n) }

// News reports what happens from now on; project "": in all. It returns when
// ctx ends. A slow listener loses the oldest and is told so.
func (l *Loop) News(ctx context.Context, project string, report func(News)) error {
	in := l.hub.listen(project)
	defer l.hub.leave(in)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-in.wake:
			in.report(report)
		}
	}
}
