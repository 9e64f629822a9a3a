// Package alert groups alerts, mutes them and tells people: Alertmanager's own
// routing, receivers, silences and API, inside. daemon knocks: it hands alerts in
// that rules found, and what else is worth knowing about each. It evaluates no
// rules: that is metrics'. Where an Alertmanager outside is set, it sends there
// and asks there.
package alert

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/prometheus/alertmanager/featurecontrol"
	"github.com/prometheus/alertmanager/matcher/compat"
	"github.com/prometheus/common/model"
)

// Alert is one that fires, or that has ended.
type Alert struct {
	Labels       map[string]string // alertname and what it is about: project, service…
	Annotations  map[string]string // summary, description, runbook_url…
	StartsAt     time.Time
	EndsAt       time.Time // when it ended, or when it counts as ended if nobody says it again; zero: 5 min from now
	GeneratorURL string    // where its expression can be looked at
}

// Options say where state lies and who else is asked. The zero value of all but
// Dir works.
type Options struct {
	Dir string // silences, who was told what, alerts that fire
	Log *slog.Logger
	// ExternalURL is what messages link to.
	ExternalURL *url.URL
	// Enrich returns annotations that help whoever is woken; it is asked once for
	// each alert when it begins to fire and has a second. What the alert says of
	// itself wins.
	Enrich func(ctx context.Context, a Alert) map[string]string
	// Outside are Alertmanagers that alerts go to instead of here; all get all, the
	// first one is asked.
	Outside []Outside
}

// Outside is one Alertmanager that is not ours.
type Outside struct {
	URL    *url.URL     // up to what comes before /api/v2; a user and a password in it are sent
	Client *http.Client // default: http.DefaultClient's like, with a limit of 10 s
}

// NoReceiver is the name of the receiver that nobody is behind.
const NoReceiver = "none"

// Status is how the room is.
type Status struct {
	File      string    // the configuration that holds; "" where none was given
	Loaded    time.Time // when
	Problem   string    // why a newer configuration does not hold, state is not kept, or a receiver is not told
	Refused   bool      // a newer configuration does not hold
	Receivers []string  // those of the configuration
	// Nowhere: nobody is told, because there is no receiver with an integration.
	Nowhere bool
	Outside string // the Alertmanager that is asked, without its password
	Waiting int    // alerts that an Alertmanager outside has not taken yet
	Dropped int64  // alerts that found no place to wait in, since the start
}

// Room is the whole of it.
type Room struct {
	o       Options
	log     *slog.Logger
	carried *carried
	house   *house // nil where an Alertmanager outside is set
	away    *away  // nil where it is ours
	v2      *v2
}

// setParsers is for the whole process: how matchers are read is global with Alertmanager.
var setParsers = sync.OnceFunc(func() { compat.InitFromFlags(discard(), featurecontrol.NoopFlags{}) })

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func here() *url.URL { return &url.URL{Scheme: "http", Host: "localhost"} }

// Open reads the state in o.Dir. Until Load says otherwise nobody is told.
func Open(o Options) (*Room, error) {
	if o.Log == nil {
		o.Log = discard()
	}
	if o.ExternalURL == nil {
		o.ExternalURL = here()
	}
	setParsers()
	r := &Room{o: o, log: o.Log, carried: newCarried(o.Enrich)}
	if len(o.Outside) > 0 {
		r.away = newAway(o.Outside, o.Log)
		r.v2 = &v2{base: r.away.first.URL, client: r.away.first.Client}
		return r, nil
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of alerts: %w", err)
	}
	var err error
	if r.house, err = openHouse(o, r.carried); err != nil {
		return nil, err
	}
	if err := r.house.load(""); err != nil {
		return nil, errors.Join(err, r.house.close())
	}
	r.v2 = &v2{base: &url.URL{Scheme: "http", Host: "here"}, client: &http.Client{Transport: direct{r.house.face}}}
	return r, nil
}

// Load takes the configuration of Alertmanager in a file; "" is one that tells
// nobody. A wrong one is refused, and what held before holds on.
func (r *Room) Load(file string) error {
	if r.house == nil {
		return nil
	}
	return r.house.load(file)
}

// Put takes alerts in. Those that are wrong are left out and named in the error;
// the others are taken.
func (r *Room) Put(ctx context.Context, all ...Alert) error {
	now := time.Now()
	out := make([]*inner, 0, len(all))
	var wrong error
	for _, a := range all {
		in, err := within(a, now)
		if err != nil {
			wrong = errors.Join(wrong, fmt.Errorf("alert %q: %w", a.Labels[model.AlertNameLabel], err))
			continue
		}
		out = append(out, in)
	}
	if r.away != nil {
		r.away.put(r.carried.enrich(ctx, out)...)
		return wrong
	}
	return errors.Join(wrong, r.house.incoming.Put(ctx, out...))
}

// Handler serves Alertmanager's API v2 below /api/v2/.
func (r *Room) Handler() http.Handler {
	if r.away != nil {
		return r.away.handler()
	}
	return r.house.face
}

// Run keeps state on disk, or sends to the Alertmanager outside, until ctx ends.
func (r *Room) Run(ctx context.Context) error {
	if r.away != nil {
		return r.away.run(ctx)
	}
	return r.house.run(ctx)
}

// Close ends all that Open began. It comes after Run.
func (r *Room) Close() error {
	if r.house == nil {
		return nil
	}
	return r.house.close()
}

// Status says how it is now.
func (r *Room) Status() Status {
	if r.away != nil {
		return r.away.status()
	}
	return r.house.status()
}
