package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tenderhq/tender/internal/api"
)

// progress shows what happens while something long runs. report may be called
// from several goroutines; close ends the display and comes last.
type progress interface {
	report(e api.Event)
	close()
}

// progressFor returns the display that --progress asks for.
func (a *app) progressFor() (progress, error) {
	how := a.progress
	if how == "auto" {
		how = "plain"
		if isTerminal(a.Err) && a.getenv("TERM") != "dumb" {
			how = "live"
		}
	}
	switch how {
	case "live":
		return newLive(a.Err, a.getenv("NO_COLOR") == ""), nil
	case "plain":
		return &plain{w: a.Err, begun: time.Now()}, nil
	case "json":
		return &lines{e: json.NewEncoder(a.Err)}, nil
	case "quiet":
		return quiet{}, nil
	}
	return nil, misuse("one of auto, plain, json, quiet", "--progress %q is not known", a.progress)
}

// quiet shows nothing.
type quiet struct{}

func (quiet) report(api.Event) {}
func (quiet) close()           {}

// lines prints every event as a line of JSON.
type lines struct {
	mu sync.Mutex
	e  *json.Encoder
}

func (l *lines) report(e api.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.e.Encode(e)
}

func (l *lines) close() {}

// plain prints a line per change and no line twice in a row: for files, pipes and CI.
type plain struct {
	mu    sync.Mutex
	w     io.Writer
	begun time.Time
	last  map[string]string
	doing []string // actions that have begun
}

func (p *plain) report(e api.Event) {
	if e.Kind == api.KindDone || e.Text == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	what := subject(e)
	if p.last == nil {
		p.last = map[string]string{}
	}
	text := sentence(e)
	// A pull says the same of each layer a hundred times.
	if p.last[what] == text {
		return
	}
	p.last[what] = text
	// What has begun ends, as a rule; that it did is not worth a line of its own.
	if e.Kind == api.KindBegun {
		begun, _, _ := strings.Cut(text, ": ")
		p.doing = append(p.doing, begun)
	}
	if i := slices.Index(p.doing, text); e.Kind == api.KindEnded && i >= 0 {
		p.doing = slices.Delete(p.doing, i, i+1)
		return
	}
	if e.Kind == api.KindEnded {
		text = "done: " + text
	}
	if what != "" {
		text = what + ": " + text
	}
	fmt.Fprintln(p.w, text)
	if e.Hint != "" {
		fmt.Fprintln(p.w, "  → "+e.Hint)
	}
}

func (p *plain) close() {}

// subject is the thing that an event is about, as the live display keeps a line of it.
func subject(e api.Event) string {
	switch {
	case e.Kind == api.KindWarning:
		return ""
	case e.Service != "":
		return e.Service
	case e.Kind == api.KindPull:
		if ref, _, ok := strings.Cut(e.Text, ": "); ok {
			return ref
		}
	case e.Kind == api.KindBegun || e.Kind == api.KindEnded || e.Kind == api.KindFailed:
		return e.Project // networks and volumes
	}
	return ""
}

// sentence is what an event says of its subject.
func sentence(e api.Event) string {
	text := e.Text
	if s := subject(e); s != "" {
		text = strings.TrimPrefix(text, s+": ")
	}
	switch e.Kind {
	case api.KindWarning:
		text = "warning: " + text
	case api.KindFailed:
		text = "failed: " + strings.TrimPrefix(text, "failed: ")
	}
	return text
}

// change runs one change to its end, shows its progress, and says how it
// ended. Ctrl-C cancels before the change is accepted; after that it only stops
// watching.
func (a *app) change(ctx context.Context, doing string, run func(ctx context.Context, report func(api.Event)) (api.Result, error)) error {
	p, err := a.progressFor()
	if err != nil {
		return err
	}
	begun := time.Now()
	var mu sync.Mutex
	accepted := false
	r, err := run(ctx, func(e api.Event) {
		if e.Kind == api.KindAccepted {
			mu.Lock()
			accepted = true
			mu.Unlock()
		}
		p.report(e)
	})
	if err == nil {
		p.report(api.Event{Time: time.Now().UTC(), Kind: api.KindDone, Text: r.Text, Result: &r})
	}
	p.close()
	mu.Lock()
	defer mu.Unlock()
	if err != nil && ctx.Err() != nil && accepted {
		a.note("detached: %s goes on in the daemon\n  → tender events follows it, tender status shows where it is", doing)
		return exit(interrupted)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return a.outcome(doing, r, time.Since(begun))
}

// outcome says how a change ended and turns it into an exit code.
func (a *app) outcome(doing string, r api.Result, d time.Duration) error {
	if a.json {
		if err := printJSON(a.Out, r); err != nil {
			return err
		}
	}
	switch r.Outcome {
	case "converged", "accepted":
		if a.progress != "quiet" && a.progress != "json" {
			text := r.Text
			if text == "" {
				text = doing + ": done"
			}
			a.note("%s (%s)", text, took(d))
			if r.Hint != "" {
				a.note("  → %s", r.Hint)
			}
		}
		return nil
	}
	msg := doing + ": " + r.Outcome
	if r.Text != "" {
		msg = doing + ": " + r.Text
	}
	hint := r.Hint
	for _, s := range r.Services {
		if s.State == "healthy" || s.State == "done" || s.State == "stopped" {
			continue
		}
		if hint == "" {
			hint = "tender why " + s.Service
		}
		if s.Text != "" && strings.Contains(msg, s.Service+": "+s.Text) {
			continue // said already
		}
		line := "\n" + s.Service + ": " + s.State
		if s.Text != "" && s.Text != s.State {
			line += ": " + s.Text
		}
		msg += line
	}
	a.complain(msg, hint)
	return exit(unhealthy)
}
