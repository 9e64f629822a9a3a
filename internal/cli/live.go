package cli

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"

	"github.com/tenderhq/tender/internal/api"
)

// live keeps one line per item on a terminal and redraws it as news comes in.
// Warnings and the output of builds scroll above.
type live struct {
	w      io.Writer
	colour bool
	stop   chan struct{}
	ended  chan struct{}

	mu    sync.Mutex
	items []*item // in order of appearance
	above []string
	drawn int // lines on the screen that are ours
	tick  int
}

// item is one line.
type item struct {
	name           string
	text           string
	mark           mark
	current, total int64
	begun, ended   time.Time
}

type mark int

const (
	busy mark = iota
	good
	bad
)

var spinner = []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")

func newLive(w io.Writer, colour bool) *live {
	l := &live{w: w, colour: colour, stop: make(chan struct{}), ended: make(chan struct{})}
	go l.run()
	return l
}

func (l *live) run() {
	defer close(l.ended)
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-l.stop:
			l.draw()
			return
		case <-t.C:
			l.draw()
		}
	}
}

func (l *live) close() {
	close(l.stop)
	<-l.ended
}

func (l *live) report(e api.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if e.Kind == api.KindDone {
		l.settle(e, now)
		return
	}
	name := subject(e)
	if name == "" {
		if e.Text != "" && e.Kind != api.KindAccepted {
			l.above = append(l.above, sentence(e))
		}
		if e.Hint != "" {
			l.above = append(l.above, "  → "+e.Hint)
		}
		return
	}
	i := l.item(name, now)
	switch {
	case e.Text == "":
	case e.Kind == api.KindBuild:
		// What a step prints goes by; the line keeps which step it is.
		l.above = append(l.above, name+": "+sentence(e))
		if n, step, ok := strings.Cut(e.Text, " "); ok && strings.HasPrefix(n, "#") && strings.HasPrefix(step, "[") {
			i.text = step
		}
	default:
		i.text = sentence(e)
	}
	i.current, i.total = 0, 0
	if e.Kind == api.KindPull {
		i.current, i.total = e.Current, e.Total
	}
	i.mark, i.ended = busy, time.Time{}
	switch e.Kind {
	case api.KindEnded:
		i.mark, i.ended = good, now
	case api.KindFailed:
		i.mark, i.ended = bad, now
	case api.KindRollout:
		switch {
		case strings.HasSuffix(e.Text, ": done"):
			i.mark, i.ended = good, now
		case strings.Contains(e.Text, "rolled back"), strings.Contains(e.Text, "failed"):
			i.mark, i.ended = bad, now
		}
	}
}

func (l *live) item(name string, now time.Time) *item {
	for _, i := range l.items {
		if i.name == name {
			return i
		}
	}
	i := &item{name: name, begun: now}
	l.items = append(l.items, i)
	return i
}

// settle gives every line its last mark.
func (l *live) settle(e api.Event, now time.Time) {
	if e.Result == nil {
		return
	}
	for _, s := range e.Result.Services {
		i := l.item(s.Service, now)
		i.text, i.mark = s.State, good
		if s.Text != "" {
			i.text = s.Text
		}
		if s.State == "failed" || s.State == "degraded" {
			i.mark = bad
		}
	}
	for _, i := range l.items {
		if i.mark == busy && e.Result.Outcome == "converged" {
			i.mark = good
		}
		if i.ended.IsZero() {
			i.ended = now
		}
		i.current, i.total = 0, 0
	}
}

// draw moves the cursor up over the lines of the last draw and writes them anew,
// in one write so that nothing flickers.
func (l *live) draw() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tick++
	width, height := size(l.w)
	var b bytes.Buffer
	if l.drawn > 0 {
		fmt.Fprintf(&b, "\r\x1b[%dA", l.drawn)
	}
	b.WriteString("\x1b[J")
	for _, s := range l.above {
		b.WriteString(clip(s, width-1) + "\n")
	}
	l.above = nil
	shown := l.fit(height - 2)
	column := 0
	for _, i := range shown {
		column = max(column, len(i.name))
	}
	column = min(column, width/3)
	for _, i := range shown {
		b.WriteString(l.line(i, column, width) + "\n")
	}
	l.drawn = len(shown)
	l.w.Write(b.Bytes())
}

// fit drops finished lines from the top when there are more than the screen holds.
func (l *live) fit(height int) []*item {
	over := len(l.items) - max(height, 1)
	if over <= 0 {
		return l.items
	}
	var out []*item
	for _, i := range l.items {
		if over > 0 && i.mark == good {
			over--
			continue
		}
		out = append(out, i)
	}
	return out[:min(len(out), max(height, 1))]
}

func (l *live) line(i *item, column, width int) string {
	sign, code := string(spinner[l.tick%len(spinner)]), "36"
	switch i.mark {
	case good:
		sign, code = "✔", "32"
	case bad:
		sign, code = "✘", "31"
	}
	end := i.ended
	if end.IsZero() {
		end = time.Now()
	}
	text := i.text
	if i.total > 0 {
		text += fmt.Sprintf(" %s/%s", units.HumanSize(float64(i.current)), units.HumanSize(float64(i.total)))
	}
	name := clip(i.name, column)
	elapsed := took(end.Sub(i.begun))
	room := width - column - len(elapsed) - 7
	text = clip(text, room)
	gap := strings.Repeat(" ", max(room-len([]rune(text)), 0))
	if l.colour {
		sign = "\x1b[" + code + "m" + sign + "\x1b[0m"
	}
	return fmt.Sprintf(" %s %-*s  %s%s %s", sign, column, name, text, gap, elapsed)
}
