package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/alert"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/logs"
	"github.com/tenderhq/tender/internal/store"
)

const alertPatience = 2 * time.Minute

// alerting is a daemon of which only alerts are there, on a port, with a token of
// each scope.
type alerting struct {
	*backend
	url   string
	token map[api.Scope]string
}

func serveAlerts(t *testing.T, c Config) *alerting {
	t.Helper()
	c.DataDir = t.TempDir()
	st, err := store.Open(c.DataDir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	a := &alerting{backend: &backend{config: c, store: st, board: new(board), log: slog.New(slog.DiscardHandler)}, token: map[api.Scope]string{}}
	for _, scope := range []api.Scope{api.Read, api.Deploy} {
		made, err := a.CreateToken(t.Context(), api.Person{Name: "root"}, string(scope), scope, nil, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		a.token[scope] = made.Secret
	}
	if a.alerts = openAlerts(a.backend, a.log); a.alerts == nil {
		t.Fatal(a.board.all())
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.alerts.run(ctx) }()
	s := httptest.NewServer(api.Handler(a.backend, api.Options{Mounts: a.alertmanager()}))
	t.Cleanup(func() {
		s.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := a.alerts.room.Close(); err != nil {
			t.Error(err)
		}
	})
	a.url = s.URL
	return a
}

func fires(name string) alert.Alert {
	return alert.Alert{Labels: map[string]string{"alertname": name, "project": "shop", "service": "web", "severity": "warning"}, Annotations: map[string]string{"summary": name + "!"}}
}

// debian unpacks a Debian package, once.
func debian(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("../../e2e/debian.sh", name).Output()
	if err != nil {
		if os.Getenv("TENDER_E2E") == "" {
			t.Skipf("there is no %s: e2e/debian.sh %s: %v", name, name, err)
		}
		t.Fatalf("e2e/debian.sh %s: %v", name, err)
	}
	return strings.TrimSpace(string(out))
}

// eventually asks until it is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(alertPatience); !so(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not so: " + what)
		}
	}
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Debian's amtool adds, finds and ends silences here, and reads alerts.
func TestAmtoolWorksAgainstTheDaemon(t *testing.T) {
	t.Parallel()
	a := serveAlerts(t, Config{})
	tool := filepath.Join(debian(t, "prometheus-alertmanager"), "usr/bin/amtool")
	for _, prefix := range []string{"", "/alertmanager"} {
		dir := t.TempDir()
		amtool := func(scope api.Scope, words ...string) (string, error) {
			file := write(t, filepath.Join(dir, string(scope)+".yml"), "authorization: {credentials: "+a.token[scope]+"}\n")
			c := exec.Command(tool, append([]string{"--alertmanager.url=" + a.url + prefix, "--http.config.file=" + file}, words...)...)
			c.Env = append(os.Environ(), "HOME="+dir)
			var warned bytes.Buffer // that its version is another
			c.Stderr = &warned
			out, err := c.Output()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, &warned)
			}
			return string(out), err
		}
		must := func(scope api.Scope, words ...string) string {
			t.Helper()
			out, err := amtool(scope, words...)
			if err != nil {
				t.Fatalf("amtool %s: %v\n%s", words, err, out)
			}
			return out
		}
		if err := a.alerts.room.Put(t.Context(), fires("Slow")); err != nil {
			t.Fatal(err)
		}
		must(api.Deploy, "alert", "add", "FromAmtool", "project=shop", "--annotation=summary=by hand")
		if out := must(api.Read, "alert", "query", "project=shop"); !strings.Contains(out, "Slow") || !strings.Contains(out, "FromAmtool") || !strings.Contains(out, "by hand") {
			t.Errorf("amtool alert query:\n%s", out)
		}
		if out, err := amtool(api.Read, "silence", "add", "service=web", "-c", "no", "-d", "1h"); err == nil {
			t.Errorf("a token that may read has made a silence:\n%s", out)
		}
		id := strings.TrimSpace(must(api.Deploy, "silence", "add", "service=web", "-c", "disk", "-d", "1h", "-a", "ann"))
		if out := must(api.Read, "silence", "query"); !strings.Contains(out, id) || !strings.Contains(out, "ann") {
			t.Errorf("amtool silence query:\n%s", out)
		}
		all, err := a.Alerts(t.Context(), "shop", []string{"Slow"})
		if err != nil || len(all.Alerts) != 1 || all.Alerts[0].State != "silenced" || all.Alerting.Problem != nobodyTold {
			t.Errorf("while it is silenced: %+v, %v", all, err)
		}
		if out := must(api.Read, "alert", "query", "service=web"); strings.Contains(out, "Slow") {
			t.Errorf("amtool shows what is silenced:\n%s", out)
		}
		must(api.Deploy, "silence", "expire", id)
		if list, err := a.Silences(t.Context(), "", nil, false); err != nil || len(list) != 0 {
			t.Errorf("silences: %+v, %v", list, err)
		}
		if out := must(api.Read, "config", "show"); !strings.Contains(out, "receiver: none") {
			t.Errorf("amtool config show:\n%s", out)
		}
	}
	trail, err := a.Audit(t.Context(), "", 100)
	if said := fmt.Sprint(trail); err != nil || !strings.Contains(said, "alert silence expire") || !strings.Contains(said, "token deploy") {
		t.Errorf("audit: %s, %v", said, err)
	}
}

// Debian's Prometheus 2.42 sends what its own rules find.
func TestAPrometheusSendsItsAlerts(t *testing.T) {
	t.Parallel()
	a := serveAlerts(t, Config{})
	binary := filepath.Join(debian(t, "prometheus"), "usr/bin/prometheus")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "rules.yml"), "groups: [{name: g, rules: [{alert: Always, expr: vector(7) > 1, labels: {project: shop, service: web}, annotations: {value: '{{ $value }}'}}]}]\n")
	config := write(t, filepath.Join(dir, "prometheus.yml"), fmt.Sprintf(`
global: {evaluation_interval: 1s}
rule_files: [rules.yml]
alerting: {alertmanagers: [{authorization: {credentials: %s}, static_configs: [{targets: [%q]}]}]}
`, a.token[api.Deploy], strings.TrimPrefix(a.url, "http://")))
	c := exec.Command(binary, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0",
		"--rules.alert.resend-delay=1s") // the first one goes nowhere: it does not know us yet
	said, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	c.Stdout, c.Stderr = said, said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill() // it may have ended
		_ = c.Wait()
		if t.Failed() {
			out, _ := os.ReadFile(said.Name()) //nolint:errcheck // it is only shown
			t.Logf("prometheus:\n%s", out)
		}
	})
	eventually(t, "the alert is here", func() bool {
		all, err := a.Alerts(t.Context(), "shop", []string{"Always"})
		return err == nil && len(all.Alerts) == 1 && all.Alerts[0].Annotations["value"] == "7" && all.Alerts[0].Annotations["look"] == "tender why web -p shop"
	})
}

// debianAlertmanager is Debian's, which wants its template below /usr/share. Nothing
// is installed here: the copy in dir looks where it is started.
func debianAlertmanager(t *testing.T, dir string) string {
	t.Helper()
	tree := debian(t, "prometheus-alertmanager")
	const there, here = "/usr/share/prometheus/alertmanager", "/proc/self/cwd"
	for _, name := range []string{"default.tmpl", "email.tmpl"} {
		template, err := os.ReadFile(filepath.Join(tree, there, name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), string(template))
	}
	program, err := os.ReadFile(filepath.Join(tree, "usr/bin/prometheus-alertmanager"))
	if err != nil {
		t.Fatal(err)
	}
	program = bytes.ReplaceAll(program, []byte(there), []byte(here+strings.Repeat("/", len(there)-len(here))))
	out := filepath.Join(dir, "alertmanager")
	if err := os.WriteFile(out, program, 0o700); err != nil {
		t.Fatal(err)
	}
	return out
}

// With a URL alerts go to Debian's Alertmanager 0.25, and it is what we show.
func TestAlertsGoToAnAlertmanagerOutside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	binary := debianAlertmanager(t, dir)
	got := make(chan string, 100)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m struct {
			Alerts []struct{ Labels, Annotations map[string]string }
		}
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		for _, l := range m.Alerts {
			got <- l.Labels["alertname"] + " " + l.Annotations["look"]
		}
	}))
	t.Cleanup(hook.Close)
	config := write(t, filepath.Join(dir, "am.yml"), fmt.Sprintf("route: {receiver: hook, group_by: [alertname], group_wait: 10ms}\nreceivers: [{name: hook, webhook_configs: [{url: %q}]}]\n", hook.URL))
	// It binds its port itself: one that is free now may be gone then, so it is tried again.
	var address string
	for try := 0; address == ""; try++ {
		if try == 10 {
			t.Fatal("Debian's Alertmanager does not come up")
		}
		l := httptest.NewServer(nil)
		at := strings.TrimPrefix(l.URL, "http://")
		l.Close()
		c := exec.Command(binary, "--config.file="+config, "--storage.path="+filepath.Join(dir, fmt.Sprint(try)), "--cluster.listen-address=", "--web.listen-address="+at)
		c.Dir = dir
		err := c.Start()
		if errors.Is(err, syscall.ETXTBSY) { // a process that began while it was written still has it open
			time.Sleep(time.Second)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			_ = c.Wait() // it is killed
			close(ended)
		}()
		t.Cleanup(func() {
			_ = c.Process.Kill() // it may have ended
			<-ended
		})
		for up := false; !up; {
			select {
			case <-ended:
				up = true
			case <-time.After(50 * time.Millisecond):
				if resp, err := http.Get("http://" + at + "/-/ready"); err == nil {
					resp.Body.Close()
					if up = resp.StatusCode == http.StatusOK; up {
						address = "http://" + at
					}
				}
			}
		}
	}
	var c Config
	if err := setAlertmanager(&c, address); err != nil {
		t.Fatal(err)
	}
	a := serveAlerts(t, c)
	if err := a.alerts.room.Put(t.Context(), fires("Down"), fires("Slow")); err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for len(told) < 2 {
		select {
		case m := <-got:
			told[m] = true
		case <-time.After(alertPatience):
			t.Fatalf("it told of %v", told)
		}
	}
	if !told["Down tender why web -p shop"] {
		t.Errorf("it told of %v", told)
	}
	all, err := a.Alerts(t.Context(), "shop", []string{"Down"})
	if err != nil || len(all.Alerts) != 1 || all.Alerts[0].Severity != "warning" || all.Alerting.Outside != address || all.Alerting.Nowhere {
		t.Errorf("%+v, %v", all, err)
	}
	s, err := a.AddSilence(t.Context(), api.Person{Name: "ann"}, "shop", api.SilenceRequest{Matchers: []string{"Slow"}, For: time.Hour, Comment: "is known"})
	if err != nil || s.Who != "ann" {
		t.Fatal(s, err)
	}
	eventually(t, "it is silenced", func() bool {
		all, err := a.Alerts(t.Context(), "", []string{"Slow"})
		return err == nil && len(all.Alerts) == 1 && all.Alerts[0].State == "silenced"
	})
	if err := a.ExpireSilence(t.Context(), api.Person{Name: "ann"}, "shop", s.ID); err != nil {
		t.Error(err)
	}
	if _, err := a.TestAlert(t.Context(), api.Person{}, ""); err == nil || !strings.Contains(err.Error(), address) {
		t.Errorf("a test of receivers that are not ours: %v", err)
	}
}

// The file is read again when it changes, and a wrong one changes nothing.
func TestTheFileOfAlertmanagerIsReadAgain(t *testing.T) {
	t.Parallel()
	file := write(t, filepath.Join(t.TempDir(), "alertmanager.yml"), "route: {receiver: ops}\n")
	a := serveAlerts(t, Config{Alertmanager: file})
	status := func() string {
		for _, p := range a.board.all() {
			if p.Name == "alerts" {
				return p.Error
			}
		}
		return ""
	}
	eventually(t, "status says that nobody is told", func() bool { return strings.HasSuffix(status(), "nobody is told of alerts") })
	change := func(text string) { write(t, file, text) }
	change("route: {receiver: ops}\nreceivers: [{name: ops, webhook_configs: [{url: 'http://127.0.0.1:9'}]}]\n")
	eventually(t, "the file holds", func() bool { return a.alerts.room.Status().File == file && status() == "" })
	change("route: {receiver: nobody}\n")
	eventually(t, "the wrong file is refused", func() bool { return strings.HasSuffix(status(), "what held before holds on") })
	// One that seems to come from tomorrow, as from a machine whose clock is wrong, is not left for tomorrow.
	change("route: {receiver: ops}\nreceivers: [{name: ops, webhook_configs: [{url: 'http://127.0.0.1:9'}]}, {name: more}]\n")
	tomorrow := time.Now().Add(24 * time.Hour)
	if err := os.Chtimes(file, tomorrow, tomorrow); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a file of tomorrow holds", func() bool { return status() == "" && len(a.alerts.room.Status().Receivers) == 2 })
	change("route: {receiver: nobody}\n")
	if err := os.Chtimes(file, tomorrow, tomorrow); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another size at the same time is seen", func() bool { return strings.HasSuffix(status(), "what held before holds on") })
	all, err := a.Alerts(t.Context(), "", nil)
	if err != nil || fmt.Sprint(all.Alerting.Receivers) != "[ops more]" || all.Alerting.Nowhere {
		t.Errorf("%+v, %v", all, err)
	}
}

// An alert says what whoever is woken would look up first.
func TestAnAlertCarriesWhatHelps(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rows, err := logs.Open(filepath.Join(dir, "logs"), logs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	})
	batch := logs.Batch{Labels: logs.Labels{{Name: "instance", Value: "shop-web-1"}, {Name: "project", Value: "shop"}, {Name: "service", Value: "web"}}}
	for n := range 7 {
		at := time.Now().Add(-time.Minute + time.Duration(n)*time.Second)
		text := fmt.Sprint("line ", n, strings.Repeat("x", 40*n))
		batch.Rows = append(batch.Rows, logs.Row{Time: at.UnixNano(), Shape: string([]byte{logs.Hole}), Fields: []logs.Field{{Name: "message", Value: text}}})
	}
	if err := rows.Append(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	b := &backend{logs: &logRoom{store: rows}}
	said := b.lastLogged(t.Context(), "shop", "web", "shop-web-1")
	lines := strings.Split(said, "\n")
	if len(lines) != 5 || !strings.HasPrefix(lines[0], "line 2") || !strings.HasPrefix(lines[4], "line 6") || len(lines[4]) > wokenLine+len("…") {
		t.Errorf("lines:\n%s", said)
	}
	if other := b.lastLogged(t.Context(), "shop", "web", "shop-web-9"); other != said {
		t.Errorf("of an instance that is not known:\n%s", other)
	}
	if none := b.lastLogged(t.Context(), "shop", "db", ""); none != "" {
		t.Errorf("of another service:\n%s", none)
	}
	begun := time.Now()
	r := store.Rollout{To: "9c1b", From: "3f2a", Who: "token ci", Started: begun.Add(-12 * time.Minute)}
	if revision, what := rolled(r, begun); revision != "9c1b" || what != "revision 3f2a -> 9c1b, 12 min before, by token ci" {
		t.Errorf("%q, %q", revision, what)
	}
	r.Started = begun.Add(-25 * time.Hour)
	if revision, what := rolled(r, begun); revision != "9c1b" || what != "" {
		t.Errorf("a day later: %q, %q", revision, what)
	}
}

// What changes after the file was read and before anybody looks at it is not left for the next change.
func TestTheFileOfAlertmanagerChangesWhileAllStarts(t *testing.T) {
	t.Parallel()
	const other = "route: {receiver: ops}\nreceivers: [{name: ops, webhook_configs: [{url: 'http://127.0.0.1:9'}]}]\n"
	file := write(t, filepath.Join(t.TempDir(), "alertmanager.yml"), "receivers: [{name: ops}]\nroute: {receiver: ops}\n")
	b := &backend{config: Config{DataDir: t.TempDir(), Alertmanager: file}, board: new(board), log: slog.New(slog.DiscardHandler)}
	a := openAlerts(b, b.log)
	if a == nil {
		t.Fatal("it is not open")
	}
	write(t, file, other)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.run(ctx) }()
	eventually(t, "the file holds", func() bool { return !a.room.Status().Nowhere })
	stop()
	if err := errors.Join(<-ended, a.room.Close()); err != nil {
		t.Error(err)
	}
}
