package collect

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/tenderhq/tender/internal/logs"
)

// Outside is the project under which lies what does not come from an instance.
const Outside = "outside"

const (
	intakeQueue   = 4096     // entries that wait
	intakeBytes   = 32 << 20 // of them; one that is larger waits alone
	intakeBatch   = 1000
	intakeAtOnce  = 4 << 20 // bytes of a batch, which the store takes whole or not at all
	intakeWait    = 200 * time.Millisecond
	maxSources    = 1000 // streams of what others send; beyond, all goes into one
	maxSourceName = 128  // bytes of a name that others choose
)

// entry is what came without a place in a file. It is kept, but not once only.
type entry struct {
	labels logs.Labels
	time   int64
	stderr bool
	text   string
	fields []logs.Field // beside the text; nil: they are found in it
}

// intake is the queue of entries before the store.
type intake struct {
	queue   chan entry
	room    *semaphore.Weighted // bytes that may still wait
	dropped int64
	mu      sync.Mutex
	streams map[string]logs.Labels
}

// offer takes an entry if there is room: for who must not wait.
func (c *Collector) offer(e entry) bool {
	if c.intake.room.TryAcquire(e.weight()) {
		select {
		case c.intake.queue <- e:
			return true
		default:
			c.intake.room.Release(e.weight())
		}
	}
	c.intake.mu.Lock()
	c.intake.dropped++
	c.intake.mu.Unlock()
	return false
}

// put waits for room: for who can be told to wait.
func (c *Collector) put(ctx context.Context, e entry) error {
	if err := c.intake.room.Acquire(ctx, e.weight()); err != nil {
		return err
	}
	select {
	case c.intake.queue <- e:
		return nil
	case <-ctx.Done():
		c.intake.room.Release(e.weight())
		return ctx.Err()
	}
}

// size is about what e holds in memory.
func (e *entry) size() int {
	n := len(e.text)
	for _, f := range e.fields {
		n += len(f.Name) + len(f.Value)
	}
	return n
}

// weight is what e takes of the room.
func (e *entry) weight() int64 { return int64(min(e.size(), intakeBytes)) }

// outside makes the labels of what others send. Their number is bounded: names are
// chosen by who sends.
func (c *Collector) outside(source, project, service, instance string) logs.Labels {
	if project == "" {
		project = Outside
	}
	if service == "" {
		service = source
	}
	key := strings.Join([]string{source, project, service, instance}, "\x00")
	c.intake.mu.Lock()
	defer c.intake.mu.Unlock()
	l, ok := c.intake.streams[key]
	switch {
	case ok:
		return l
	case len(c.intake.streams) >= maxSources:
		c.once("streams", "too many names of services come from outside, what follows is kept under the service other", "most", maxSources)
		project, service, instance = Outside, "other", ""
	}
	all := []logs.Field{
		{Name: "instance", Value: short(instance)},
		{Name: "node", Value: c.o.Node},
		{Name: "project", Value: short(project)},
		{Name: "service", Value: short(service)},
		{Name: "source", Value: source},
	}
	for _, f := range all {
		if f.Value != "" {
			l = append(l, f)
		}
	}
	if len(c.intake.streams) < maxSources {
		c.intake.streams[key] = l
	}
	return l
}

func short(s string) string { return shortened(s, maxSourceName) }

func shortened(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	return strings.Clone(strings.ToValidUTF8(s, ""))
}

// take hands the queue on until ctx ends, and then what is left of it.
func (c *Collector) take(ctx context.Context) {
	parsers := map[string]*parser{}
	timer := time.NewTimer(intakeWait)
	defer timer.Stop()
	for {
		var batch []entry
		select {
		case <-ctx.Done():
			rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			for {
				select {
				case e := <-c.intake.queue:
					batch = append(batch, e)
					continue
				default:
				}
				for len(batch) > 0 {
					n := atOnce(batch)
					c.hand(rest, batch[:n], parsers)
					batch = batch[n:]
				}
				return
			}
		case e := <-c.intake.queue:
			batch = append(batch, e)
		}
		timer.Reset(intakeWait)
		size := batch[0].size()
	more:
		for len(batch) < intakeBatch && size < intakeAtOnce {
			select {
			case e := <-c.intake.queue:
				batch = append(batch, e)
				size += e.size()
			case <-timer.C:
				break more
			case <-ctx.Done():
				break more
			}
		}
		c.hand(context.WithoutCancel(ctx), batch, parsers)
		c.intake.mu.Lock()
		dropped := c.intake.dropped
		c.intake.dropped = 0
		c.intake.mu.Unlock()
		if dropped > 0 {
			c.once("dropped", "entries that were sent were dropped: the store takes them more slowly than they come", "entries", dropped)
		}
	}
}

// atOnce is how many entries make a batch.
func atOnce(list []entry) int {
	n, size := 0, 0
	for n < len(list) && n < intakeBatch && size < intakeAtOnce {
		size += list[n].size()
		n++
	}
	return n
}

// hand appends entries, those of one stream together.
func (c *Collector) hand(ctx context.Context, batch []entry, parsers map[string]*parser) {
	defer func() {
		for i := range batch {
			c.intake.room.Release(batch[i].weight())
		}
	}()
	by := map[string][]entry{}
	var order []string
	for _, e := range batch {
		key := e.labels.String()
		if by[key] == nil {
			order = append(order, key)
		}
		by[key] = append(by[key], e)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, key := range order {
		list := by[key]
		p := parsers[key]
		if p == nil {
			names := map[string]bool{"stream": true}
			for _, f := range list[0].labels {
				names[f.Name] = true
			}
			if len(parsers) > 64 {
				clear(parsers)
			}
			p = newParser(&rules{single: true}, names)
			p.before = believeLate
			parsers[key] = p
		}
		if err := c.o.Store.Append(ctx, logs.Batch{Labels: list[0].labels, Rows: p.entries(list)}); err != nil {
			c.once("intake", "what was sent cannot be stored", "err", err)
			return
		}
		c.count(len(list), 0)
	}
}

// entries makes rows of what came without an envelope; good until the next call.
func (p *parser) entries(list []entry) []logs.Row {
	p.rows.reset()
	for i := range list {
		e := &list[i]
		row := len(p.rows.list)
		p.rows.list = append(p.rows.list, logs.Row{Time: e.time, Stderr: e.stderr})
		if e.fields == nil {
			p.entry(row, p.rows.keep(escape(p.rows.room(len(e.text)), e.text)))
			continue
		}
		start, roles := len(p.rows.fields), noRoles
		p.rows.add(rawField, e.text)
		for _, f := range e.fields {
			name := p.field(f.Name)
			roles.see(len(p.rows.fields)-start, name)
			p.rows.add(name, f.Value)
		}
		p.row(row, wholeShape, start, roles)
	}
	return p.rows.list
}

// Own passes the daemon's own log on, and into the store beside it.
type Own struct {
	slog.Handler
	collect func() *Collector
	line    slog.Handler
	buf     *lockedBuffer
}

// NewOwn makes a handler that writes to next as before. collector may return nil,
// as long as there is none.
func NewOwn(next slog.Handler, collector func() *Collector) *Own {
	b := &lockedBuffer{}
	return &Own{Handler: next, collect: collector, buf: b, line: slog.NewJSONHandler(b, &slog.HandlerOptions{Level: slog.LevelInfo})}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) { return b.b.Write(p) }

// Handle implements slog.Handler. It never waits for the store.
func (o *Own) Handle(ctx context.Context, r slog.Record) error {
	if c := o.collect(); c != nil && r.Level >= slog.LevelInfo {
		o.buf.mu.Lock()
		o.buf.b.Reset()
		err := o.line.Handle(ctx, r)
		text := strings.TrimSuffix(o.buf.b.String(), "\n")
		o.buf.mu.Unlock()
		if err == nil {
			c.offer(entry{labels: c.own("serve"), time: r.Time.UnixNano(), stderr: true, text: text})
		}
	}
	return o.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (o *Own) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *o
	n.Handler, n.line = o.Handler.WithAttrs(attrs), o.line.WithAttrs(attrs)
	return &n
}

// WithGroup implements slog.Handler.
func (o *Own) WithGroup(name string) slog.Handler {
	n := *o
	n.Handler, n.line = o.Handler.WithGroup(name), o.line.WithGroup(name)
	return &n
}

// own are the labels of what Tender itself writes.
func (c *Collector) own(service string) logs.Labels {
	l := logs.Labels{{Name: "instance", Value: service}, {Name: "node", Value: c.o.Node}, {Name: "project", Value: "tender"}, {Name: "service", Value: service}}
	if c.o.Node == "" {
		l = append(l[:1], l[2:]...)
	}
	return l
}

// Audit keeps one deed: facts become fields.
func (c *Collector) Audit(at time.Time, facts map[string]string) {
	text, err := json.Marshal(facts)
	if err == nil {
		c.offer(entry{labels: c.own("audit"), time: at.UnixNano(), text: string(text)})
	}
}
