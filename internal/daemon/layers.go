package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

const (
	// muchWritten in an instance's own layer is too much whatever it is.
	muchWritten = 1 << 30
	// In muchTime it would be, if it goes on as between the last two looks.
	muchTime = 7 * 24 * time.Hour
	// Two looks that lie closer together tell nothing of a rate, and so does little more than before.
	lookApart   = time.Minute
	littleMore  = 1 << 20
	measureTime = 8 * time.Second
)

// layers remembers what instances had written into their own layers at the last
// look that counts, so that the next one can tell how fast they grow. All of it
// goes with the instance: data that matters is lost, and logs fill the disk.
type layers struct {
	mu   sync.Mutex
	last map[string]layer
}

// layer is one at one look.
type layer struct {
	at   time.Time
	size int64 // bytes
}

// checks measures, and warns of those that grow. The engine reads its disk for
// that, so the time for it is bounded.
func (l *layers) checks(ctx context.Context, measure func(context.Context) (map[string]int64, error), there []tender.Instance) []api.Check {
	ctx, cancel := context.WithTimeout(ctx, measureTime)
	defer cancel()
	sizes, err := measure(ctx)
	if err != nil {
		text := err.Error()
		if ctx.Err() != nil {
			text = fmt.Sprintf("the engine did not measure them in %s", measureTime)
		}
		return []api.Check{{Name: "written layers", Result: okay, Text: "not known: " + text}}
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []api.Check
	var all int64
	next := map[string]layer{}
	for _, i := range there {
		size, measured := sizes[i.ID]
		if !measured {
			continue
		}
		all += size
		was, known := l.last[i.ID]
		if text := grows(i.Name, was, layer{now, size}, known); text != "" {
			out = append(out, api.Check{
				Name: "data of " + i.Project, Result: warning, Text: text,
				Fix: fmt.Sprintf("docker diff %s shows what it writes: mount a volume there, a tmpfs for what may go, and log to stdout", i.Name),
			})
		}
		next[i.ID] = layer{now, size}
		if known && now.Sub(was.at) < lookApart {
			next[i.ID] = was
		}
	}
	l.last = next
	if len(out) > 0 {
		slices.SortStableFunc(out, func(a, b api.Check) int { return strings.Compare(a.Name, b.Name) })
		return out
	}
	return []api.Check{{Name: "written layers", Result: okay, Text: fmt.Sprintf("%s in %d instances", units.BytesSize(float64(all)), len(next))}}
}

// grows says how much an instance has written, where that is too much or will be.
func grows(name string, was, is layer, known bool) string {
	more, apart := is.size-was.size, is.at.Sub(was.at)
	if !known || apart < lookApart || more < littleMore {
		more = 0
	}
	perHour := float64(more) / apart.Hours()
	if is.size < muchWritten && (more == 0 || float64(is.size)+perHour*muchTime.Hours() < muchWritten) {
		return ""
	}
	text := fmt.Sprintf("%s has written %s into its own layer, which goes with it", name, units.BytesSize(float64(is.size)))
	if more > 0 {
		text += fmt.Sprintf(", and %s more an hour", units.BytesSize(perHour))
	}
	return text
}
