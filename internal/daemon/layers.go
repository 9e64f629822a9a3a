package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
	"github.com/tenderhq/tender/internal/engine"
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
func (l *layers) checks(ctx context.Context, measure func(context.Context, ...string) (map[string]int64, error), there []tender.Instance) []api.Check {
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

// lostTime is how long a plan waits for the engine to measure what would go.
const lostTime = 3 * time.Second

// lost warns of what the instances that leave have written into their own
// layers: nothing of it is carried over. One question for all of them, and one
// more for each service that has much.
func lost(ctx context.Context, e engine.Reader, leaving []tender.Instance) []string {
	if len(leaving) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lostTime)
	defer cancel()
	var ids []string
	by := map[string][]tender.Instance{} // of each service
	for _, i := range leaving {
		ids = append(ids, i.ID)
		by[i.Service] = append(by[i.Service], i)
	}
	services := slices.Sorted(maps.Keys(by))
	sizes, err := e.Sizes(ctx, ids...)
	if err != nil {
		text := err.Error()
		if ctx.Err() != nil {
			text = fmt.Sprintf("the engine did not measure it in %s", lostTime)
		}
		return []string{fmt.Sprintf("how much %s inside of what is replaced, and is lost then, is not known: %s", whoKeeps(services), text)}
	}
	var out []string
	for _, service := range services {
		l := compose.Layer{}
		largest := ""
		for _, i := range by[service] {
			if sizes[i.ID] == 0 {
				continue
			}
			l.Instances = append(l.Instances, i.Name)
			l.Size += sizes[i.ID]
			if sizes[i.ID] > sizes[largest] {
				largest = i.ID
			}
		}
		if !l.Much() {
			continue
		}
		if l.Files, err = e.Written(ctx, largest); err != nil {
			l.Files = nil // the warning says how to find them
		}
		out = append(out, compose.Loses(service, l))
	}
	return out
}

// whoKeeps says that services do, in a line.
func whoKeeps(services []string) string {
	switch n := len(services); n {
	case 1:
		return services[0] + " keeps"
	case 2:
		return services[0] + " and " + services[1] + " keep"
	default:
		return fmt.Sprintf("%s and %d more services keep", services[0], n-1)
	}
}
