package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine/enginetest"
	"github.com/tenderhq/tender/internal/policy"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/store"
)

func gated(t *testing.T, yaml string) (Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tender.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return Configure(file, func(string) string { return "" }, nil)
}

func TestGatesAreReadStrictly(t *testing.T) {
	for yaml, want := range map[string]string{
		"gate: {denny: high}":                                     `:1:8: unknown key "gate.denny", did you mean "deny"?`,
		"gate:\n  deny: bad":                                      `:2:9: gate.deny: "bad" is none of low, medium, high, critical`,
		"gate: {grace: 7d}":                                       "fixable and grace say nothing without deny",
		"gate: {deny: high, grace: soon}":                         `:1:27: "soon" is not an age`,
		"gate: {registries: [library]}":                           "does not begin with a registry's host",
		"gate: {from: dev}":                                       `unknown key "gate.from"`,
		"gate: {rules: [{name: a, expr: service.usr == ''}]}":     `:1:32: rule a, 1:8: undefined field 'usr', did you mean 'user'?`,
		"gate: {rules: [{expr: 'true'}]}":                         `a rule needs a name of its own, not ""`,
		"pipeline: {dev: {}}":                                     "pipeline is not a list",
		"pipeline: [{gate: {}}]":                                  "a step has no name",
		"pipeline: [{name: a}, {name: a}]":                        ":1:30: the step a is there twice",
		"pipeline: [{name: a, gate: {from: b}}, {name: b}]":       `pipeline.gate.from: "b" is no step before this one`,
		"gate: {deny: high}\npipeline: [{name: a, gat: {}}]":      `:2:22: unknown key "pipeline.gat", did you mean "gate"?`,
		"pipeline: [{name: a, gate: {fixable: true}}]":            "say nothing without deny",
		"gate: {deny: high}\npipeline: [{name: a}, {nome: b}]":    `did you mean "name"?`,
		"gate: {rules: [{name: a, expr: 'true', warn: perhaps}]}": `"perhaps" is neither true nor false`,
	} {
		if _, err := gated(t, yaml); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", yaml, err, want)
		}
	}
}

func TestAStepKeepsWhatItDoesNotSayOfTheThreshold(t *testing.T) {
	c, err := gated(t, "gate: {deny: critical, fixable: true, grace: 7d}\npipeline: [{name: dev}, {name: staging, gate: {deny: high}}, {name: production, gate: {grace: 0, from: staging}}]")
	if err != nil {
		t.Fatal(err)
	}
	for environment, want := range map[string]string{
		"":           "critical true 168h0m0s; ",
		"dev":        "critical true 168h0m0s; ",
		"staging":    "critical true 168h0m0s; high true 168h0m0s; ",
		"production": "critical true 168h0m0s; critical true 0s; ",
	} {
		gates, err := c.gates(environment)
		got := ""
		for _, g := range gates {
			got += g.Deny.String() + map[bool]string{true: " true ", false: " false "}[g.Fixable] + g.Grace.String() + "; "
		}
		if err != nil || got != want {
			t.Errorf("%s: %s %v, want %s", environment, got, err, want)
		}
	}
	if _, err := c.gates("prodction"); err == nil || !strings.Contains(err.Error(), `no step "prodction", only dev, staging, production`) || tender.AdviceOf(err) != "did you mean: production" {
		t.Errorf("a step that is none: %v", err)
	}
	if err := checkGates(c, knowledge{}); err == nil || !strings.Contains(err.Error(), "asks for scans of images, which this version does not have") {
		t.Errorf("a gate that nobody can answer: %v", err)
	}
}

func TestAGateDeniesUntilItIsWaived(t *testing.T) {
	c, err := gated(t, "gate: {registries: [registry.company.com], rules: [{name: no-privileged, expr: '!service.privileged', fix: drop it}, {name: mem, expr: service.mem_limit > 0, warn: true}]}")
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	b := &backend{config: c, store: st}
	services := []tender.Service{{Name: "web", Image: "nginx", Spec: []byte("name: shop\nx-tender-format: 1\nservices: {web: {image: nginx, privileged: true}}\n")}}
	var warned []string
	ask := func() error {
		warned = nil
		all, err := b.judge(t.Context(), question{project: "shop", services: services})
		if err != nil {
			t.Fatal(err)
		}
		return pass("shop", "", all, func(e api.Event) { warned = append(warned, e.Text) })
	}
	err = ask()
	want := "the gate denies it, nothing has changed:\nweb: gate/registry: it comes from docker.io/library/nginx, which is not among the allowed: registry.company.com: " +
		"push it to one of these, or allow it under registries: in tender.yaml\nweb: no-privileged: it is false: !service.privileged: drop it"
	if err == nil || err.Error() != want || tender.KindOf(err) != tender.Denied {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if len(warned) != 1 || !strings.HasPrefix(warned[0], "web: mem: it is false") {
		t.Errorf("warned: %q", warned)
	}
	who := api.Person{Name: "ann"}
	for _, w := range []api.Waiver{{Finding: "gate/registry", Scope: "shop", Reason: "moving"}, {Finding: "no-privileged", Scope: "shop/web", Reason: "devices"}} {
		w.Until = time.Now().AddDate(0, 0, 30)
		if _, err := b.Waive(t.Context(), who, w); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask(); err != nil || len(warned) != 3 || !strings.Contains(warned[2], "by ann: devices)") {
		t.Errorf("waived: %v %q", err, warned)
	}
	for want, w := range map[string]api.Waiver{
		"needs a reason":         {Finding: "x", Until: time.Now().AddDate(0, 1, 0)},
		"for longer than a year": {Finding: "x", Reason: "r", Until: time.Now().AddDate(2, 0, 0)},
		"has ended already":      {Finding: "x", Reason: "r", Until: time.Now().AddDate(0, 0, -1)},
		"holds for a repository": {Finding: "x", Scope: "registry.company.com/db:1.2", Reason: "r", Until: time.Now().AddDate(0, 1, 0)},
		`"nginx:1.27" names one`: {Finding: "x", Scope: "nginx:1.27", Reason: "r", Until: time.Now().AddDate(0, 1, 0)},
		"a waiver of nothing":    {Reason: "r", Until: time.Now().AddDate(0, 1, 0)},
	} {
		if _, err := b.Waive(t.Context(), who, w); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if policy.Denied(nil) != 0 || pass("shop", "", nil, nil) != nil {
		t.Error("nothing to say denies")
	}
}

// whatItIs is what a gate that reads everything says of one service.
func whatItIs(t *testing.T, gate, service string, images map[string]tender.ImageID, fake *enginetest.Fake, there bool) ([]tender.Verdict, error) {
	t.Helper()
	c, err := gated(t, gate)
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	b := &backend{config: c, store: st, engine: fake}
	return b.judge(t.Context(), question{
		project: "shop", images: images, there: there,
		services: []tender.Service{{Name: "web", Image: "nginx", Spec: []byte("name: shop\nx-tender-format: 1\nservices: {web: {image: nginx" + service + "}}\n")}},
	})
}

// What is asked about is what will run, and not what the file says first.
func TestTheGateSeesWhatWillRun(t *testing.T) {
	for name, tt := range map[string]struct{ rule, service string }{
		"a hook with all privileges":     {`!service.privileged`, `, post_start: [{command: [a], privileged: true}]`},
		"a hook at the end":              {`!service.privileged`, `, pre_stop: [{command: [a], privileged: true}]`},
		"a socket by another path":       {`!service.volumes.exists(v, v.source == "/var/run/docker.sock")`, `, volumes: [{type: bind, source: /var/run/../run//docker.sock, target: /s}]`},
		"an image that it mounts":        {`image.repository != "x/tools"`, `, volumes: [{type: image, source: x/tools, target: /t}]`},
		"an image of the file, mounted":  {`!image.reference.startsWith("x")`, `, volumes: [{type: image, source: x, target: /t}]`},
		"one that it mounts beside this": {`image.tag != "2"`, `, volumes: [{type: image, source: x, target: /t}, {type: image, source: "y:2", target: /y}]`},
	} {
		all, err := whatItIs(t, "gate: {rules: [{name: r, expr: '"+tt.rule+"'}]}", tt.service, nil, &enginetest.Fake{}, false)
		if err != nil || policy.Denied(all) != 1 {
			t.Errorf("%s: %+v, %v", name, all, err)
		}
	}
	d := deploy.Submission{Project: tender.Project{Name: "shop", Services: []tender.Service{{Name: "db", Replicas: 1}, {Name: "web", Replicas: 1}}}, Scale: map[string]int{"web": 50}, Services: []string{"web"}}
	if got, err := chosen(d); err != nil || len(got) != 1 || got[0].Replicas != 50 || d.Project.Services[1].Replicas != 1 {
		t.Errorf("%+v, %v: up --scale web=50 web", got, err)
	}
}

// An image that goes while it is asked about would come again with other contents.
func TestUpDoesNotPassWhatIsNotHere(t *testing.T) {
	fake := &enginetest.Fake{}
	fake.LoseImage("sha256:1")
	fake.LoseImage("x")
	gate := "gate: {base_age: 30d}"
	gone := map[string]tender.ImageID{"web": {Reference: "nginx", ID: "sha256:1"}}
	if all, err := whatItIs(t, gate, "", gone, fake, true); tender.KindOf(err) != tender.NotFound {
		t.Errorf("gone meanwhile: %+v, %v", all, err)
	}
	mount := `, volumes: [{type: image, source: x, target: /t}]`
	if all, err := whatItIs(t, gate, mount, nil, fake, true); tender.KindOf(err) != tender.NotFound {
		t.Errorf("up mounts what is not here: %+v, %v", all, err)
	}
	if all, err := whatItIs(t, gate, mount, nil, fake, false); err != nil || policy.Denied(all) != 0 {
		t.Errorf("plan: %+v, %v", all, err)
	}
}

func tomorrow() time.Time { return time.Now().AddDate(0, 0, 1) }

func TestStepsSayWhereTheirImagesLie(t *testing.T) {
	for yaml, want := range map[string]string{
		"pipeline: [{name: a, registry: company}]":                                 "does not begin with a registry's host",
		"pipeline: [{name: a, registry: registry.company.com/x}]":                  "is more than a registry's host: the rest is a prefix",
		"pipeline: [{name: a, prefix: /x}]":                                        `:1:30: "/x" cannot stand before the name of a repository`,
		"pipeline: [{name: a, prefix: registry.company.com/}]":                     "reads as the host of a registry",
		"pipeline: [{name: a, prefix: v1.}]":                                       "reads as the host of a registry",
		"pipeline: [{name: a, prefix: localhost/x/}]":                              "reads as the host of a registry",
		"pipeline: [{name: a, tag: '{version}-{version}'}]":                        "is no pattern of a tag",
		"pipeline: [{name: a, tag: '{versoin}'}]":                                  "is no pattern of a tag",
		"pipeline: [{name: a, tag: '{version}-x'}, {name: b, tag: '{version}-x'}]": "the steps a and b would write the same tags",
		"gate: {promoted: perhaps}":                                                `gate.promoted: "perhaps" is neither true nor false`,
	} {
		if _, err := gated(t, yaml); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", yaml, err, want)
		}
	}
	c, err := gated(t, `{listen: {api: "127.0.0.1:7070"}, gate: {promoted: true}, pipeline: [{name: dev}, {name: staging, prefix: staging/}, {name: canary, tag: "{version}-canary"}, {name: live, registry: "registry.company.com", prefix: live/, tag: "{version}"}, {name: own, registry: "localhost:7070"}, {name: moving, tag: production}]}`)
	if err != nil {
		t.Fatal(err)
	}
	ref := func(host, repository, tag string) registry.Reference {
		return registry.Reference{Host: host, Repository: repository, Tag: tag}
	}
	for _, one := range []struct {
		from registry.Reference
		want string // base, version, then the target at each step
	}{
		{ref("", "shop/web", "1.4.2"), "shop/web 1.4.2 - staging/shop/web:1.4.2 shop/web:1.4.2-canary registry.company.com/live/shop/web:1.4.2 shop/web:1.4.2 shop/web:production"},
		{ref("", "staging/shop/web", "1.4.2"), "shop/web 1.4.2 - staging/shop/web:1.4.2 shop/web:1.4.2-canary registry.company.com/live/shop/web:1.4.2 shop/web:1.4.2 shop/web:production"},
		{ref("registry.company.com", "live/shop/web", "1.4.2-canary"), "shop/web 1.4.2 - registry.company.com/staging/shop/web:1.4.2 registry.company.com/shop/web:1.4.2-canary registry.company.com/live/shop/web:1.4.2 shop/web:1.4.2 registry.company.com/shop/web:production"},
		{ref("docker.io", "library/nginx", "1"), "docker.io/library/nginx 1 - docker.io/staging/library/nginx:1 docker.io/library/nginx:1-canary registry.company.com/live/library/nginx:1 library/nginx:1 docker.io/library/nginx:production"},
	} {
		version := c.version(one.from.Tag)
		got := c.base(one.from) + " " + version
		for _, s := range c.Pipeline {
			to, err := c.target(s, one.from, version)
			if err != nil {
				t.Fatal(err)
			}
			text := referenceText(to)
			if text == "" {
				text = "-"
			}
			got += " " + text
		}
		if got != one.want {
			t.Errorf("%s:\n%s\nwant\n%s", one.from, got, one.want)
		}
	}
	if v := c.version("production"); v != "" {
		t.Errorf("the version of a tag that moves: %s", v)
	}
	if err := checkGates(c, knowledge{}); err == nil || !strings.Contains(err.Error(), "asks for promotion") {
		t.Errorf("a gate that nobody can answer: %v", err)
	}
}
