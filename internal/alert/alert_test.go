package alert_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/alert"
)

const patience = 2 * time.Minute

// message is what Alertmanager sends to a webhook, as far as tests look at it.
type message struct {
	Status   string
	Receiver string
	Alerts   []struct {
		Status              string
		Labels, Annotations map[string]string
	}
}

func (m message) names() (out []string) {
	for _, a := range m.Alerts {
		out = append(out, a.Labels["alertname"]+" "+a.Status)
	}
	slices.Sort(out)
	return out
}

// hook is a webhook that passes on what it is sent.
func hook(t *testing.T) (string, chan message) {
	t.Helper()
	got := make(chan message, 100)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m message
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		got <- m
	}))
	t.Cleanup(s.Close)
	return s.URL, got
}

func next(t *testing.T, got chan message) message {
	t.Helper()
	select {
	case m := <-got:
		return m
	case <-time.After(patience):
		t.Fatal("nobody was told")
		return message{}
	}
}

func file(t *testing.T, text string, args ...any) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "alertmanager.yml")
	if err := os.WriteFile(path, fmt.Appendf(nil, text, args...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// room opens one and has it run until the test ends.
func room(t *testing.T, o alert.Options) *alert.Room {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	r, err := alert.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func fires(name string, labels ...string) alert.Alert {
	a := alert.Alert{Labels: map[string]string{"alertname": name, "project": "shop", "service": "web"}, Annotations: map[string]string{"summary": name}}
	for i := 0; i+1 < len(labels); i += 2 {
		a.Labels[labels[i]] = labels[i+1]
	}
	return a
}

func ended(a alert.Alert) alert.Alert {
	a.EndsAt = time.Now()
	a.StartsAt = a.EndsAt.Add(-time.Hour)
	return a
}

func put(t *testing.T, r *alert.Room, all ...alert.Alert) {
	t.Helper()
	if err := r.Put(t.Context(), all...); err != nil {
		t.Fatal(err)
	}
}

// over says that an alert has ended until somebody is told so, as rules do it:
// Alertmanager takes two words on one alert that come at once in any order.
func over(t *testing.T, r *alert.Room, got chan message, a alert.Alert) message {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		put(t, r, ended(a))
		select {
		case m := <-got:
			return m
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Fatal("nobody was told")
	return message{}
}

const quick = "group_wait: 10ms, group_interval: 20ms, repeat_interval: 1h"

func TestGroupsAreSentOnce(t *testing.T) {
	url, got := hook(t)
	r := room(t, alert.Options{})
	if !r.Status().Nowhere {
		t.Error("without a configuration somebody is told")
	}
	if err := r.Load(file(t, `
route: {receiver: hook, group_by: [project], group_wait: 2s, group_interval: 20ms, repeat_interval: 1h}
receivers: [{name: hook, webhook_configs: [{url: %q}]}]`, url)); err != nil {
		t.Fatal(err)
	}
	if s := r.Status(); s.Nowhere || s.Problem != "" || !slices.Equal(s.Receivers, []string{"hook"}) {
		t.Errorf("status: %+v", s)
	}
	put(t, r, fires("Slow"), fires("Down"))
	if m := next(t, got); !slices.Equal(m.names(), []string{"Down firing", "Slow firing"}) {
		t.Errorf("got %v", m.names())
	}
	put(t, r, ended(fires("Slow")), fires("Down"))
	if m := next(t, got); !slices.Equal(m.names(), []string{"Down firing", "Slow resolved"}) {
		t.Errorf("got %v", m.names())
	}
}

func TestWrongConfigurationChangesNothing(t *testing.T) {
	url, got := hook(t)
	r := room(t, alert.Options{})
	good := "route: {receiver: hook, " + quick + "}\nreceivers: [{name: hook, webhook_configs: [{url: \"" + url + "\"}]}]\n"
	path := file(t, "%s", good)
	if err := r.Load(path); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"field not found":  good + "nonsense: 1\n",
		"undefined":        "route: {receiver: nobody}\nreceivers: [{name: hook}]\n",
		"no route":         "",
		"no such template": good + "templates: [\"[\"]\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := r.Load(path); err == nil {
			t.Errorf("%s: taken", name)
		} else if r.Status().Problem != err.Error() {
			t.Errorf("%s: status says %q, not %q", name, r.Status().Problem, err)
		}
	}
	put(t, r, fires("Down"))
	next(t, got)
	if err := os.WriteFile(path, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Load(path); err != nil || r.Status().Problem != "" {
		t.Errorf("%v, %q", err, r.Status().Problem)
	}
}

func TestSilencesAndInhibition(t *testing.T) {
	url, got := hook(t)
	r := room(t, alert.Options{})
	if err := r.Load(file(t, `
route: {receiver: hook, group_by: [...], `+quick+`}
receivers: [{name: hook, webhook_configs: [{url: %q}]}]
inhibit_rules: [{source_matchers: [alertname=HostDown], target_matchers: [alertname!=HostDown], equal: [node]}]`, url)); err != nil {
		t.Fatal(err)
	}
	match, err := alert.Matchers([]string{"Muted", "service=~web|db"})
	if err != nil {
		t.Fatal(err)
	}
	id, err := r.AddSilence(t.Context(), alert.Silence{Matchers: match, EndsAt: time.Now().Add(time.Hour), CreatedBy: "ann", Comment: "is known"})
	if err != nil {
		t.Fatal(err)
	}
	put(t, r, fires("HostDown", "node", "a"))
	if m := next(t, got); m.names()[0] != "HostDown firing" {
		t.Errorf("got %v", m.names())
	}
	put(t, r, fires("Muted"), fires("Slow", "node", "a"), fires("Other", "node", "b"))
	if m := next(t, got); m.names()[0] != "Other firing" {
		t.Errorf("got %v", m.names())
	}
	all, err := r.Alerts(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, a := range all {
		seen[a.Labels["alertname"]] = fmt.Sprint(a.State, " ", len(a.SilencedBy), " ", len(a.InhibitedBy))
	}
	for name, want := range map[string]string{"HostDown": "active 0 0", "Muted": "suppressed 1 0", "Slow": "suppressed 0 1", "Other": "active 0 0"} {
		if seen[name] != want {
			t.Errorf("%s is %q, want %q", name, seen[name], want)
		}
	}
	if err := r.ExpireSilence(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	put(t, r, fires("Muted"))
	if m := next(t, got); m.names()[0] != "Muted firing" {
		t.Errorf("got %v", m.names())
	}
	if s, err := r.Silence(t.Context(), id); err != nil || s.State != "expired" || s.CreatedBy != "ann" {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := r.Silence(t.Context(), "b9c6a5ea-0000-4000-8000-000000000000"); tender.KindOf(err) != tender.NotFound {
		t.Errorf("a silence that is not there: %v", err)
	}
}

func TestMaintenanceWindows(t *testing.T) {
	url, got := hook(t)
	r := room(t, alert.Options{})
	if err := r.Load(file(t, `
route:
  receiver: hook
  group_by: [...]
  group_wait: 10ms
  group_interval: 20ms
  repeat_interval: 1h
  routes:
  - {matchers: [window=now], mute_time_intervals: [always]}
  - {matchers: [hours=never], active_time_intervals: [never]}
  - {matchers: [hours=always], active_time_intervals: [always]}
receivers: [{name: hook, webhook_configs: [{url: %q}]}]
time_intervals:
- {name: always, time_intervals: [{times: [{start_time: "00:00", end_time: "24:00"}]}]}
- {name: never, time_intervals: [{years: ["1999"]}]}`, url)); err != nil {
		t.Fatal(err)
	}
	put(t, r, fires("Muted", "window", "now"), fires("Off", "hours", "never"), fires("On", "hours", "always"))
	if m := next(t, got); m.names()[0] != "On firing" {
		t.Errorf("got %v", m.names())
	}
	// Muted groups are known as such once they were about to be sent.
	muted := map[string]bool{}
	for deadline := time.Now().Add(patience); len(muted) < 2; {
		if time.Now().After(deadline) {
			t.Fatalf("muted are %v", muted)
		}
		w := httptest.NewRecorder()
		r.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v2/alerts/groups", nil))
		var groups []struct {
			Alerts []struct {
				Labels map[string]string
				Status struct{ MutedBy []string }
			}
		}
		if err := json.Unmarshal(w.Body.Bytes(), &groups); err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			for _, a := range g.Alerts {
				if len(a.Status.MutedBy) > 0 {
					muted[a.Labels["alertname"]] = true
				}
			}
		}
	}
	if !muted["Muted"] || !muted["Off"] {
		t.Errorf("muted are %v", muted)
	}
	if len(got) > 0 {
		t.Errorf("somebody was told: %v", (<-got).names())
	}
}

func TestAlertsCarryWhatHelps(t *testing.T) {
	url, got := hook(t)
	asked := make(chan string, 10)
	r := room(t, alert.Options{Enrich: func(ctx context.Context, a alert.Alert) map[string]string {
		asked <- a.Labels["alertname"]
		if a.Labels["alertname"] == "Stuck" {
			<-ctx.Done()
			return map[string]string{"logs": "too late"}
		}
		return map[string]string{"logs": "boom\nbang", "summary": "not this", "long": strings.Repeat("ä", 5000), "not a name": "x", "empty": ""}
	}})
	if err := r.Load(file(t, `
route: {receiver: hook, group_by: [...], `+quick+`}
receivers: [{name: hook, webhook_configs: [{url: %q}]}]`, url)); err != nil {
		t.Fatal(err)
	}
	put(t, r, fires("Down"))
	a := next(t, got).Alerts[0].Annotations
	if a["logs"] != "boom\nbang" || a["summary"] != "Down" || len(a) != 3 || len(a["long"]) > 2<<10 || !strings.HasSuffix(a["long"], "ä…") {
		t.Errorf("annotations: %q", a)
	}
	put(t, r, fires("Down")) // again, as rules do it each minute
	if a := over(t, r, got, fires("Down")).Alerts[0]; a.Status != "resolved" || a.Annotations["logs"] != "boom\nbang" {
		t.Errorf("at the end: %+v", a)
	}
	put(t, r, fires("Stuck"))
	if a := next(t, got).Alerts[0]; a.Annotations["logs"] != "" {
		t.Errorf("what is late is sent: %+v", a)
	}
	put(t, r, fires("Down"))
	next(t, got)
	var all []string
	for len(asked) > 0 {
		all = append(all, <-asked)
	}
	if !slices.Equal(all, []string{"Down", "Stuck", "Down"}) {
		t.Errorf("asked about %v", all)
	}
}

func TestAReceiverThatCannotBeToldIsNamed(t *testing.T) {
	var ill atomic.Bool
	ill.Store(true)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if ill.Load() {
			http.Error(w, "the room is full", http.StatusBadRequest)
		}
	}))
	t.Cleanup(s.Close)
	r := room(t, alert.Options{})
	if err := r.Load(file(t, "route: {receiver: ops, "+quick+"}\nreceivers: [{name: ops, webhook_configs: [{url: %q}]}]\n", s.URL)); err != nil {
		t.Fatal(err)
	}
	put(t, r, fires("Down"))
	said := func(want func(string) bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); !want(r.Status().Problem); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("status says %q", r.Status().Problem)
			}
		}
	}
	said(func(p string) bool {
		return strings.HasPrefix(p, "receiver ops, webhook[0]: ") && strings.Contains(p, "the room is full")
	})
	ill.Store(false)
	said(func(p string) bool { return p == "" })
}

func TestWrongAlertsAreNamed(t *testing.T) {
	r := room(t, alert.Options{})
	err := r.Put(t.Context(), alert.Alert{}, fires("Good"))
	if err == nil || !strings.Contains(err.Error(), "label") {
		t.Errorf("got %v", err)
	}
	all, err := r.Alerts(t.Context(), nil)
	if err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
}

func TestMatchersAsAmtoolTakesThem(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"Down", `alertname="Down"`},
		{"service=~web|db", `service=~"web|db"`},
		{`severity!=info`, `severity!="info"`},
		{`{a="b",c!~"d.*"}`, `a="b" c!~"d.*"`},
	} {
		got, err := alert.Matchers([]string{c.in})
		var words []string
		for _, m := range got {
			words = append(words, m.String())
		}
		if err != nil || strings.Join(words, " ") != c.want {
			t.Errorf("%s: %v, %v", c.in, words, err)
		}
	}
	if _, err := alert.Matchers([]string{"a=~("}); tender.KindOf(err) != tender.Invalid {
		t.Errorf("a wrong expression: %v", err)
	}
}

// Who finds the end after a restart does not know any more what the alert said: people are told it all the same.
func TestAnEndThatSaysNothingKeepsWhatTheAlertSaid(t *testing.T) {
	url, got := hook(t)
	r := room(t, alert.Options{})
	if err := r.Load(file(t, "route: {receiver: hook, group_by: [...], %s}\nreceivers: [{name: hook, webhook_configs: [{url: %q}]}]\n", quick, url)); err != nil {
		t.Fatal(err)
	}
	put(t, r, fires("Down"))
	next(t, got)
	silent := fires("Down")
	silent.Annotations = nil
	if m := over(t, r, got, silent); m.Status != "resolved" || m.Alerts[0].Annotations["summary"] != "Down" {
		t.Errorf("%+v", m)
	}
}
