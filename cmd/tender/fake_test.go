package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

// backend is a daemon that answers what daemon.json in a script's directory
// says, and writes down in asked what it was asked. It stands behind the real
// api.Handler, so that the wire is the real one.
type backend struct {
	dir string
	mu  sync.Mutex
}

// answers is the shape of daemon.json.
type answers struct {
	RegistryImages []api.RegistryImage `json:"registry_images"`
	RegistryClean  api.RegistryClean   `json:"registry_clean"`
	RegistrySweep  api.RegistrySweep   `json:"registry_sweep"`
	Policy         api.Policy
	Waivers        []api.Waiver
	Status         api.Status       `json:"status"`
	Checks         []api.Check      `json:"checks"`
	Projects       []api.Project    `json:"projects"`
	Instances      []api.Instance   `json:"instances"`
	Config         string           `json:"config"`
	Plan           api.Plan         `json:"plan"`
	Events         []api.Event      `json:"events"`
	Hang           bool             `json:"hang"` // after the events, until the client goes
	Result         api.Result       `json:"result"`
	Rollouts       []api.Rollout    `json:"rollouts"`
	Why            api.Why          `json:"why"`
	Audit          []api.Audit      `json:"audit"`
	Logs           []api.LogLine    `json:"logs"`
	Numbers        []api.LogSeries  `json:"numbers"`
	Sinks          []api.Sink       `json:"sinks"`
	Dead           []api.DeadLetter `json:"dead"`
	Rules          api.Rules        `json:"rules"`
	Groups         []api.RuleGroup  `json:"groups"`
	Alerts         api.Alerts       `json:"alerts"`
	Silences       []api.Silence    `json:"silences"`
	Tries          []api.AlertTry   `json:"tries"`
	Stats          []api.Sample     `json:"stats"`
	Top            []api.Processes  `json:"top"`
	Code           int              `json:"code"`
	Stdout         string           `json:"stdout"`
	Stderr         string           `json:"stderr"`
	Files          string           `json:"files"` // directory that copies come from
	Images         []api.Image      `json:"images"`
	Secrets        []api.Secret     `json:"secrets"`
	Tokens         []api.Token      `json:"tokens"`
	Logins         []api.Login      `json:"logins"`
	Edge           api.Edge         `json:"edge"`
	Scan           api.Scan         `json:"scan"`
	Advise         api.Advisories   `json:"advisories"`
	Keys           []api.ImageKey
	Signatures     api.ImageSignatures
	Promotion      api.Promotion     `json:"promotion"`
	Listed         []api.ListedImage `json:"listed"`
	Pruned         api.Pruned        `json:"pruned"`
	Tagged         []api.Tagged      `json:"tagged"`
	Outdated       []api.Outdated    `json:"outdated"`
	// Prometheus holds by path what its API answers; nil: it is not there.
	Prometheus map[string]json.RawMessage `json:"prometheus"`
	// Errors holds, by call, what is refused.
	Errors map[string]struct{ Kind, Msg, Hint string } `json:"errors"`
}

// answer notes a call and returns what to say to it.
func (b *backend) answer(call string, facts ...any) (answers, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var a answers
	raw, err := os.ReadFile(filepath.Join(b.dir, "daemon.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return a, err
	}
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		if err := d.Decode(&a); err != nil {
			return a, fmt.Errorf("daemon.json: %w", err)
		}
	}
	line := call
	for _, f := range facts {
		j, err := json.Marshal(f)
		if err != nil {
			return a, err
		}
		line += " " + string(j)
	}
	f, err := os.OpenFile(filepath.Join(b.dir, "asked"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return a, err
	}
	defer f.Close()
	if _, err := fmt.Fprintln(f, line); err != nil {
		return a, err
	}
	if e, ok := a.Errors[call]; ok {
		return a, tender.Errorf(tender.Kind(e.Kind), "%s", e.Msg).Hint("%s", e.Hint)
	}
	// What happened three hours ago does so whenever the test runs.
	then := time.Now().Add(-3*time.Hour - time.Minute)
	for i := range a.Instances {
		if a.Instances[i].Created.IsZero() {
			a.Instances[i].Created = then
		}
	}
	if a.Status.Started.IsZero() {
		a.Status.Started = then
	}
	for i := range a.Status.Parts {
		a.Status.Parts[i].Since = then
	}
	return a, nil
}

// prometheus answers as Prometheus' API does.
func (b *backend) prometheus(w http.ResponseWriter, r *http.Request) {
	form := ""
	if r.ParseForm() == nil && len(r.PostForm) > 0 {
		form = r.PostForm.Encode()
	}
	a, err := b.answer("prometheus "+r.URL.Path, form)
	text := a.Prometheus[r.URL.Path]
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case a.Prometheus == nil:
		http.Error(w, "no metrics are kept: metrics are off", http.StatusServiceUnavailable)
	default:
		w.Header().Set("Content-Type", "application/json")
		if bytes.Contains(text, []byte(`"error"`)) {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = w.Write(text)
	}
}

func (b *backend) Authenticate(_ context.Context, token string) (api.Person, error) {
	if token == "good" {
		return api.Person{Name: "token ci", Scope: api.Read}, nil
	}
	return api.Person{}, tender.Errorf(tender.Denied, "this token is not known")
}

func (b *backend) Status(context.Context) (api.Status, error) {
	a, err := b.answer("status")
	return a.Status, err
}

func (b *backend) Doctor(context.Context) ([]api.Check, error) {
	a, err := b.answer("doctor")
	return a.Checks, err
}

func (b *backend) Projects(context.Context) ([]api.Project, error) {
	a, err := b.answer("projects")
	return a.Projects, err
}

func (b *backend) Project(_ context.Context, project string) (api.Project, error) {
	a, err := b.answer("project", project)
	for _, p := range append(a.Projects, a.Status.Projects...) {
		if p.Name == project {
			return p, err
		}
	}
	return api.Project{}, tender.Errorf(tender.NotFound, "no project %q", project).Hint("tender ls lists them")
}

func (b *backend) Instances(_ context.Context, project string, all bool) ([]api.Instance, error) {
	a, err := b.answer("instances", project, all)
	a.Instances = slices.DeleteFunc(a.Instances, func(i api.Instance) bool { return project != "" && i.Project != project })
	return a.Instances, err
}

func (b *backend) Config(_ context.Context, project string, generation int) (string, error) {
	a, err := b.answer("config", project, generation)
	return a.Config, err
}

// brief is a submission without what a test cannot compare.
func brief(s api.Submission) map[string]any {
	s.ComposeFiles, s.WorkingDir = nil, ""
	raw, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		panic(err)
	}
	delete(m, "yaml")
	delete(m, "files")
	return m
}

func (b *backend) Plan(_ context.Context, s api.Submission) (api.Plan, error) {
	a, err := b.answer("plan", brief(s))
	return a.Plan, err
}

func (b *backend) play(ctx context.Context, a answers, report func(api.Event)) (api.Result, error) {
	for _, e := range a.Events {
		report(e)
	}
	if a.Hang {
		<-ctx.Done()
		return api.Result{}, ctx.Err()
	}
	return a.Result, nil
}

func (b *backend) Up(ctx context.Context, who api.Person, s api.Submission, report func(api.Event)) (api.Result, error) {
	a, err := b.answer("up", who.Name, brief(s))
	if err != nil {
		return api.Result{}, err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "submitted.yaml"), []byte(s.YAML), 0o644); err != nil {
		return api.Result{}, err
	}
	return b.play(ctx, a, report)
}

func (b *backend) Change(ctx context.Context, _ api.Person, project string, c api.Change, report func(api.Event)) (api.Result, error) {
	a, err := b.answer("change", project, c)
	if err != nil {
		return api.Result{}, err
	}
	return b.play(ctx, a, report)
}

func (b *backend) History(_ context.Context, project, service string) ([]api.Rollout, error) {
	a, err := b.answer("history", project, service)
	return a.Rollouts, err
}

func (b *backend) Steer(ctx context.Context, _ api.Person, id int64, verb string) (api.Rollout, error) {
	if _, err := b.answer("steer", id, verb); err != nil {
		return api.Rollout{}, err
	}
	r, err := b.Rollout(ctx, id)
	if err == nil && r.State != "open" {
		err = tender.Errorf(tender.Conflict, "rollout %d of %s has ended: %s", id, r.Service, r.State).Hint("tender rollback %s goes back to the revision before", r.Service)
	}
	return r, err
}

func (b *backend) Rollout(_ context.Context, id int64) (api.Rollout, error) {
	a, err := b.answer("rollout", id)
	for _, r := range a.Rollouts {
		if r.ID == id {
			return r, err
		}
	}
	return api.Rollout{}, tender.Errorf(tender.NotFound, "no rollout %d", id)
}

func (b *backend) Why(_ context.Context, project, service string) (api.Why, error) {
	a, err := b.answer("why", project, service)
	return a.Why, err
}

func (b *backend) Events(ctx context.Context, project string, engine bool, report func(api.Event)) error {
	a, err := b.answer("events", project)
	if err != nil {
		return err
	}
	_, err = b.play(ctx, a, func(e api.Event) {
		if engine || e.Kind != api.KindContainer {
			report(e)
		}
	})
	return err
}

func (b *backend) Audit(_ context.Context, project string, limit int) ([]api.Audit, error) {
	a, err := b.answer("audit", project, limit)
	return a.Audit, err
}

func (b *backend) Logs(_ context.Context, project string, r api.LogRequest, line func(api.LogLine) error) error {
	r.Since, r.Until = time.Time{}, time.Time{}
	a, err := b.answer("logs", project, r)
	if err != nil {
		return err
	}
	for _, l := range a.Logs {
		if err := line(l); err != nil {
			return err
		}
	}
	return nil
}

func (b *backend) LogNumbers(_ context.Context, project string, n api.LogNumbers) ([]api.LogSeries, error) {
	n.Start, n.End = time.Time{}, time.Time{}
	a, err := b.answer("numbers", project, n)
	return a.Numbers, err
}

func (b *backend) Sinks(context.Context) ([]api.Sink, error) {
	a, err := b.answer("sinks")
	return a.Sinks, err
}

func (b *backend) DeadLetters(_ context.Context, sink string, limit int) ([]api.DeadLetter, error) {
	a, err := b.answer("dead", sink, limit)
	return a.Dead, err
}

func (b *backend) CheckPolicy(_ context.Context, s api.Submission) (api.Policy, error) {
	a, err := b.answer("check policy", brief(s))
	return a.Policy, err
}

func (b *backend) Scan(_ context.Context, _ api.Person, r api.ScanRequest, archive io.Reader, report func(api.Event)) (api.Scan, error) {
	size := int64(0)
	if archive != nil {
		size, _ = io.Copy(io.Discard, archive)
	}
	report(api.Event{Kind: api.KindPull, Text: r.Reference + ": reading"})
	a, err := b.answer("scan", r.Reference, "deny", r.Deny, "fixable", r.Fixable, "document", r.Document, "archive", size, "with", len(r.With), "against", r.Against)
	return a.Scan, err
}

func (b *backend) Promote(_ context.Context, _ api.Person, r api.PromoteRequest, report func(api.Event)) (api.Promotion, error) {
	report(api.Event{Kind: api.KindPull, Text: "copying " + r.Reference})
	a, err := b.answer("promote", r.Reference, r.To, "from", r.From, "reason", r.Reason, "dry", r.DryRun, "undo", r.Undo)
	return a.Promotion, err
}

func (b *backend) ListImages(_ context.Context, _ api.Person, repository string) ([]api.ListedImage, error) {
	a, err := b.answer("list images", repository)
	return a.Listed, err
}

func (b *backend) Advisories(context.Context) (api.Advisories, error) {
	a, err := b.answer("advisories")
	return a.Advise, err
}

func (b *backend) UpdateAdvisories(_ context.Context, _ api.Person, u api.AdvisoriesUpdate, report func(api.Event)) error {
	_, err := b.answer("update advisories", u.From, u.Ecosystems, u.All)
	report(api.Event{Kind: api.KindEnded, Text: "Debian: 12 advisories"})
	return err
}

func (b *backend) PruneImages(_ context.Context, _ api.Person, r api.PruneRequest) (api.Pruned, error) {
	a, err := b.answer("prune images", r)
	return a.Pruned, err
}

func (b *backend) TagImage(_ context.Context, _ api.Person, r api.TagRequest) ([]api.Tagged, error) {
	a, err := b.answer("tag", r)
	return a.Tagged, err
}

func (b *backend) Outdated(_ context.Context, r api.OutdatedRequest) ([]api.Outdated, error) {
	a, err := b.answer("outdated", r)
	return a.Outdated, err
}

func (b *backend) ImageKeys(context.Context) ([]api.ImageKey, error) {
	a, err := b.answer("image keys")
	return a.Keys, err
}

func (b *backend) AddImageKey(_ context.Context, _ api.Person, k api.ImageKeyNew) (api.ImageKey, error) {
	_, err := b.answer("add image key", k.Name, k.Key, k.Password)
	return api.ImageKey{Name: k.Name, Signs: !strings.Contains(k.Key, "PUBLIC"), Public: "-----BEGIN PUBLIC KEY-----\n"}, err
}

func (b *backend) ExportImageKey(_ context.Context, _ api.Person, name, password string) (string, error) {
	_, err := b.answer("export image key", name, password)
	return "sealed\n", err
}

func (b *backend) RemoveImageKey(_ context.Context, _ api.Person, name string, force bool) error {
	_, err := b.answer("remove image key", name, force)
	return err
}

func (b *backend) SignImage(_ context.Context, _ api.Person, s api.ImageSign) (api.ImageSignatures, error) {
	a, err := b.answer("sign", s.Reference, s.Key, s.Annotations)
	return a.Signatures, err
}

func (b *backend) VerifyImage(_ context.Context, _ api.Person, v api.ImageVerify) (api.ImageSignatures, error) {
	a, err := b.answer("verify", v.Reference, v.Keys)
	return a.Signatures, err
}

func (b *backend) Waivers(context.Context) ([]api.Waiver, error) {
	a, err := b.answer("waivers")
	return a.Waivers, err
}

func (b *backend) Waive(_ context.Context, _ api.Person, w api.Waiver) (api.Waiver, error) {
	_, err := b.answer("waive", w.Finding, w.Scope, w.Reason)
	w.ID = 7
	return w, err
}

func (b *backend) RemoveWaiver(_ context.Context, _ api.Person, id int64) error {
	_, err := b.answer("remove waiver", id)
	return err
}

func (b *backend) Rules(context.Context) (api.Rules, error) {
	a, err := b.answer("rules")
	return a.Rules, err
}

func (b *backend) RegistryImages(_ context.Context, repository string) ([]api.RegistryImage, error) {
	a, err := b.answer("registry images", repository)
	return a.RegistryImages, err
}

func (b *backend) RetainImages(_ context.Context, _ api.Person, r api.RetainRequest) (api.RegistryClean, error) {
	a, err := b.answer("retain", r)
	return a.RegistryClean, err
}

func (b *backend) RemoveImage(_ context.Context, _ api.Person, r api.RemoveImageRequest) (api.RegistryClean, error) {
	a, err := b.answer("remove image", r)
	return a.RegistryClean, err
}

func (b *backend) SweepRegistry(_ context.Context, _ api.Person, dry bool) (api.RegistrySweep, error) {
	a, err := b.answer("sweep", dry)
	return a.RegistrySweep, err
}

func (b *backend) RuleGroups(context.Context) ([]api.RuleGroup, error) {
	a, err := b.answer("rule groups")
	return a.Groups, err
}

func (b *backend) SetRules(_ context.Context, _ api.Person, f api.RuleFile) ([]api.RuleGroup, error) {
	a, err := b.answer("set rules", f)
	return a.Groups, err
}

func (b *backend) RemoveRules(_ context.Context, _ api.Person, group string) error {
	_, err := b.answer("remove rules", group)
	return err
}

func (b *backend) Alerts(_ context.Context, project string, match []string) (api.Alerts, error) {
	a, err := b.answer("alerts", project, match)
	return a.Alerts, err
}

func (b *backend) TestAlert(_ context.Context, _ api.Person, receiver string) ([]api.AlertTry, error) {
	a, err := b.answer("alert test", receiver)
	return a.Tries, err
}

func (b *backend) Silences(_ context.Context, project string, match []string, all bool) ([]api.Silence, error) {
	a, err := b.answer("silences", project, match, all)
	return a.Silences, err
}

func (b *backend) AddSilence(_ context.Context, _ api.Person, project string, r api.SilenceRequest) (api.Silence, error) {
	_, err := b.answer("silence add", project, r.Matchers, r.For, r.Comment)
	return api.Silence{ID: "7f3c", Matchers: r.Matchers, Ends: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Add(r.For)}, err
}

func (b *backend) ExpireSilence(_ context.Context, _ api.Person, project, id string) error {
	_, err := b.answer("silence expire", project, id)
	return err
}

func (b *backend) DoctorLogs(context.Context) ([]api.Check, error) {
	a, err := b.answer("doctor logs")
	return a.Checks, err
}

func (b *backend) Stats(_ context.Context, project string, services []string) ([]api.Sample, error) {
	a, err := b.answer("stats", project, services)
	return a.Stats, err
}

func (b *backend) Top(_ context.Context, project string, services []string) ([]api.Processes, error) {
	a, err := b.answer("top", project, services)
	return a.Top, err
}

func (b *backend) Wait(_ context.Context, t api.Target) (int, error) {
	a, err := b.answer("wait", t.Instance)
	return a.Code, err
}

// process says what daemon.json says, then what it is told on stdin.
func (b *backend) process(a answers, stdin bool) api.Stream {
	in, input := io.Pipe()
	out, output := io.Pipe()
	go func() {
		frame := func(stream byte, text string) {
			if text != "" {
				output.Write(append([]byte{stream, 0, 0, 0, 0, 0, byte(len(text) >> 8), byte(len(text))}, text...))
			}
		}
		frame(1, a.Stdout)
		frame(2, a.Stderr)
		if stdin {
			heard, err := io.ReadAll(in)
			if err == nil {
				frame(1, string(heard))
			}
		}
		output.Close()
	}()
	s := api.Stream{
		Instance: "shop-web-1", Output: out,
		CloseWrite: input.Close,
		Close: func() error {
			in.CloseWithError(io.ErrClosedPipe)
			return out.Close()
		},
		Resize: func(context.Context, int, int) error { return nil },
		Exit:   func(context.Context) (int, error) { return a.Code, nil },
	}
	if stdin {
		s.Input = input
	}
	return s
}

func (b *backend) Exec(_ context.Context, _ api.Person, t api.Target, r api.ExecRequest) (api.Stream, error) {
	a, err := b.answer("exec", t.Project, t.Service, t.Slot, r)
	return b.process(a, r.Stdin), err
}

func (b *backend) Attach(_ context.Context, _ api.Person, t api.Target, stdin bool) (api.Stream, error) {
	a, err := b.answer("attach", t.Project, t.Service, t.Slot, stdin)
	return b.process(a, stdin), err
}

func (b *backend) Run(_ context.Context, _ api.Person, project, service string, r api.ExecRequest, _ func(api.Event)) (api.Stream, error) {
	a, err := b.answer("run", project, service, r)
	return b.process(a, r.Stdin), err
}

func (b *backend) CopyFrom(_ context.Context, t api.Target, path string) (io.ReadCloser, error) {
	if _, err := b.answer("copy-from", t.Service, path); err != nil {
		return nil, err
	}
	return pack(filepath.Join(b.dir, "instance"), path)
}

func (b *backend) CopyTo(_ context.Context, _ api.Person, t api.Target, path string, tarball io.Reader) error {
	if _, err := b.answer("copy-to", t.Service, path); err != nil {
		return err
	}
	return b.note(tarball)
}

func (b *backend) Build(_ context.Context, _ api.Person, r api.BuildRequest, next api.BuildContexts, report func(api.Event)) (string, error) {
	if _, err := b.answer("build", r); err != nil {
		return "", err
	}
	report(api.Event{Kind: api.KindBuild, Text: "#1 [1/1] FROM scratch"})
	for {
		c, err := next()
		if errors.Is(err, io.EOF) {
			return "sha256:0123456789abcdef0123", nil
		}
		if err == nil && c.Name == "" {
			err = b.note(c.Tar)
		} else if err == nil {
			dir := filepath.Join(b.dir, "context-"+c.Name)
			if err = os.MkdirAll(dir, 0o755); err == nil {
				err = (&backend{dir: dir}).note(c.Tar)
			}
		}
		if err != nil {
			return "", err
		}
	}
}

func (b *backend) Images(_ context.Context, refs []string) ([]api.Image, error) {
	a, err := b.answer("images", refs)
	return slices.DeleteFunc(a.Images, func(i api.Image) bool { return !slices.Contains(refs, i.Reference) }), err
}

func (b *backend) Pull(_ context.Context, _ api.Person, ref, auth string, report func(api.Event)) error {
	_, err := b.answer("pull", ref, auth != "")
	return err
}

func (b *backend) Push(_ context.Context, _ api.Person, ref, auth string, report func(api.Event)) error {
	_, err := b.answer("push", ref, auth != "")
	return err
}

func (b *backend) Secrets(_ context.Context, project string) ([]api.Secret, error) {
	a, err := b.answer("secrets", project)
	return a.Secrets, err
}

func (b *backend) Secret(_ context.Context, project, name string) (api.Secret, error) {
	a, err := b.answer("secret", project, name)
	for _, s := range a.Secrets {
		if s.Name == name {
			return s, err
		}
	}
	return api.Secret{}, tender.Errorf(tender.NotFound, "no secret %q", name).Hint("tender secret ls lists them")
}

func (b *backend) SetSecret(_ context.Context, _ api.Person, project, name string, value []byte) (api.Secret, error) {
	_, err := b.answer("set-secret", project, name, string(value))
	return api.Secret{Name: name, Project: project, Version: 2, Size: len(value), UsedBy: []string{"shop/db"}}, err
}

func (b *backend) RemoveSecret(_ context.Context, _ api.Person, project, name string) error {
	_, err := b.answer("remove-secret", project, name)
	return err
}

func (b *backend) Tokens(context.Context) ([]api.Token, error) {
	a, err := b.answer("tokens")
	return a.Tokens, err
}

func (b *backend) CreateToken(_ context.Context, _ api.Person, name string, scope api.Scope, projects []string, valid time.Duration) (api.Token, error) {
	_, err := b.answer("create-token", name, scope, projects, valid.String())
	return api.Token{ID: "t1", Name: name, Scope: string(scope), Projects: projects, Secret: "tender_0123456789"}, err
}

func (b *backend) RemoveToken(_ context.Context, _ api.Person, id string) error {
	_, err := b.answer("remove-token", id)
	return err
}

var _ api.Backend = (*backend)(nil)

func (b *backend) Shared(_ context.Context, layers []string) (api.Shared, error) {
	_, err := b.answer("shared", layers)
	return api.Shared{}, err
}

func (b *backend) Load(_ context.Context, _ api.Person, tarball io.Reader, _ api.Arrival, _ func(api.Event)) error {
	if _, err := b.answer("load"); err != nil {
		return err
	}
	return b.note(tarball)
}

func (b *backend) Logins(context.Context) ([]api.Login, error) {
	a, err := b.answer("logins")
	return a.Logins, err
}

func (b *backend) Login(_ context.Context, _ api.Person, registry, user, password string) (api.Login, error) {
	_, err := b.answer("login", registry, user, len(password))
	return api.Login{Registry: registry, User: user}, err
}

func (b *backend) Logout(_ context.Context, _ api.Person, registry string) error {
	_, err := b.answer("logout", registry)
	return err
}

func (b *backend) Edge(context.Context) (api.Edge, error) {
	a, err := b.answer("edge")
	return a.Edge, err
}

func (b *backend) Routes(_ context.Context, project, route string) ([]api.Route, error) {
	a, err := b.answer("routes", project, route)
	var out []api.Route
	for _, r := range a.Edge.Routes {
		if (project == "" || r.Project == project) && (route == "" || r.ID == route || strings.TrimPrefix(r.ID, r.Project+"/") == route) {
			out = append(out, r)
		}
	}
	return out, err
}

func (b *backend) route(call, project, route string, facts ...any) (api.Route, error) {
	a, err := b.answer(call, append([]any{project, route}, facts...)...)
	for _, r := range a.Edge.Routes {
		if r.ID == route {
			return r, err
		}
	}
	return api.Route{}, err
}

func (b *backend) PauseRoute(_ context.Context, _ api.Person, project, route string, limit time.Duration) (api.Route, error) {
	return b.route("pause route", project, route, limit.String())
}

func (b *backend) ResumeRoute(_ context.Context, _ api.Person, project, route string) (api.Route, error) {
	return b.route("resume route", project, route)
}

func (b *backend) ShiftRoute(_ context.Context, _ api.Person, project string, s api.RouteShift) (api.Route, error) {
	return b.route("shift route", project, s.Route, s)
}

func (b *backend) RegistryUsers(context.Context) ([]api.RegistryUser, error) {
	_, err := b.answer("registry users")
	return nil, err
}

func (b *backend) AddRegistryUser(_ context.Context, _ api.Person, u api.RegistryUserNew) (api.RegistryUser, error) {
	_, err := b.answer("registry user add", u.Name, u.Robot, u.Admin, u.Grants, len(u.Password), u.Valid)
	return api.RegistryUser{Name: u.Name, Robot: u.Robot, Admin: u.Admin, Grants: u.Grants}, err
}

func (b *backend) GrantRegistryUser(_ context.Context, _ api.Person, name string, access api.RegistryAccess) (api.RegistryUser, error) {
	_, err := b.answer("registry user grant", name, access.Admin, access.Grants)
	return api.RegistryUser{Name: name, Admin: access.Admin, Grants: access.Grants}, err
}

func (b *backend) PasswordRegistryUser(_ context.Context, _ api.Person, name, password string) (api.RegistryUser, error) {
	_, err := b.answer("registry user passwd", name, len(password))
	return api.RegistryUser{Name: name}, err
}

func (b *backend) RemoveRegistryUser(_ context.Context, _ api.Person, name string) error {
	_, err := b.answer("registry user rm", name)
	return err
}

func (b *backend) ImportRegistryUsers(_ context.Context, _ api.Person, i api.RegistryImport) ([]api.RegistryUser, error) {
	_, err := b.answer("registry user import", len(i.Text), i.Grants)
	return nil, err
}
