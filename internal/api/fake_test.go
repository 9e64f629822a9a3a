package api_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

// fake answers with what a test sets, and notes what it was asked last.
type fake struct {
	mu     sync.Mutex
	asked  string
	err    error
	events []api.Event
	// hold, when set, is waited for by whatever goes on for long; arrived tells
	// that it has got there, left that its context ended.
	hold    chan struct{}
	arrived chan struct{}
	left    chan struct{}
	stream  func(ctx context.Context) api.Stream
	tokens  map[string]api.Person
}

var _ api.Backend = (*fake)(nil)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func (f *fake) ask(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = fmt.Sprintf(format, args...)
	return f.err
}

func (f *fake) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// long reports the events and waits where the test says so.
func (f *fake) long(ctx context.Context, report func(api.Event)) error {
	for _, e := range f.events {
		if report != nil {
			report(e)
		}
	}
	if f.hold != nil {
		f.arrived <- struct{}{}
		select {
		case <-f.hold:
		case <-ctx.Done():
			close(f.left)
			return ctx.Err()
		}
	}
	return nil
}

func (f *fake) Authenticate(_ context.Context, token string) (api.Person, error) {
	p, ok := f.tokens[token]
	if !ok {
		return p, tender.Errorf(tender.Denied, "this token is not known").Hint("make one")
	}
	return p, nil
}

func (f *fake) Status(context.Context) (api.Status, error) {
	return api.Status{Version: "1.2", Started: noon, Projects: []api.Project{{Name: "shop"}, {Name: "blog"}}}, f.ask("status")
}

func (f *fake) Doctor(context.Context) ([]api.Check, error) {
	return []api.Check{{Name: "disk", Result: "ok"}}, f.ask("doctor")
}

func (f *fake) Projects(context.Context) ([]api.Project, error) {
	return []api.Project{{Name: "shop"}, {Name: "blog"}}, f.ask("projects")
}

func (f *fake) Project(_ context.Context, project string) (api.Project, error) {
	return api.Project{Name: project, Accepted: noon}, f.ask("project %s", project)
}

func (f *fake) Instances(_ context.Context, project string, all bool) ([]api.Instance, error) {
	return []api.Instance{{Name: "shop-web-1", Project: "shop"}, {Name: "blog-web-1", Project: "blog"}}, f.ask("instances %q %v", project, all)
}

func (f *fake) Config(_ context.Context, project string, generation int) (string, error) {
	return "name: " + project + "\n", f.ask("config %s %d", project, generation)
}

func (f *fake) Plan(_ context.Context, s api.Submission) (api.Plan, error) {
	return api.Plan{Project: s.Project, Token: "t1"}, f.ask("plan %+v", s)
}

func (f *fake) Up(ctx context.Context, who api.Person, s api.Submission, report func(api.Event)) (api.Result, error) {
	err := f.ask("up %s %s %v", who.Name, s.Project, s.Scale)
	if e := f.long(ctx, report); e != nil {
		err = e
	}
	return api.Result{Outcome: "converged", Text: "shop is healthy"}, err
}

func (f *fake) Change(ctx context.Context, who api.Person, project string, c api.Change, report func(api.Event)) (api.Result, error) {
	err := f.ask("change %s %s %s %v", who.Name, project, c.Verb, c.Grace)
	if e := f.long(ctx, report); e != nil {
		err = e
	}
	return api.Result{Outcome: "accepted"}, err
}

func (f *fake) History(_ context.Context, project, service string) ([]api.Rollout, error) {
	return []api.Rollout{{ID: 7}}, f.ask("history %s %q", project, service)
}

func (f *fake) Rollout(_ context.Context, id int64) (api.Rollout, error) {
	return api.Rollout{ID: id, Project: "shop", Started: noon}, f.ask("rollout %d", id)
}

func (f *fake) Steer(_ context.Context, who api.Person, id int64, verb string) (api.Rollout, error) {
	return api.Rollout{ID: id, Project: "shop", Strategy: verb}, f.ask("steer %s %d %s", who.Name, id, verb)
}

func (f *fake) Why(_ context.Context, project, service string) (api.Why, error) {
	return api.Why{Project: project, Service: service, Summary: "it is slow"}, f.ask("why %s %s", project, service)
}

func (f *fake) Events(ctx context.Context, project string, engine bool, report func(api.Event)) error {
	err := f.ask("events %q %t", project, engine)
	if e := f.long(ctx, report); e != nil {
		err = e
	}
	return err
}

func (f *fake) Audit(_ context.Context, project string, limit int) ([]api.Audit, error) {
	return []api.Audit{{Who: "root", What: "up"}}, f.ask("audit %q %d", project, limit)
}

func (f *fake) Logs(ctx context.Context, project string, r api.LogRequest, line func(api.LogLine) error) error {
	err := f.ask("logs %s %+v", project, r)
	for i := range 3 {
		if err := line(api.LogLine{Time: noon, Instance: "shop-web-1", Text: fmt.Sprintf("line %d\t<&>", i)}); err != nil {
			return err
		}
	}
	if e := f.long(ctx, nil); e != nil {
		err = e
	}
	return err
}

func (f *fake) LogNumbers(_ context.Context, project string, n api.LogNumbers) ([]api.LogSeries, error) {
	return []api.LogSeries{{Labels: map[string]string{"level": "error"}, Values: []api.LogValue{{Time: noon, Value: 2.5}}}}, f.ask("numbers %s %+v", project, n)
}

func (f *fake) Sinks(context.Context) ([]api.Sink, error) {
	return []api.Sink{{Name: "es", Lag: 1.5}}, f.ask("sinks")
}

func (f *fake) Rules(context.Context) (api.Rules, error) {
	return api.Rules{Rules: []api.Rule{{Name: "Down", For: 1.5, Evaluated: noon}}}, f.ask("rules")
}

func (f *fake) RegistryImages(_ context.Context, repository string) ([]api.RegistryImage, error) {
	return []api.RegistryImage{{Repository: repository, Tag: "1", Pushed: noon}}, f.ask("registry images %s", repository)
}

func (f *fake) RetainImages(_ context.Context, who api.Person, r api.RetainRequest) (api.RegistryClean, error) {
	return api.RegistryClean{Tags: 1}, f.ask("retain %s %+v", who.Name, r)
}

func (f *fake) TagImage(_ context.Context, who api.Person, r api.TagRequest) ([]api.Tagged, error) {
	return []api.Tagged{{Reference: "shop/web:1.4", Outcome: api.TagMoved}}, f.ask("tag %s %+v", who.Name, r)
}

func (f *fake) Outdated(_ context.Context, r api.OutdatedRequest) ([]api.Outdated, error) {
	return []api.Outdated{{Image: "nginx:1.25", Newest: "1.27"}}, f.ask("outdated %s %v", r.Project, r.Names)
}

func (f *fake) PruneImages(_ context.Context, who api.Person, r api.PruneRequest) (api.Pruned, error) {
	return api.Pruned{Images: 1}, f.ask("prune %s %+v", who.Name, r)
}

func (f *fake) RemoveImage(_ context.Context, who api.Person, r api.RemoveImageRequest) (api.RegistryClean, error) {
	return api.RegistryClean{Tags: 1}, f.ask("remove image %s %+v", who.Name, r)
}

func (f *fake) SweepRegistry(_ context.Context, who api.Person, dry bool) (api.RegistrySweep, error) {
	return api.RegistrySweep{Blobs: 1}, f.ask("sweep %s %v", who.Name, dry)
}

func (f *fake) RuleGroups(context.Context) ([]api.RuleGroup, error) {
	return []api.RuleGroup{{Name: "g", Changed: noon}}, f.ask("rule groups")
}

func (f *fake) SetRules(_ context.Context, who api.Person, r api.RuleFile) ([]api.RuleGroup, error) {
	return []api.RuleGroup{{Name: "g", Text: r.Text, Who: who.Name}}, f.ask("set rules %s %+v", who.Name, r)
}

func (f *fake) RemoveRules(_ context.Context, who api.Person, group string) error {
	return f.ask("remove rules %s %s", who.Name, group)
}

func (f *fake) DeadLetters(_ context.Context, sink string, limit int) ([]api.DeadLetter, error) {
	return []api.DeadLetter{{Time: noon, Reason: "400"}}, f.ask("dead %s %d", sink, limit)
}

func (f *fake) Alerts(_ context.Context, project string, match []string) (api.Alerts, error) {
	return api.Alerts{Alerts: []api.Alert{{Name: "Down", Project: "shop"}, {Name: "Disk"}}}, f.ask("alerts %q %q", project, match)
}

func (f *fake) TestAlert(_ context.Context, _ api.Person, receiver string) ([]api.AlertTry, error) {
	return []api.AlertTry{{Receiver: "ops", Integration: "webhook[0]"}}, f.ask("test alert %s", receiver)
}

func (f *fake) Silences(_ context.Context, project string, match []string, all bool) ([]api.Silence, error) {
	return []api.Silence{{ID: "s1", Who: "root"}}, f.ask("silences %q %q %t", project, match, all)
}

func (f *fake) AddSilence(_ context.Context, _ api.Person, project string, r api.SilenceRequest) (api.Silence, error) {
	return api.Silence{ID: "s1", Matchers: r.Matchers}, f.ask("add silence %q %q %s %s", project, r.Matchers, r.For, r.Comment)
}

func (f *fake) ExpireSilence(_ context.Context, _ api.Person, project, id string) error {
	return f.ask("expire silence %q %s", project, id)
}

func (f *fake) DoctorLogs(context.Context) ([]api.Check, error) {
	return []api.Check{{Name: "logs", Result: "ok"}}, f.ask("doctor logs")
}

func (f *fake) Stats(_ context.Context, project string, services []string) ([]api.Sample, error) {
	return []api.Sample{{CPU: 12.5}}, f.ask("stats %s %q", project, services)
}

func (f *fake) Top(_ context.Context, project string, services []string) ([]api.Processes, error) {
	return []api.Processes{{Titles: []string{"PID"}}}, f.ask("top %s %q", project, services)
}

func (f *fake) Images(_ context.Context, refs []string) ([]api.Image, error) {
	return []api.Image{{Reference: "redis:alpine", ID: "sha256:1"}}, f.ask("images %q", refs)
}

func (f *fake) Wait(ctx context.Context, t api.Target) (int, error) {
	err := f.ask("wait %+v", t)
	if e := f.long(ctx, nil); e != nil {
		err = e
	}
	return 3, err
}

func (f *fake) Exec(ctx context.Context, who api.Person, t api.Target, r api.ExecRequest) (api.Stream, error) {
	if err := f.ask("exec %s %+v %v", who.Name, t, r.Cmd); err != nil {
		return api.Stream{}, err
	}
	return f.stream(ctx), nil
}

func (f *fake) Attach(ctx context.Context, who api.Person, t api.Target, stdin bool) (api.Stream, error) {
	if err := f.ask("attach %s %+v %v", who.Name, t, stdin); err != nil {
		return api.Stream{}, err
	}
	return f.stream(ctx), nil
}

func (f *fake) Run(ctx context.Context, who api.Person, project, service string, r api.ExecRequest, report func(api.Event)) (api.Stream, error) {
	err := f.ask("run %s %s %s %v", who.Name, project, service, r.Cmd)
	if e := f.long(ctx, report); e != nil {
		err = e
	}
	if err != nil {
		return api.Stream{}, err
	}
	return f.stream(ctx), nil
}

func (f *fake) CopyFrom(_ context.Context, t api.Target, path string) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(bytes.Repeat([]byte("tar"), 100_000))), f.ask("copy from %+v %s", t, path)
}

func (f *fake) CopyTo(_ context.Context, who api.Person, t api.Target, path string, tarball io.Reader) error {
	b, err := io.ReadAll(tarball)
	if err != nil {
		return err
	}
	return f.ask("copy to %s %+v %s %d bytes", who.Name, t, path, len(b))
}

func (f *fake) Build(_ context.Context, who api.Person, r api.BuildRequest, next api.BuildContexts, report func(api.Event)) (string, error) {
	beside := ""
	c, err := next()
	for ; err == nil && c.Name != ""; c, err = next() {
		b, err := io.ReadAll(c.Tar)
		if err != nil {
			return "", err
		}
		beside += fmt.Sprintf(" %s=%s", c.Name, b)
	}
	if err != nil {
		return "", err
	}
	tarball := c.Tar
	// It talks while the context flows in, as engines do.
	buf := make([]byte, 1000)
	if _, err := io.ReadFull(tarball, buf); err != nil {
		return "", err
	}
	report(api.Event{Kind: api.KindBuild, Text: "Step 1"})
	rest, err := io.Copy(io.Discard, tarball)
	if err != nil {
		return "", err
	}
	if _, err := next(); !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("after the last context: %w", err)
	}
	return "sha256:built", f.ask("build %s %v%s %d bytes", who.Name, r.Tags, beside, len(buf)+int(rest))
}

func (f *fake) Pull(ctx context.Context, who api.Person, ref, auth string, report func(api.Event)) error {
	return f.move(ctx, "pull", who, ref, auth, report)
}

func (f *fake) Push(ctx context.Context, who api.Person, ref, auth string, report func(api.Event)) error {
	return f.move(ctx, "push", who, ref, auth, report)
}

func (f *fake) move(ctx context.Context, verb string, who api.Person, ref, auth string, report func(api.Event)) error {
	err := f.ask("%s %s %s %s", verb, who.Name, ref, auth)
	if e := f.long(ctx, report); e != nil {
		err = e
	}
	return err
}

func (f *fake) Secrets(_ context.Context, project string) ([]api.Secret, error) {
	return nil, f.ask("secrets %q", project)
}

func (f *fake) Secret(_ context.Context, project, name string) (api.Secret, error) {
	return api.Secret{Name: name, Version: 2}, f.ask("secret %q %s", project, name)
}

func (f *fake) SetSecret(_ context.Context, who api.Person, project, name string, value []byte) (api.Secret, error) {
	return api.Secret{Name: name, Version: 3, Size: len(value)}, f.ask("set secret %s %q %s %q", who.Name, project, name, value[:min(16, len(value))])
}

func (f *fake) RemoveSecret(_ context.Context, who api.Person, project, name string) error {
	return f.ask("remove secret %s %q %s", who.Name, project, name)
}

func (f *fake) Tokens(context.Context) ([]api.Token, error) {
	return []api.Token{{ID: "1", Name: "ci"}}, f.ask("tokens")
}

func (f *fake) CreateToken(_ context.Context, who api.Person, name string, scope api.Scope, projects []string, valid time.Duration) (api.Token, error) {
	return api.Token{Name: name, Secret: "tender_x"}, f.ask("create token %s %s %s %v %s", who.Name, name, scope, projects, valid)
}

func (f *fake) RemoveToken(_ context.Context, who api.Person, id string) error {
	return f.ask("remove token %s %s", who.Name, id)
}

// framed is output as Docker frames it.
func framed(stream byte, text string) []byte {
	b := make([]byte, 8, 8+len(text))
	b[0] = stream
	binary.BigEndian.PutUint32(b[4:], uint32(len(text)))
	return append(b, text...)
}

// listen opens the socket or port that a test serves on.
func listen(t *testing.T, network string) (net.Listener, string) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	if network == "unix" {
		return l, "unix://" + address
	}
	return l, "http://" + l.Addr().String()
}

// serve serves f and returns its address. The test waits for its end.
func serve(t *testing.T, network string, f *fake, o api.Options) (host string, stop func()) {
	t.Helper()
	l, host := listen(t, network)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.Serve(ctx, api.Handler(f, o), []net.Listener{l}, api.Serving{}) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return host, stop
}

func dial(t *testing.T, host, token string) *api.Client {
	t.Helper()
	c, err := api.New(host, api.ClientOptions{Token: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// people of the tests that use TCP.
func people() map[string]api.Person {
	return map[string]api.Person{
		"r": {Name: "token r", Scope: api.Read},
		"d": {Name: "token d", Scope: api.Deploy},
		"a": {Name: "token a", Scope: api.Admin},
		"s": {Name: "token s", Scope: api.Deploy, Projects: []string{"shop"}},
		"o": {Name: "token o", Scope: api.Admin, Projects: []string{"shop"}},
	}
}

func (f *fake) Shared(_ context.Context, layers []string) (api.Shared, error) {
	return api.Shared{Layers: 2, Layout: true}, f.ask("shared %q", layers)
}

func (f *fake) Load(_ context.Context, who api.Person, tarball io.Reader, a api.Arrival, report func(api.Event)) error {
	n, err := io.Copy(io.Discard, tarball)
	if err != nil {
		return err
	}
	report(api.Event{Kind: api.KindPull, Text: "Loaded image: shop/web"})
	return f.ask("load %s %d bytes%s%q", who.Name, n, a.As, a.Names)
}

func (f *fake) Logins(context.Context) ([]api.Login, error) {
	return []api.Login{{Registry: "registry.local:5000", User: "deploy"}}, f.ask("logins")
}

func (f *fake) Login(_ context.Context, who api.Person, registry, user, password string) (api.Login, error) {
	return api.Login{Registry: registry, User: user}, f.ask("login %s %s %s %d", who.Name, registry, user, len(password))
}

func (f *fake) Logout(_ context.Context, who api.Person, registry string) error {
	return f.ask("logout %s %s", who.Name, registry)
}

func (f *fake) Edge(context.Context) (api.Edge, error) {
	return api.Edge{State: "serving", PID: 7, Routes: []api.Route{{ID: "shop/a.example.com/", Project: "shop"}}}, f.ask("edge")
}

func (f *fake) Routes(_ context.Context, project, route string) ([]api.Route, error) {
	return []api.Route{{ID: "shop/a.example.com/", Project: "shop"}}, f.ask("routes %q %q", project, route)
}

func (f *fake) PauseRoute(_ context.Context, who api.Person, project, route string, limit time.Duration) (api.Route, error) {
	return api.Route{ID: route, State: "paused"}, f.ask("pause route %s %s %s %s", who.Name, project, route, limit)
}

func (f *fake) ResumeRoute(_ context.Context, who api.Person, project, route string) (api.Route, error) {
	return api.Route{ID: route, State: "serving"}, f.ask("resume route %s %s %s", who.Name, project, route)
}

func (f *fake) ShiftRoute(_ context.Context, who api.Person, project string, s api.RouteShift) (api.Route, error) {
	return api.Route{ID: s.Route}, f.ask("shift route %s %s %+v", who.Name, project, s)
}

func (f *fake) RegistryUsers(context.Context) ([]api.RegistryUser, error) {
	return []api.RegistryUser{{Name: "ann"}}, f.ask("registry users")
}

func (f *fake) AddRegistryUser(_ context.Context, who api.Person, u api.RegistryUserNew) (api.RegistryUser, error) {
	return api.RegistryUser{Name: u.Name, Robot: u.Robot, Secret: "tender_robot_x"}, f.ask("add registry user %s %s %v %d %v", who.Name, u.Name, u.Grants, len(u.Password), u.Valid)
}

func (f *fake) GrantRegistryUser(_ context.Context, who api.Person, name string, access api.RegistryAccess) (api.RegistryUser, error) {
	return api.RegistryUser{Name: name, Admin: access.Admin}, f.ask("grant registry user %s %s %v", who.Name, name, access.Admin)
}

func (f *fake) PasswordRegistryUser(_ context.Context, who api.Person, name, password string) (api.RegistryUser, error) {
	return api.RegistryUser{Name: name}, f.ask("password of registry user %s %s %d", who.Name, name, len(password))
}

func (f *fake) RemoveRegistryUser(_ context.Context, who api.Person, name string) error {
	return f.ask("remove registry user %s %s", who.Name, name)
}

func (f *fake) ImportRegistryUsers(_ context.Context, who api.Person, i api.RegistryImport) ([]api.RegistryUser, error) {
	return []api.RegistryUser{{Name: "bob"}}, f.ask("import registry users %s %q %v", who.Name, i.Text, i.Grants)
}

func (f *fake) CheckPolicy(_ context.Context, s api.Submission) (api.Policy, error) {
	return api.Policy{Project: s.Project, Denied: 1, Verdicts: []api.Verdict{{Verdict: "deny", Rule: "gate/age", Why: "old"}}}, f.ask("check policy %s", s.Project)
}

func (f *fake) Scan(_ context.Context, who api.Person, r api.ScanRequest, archive io.Reader, report func(api.Event)) (api.Scan, error) {
	size := int64(0)
	if archive != nil {
		size, _ = io.Copy(io.Discard, archive)
	}
	report(api.Event{Kind: api.KindPull, Text: "reading"})
	return api.Scan{Reference: r.Reference, Packages: int(size), Changes: []api.ScanChange{{Against: "a"}, {Against: "b", Services: []string{"other/web", "shop/web"}}, {Against: "c", Services: []string{"other/web"}}}},
		f.ask("scan %s %s %s", who.Name, r.Reference, r.Document)
}

func (f *fake) Advisories(context.Context) (api.Advisories, error) {
	return api.Advisories{Count: 3, Updated: noon}, f.ask("advisories")
}

func (f *fake) UpdateAdvisories(_ context.Context, who api.Person, u api.AdvisoriesUpdate, _ func(api.Event)) error {
	return f.ask("update advisories %s %s", who.Name, u.From)
}

func (f *fake) ImageKeys(context.Context) ([]api.ImageKey, error) {
	return []api.ImageKey{{Name: "release", Signs: true}}, f.ask("image keys")
}

func (f *fake) AddImageKey(_ context.Context, who api.Person, k api.ImageKeyNew) (api.ImageKey, error) {
	return api.ImageKey{Name: k.Name, Signs: true}, f.ask("add image key %s %s", who.Name, k.Name)
}

func (f *fake) ExportImageKey(_ context.Context, who api.Person, name, _ string) (string, error) {
	return "sealed", f.ask("export image key %s %s", who.Name, name)
}

func (f *fake) RemoveImageKey(_ context.Context, who api.Person, name string, force bool) error {
	return f.ask("remove image key %s %s %t", who.Name, name, force)
}

func (f *fake) SignImage(_ context.Context, who api.Person, s api.ImageSign) (api.ImageSignatures, error) {
	return api.ImageSignatures{Reference: s.Reference, Verified: true}, f.ask("sign %s %s %s", who.Name, s.Reference, s.Key)
}

func (f *fake) VerifyImage(_ context.Context, who api.Person, v api.ImageVerify) (api.ImageSignatures, error) {
	return api.ImageSignatures{Reference: v.Reference}, f.ask("verify %s %s %v", who.Name, v.Reference, v.Keys)
}

func (f *fake) Waivers(context.Context) ([]api.Waiver, error) {
	return []api.Waiver{{ID: 1, Finding: "CVE-1", Scope: "shop/web", Until: noon}, {ID: 2, Finding: "CVE-2", Until: noon}, {ID: 3, Finding: "CVE-3", Scope: "other", Until: noon}}, f.ask("waivers")
}

func (f *fake) Waive(_ context.Context, who api.Person, w api.Waiver) (api.Waiver, error) {
	w.By = who.Name
	return w, f.ask("waive %s %s %s", who.Name, w.Finding, w.Scope)
}

func (f *fake) RemoveWaiver(_ context.Context, who api.Person, id int64) error {
	return f.ask("remove waiver %s %d", who.Name, id)
}

func (f *fake) Promote(_ context.Context, who api.Person, r api.PromoteRequest, report func(api.Event)) (api.Promotion, error) {
	report(api.Event{Kind: api.KindPull, Text: "copying"})
	return api.Promotion{Step: r.To, Repository: "shop/web", At: noon}, f.ask("promote %s %+v", who.Name, r)
}

func (f *fake) ListImages(_ context.Context, who api.Person, repository string) ([]api.ListedImage, error) {
	return []api.ListedImage{{Repository: "shop/web", Tags: []string{"1"}, Pushed: noon}}, f.ask("list images %s %s", who.Name, repository)
}
