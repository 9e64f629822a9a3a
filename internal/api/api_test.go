package api_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

// Every operation must arrive as it was sent, and its answer must come back.
func TestRoundTrips(t *testing.T) {
	grace := 3 * time.Second
	web := api.Target{Project: "shop", Service: "web", Slot: 2}
	submission := api.Submission{Project: "shop", YAML: "name: shop\n", Files: map[string][]byte{"ab": {0, 1, 255}}, Scale: map[string]int{"web": 3}}
	cases := []struct {
		do    func(ctx context.Context, c *api.Client) (any, error)
		asked string
		want  any
	}{
		{func(ctx context.Context, c *api.Client) (any, error) { s, err := c.Status(ctx); return s.Version, err }, "status", "1.2"},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Doctor(ctx) }, "doctor", []api.Check{{Name: "disk", Result: "ok"}}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Projects(ctx) }, "projects", []api.Project{{Name: "shop"}, {Name: "blog"}}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Project(ctx, "shop") }, "project shop", api.Project{Name: "shop", Accepted: noon}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			l, err := c.Instances(ctx, "", true)
			return len(l), err
		}, `instances "" true`, 2},
		{func(ctx context.Context, c *api.Client) (any, error) {
			l, err := c.Instances(ctx, "shop", false)
			return len(l), err
		}, `instances "shop" false`, 2},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Config(ctx, "shop", 4) }, "config shop 4", "name: shop\n"},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Plan(ctx, submission) }, fmt.Sprintf("plan %+v", submission), api.Plan{Project: "shop", Token: "t1"}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Up(ctx, submission, nil) }, "up ME shop map[web:3]", api.Result{Outcome: "converged", Text: "shop is healthy"}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.Change(ctx, "shop", api.Change{Verb: "stop", Grace: &grace}, nil)
		}, "change ME shop stop 3s", api.Result{Outcome: "accepted"}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.History(ctx, "shop", "web") }, `history shop "web"`, []api.Rollout{{ID: 7}}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Rollout(ctx, 7) }, "rollout 7", api.Rollout{ID: 7, Project: "shop", Started: noon}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Steer(ctx, 7, "hold") }, "steer ME 7 hold", api.Rollout{ID: 7, Project: "shop", Strategy: "hold"}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Why(ctx, "shop", "we.b") }, "why shop we.b", api.Why{Project: "shop", Service: "we.b", Summary: "it is slow"}},
		{func(ctx context.Context, c *api.Client) (any, error) { return nil, c.Events(ctx, "shop", true, nil) }, `events "shop" true`, nil},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Audit(ctx, "", 5) }, `audit "" 5`, []api.Audit{{Who: "root", What: "up"}}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			var lines []string
			err := c.Logs(ctx, "shop", api.LogRequest{Services: []string{"web", "db"}, Since: noon, Tail: -1, Query: "| status >= 500", Fields: true}, func(l api.LogLine) error {
				lines = append(lines, l.Text)
				return nil
			})
			return lines, err
		}, "logs shop {Services:[web db] Instance: Since:2026-03-01 12:00:00 +0000 UTC Until:0001-01-01 00:00:00 +0000 UTC Tail:-1 Follow:false Query:| status >= 500 Fields:true}", []string{"line 0\t<&>", "line 1\t<&>", "line 2\t<&>"}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Sinks(ctx) }, "sinks", []api.Sink{{Name: "es", Lag: 1.5}}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.DeadLetters(ctx, "es", 7) }, "dead es 7", []api.DeadLetter{{Time: noon, Reason: "400"}}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Rules(ctx) }, "rules", api.Rules{Rules: []api.Rule{{Name: "Down", For: 1.5, Evaluated: noon}}}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.RegistryImages(ctx, "shop/web") }, "registry images shop/web", []api.RegistryImage{{Repository: "shop/web", Tag: "1", Pushed: noon}}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.SweepRegistry(ctx, true) }, "sweep ME true", api.RegistrySweep{Blobs: 1}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.RemoveImage(ctx, api.RemoveImageRequest{Repository: "shop/web", Tag: "1", Force: true})
		}, "remove image ME {Repository:shop/web Tag:1 Digest: Force:true DryRun:false}", api.RegistryClean{Tags: 1}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.TagImage(ctx, api.TagRequest{Source: "shop/web:1.4.2", Moving: true})
		}, "tag ME {Source:shop/web:1.4.2 Targets:[] Moving:true Registry:false Auths:map[]}", []api.Tagged{{Reference: "shop/web:1.4", Outcome: api.TagMoved}}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.Outdated(ctx, api.OutdatedRequest{Project: "shop", Names: []string{"web", "nginx:1.25"}})
		}, "outdated shop [web nginx:1.25]", []api.Outdated{{Image: "nginx:1.25", Newest: "1.27"}}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.RetainImages(ctx, api.RetainRequest{Rules: []api.RegistryRule{{Keep: 3}}, DryRun: true})
		}, "retain ME {Rules:[{Repositories:[] Tags:[] Keep:3 OlderThan:0 Untagged:0 KeepTags:[] KeepSigned:false}] Repository: DryRun:true}", api.RegistryClean{Tags: 1}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.PruneImages(ctx, api.PruneRequest{UntilFree: 0.2, DryRun: true})
		}, "prune ME {Rules:[] UntilFree:0.2 Foreign:false BuildCache:false CacheKeep:0 CacheOlderThan:0 DryRun:true}", api.Pruned{Images: 1}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.RuleGroups(ctx) }, "rule groups", []api.RuleGroup{{Name: "g", Changed: noon}}},
		{func(ctx context.Context, c *api.Client) (any, error) { return nil, c.RemoveRules(ctx, "a b/c") }, "remove rules ME a b/c", nil},
		{func(ctx context.Context, c *api.Client) (any, error) {
			s, err := c.Scan(ctx, api.ScanRequest{Reference: "shop/web:1", Archive: true, Document: "sarif", With: strings.Repeat("x", 3<<20)}, strings.NewReader("tar"), nil)
			return fmt.Sprint(s.Reference, s.Packages, len(s.Changes)), err
		}, "scan ME shop/web:1 sarif", "shop/web:13 3"},
		{func(ctx context.Context, c *api.Client) (any, error) {
			p, err := c.Promote(ctx, api.PromoteRequest{Reference: "shop/web:1", To: "staging", Reason: "r", DryRun: true}, nil)
			return p.Step, err
		}, "promote ME {Reference:shop/web:1 To:staging From: Reason:r DryRun:true Undo:false}", "staging"},
		{func(ctx context.Context, c *api.Client) (any, error) {
			l, err := c.ListImages(ctx, "shop/web")
			return len(l), err
		}, "list images ME shop/web", 1},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Advisories(ctx) }, "advisories", api.Advisories{Count: 3, Updated: noon}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return nil, c.UpdateAdvisories(ctx, api.AdvisoriesUpdate{From: "/mirror"}, nil)
		}, "update advisories ME /mirror", nil},
		{func(ctx context.Context, c *api.Client) (any, error) { return nil, c.RemoveWaiver(ctx, 3) }, "remove waiver ME 3", nil},
		{func(ctx context.Context, c *api.Client) (any, error) {
			w, err := c.Waive(ctx, api.Waiver{Finding: "CVE-1", Scope: "shop", Reason: "r", Until: noon})
			return w.Scope, err
		}, "waive ME CVE-1 shop", "shop"},
		{func(ctx context.Context, c *api.Client) (any, error) {
			p, err := c.CheckPolicy(ctx, api.Submission{Project: "shop", YAML: "x"})
			return p.Denied, err
		}, "check policy shop", 1},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.Alerts(ctx, "", []string{"Down", "severity=~a|b"})
		}, `alerts "" ["Down" "severity=~a|b"]`, api.Alerts{Alerts: []api.Alert{{Name: "Down", Project: "shop"}, {Name: "Disk"}}}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.TestAlert(ctx, "ops") }, "test alert ops", []api.AlertTry{{Receiver: "ops", Integration: "webhook[0]"}}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Silences(ctx, "shop", nil, true) }, `silences "shop" [] true`, []api.Silence{{ID: "s1", Who: "root"}}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.AddSilence(ctx, "shop", api.SilenceRequest{Matchers: []string{"service=web"}, For: time.Hour, Comment: "known"})
		}, `add silence "shop" ["service=web"] 1h0m0s known`, api.Silence{ID: "s1", Matchers: []string{"service=web"}}},
		{func(ctx context.Context, c *api.Client) (any, error) { return nil, c.ExpireSilence(ctx, "", "s1") }, `expire silence "" s1`, nil},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.Stats(ctx, "shop", []string{"web", "db"})
		}, `stats shop ["web" "db"]`, []api.Sample{{CPU: 12.5}}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Top(ctx, "shop", nil) }, `top shop []`, []api.Processes{{Titles: []string{"PID"}}}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.Images(ctx, []string{"redis:alpine", "a/b:1"})
		}, `images ["redis:alpine" "a/b:1"]`, []api.Image{{Reference: "redis:alpine", ID: "sha256:1"}}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Wait(ctx, web) }, "wait {Project:shop Service:web Slot:2 Instance:}", 3},
		{func(ctx context.Context, c *api.Client) (any, error) {
			r, err := c.CopyFrom(ctx, web, "/a b")
			if err != nil {
				return nil, err
			}
			defer r.Close()
			b, err := io.ReadAll(r)
			return len(b), err
		}, "copy from {Project:shop Service:web Slot:2 Instance:} /a b", 300_000},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return nil, c.CopyTo(ctx, web, "/x", bytes.NewReader(make([]byte, 3<<20)))
		}, "copy to ME {Project:shop Service:web Slot:2 Instance:} /x 3145728 bytes", nil},
		{func(ctx context.Context, c *api.Client) (any, error) {
			var said []string
			id, err := c.Build(ctx, api.BuildRequest{Tags: []string{"shop/web"}}, []api.BuildContext{
				{Name: "a/lib \"x\"", Tar: strings.NewReader("tar of lib")}, {Tar: bytes.NewReader(make([]byte, 5<<20))},
			}, func(e api.Event) { said = append(said, e.Text) })
			return []any{id, said}, err
		}, `build ME [shop/web] a/lib "x"=tar of lib 5242880 bytes`, []any{"sha256:built", []string{"Step 1"}}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return nil, c.Pull(ctx, "redis:alpine", "xyz", nil)
		}, "pull ME redis:alpine xyz", nil},
		{func(ctx context.Context, c *api.Client) (any, error) { return nil, c.Push(ctx, "shop/web", "", nil) }, "push ME shop/web ", nil},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.Shared(ctx, []string{"sha256:a", "sha256:b"})
		}, `shared ["sha256:a" "sha256:b"]`, api.Shared{Layers: 2, Layout: true}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			var said []string
			err := c.Load(ctx, bytes.NewReader(make([]byte, 5<<20)), api.Arrival{}, func(e api.Event) { said = append(said, e.Text) })
			return said, err
		}, "load ME 5242880 bytes[]", []string{"Loaded image: shop/web"}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return nil, c.Load(ctx, strings.NewReader("layout"), api.Arrival{As: "tender-arriving:x", Names: []string{"shop/web:1", "shop/web:latest"}}, nil)
		}, `load ME 6 bytestender-arriving:x["shop/web:1" "shop/web:latest"]`, nil},
		{func(ctx context.Context, c *api.Client) (any, error) {
			l, err := c.Logins(ctx)
			return len(l), err
		}, "logins", 1},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.Login(ctx, "registry.local:5000", "deploy", "pass")
		}, "login ME registry.local:5000 deploy 4", api.Login{Registry: "registry.local:5000", User: "deploy"}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return nil, c.Logout(ctx, "registry.local:5000")
		}, "logout ME registry.local:5000", nil},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Edge(ctx) }, "edge", api.Edge{State: "serving", PID: 7, Routes: []api.Route{{ID: "shop/a.example.com/", Project: "shop"}}}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			l, err := c.Routes(ctx, "shop", "a.example.com/")
			return len(l), err
		}, `routes "shop" "a.example.com/"`, 1},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.PauseRoute(ctx, "shop", "shop/a.example.com/", time.Minute)
		}, "pause route ME shop shop/a.example.com/ 1m0s", api.Route{ID: "shop/a.example.com/", State: "paused"}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.ResumeRoute(ctx, "shop", "shop/a.example.com/")
		}, "resume route ME shop shop/a.example.com/", api.Route{ID: "shop/a.example.com/", State: "serving"}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.ShiftRoute(ctx, "shop", api.RouteShift{Route: "r", To: map[string]int{"web": 10}, Auto: true, Steps: []int{5, 10}, Every: time.Second, Errors: .01})
		}, "shift route ME shop {Route:r To:map[web:10] Auto:true Steps:[5 10] Every:1s Errors:0.01}", api.Route{ID: "r"}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Secrets(ctx, "") }, `secrets ""`, []api.Secret{}},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Secret(ctx, "shop", "db.pass") }, `secret "shop" db.pass`, api.Secret{Name: "db.pass", Version: 2}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.SetSecret(ctx, "", "db", []byte("a\x00b\n"))
		}, `set secret ME "" db "a\x00b\n"`, api.Secret{Name: "db", Version: 3, Size: 4}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.SetSecret(ctx, "", "db", make([]byte, api.MaxSecret))
		}, `set secret ME "" db "` + strings.Repeat(`\x00`, 16) + `"`, api.Secret{Name: "db", Version: 3, Size: api.MaxSecret}},
		{func(ctx context.Context, c *api.Client) (any, error) { return nil, c.RemoveSecret(ctx, "shop", "db") }, `remove secret ME "shop" db`, nil},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.Tokens(ctx) }, "tokens", []api.Token{{ID: "1", Name: "ci"}}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.CreateToken(ctx, "ci", api.Deploy, []string{"shop"}, time.Hour)
		}, "create token ME ci deploy [shop] 1h0m0s", api.Token{Name: "ci", Secret: "tender_x"}},
		{func(ctx context.Context, c *api.Client) (any, error) { return nil, c.RemoveToken(ctx, "1") }, "remove token ME 1", nil},
		{func(ctx context.Context, c *api.Client) (any, error) { return c.RegistryUsers(ctx) }, "registry users", []api.RegistryUser{{Name: "ann"}}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.AddRegistryUser(ctx, api.RegistryUserNew{Name: "ci", Robot: true, Valid: time.Hour, RegistryAccess: api.RegistryAccess{Grants: []api.RegistryGrant{{Repositories: "shop/*", Actions: []string{"pull"}}}}})
		}, "add registry user ME ci [{shop/* [pull]}] 0 1h0m0s", api.RegistryUser{Name: "ci", Robot: true, Secret: "tender_robot_x"}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.GrantRegistryUser(ctx, "ann", api.RegistryAccess{Admin: true})
		}, "grant registry user ME ann true", api.RegistryUser{Name: "ann", Admin: true}},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.PasswordRegistryUser(ctx, "a@b", "secret")
		}, "password of registry user ME a@b 6", api.RegistryUser{Name: "a@b"}},
		{func(ctx context.Context, c *api.Client) (any, error) { return nil, c.RemoveRegistryUser(ctx, "ann") }, "remove registry user ME ann", nil},
		{func(ctx context.Context, c *api.Client) (any, error) {
			return c.ImportRegistryUsers(ctx, api.RegistryImport{Text: "bob:x"})
		}, `import registry users ME "bob:x" []`, []api.RegistryUser{{Name: "bob"}}},
	}
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			f := &fake{tokens: people()}
			host, _ := serve(t, network, f, api.Options{})
			c, me := dial(t, host, ""), ""
			if network == "tcp" {
				c, me = dial(t, host, "a"), "token a"
			} else if os.Getuid() == 0 {
				me = "root (uid 0)"
			}
			for _, k := range cases {
				want := strings.ReplaceAll(k.asked, "ME", me)
				name, _, _ := strings.Cut(k.asked, " ")
				t.Run(name, func(t *testing.T) {
					got, err := k.do(t.Context(), c)
					if err != nil {
						t.Fatal(err)
					}
					if asked := f.last(); me != "" && asked != want {
						t.Errorf("the backend was asked\n%s, want\n%s", asked, want)
					}
					if diff := cmp.Diff(k.want, got); diff != "" {
						t.Errorf("answer (-want +got):\n%s", diff)
					}
				})
			}
		})
	}
}

// Errors must keep their kind, their words and their hint on each kind of answer.
func TestErrorsTravel(t *testing.T) {
	web := api.Target{Project: "shop", Service: "web"}
	ways := map[string]func(ctx context.Context, c *api.Client) error{
		"json":   func(ctx context.Context, c *api.Client) error { _, err := c.Project(ctx, "shop"); return err },
		"events": func(ctx context.Context, c *api.Client) error { return c.Events(ctx, "", false, func(api.Event) {}) },
		"change": func(ctx context.Context, c *api.Client) error { return c.Pull(ctx, "x", "", nil) },
		"tar":    func(ctx context.Context, c *api.Client) error { _, err := c.CopyFrom(ctx, web, "/"); return err },
		"tar in": func(ctx context.Context, c *api.Client) error { return c.CopyTo(ctx, web, "/", strings.NewReader("x")) },
		"stream": func(ctx context.Context, c *api.Client) error {
			_, err := c.Exec(ctx, web, api.ExecRequest{Cmd: []string{"x"}})
			return err
		},
		"run": func(ctx context.Context, c *api.Client) error {
			_, err := c.Run(ctx, "shop", "web", api.ExecRequest{}, nil)
			return err
		},
		"logs": func(ctx context.Context, c *api.Client) error {
			return c.Logs(ctx, "shop", api.LogRequest{}, func(api.LogLine) error { return nil })
		},
		"wait":    func(ctx context.Context, c *api.Client) error { _, err := c.Wait(ctx, web); return err },
		"no body": func(ctx context.Context, c *api.Client) error { return c.RemoveToken(ctx, "x") },
	}
	for _, begun := range []bool{false, true} {
		f := &fake{}
		if begun {
			f.events = []api.Event{{Kind: api.KindPull, Text: "half"}}
		}
		host, _ := serve(t, "unix", f, api.Options{})
		c := dial(t, host, "")
		for _, kind := range []tender.Kind{tender.Invalid, tender.NotFound, tender.Conflict, tender.Denied, tender.Unavailable, tender.Internal} {
			f.err = fmt.Errorf("up shop: %w", tender.Errorf(kind, "it is 100%% %s", kind).Hint("type %s", "this"))
			for way, do := range ways {
				err := do(t.Context(), c)
				if tender.KindOf(err) != kind || err.Error() != f.err.Error() || tender.AdviceOf(err) != "type this" {
					t.Errorf("%s of %s, begun %v: %v (%s, hint %q)", kind, way, begun, err, tender.KindOf(err), tender.AdviceOf(err))
				}
			}
		}
	}
}

func TestEventsComeOneByOneAndInOrder(t *testing.T) {
	f := &fake{hold: make(chan struct{}), arrived: make(chan struct{}, 1)}
	for i := range 100 {
		f.events = append(f.events, api.Event{Kind: api.KindBegun, Text: fmt.Sprint(i), Current: int64(i)})
	}
	host, _ := serve(t, "unix", f, api.Options{})
	var got []int64
	seen := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := dial(t, host, "").Up(t.Context(), api.Submission{Project: "shop", YAML: "x"}, func(e api.Event) {
			if got = append(got, e.Current); len(got) == 100 {
				close(seen)
			}
		})
		done <- err
	}()
	<-seen // although the change has not ended
	close(f.hold)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for i, n := range got {
		if int64(i) != n {
			t.Fatalf("event %d came as number %d", n, i)
		}
	}
}

// A client that goes away must end the backend's context.
func TestAClientThatGoesAwayCancels(t *testing.T) {
	web := api.Target{Project: "shop", Service: "web"}
	for way, do := range map[string]func(ctx context.Context, c *api.Client) error{
		"up": func(ctx context.Context, c *api.Client) error {
			_, err := c.Up(ctx, api.Submission{Project: "shop", YAML: "x"}, nil)
			return err
		},
		"events": func(ctx context.Context, c *api.Client) error { return c.Events(ctx, "", false, nil) },
		"logs": func(ctx context.Context, c *api.Client) error {
			return c.Logs(ctx, "shop", api.LogRequest{}, func(api.LogLine) error { return nil })
		},
		"wait": func(ctx context.Context, c *api.Client) error { _, err := c.Wait(ctx, web); return err },
		"run": func(ctx context.Context, c *api.Client) error {
			_, err := c.Run(ctx, "shop", "web", api.ExecRequest{}, nil)
			return err
		},
	} {
		t.Run(way, func(t *testing.T) {
			f := &fake{hold: make(chan struct{}), arrived: make(chan struct{}, 1), left: make(chan struct{})}
			host, _ := serve(t, "unix", f, api.Options{})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			c := dial(t, host, "")
			go func() { done <- do(ctx, c) }()
			<-f.arrived
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("the client got %v", err)
			}
			<-f.left
		})
	}
}

func TestABuildIsOfAProjectOrOfNone(t *testing.T) {
	f := &fake{}
	host, _ := serve(t, "unix", f, api.Options{})
	asked := api.BuildRequest{Project: "@signing", External: map[string]string{"k": "release"}}
	_, err := dial(t, host, "").Build(t.Context(), asked, []api.BuildContext{{Tar: strings.NewReader("tar")}}, nil)
	if tender.KindOf(err) != tender.Invalid || !strings.Contains(err.Error(), `"@signing" is no name of a project`) {
		t.Errorf("got %v", err)
	}
}

// A server that stops must tell those who listen, and not wait for them.
func TestStopTellsListeners(t *testing.T) {
	f := &fake{hold: make(chan struct{}), arrived: make(chan struct{}, 1), left: make(chan struct{}), events: []api.Event{{Text: "one"}}}
	host, stop := serve(t, "unix", f, api.Options{})
	done := make(chan error, 1)
	c := dial(t, host, "")
	go func() { done <- c.Events(t.Context(), "", false, func(api.Event) {}) }()
	<-f.arrived
	stop()
	if err := <-done; tender.KindOf(err) != tender.Unavailable || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("got %v, want it said that the daemon is stopping", err)
	}
	<-f.left
}

// A daemon that dies in the middle must not look like the end of the answer.
func TestAnAnswerCutInTheMiddleIsAnError(t *testing.T) {
	for name, answer := range map[string]string{
		"in a line":       "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{\"kind\":\"begun\",",
		"between lines":   "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n{\"kind\":\"begun\"}\n\n\r\n",
		"ended too early": "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: 17\r\n\r\n{\"kind\":\"begun\"}\n",
		"before the head": "",
	} {
		t.Run(name, func(t *testing.T) {
			l, host := listen(t, "unix")
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = conn.Read(make([]byte, 64<<10))
					_, _ = io.WriteString(conn, answer)
					_ = conn.Close()
				}
			}()
			_, err := dial(t, host, "").Up(t.Context(), api.Submission{Project: "shop", YAML: "x"}, nil)
			if tender.KindOf(err) != tender.Unavailable {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestNoDaemonThere(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "none.sock")
	l, closed := listen(t, "tcp")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for host, hint := range map[string]string{
		"unix://" + gone: "start one: tender serve, or: systemctl start tender",
		closed:           "is it running there, and is the address right? it comes from --host or TENDER_HOST",
	} {
		c := dial(t, host, "")
		_, err := c.Status(t.Context())
		want := "no Tender daemon answers at " + host + ": "
		if tender.KindOf(err) != tender.Unavailable || !strings.HasPrefix(err.Error(), want) || tender.AdviceOf(err) != hint {
			t.Errorf("got %v (%s)", err, tender.AdviceOf(err))
		}
		_, err = c.Exec(t.Context(), api.Target{Project: "shop", Service: "web"}, api.ExecRequest{Cmd: []string{"sh"}})
		if !strings.HasPrefix(fmt.Sprint(err), want) || tender.AdviceOf(err) != hint {
			t.Errorf("exec: got %v (%s)", err, tender.AdviceOf(err))
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, bad := range []string{"shop", "unix://host/x", "unix:", "tcp://host:1", "http://", "ssh://", "ssh://-oProxyCommand=x", "://"} {
		if _, err := api.New(bad, api.ClientOptions{}); tender.KindOf(err) != tender.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, good := range []string{"", "unix:///run/x", "ssh://me@host", "ssh://host:22", "http://127.0.0.1:7070", "https://host/"} {
		if _, err := api.New(good, api.ClientOptions{}); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

func TestSomethingElseAnswers(t *testing.T) {
	l, host := listen(t, "tcp")
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == api.Prefix+"/doctor" {
			_, _ = io.WriteString(w, "<html>")
			return
		}
		http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
	})}
	go s.Serve(l)
	defer s.Close()
	c := dial(t, host, "secret")
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(tender.AdviceOf(err), "is that a Tender daemon?") {
		t.Errorf("redirected: %v", err)
	}
	if _, err := c.Doctor(t.Context()); tender.KindOf(err) != tender.Unavailable {
		t.Errorf("HTML: %v", err)
	}
}

// raw sends a request as it stands.
func raw(t *testing.T, host, method, path, token, body string, header ...string) *http.Response {
	t.Helper()
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	base := host
	if socket, ok := strings.CutPrefix(host, "unix://"); ok {
		base = "http://tender"
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func readProblem(t *testing.T, resp *http.Response) api.Error {
	t.Helper()
	var e api.Error
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
		t.Fatalf("status %s: %v", resp.Status, err)
	}
	if ct := resp.Header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("an error came as %s", ct)
	}
	return e
}

func TestWhoMayDoWhat(t *testing.T) {
	f := &fake{tokens: people()}
	host, _ := serve(t, "tcp", f, api.Options{})
	up := `{"project":"%s","yaml":"name: x"}`
	for _, k := range []struct {
		token, method, path, body string
		want                      int
	}{
		{"", "GET", "/healthz", "", 200},
		{"", "GET", "/openapi.json", "", 401},
		{"", "GET", "/tender/v1/status", "", 401},
		{"", "GET", "/nowhere", "", 401},
		{"wrong", "GET", "/tender/v1/status", "", 401},
		{"r", "GET", "/openapi.json", "", 200},
		{"r", "GET", "/openapi.yaml", "", 200},
		{"r", "GET", "/nowhere", "", 404},
		{"r", "DELETE", "/tender/v1/status", "", 404},
		{"r", "GET", "/tender/v1/projects/shop", "", 200},
		{"r", "POST", "/tender/v1/plan", fmt.Sprintf(up, "shop"), 200},
		{"r", "POST", "/tender/v1/up", fmt.Sprintf(up, "shop"), 403},
		{"r", "POST", "/tender/v1/projects/shop/changes", `{"verb":"stop"}`, 403},
		{"r", "POST", "/tender/v1/exec?project=shop&service=web", `{"cmd":["sh"]}`, 403},
		{"r", "GET", "/tender/v1/files?project=shop&service=web&path=/", "", 403},
		{"r", "PUT", "/tender/v1/secrets/db?project=shop", "v", 403},
		{"r", "GET", "/tender/v1/tokens", "", 403},
		{"d", "POST", "/tender/v1/up", fmt.Sprintf(up, "blog"), 200},
		{"d", "PUT", "/tender/v1/secrets/db", "v", 200},
		{"d", "GET", "/tender/v1/tokens", "", 403},
		{"d", "POST", "/tender/v1/tokens", `{"name":"x","scope":"admin"}`, 403},
		{"a", "POST", "/tender/v1/tokens", `{"name":"x","scope":"admin"}`, 201},
		{"s", "POST", "/tender/v1/up", fmt.Sprintf(up, "shop"), 200},
		{"s", "POST", "/tender/v1/up", fmt.Sprintf(up, "blog"), 403},
		{"s", "POST", "/tender/v1/plan", fmt.Sprintf(up, "blog"), 403},
		{"s", "GET", "/tender/v1/projects/blog", "", 403},
		{"s", "GET", "/tender/v1/instances?project=blog", "", 403},
		{"s", "GET", "/tender/v1/instances?project=shop&project=blog", "", 200}, // the first counts, everywhere
		{"s", "GET", "/tender/v1/projects/blog/logs?project=shop", "", 403},
		{"s", "POST", "/tender/v1/exec?instance=blog-web-1", `{"cmd":["sh"]}`, 403},
		{"s", "GET", "/tender/v1/secrets", "", 403},
		{"s", "PUT", "/tender/v1/secrets/db", "v", 403},
		{"s", "PUT", "/tender/v1/secrets/db?project=shop", "v", 200},
		{"s", "GET", "/tender/v1/audit", "", 403},
		{"s", "GET", "/tender/v1/logs/sinks", "", 403}, // they are fed from all projects
		{"s", "GET", "/tender/v1/logs/sinks/es/dead", "", 403},
		{"r", "GET", "/tender/v1/logs/sinks/es/dead", "", 200},
		{"s", "GET", "/tender/v1/registry/images", "", 403}, // it is of all projects
		{"r", "GET", "/tender/v1/registry/images", "", 200},
		{"d", "POST", "/tender/v1/registry/gc", `{}`, 403},
		{"d", "POST", "/tender/v1/registry/retain", `{}`, 403},
		{"d", "POST", "/tender/v1/registry/remove", `{"repository":"shop/web"}`, 403},
		{"s", "GET", "/tender/v1/rules", "", 403}, // they are about all projects
		{"r", "GET", "/tender/v1/rules", "", 200},
		{"r", "PUT", "/tender/v1/rules/groups", `{"text":"groups: []"}`, 403},
		{"d", "PUT", "/tender/v1/rules/groups", `{"text":"groups: []"}`, 200},
		{"d", "PUT", "/tender/v1/rules/groups", `{"text":"groups: []","language":"sql"}`, 400},
		{"s", "DELETE", "/tender/v1/rules/groups/g", "", 403},
		{"d", "DELETE", "/tender/v1/rules/groups/g", "", 204},
		{"s", "GET", "/tender/v1/alerts", "", 200}, // those of its project
		{"s", "GET", "/tender/v1/silences", "", 403},
		{"s", "POST", "/tender/v1/silences", `{"matchers":["service=web"],"for":1}`, 403},
		{"s", "POST", "/tender/v1/silences?project=shop", `{"matchers":["service=web"],"for":1}`, 200},
		{"s", "POST", "/tender/v1/alerts/test", `{}`, 403},
		{"r", "POST", "/tender/v1/silences", `{"matchers":["service=web"],"for":1}`, 403},
		{"r", "GET", "/tender/v1/silences", "", 200},
		{"d", "DELETE", "/tender/v1/silences/s1", "", 204},
		{"s", "POST", "/tender/v1/policy/check", fmt.Sprintf(up, "shop"), 200},
		{"s", "POST", "/tender/v1/policy/check", fmt.Sprintf(up, "blog"), 403},
		{"d", "POST", "/tender/v1/policy/waivers", `{"finding":"x","reason":"r","until":"2027-01-31T00:00:00Z"}`, 403}, // who deploys does not open the gate
		{"o", "POST", "/tender/v1/policy/waivers", `{"finding":"x","scope":"shop","reason":"r","until":"2027-01-31T00:00:00Z"}`, 403},
		{"o", "POST", "/tender/v1/policy/waivers?project=shop", `{"finding":"x","reason":"r","until":"2027-01-31T00:00:00Z"}`, 400},
		{"o", "DELETE", "/tender/v1/policy/waivers/1", "", 403},
		{"o", "DELETE", "/tender/v1/policy/waivers/1?project=shop", "", 400},
		{"a", "POST", "/tender/v1/policy/waivers", `{"finding":"x","reason":"r","until":"2027-01-31T00:00:00Z"}`, 200},
		{"s", "GET", "/tender/v1/policy/waivers", "", 200},
		{"s", "GET", "/tender/v1/rollouts/7", "", 200},
		{"s", "GET", "/tender/v1/status", "", 200},
		{"s", "POST", "/tender/v1/images/pull", `{"reference":"redis"}`, 200},
	} {
		resp := raw(t, host, k.method, k.path, k.token, k.body)
		if resp.StatusCode != k.want {
			b, _ := io.ReadAll(resp.Body)
			t.Errorf("token %q, %s %s: %s, want %d\n%s", k.token, k.method, k.path, resp.Status, k.want, b)
			continue
		}
		if k.want == 401 || k.want == 403 {
			if e := readProblem(t, resp); e.Kind != "denied" || e.Hint == "" {
				t.Errorf("token %q, %s %s: %+v, want a hint", k.token, k.method, k.path, e)
			}
		}
	}

	// What a token for one project lists is of that project alone.
	c := dial(t, host, "s")
	p, err := c.Projects(t.Context())
	if err != nil || len(p) != 1 || p[0].Name != "shop" {
		t.Errorf("projects: %v, %v", p, err)
	}
	i, err := c.Instances(t.Context(), "", true)
	if err != nil || len(i) != 1 || i[0].Project != "shop" {
		t.Errorf("instances: %v, %v", i, err)
	}
	w, err := c.Waivers(t.Context())
	if err != nil || len(w) != 2 || w[0].Scope != "shop/web" || w[1].Scope != "" {
		t.Errorf("waivers: %v, %v", w, err)
	}
	s, err := c.Status(t.Context())
	if err != nil || len(s.Projects) != 1 {
		t.Errorf("status: %v, %v", s, err)
	}
	f.events = []api.Event{{Project: "shop", Text: "mine"}, {Project: "blog", Text: "theirs"}}
	var seen []string
	if err := c.Events(t.Context(), "", false, func(e api.Event) { seen = append(seen, e.Text) }); err != nil || len(seen) != 1 || seen[0] != "mine" {
		t.Errorf("events: %v, %v", seen, err)
	}
}

func TestATokenCountsMoreThanTheSocket(t *testing.T) {
	f := &fake{tokens: people()}
	host, _ := serve(t, "unix", f, api.Options{})
	if _, err := dial(t, host, "r").Tokens(t.Context()); tender.KindOf(err) != tender.Denied {
		t.Errorf("a read token on the socket lists tokens: %v", err)
	}
	if _, err := dial(t, host, "").Tokens(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestBadRequestsSayWhere(t *testing.T) {
	host, _ := serve(t, "unix", &fake{}, api.Options{})
	for _, k := range []struct {
		method, path, body string
		status             int
		detail             string
	}{
		{"POST", "/up", "{\n  \"yaml\": \"x\",\n  oops}", 400, "line 3, column 3"},
		{"POST", "/up", `{"project":"shop","yaml":7}`, 400, "yaml must be string, not number"},
		{"POST", "/up", `{"project":"shop","yaml":"x","scal":{}}`, 400, `unknown field "scal"`},
		{"POST", "/up", `{"project":"shop","yaml":"x"} {}`, 400, "something follows"},
		{"POST", "/up", `{"project":"../etc","yaml":"x"}`, 400, `"../etc" is no name of a project`},
		{"POST", "/up", `{"project":"shop"}`, 400, "without a Compose document"},
		{"POST", "/up", ``, 400, "body is required"},
		{"POST", "/up", `{"project":"shop","yaml":"x","pull":"sometimes"}`, 400, "none of always"},
		{"POST", "/projects/shop/changes", `{"verb":"explode"}`, 400, `"explode" is none of down, stop`},
		{"POST", "/projects/Shop/changes", `{"verb":"stop"}`, 400, "project: expected string to match pattern"},
		{"GET", "/instances?projct=shop", "", 400, "projct: unknown query parameter"},
		{"GET", "/rollouts/x", "", 400, "id: invalid integer"},
		{"GET", "/wait?project=shop", "", 400, "neither a service nor an instance"},
		{"POST", "/exec?project=shop&service=web", `{"cmd":["sh"]}`, 426, "connection of its own"},
		{"POST", "/exec?project=shop&service=web", `{}`, 400, "no command"},
		{"POST", "/images/build", `{}`, 400, "multipart/form-data"},
		{"POST", "/images/pull", `{}`, 400, "no image"},
		{"POST", "/tokens", `{"name":"x","scope":"root"}`, 400, `"root" is none of`},
		{"POST", "/tokens", `{"name":"x","scope":"read","projects":["A B"]}`, 400, `"A B" is no name`},
		{"PUT", "/secrets/a%2Fb", "v", 400, "name: expected string to match pattern"},
	} {
		resp := raw(t, host, k.method, api.Prefix+k.path, "", k.body)
		e := readProblem(t, resp)
		if resp.StatusCode != k.status || e.Status != k.status || e.Kind != "invalid" || !strings.Contains(e.Detail, k.detail) {
			t.Errorf("%s %s %s: %s %+v, want %d with %q", k.method, k.path, k.body, resp.Status, e, k.status, k.detail)
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	host, _ := serve(t, "unix", &fake{}, api.Options{})
	c := dial(t, host, "")
	_, err := c.SetSecret(t.Context(), "", "big", make([]byte, api.MaxSecret+1))
	if tender.KindOf(err) != tender.Invalid || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a secret over the limit: %v", err)
	}
	// Bytes, not JSON: what is too long is not even parsed.
	resp := raw(t, host, "POST", api.Prefix+"/plan", "", strings.Repeat(" ", api.MaxSubmission+1))
	if e := readProblem(t, resp); resp.StatusCode != 413 || e.Kind != "invalid" {
		t.Errorf("a submission over the limit: %s %+v", resp.Status, e)
	}
	// Far more than other bodies may have.
	if _, err = c.Plan(t.Context(), api.Submission{Project: "shop", YAML: strings.Repeat("x", 2<<20)}); err != nil {
		t.Errorf("a submission under the limit: %v", err)
	}
	_, err = c.Change(t.Context(), "shop", api.Change{Verb: "stop", Signal: strings.Repeat("x", 1<<20)}, nil)
	if tender.KindOf(err) != tender.Invalid || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a change over the limit: %v", err)
	}
}

func TestHeartbeatsAndServerSentEvents(t *testing.T) {
	for accept, want := range map[string]string{
		"application/x-ndjson": "\n",
		"text/event-stream":    ":\n\n",
	} {
		f := &fake{hold: make(chan struct{}), arrived: make(chan struct{}, 1), left: make(chan struct{}), events: []api.Event{{Kind: "state", Text: "up"}}}
		host, stop := serve(t, "unix", f, api.Options{Heartbeat: time.Millisecond})
		resp := raw(t, host, "GET", api.Prefix+"/events", "", "", "Accept", accept)
		if ct := resp.Header.Get("Content-Type"); ct != accept {
			t.Errorf("Content-Type %s, want %s", ct, accept)
		}
		var got strings.Builder
		buf := make([]byte, 1000)
		for !strings.Contains(got.String(), "}\n"+want+want) && !strings.HasSuffix(got.String(), want+want) {
			n, err := resp.Body.Read(buf)
			got.Write(buf[:n])
			if err != nil {
				t.Fatalf("%v after %q", err, got.String())
			}
		}
		if !strings.Contains(got.String(), `"text":"up"`) || accept == "text/event-stream" != strings.Contains(got.String(), "data: {") {
			t.Errorf("got %q", got.String())
		}
		stop()
	}
}

func TestTheDescriptionIsWhole(t *testing.T) {
	host, _ := serve(t, "unix", &fake{}, api.Options{Version: "1.2.3"})
	resp := raw(t, host, "GET", "/openapi.json", "", "")
	var doc struct {
		OpenAPI string
		Info    struct{ Version string }
		Paths   map[string]map[string]struct {
			OperationID string         `json:"operationId"`
			Summary     string         `json:"summary"`
			Responses   map[string]any `json:"responses"`
		}
		Components struct{ Schemas map[string]any }
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		t.Fatal(err)
	}
	n := 0
	for path, methods := range doc.Paths {
		for method, op := range methods {
			n++
			if op.OperationID == "" || op.Summary == "" || op.Responses["default"] == nil || len(op.Responses) < 2 {
				t.Errorf("%s %s is not described: %+v", method, path, op)
			}
		}
	}
	if n != 89 || !strings.HasPrefix(doc.OpenAPI, "3.1") || doc.Info.Version != "1.2.3" {
		t.Errorf("%d operations, OpenAPI %s, version %s", n, doc.OpenAPI, doc.Info.Version)
	}
	// Each reference leads somewhere.
	for part := range strings.SplitSeq(string(body), `"#/components/schemas/`) {
		name, _, _ := strings.Cut(part, `"`)
		if doc.Components.Schemas[name] == nil && name != "" && !strings.HasPrefix(part, "{") {
			t.Errorf("schema %s is missing", name)
		}
	}
}

// Clients that have a field for a password alone send the token there.
func TestATokenAsPassword(t *testing.T) {
	host, _ := serve(t, "tcp", &fake{tokens: people()}, api.Options{})
	for password, want := range map[string]int{"r": http.StatusOK, "x": http.StatusUnauthorized, "": http.StatusUnauthorized} {
		basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("any:"+password))
		if resp := raw(t, host, "GET", api.Prefix+"/projects", "", "", "Authorization", basic); resp.StatusCode != want {
			t.Errorf("password %q: %s, not %d", password, resp.Status, want)
		}
	}
}
