package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/policy"
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
		all, err := b.judge(t.Context(), "shop", "", services, nil)
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
