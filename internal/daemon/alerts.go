package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/alert"
	"github.com/tenderhq/tender/internal/api"
)

// alertRoom is the room of alerts with the file that says who is told.
type alertRoom struct {
	log  *slog.Logger
	room *alert.Room
	file string // "": there is none, or an Alertmanager outside does it
	held stamp  // of the file when it was read; of who opens the room, then of look
	tell func(problem, note string)
}

// nobodyTold is what is said where alerts find no way out.
const nobodyTold = "no receiver: alerts are only shown here; set alertmanager: FILE"

// openAlerts opens the room; without it all else goes on.
func openAlerts(b *backend, log *slog.Logger) *alertRoom {
	c := b.config
	o := alert.Options{Dir: filepath.Join(c.DataDir, "alerts"), Log: log, ExternalURL: outerURL(c), Enrich: b.annotate}
	a := &alertRoom{log: log, tell: func(problem, note string) {
		b.board.set("alerts", func(p *api.Part) { p.Error, p.Note = problem, note })
	}}
	if list, err := alertmanagers(c.Alertmanager); err == nil && len(list) > 0 {
		for _, u := range list {
			o.Outside = append(o.Outside, alert.Outside{URL: u})
		}
	} else {
		a.file = c.Alertmanager
	}
	var err error
	if a.room, err = alert.Open(o); err != nil {
		log.Error("there are no alerts", "err", err)
		b.board.set("alerts", func(p *api.Part) { p.State, p.Since, p.Error = "failed", time.Now().UTC(), err.Error() })
		return nil
	}
	if a.file != "" { // the room begins with none
		a.load()
	}
	return a
}

// setAlertmanager tells a URL from a file.
func setAlertmanager(c *Config, v string) error {
	c.Alertmanager = v
	list, err := alertmanagers(v)
	if err != nil || len(list) > 0 || v == "" {
		return err
	}
	if c.Alertmanager, err = filepath.Abs(v); err != nil {
		return fmt.Errorf("find %s: %w", v, err)
	}
	return nil
}

// alertmanagers are those outside; none where v is a file.
func alertmanagers(v string) (out []*url.URL, err error) {
	for _, word := range addresses(v) {
		if !strings.HasPrefix(word, "http://") && !strings.HasPrefix(word, "https://") {
			if len(out) > 0 {
				return nil, fmt.Errorf("%q is not a URL, and what stands before it is one", word)
			}
			return nil, nil
		}
		u, err := url.Parse(word)
		if err != nil || u.Host == "" {
			return nil, errors.New("the URL of an Alertmanager is such as http://alertmanager:9093") // without what may be a password
		}
		out = append(out, u)
	}
	return out, nil
}

// outerURL is where the API is for others: what messages link to.
func outerURL(c Config) *url.URL {
	u := &url.URL{Scheme: "http", Host: nodeName(), Path: "/alertmanager"}
	if c.TLSCert != "" {
		u.Scheme = "https"
	}
	if _, port, err := net.SplitHostPort(c.Listen); err == nil {
		u.Host = net.JoinHostPort(nodeName(), port)
	}
	return u
}

// load takes the file in. What is wrong with it is said by problem, too.
func (a *alertRoom) load() {
	a.held = stampOf(a.file) // before: what changes meanwhile is read again
	if err := a.room.Load(a.file); err != nil {
		a.log.Error("the configuration of Alertmanager does not hold", "err", err)
	}
}

// problem is what status says of the part.
func (a *alertRoom) problem() string {
	s := a.room.Status()
	switch {
	case s.Refused && s.File == "":
		return s.Problem + "; nobody is told of alerts"
	case s.Refused:
		return s.Problem + "; what held before holds on"
	case s.Problem == "" && s.Nowhere && a.file == "":
		return nobodyTold
	case s.Problem == "" && s.Nowhere:
		return "no receiver: alerts are only shown here; no route in " + a.file + " leads to a receiver with an integration"
	}
	return s.Problem
}

// run is the part. The file is looked at now and then, so that a deploy of it is
// all that it takes; whoever wants it at once says so with SIGHUP.
func (a *alertRoom) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	work.Go(func() { a.look(ctx, hup) })
	return a.room.Run(ctx)
}

const (
	lookAgain = 5 * time.Second // at the file, and at how the room is
	lookTwice = time.Second     // at a file that has changed: while it is being written it goes on changing
)

func (a *alertRoom) look(ctx context.Context, hup <-chan os.Signal) {
	seen, said := a.held, ""
	for {
		if now := a.problem(); now != said {
			if said = now; said == nobodyTold { // as it is where nobody has asked for more
				a.tell("", said)
			} else {
				a.tell(said, "")
			}
		}
		wait := lookAgain
		if seen != a.held {
			wait = lookTwice
		}
		select {
		case <-ctx.Done():
			return
		case <-hup:
			a.load()
			seen = a.held
		case <-time.After(wait):
			before := seen
			if seen = stampOf(a.file); seen != a.held && seen == before {
				a.load()
				seen = a.held
			}
		}
	}
}

// stamp tells a file from what it was before. When it was written says nothing by itself: clocks
// differ, and a copy may carry the time of what it was made from.
type stamp struct {
	written     int64 // in nanoseconds
	size        int64
	inode, disk uint64
}

// stampOf is the zero value where there is no file.
func stampOf(file string) (s stamp) {
	info, err := os.Stat(file)
	if err != nil {
		return s
	}
	s.written, s.size = info.ModTime().UnixNano(), info.Size()
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode, s.disk = st.Ino, uint64(st.Dev)
	}
	return s
}

// alertmanager mounts Alertmanager's API, also under a prefix for clients that know
// several such things.
func (b *backend) alertmanager() map[string]http.Handler {
	h := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, noAlerts().Error(), http.StatusServiceUnavailable)
	}))
	if b.alerts != nil {
		h = b.audited(b.alerts.room.Handler())
	}
	return map[string]http.Handler{"/api/v2/": h, "/alertmanager/": http.StripPrefix("/alertmanager", h)}
}

// audited notes silences that clients of Alertmanager make and end.
func (b *backend) audited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		who, _ := api.PersonFrom(r.Context())
		switch id, one := strings.CutPrefix(r.URL.Path, "/api/v2/silence/"); {
		case r.Method == http.MethodPost && r.URL.Path == "/api/v2/silences":
			b.audit(r.Context(), who, "alert silence add", "", "through Alertmanager's API")
		case r.Method == http.MethodDelete && one:
			b.audit(r.Context(), who, "alert silence expire", "", cut(id, 64)+" through Alertmanager's API")
		}
	})
}

func noAlerts() error {
	return tender.Errorf(tender.Unavailable, "there are no alerts: their state could not be opened").Hint("tender status says why")
}

// Alerts lists those that fire.
func (b *backend) Alerts(ctx context.Context, project string, match []string) (api.Alerts, error) {
	if b.alerts == nil {
		return api.Alerts{}, noAlerts()
	}
	m, err := matchersOf(project, match)
	if err != nil {
		return api.Alerts{}, err
	}
	all, err := b.alerts.room.Alerts(ctx, m)
	if err != nil {
		return api.Alerts{}, err
	}
	s := b.alerts.room.Status()
	out := api.Alerts{Alerts: make([]api.Alert, 0, len(all)), Alerting: api.Alerting{
		File: s.File, Outside: s.Outside, Loaded: s.Loaded, Receivers: s.Receivers, Nowhere: s.Nowhere, Waiting: s.Waiting, Dropped: s.Dropped, Problem: b.alerts.problem(),
	}}
	for _, a := range all {
		out.Alerts = append(out.Alerts, alertShown(a))
	}
	slices.SortStableFunc(out.Alerts, func(x, y api.Alert) int { return x.Since.Compare(y.Since) })
	return out, nil
}

func alertShown(a alert.Shown) api.Alert {
	out := api.Alert{
		Name: a.Labels["alertname"], Severity: a.Labels["severity"], Project: a.Labels["project"], Service: a.Labels["service"], Summary: a.Annotations["summary"],
		Labels: a.Labels, Annotations: a.Annotations, Since: a.StartsAt.UTC(), State: a.State, SilencedBy: a.SilencedBy, InhibitedBy: a.InhibitedBy, MutedBy: a.MutedBy,
		Receivers: a.Receivers, Fingerprint: a.Fingerprint, Link: a.GeneratorURL,
	}
	switch {
	case len(a.SilencedBy) > 0:
		out.State = "silenced"
	case len(a.InhibitedBy) > 0:
		out.State = "inhibited"
	case len(a.MutedBy) > 0:
		out.State = "muted"
	}
	return out
}

// matchersOf are those of the words, and of the project.
func matchersOf(project string, words []string) ([]alert.Matcher, error) {
	m, err := alert.Matchers(words)
	if err == nil && project != "" {
		m = append(m, alert.Matcher{Name: "project", Value: project, IsEqual: true})
	}
	return m, err
}

// TestAlert sends a sample.
func (b *backend) TestAlert(ctx context.Context, who api.Person, receiver string) (out []api.AlertTry, err error) {
	if b.alerts == nil {
		return nil, noAlerts()
	}
	all, err := b.alerts.room.Test(ctx, receiver, alert.Sample(time.Now()))
	for _, t := range all {
		out = append(out, api.AlertTry{Receiver: t.Receiver, Integration: t.Integration, Took: t.Took, Error: t.Error})
	}
	b.auditEnd(ctx, who, "alert test", "", receiver, err)
	return out, err
}

// Silences lists those that mute, with all also those that did.
func (b *backend) Silences(ctx context.Context, project string, match []string, all bool) ([]api.Silence, error) {
	if b.alerts == nil {
		return nil, noAlerts()
	}
	m, err := alert.Matchers(match)
	if err != nil {
		return nil, err
	}
	list, err := b.alerts.room.Silences(ctx, m)
	var out []api.Silence
	for _, s := range list {
		if (all || s.State != "expired") && (project == "" || only(s, project)) {
			out = append(out, silence(s))
		}
	}
	return out, err
}

// only reports whether a silence mutes nothing beyond a project.
func only(s alert.Silence, project string) bool {
	return slices.Contains(s.Matchers, alert.Matcher{Name: "project", Value: project, IsEqual: true})
}

func silence(s alert.Silence) api.Silence {
	out := api.Silence{ID: s.ID, State: s.State, Starts: s.StartsAt.UTC(), Ends: s.EndsAt.UTC(), Who: s.CreatedBy, Comment: s.Comment}
	for _, m := range s.Matchers {
		out.Matchers = append(out.Matchers, m.String())
	}
	return out
}

// AddSilence makes one; with a project it mutes nothing beyond it.
func (b *backend) AddSilence(ctx context.Context, who api.Person, project string, r api.SilenceRequest) (api.Silence, error) {
	if b.alerts == nil {
		return api.Silence{}, noAlerts()
	}
	m, err := matchersOf(project, r.Matchers)
	if err != nil {
		return api.Silence{}, err
	}
	if len(m) == 0 {
		return api.Silence{}, tender.Errorf(tender.Invalid, "a silence without a matcher would mute everything").Hint("say what: tender alert silence add service=web --for 2h")
	}
	s := alert.Silence{Matchers: m, StartsAt: r.Starts, CreatedBy: who.Name, Comment: r.Comment}
	if s.StartsAt.IsZero() {
		s.StartsAt = time.Now()
	}
	s.EndsAt = s.StartsAt.Add(r.For)
	id, err := b.alerts.room.AddSilence(ctx, s)
	b.auditEnd(ctx, who, "alert silence add", project, strings.Join(r.Matchers, " "), err)
	if err != nil {
		return api.Silence{}, err
	}
	made, err := b.alerts.room.Silence(ctx, id)
	return silence(made), err
}

// ExpireSilence ends one; with a project only one that mutes nothing beyond it.
func (b *backend) ExpireSilence(ctx context.Context, who api.Person, project, id string) error {
	if b.alerts == nil {
		return noAlerts()
	}
	s, err := b.alerts.room.Silence(ctx, id)
	if err == nil && project != "" && !only(s, project) {
		err = tender.Errorf(tender.NotFound, "the silence %s is not for project %s alone", id, project).Hint("without -p: tender alert silence expire %s", id)
	}
	if err == nil && s.State == "expired" {
		return nil
	}
	if err == nil {
		err = b.alerts.room.ExpireSilence(ctx, id)
	}
	b.auditEnd(ctx, who, "alert silence expire", project, id, err)
	return err
}
