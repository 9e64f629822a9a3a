package alert

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httputil"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/common/model"

	tender "github.com/tenderhq/tender"
)

const (
	waitingMax = 10_000 // alerts that wait for one Alertmanager
	batchMax   = 64     // alerts in one request, as Prometheus sends them
	firstPause = time.Second
	lastPause  = 30 * time.Second
	sendTime   = 10 * time.Second
)

// away sends to Alertmanagers that are not ours, each at its own pace: one that
// does not answer keeps nothing from the others.
type away struct {
	first Outside
	lines []*line
}

// line is the queue to one of them. The newest word on an alert replaces the one
// before it, so a long absence costs no more than there are alerts.
type line struct {
	to  *v2
	log *slog.Logger

	mu      sync.Mutex
	waiting map[model.Fingerprint]*inner
	order   []model.Fingerprint
	dropped int64
	problem string
	wake    chan struct{}
}

func newAway(all []Outside, log *slog.Logger) *away {
	a := &away{}
	for _, o := range all {
		if o.Client == nil {
			o.Client = &http.Client{Timeout: sendTime}
		}
		if a.first.URL == nil {
			a.first = o
		}
		a.lines = append(a.lines, &line{to: &v2{base: o.URL, client: o.Client}, log: log, waiting: map[model.Fingerprint]*inner{}, wake: make(chan struct{}, 1)})
	}
	return a
}

func (a *away) put(all ...*inner) {
	for _, l := range a.lines {
		l.put(all)
	}
}

func (l *line) put(all []*inner) {
	l.mu.Lock()
	for _, in := range all {
		f := in.Fingerprint()
		if _, there := l.waiting[f]; !there {
			if len(l.order) >= waitingMax {
				delete(l.waiting, l.order[0])
				l.order = l.order[1:]
				l.dropped++
			}
			l.order = append(l.order, f)
		}
		l.waiting[f] = in
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (a *away) run(ctx context.Context) error {
	var work sync.WaitGroup
	for _, l := range a.lines {
		work.Go(func() { l.run(ctx) })
	}
	work.Wait()
	return nil
}

func (l *line) run(ctx context.Context) {
	pause := firstPause
	for {
		batch := l.next()
		if len(batch) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-l.wake:
				continue
			}
		}
		err := l.send(ctx, batch)
		if ctx.Err() != nil {
			return
		}
		refused := tender.KindOf(err) == tender.Invalid
		l.done(batch, err, err == nil || refused)
		if err == nil || refused {
			pause = firstPause
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// next is what goes first.
func (l *line) next() (out []*inner) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.order[:min(batchMax, len(l.order))] {
		out = append(out, l.waiting[f])
	}
	return out
}

// done takes what was sent off the queue, but not what was said anew meanwhile.
func (l *line) done(batch []*inner, err error, taken bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.problem
	l.problem = ""
	if err != nil {
		l.problem = err.Error()
	}
	if l.problem != was && err != nil {
		l.log.Warn("alerts wait", "alertmanager", l.to.base.Redacted(), "err", err)
	}
	if !taken {
		return
	}
	for _, in := range batch {
		if f := in.Fingerprint(); l.waiting[f] == in {
			delete(l.waiting, f)
		}
	}
	l.order = slices.DeleteFunc(l.order, func(f model.Fingerprint) bool { return l.waiting[f] == nil })
}

type wireAlert struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

func (l *line) send(ctx context.Context, batch []*inner) error {
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	body := make([]wireAlert, 0, len(batch))
	for _, in := range batch {
		o := outer(in)
		body = append(body, wireAlert{o.Labels, maps.Clone(o.Annotations), o.StartsAt.UTC(), o.EndsAt.UTC(), o.GeneratorURL})
	}
	return l.to.do(ctx, http.MethodPost, "alerts", nil, body, nil)
}

// handler passes on to the first of them: amtool may ask us all the same.
func (a *away) handler() http.Handler {
	base := a.first.URL
	p := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(base)
			r.Out.Header.Del("Authorization") // is for us
			if u := base.User; u != nil {
				password, _ := u.Password()
				r.Out.SetBasicAuth(u.Username(), password)
			}
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "the Alertmanager at "+base.Redacted()+" does not answer: "+bare(err).Error(), http.StatusBadGateway)
		},
	}
	if t := a.first.Client.Transport; t != nil {
		p.Transport = t
	}
	return p
}

func (a *away) status() Status {
	s := Status{Outside: a.first.URL.Redacted()}
	var problems []error
	for _, l := range a.lines {
		l.mu.Lock()
		s.Waiting += len(l.order)
		s.Dropped += l.dropped
		if l.problem != "" {
			problems = append(problems, errors.New(l.problem))
		}
		l.mu.Unlock()
	}
	if err := errors.Join(problems...); err != nil {
		s.Problem = err.Error()
	}
	return s
}
