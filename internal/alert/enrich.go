package alert

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/alertmanager/provider/mem"
	"github.com/prometheus/common/model"
)

const (
	enrichTime   = time.Second // for all that begin to fire at once
	enrichAtOnce = 4
	annotation   = 2 << 10 // bytes of one that is added
	annotations  = 16      // of them
	defaultEnd   = 5 * time.Minute
)

// within makes one of Alertmanager's alerts.
func within(a Alert, now time.Time) (*inner, error) {
	in := &inner{Alert: model.Alert{
		Labels: set(a.Labels), Annotations: set(a.Annotations), StartsAt: a.StartsAt, EndsAt: a.EndsAt, GeneratorURL: a.GeneratorURL,
	}, UpdatedAt: now}
	if in.StartsAt.IsZero() {
		in.StartsAt = now
	}
	if in.EndsAt.IsZero() {
		in.EndsAt, in.Timeout = now.Add(defaultEnd), true
	}
	return in, in.Validate()
}

func outer(in *inner) Alert {
	return Alert{Labels: plain(in.Labels), Annotations: plain(in.Annotations), StartsAt: in.StartsAt, EndsAt: in.EndsAt, GeneratorURL: in.GeneratorURL}
}

func set(m map[string]string) model.LabelSet {
	out := make(model.LabelSet, len(m))
	for k, v := range m {
		if v != "" { // an empty label is none
			out[model.LabelName(k)] = model.LabelValue(v)
		}
	}
	return out
}

func plain(s model.LabelSet) map[string]string {
	out := make(map[string]string, len(s))
	for k, v := range s {
		out[string(k)] = string(v)
	}
	return out
}

// incoming is where alerts come in, by the API or by Put.
type incoming struct {
	*mem.Alerts
	carried *carried
	changed chan struct{}
}

// Put is provider.Alerts'.
func (i *incoming) Put(ctx context.Context, all ...*inner) error {
	err := i.Alerts.Put(ctx, i.carried.enrich(ctx, i.remembered(all))...)
	select {
	case i.changed <- struct{}{}:
	default:
	}
	return err
}

// remembered has an end that says nothing of its own say what the alert said: whoever found the
// end after a restart does not know that any more.
func (i *incoming) remembered(all []*inner) []*inner {
	now := time.Now()
	out := slices.Clone(all)
	for n, a := range all {
		if len(a.Annotations) > 0 || !a.ResolvedAt(now) {
			continue
		}
		if was, err := i.Alerts.Get(a.Fingerprint()); err == nil {
			more := *a
			more.Annotations = was.Annotations
			out[n] = &more
		}
	}
	return out
}

// carried is what was found out about each alert that fires. Whoever finds an
// alert says it again and again, and without this.
type carried struct {
	ask func(context.Context, Alert) map[string]string

	mu    sync.Mutex
	by    map[model.Fingerprint]*load
	swept time.Time
}

type load struct {
	added map[string]string
	ends  time.Time
}

func newCarried(ask func(context.Context, Alert) map[string]string) *carried {
	return &carried{ask: ask, by: map[model.Fingerprint]*load{}}
}

func (c *carried) of(f model.Fingerprint) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.by[f]; l != nil {
		return l.added
	}
	return nil
}

func (c *carried) restore(f model.Fingerprint, added map[string]string, ends time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.by[f] = &load{added, ends}
}

// enrich returns the alerts with what is known of them, and asks about those that
// begin to fire. Whatever is not known in time is left out for good: a message
// that is late is worse than one that says less.
func (c *carried) enrich(ctx context.Context, all []*inner) []*inner {
	if c.ask == nil {
		return all
	}
	now := time.Now()
	var fresh []*inner
	c.mu.Lock()
	for _, a := range all {
		f := a.Fingerprint()
		l := c.by[f]
		switch {
		case l != nil && l.ends.After(now):
			l.ends = a.EndsAt
		case a.ResolvedAt(now):
		default:
			c.by[f] = &load{ends: a.EndsAt} // from now on it is known, whoever says it again meanwhile
			fresh = append(fresh, a)
		}
	}
	c.sweep(now)
	c.mu.Unlock()
	c.find(ctx, fresh)

	out := make([]*inner, len(all))
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, a := range all {
		out[i] = a
		l := c.by[a.Fingerprint()]
		if l == nil || len(l.added) == 0 {
			continue
		}
		more := *a
		more.Annotations = set(l.added)
		maps.Copy(more.Annotations, a.Annotations)
		out[i] = &more
	}
	return out
}

// find asks about alerts, a few at once, and waits for the limit at most.
func (c *carried) find(ctx context.Context, fresh []*inner) {
	if len(fresh) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), enrichTime)
	defer cancel()
	type answer struct {
		f     model.Fingerprint
		added map[string]string
	}
	asked := make(chan *inner, len(fresh))
	for _, a := range fresh {
		asked <- a
	}
	close(asked)
	answers := make(chan answer, len(fresh)) // nobody waits for those that are late
	for range min(enrichAtOnce, len(fresh)) {
		go func() {
			for a := range asked {
				if ctx.Err() != nil {
					return
				}
				answers <- answer{a.Fingerprint(), bounded(c.ask(ctx, outer(a)))}
			}
		}()
	}
	for range fresh {
		select {
		case <-ctx.Done():
			return
		case a := <-answers:
			c.mu.Lock()
			if l := c.by[a.f]; l != nil {
				l.added = a.added
			}
			c.mu.Unlock()
		}
	}
}

// sweep forgets what has ended a while ago.
func (c *carried) sweep(now time.Time) {
	if now.Sub(c.swept) < time.Minute {
		return
	}
	c.swept = now
	for f, l := range c.by {
		if l.ends.Before(now.Add(-sweep)) {
			delete(c.by, f)
		}
	}
}

// bounded cuts what is too long for a message.
func bounded(m map[string]string) map[string]string {
	out := make(map[string]string, min(len(m), annotations))
	for k, v := range m {
		if len(out) == annotations {
			break
		}
		if !model.LegacyValidation.IsValidLabelName(k) || v == "" {
			continue
		}
		out[k] = cut(v, annotation)
	}
	return out
}

// cut shortens to n bytes at the end of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n -= len("…")
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
