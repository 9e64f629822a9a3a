package compose_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/compose"
)

func loadScale(t *testing.T, body string) (compose.Document, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte("name: shop\nservices:\n  web:\n    image: x\n"+body), 0o600); err != nil {
		t.Fatal(err)
	}
	return compose.Load(t.Context(), compose.Source{Dir: dir})
}

func parsed(t *testing.T, body string) tender.Service {
	t.Helper()
	d, err := loadScale(t, body)
	if err != nil {
		t.Fatal(err)
	}
	p, err := compose.Parse([]byte(d.YAML))
	if err != nil {
		t.Fatal(err)
	}
	return p.Services[0]
}

func TestScaleIsReadAsWritten(t *testing.T) {
	s := parsed(t, `    cpus: 0.5
    mem_limit: 64m
    x-tender:
      scale: {min: 2, max: 10, cpu: 70%, memory: 80%, requests: 300/m, cooldown: 30s, window: 3m, query: {expr: 'sum(up)', target: 4.5}}
`)
	want := &tender.Scale{
		Min: 2, Max: 10, CPU: 0.7, Memory: 0.8, Requests: 5, Query: "sum(up)", Target: 4.5, Cooldown: 30 * time.Second, Window: 3 * time.Minute,
	}
	if diff := cmp.Diff(want, s.Scale); diff != "" {
		t.Error(diff)
	}
	if got, want := s.Scale.String(), "2..10, cpu 70 %, memory 80 %, requests 5/s, query 4.5"; got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
	if b, err := compose.BudgetOf(s.Spec); err != nil || b != (compose.Budget{Cores: 0.5, Memory: 64 << 20}) {
		t.Errorf("its budget is %+v, %v", b, err)
	}
	s = parsed(t, "    deploy: {resources: {limits: {cpus: '1.5'}}}\n    x-tender: {scale: {max: 3, cpu: 0.5}}\n")
	if diff := cmp.Diff(&tender.Scale{Min: 1, Max: 3, CPU: 0.5, Cooldown: time.Minute, Window: 5 * time.Minute}, s.Scale); diff != "" {
		t.Error(diff)
	}
	if b, err := compose.BudgetOf(s.Spec); err != nil || b != (compose.Budget{Cores: 1.5}) {
		t.Errorf("its budget is %+v, %v", b, err)
	}
}

func TestAnotherScaleIsNoOtherInstance(t *testing.T) {
	a := parsed(t, "    x-tender: {scale: {max: 3, cpu: 70%}}\n")
	for _, other := range []string{"    x-tender: {scale: {min: 2, max: 9, requests: 5/s}}\n", "    deploy: {replicas: 4}\n"} {
		if b := parsed(t, other); !compose.Same(a.Spec, b.Spec) {
			t.Errorf("an instance would differ with\n%s", other)
		}
	}
}

func TestScaleWithPortsIsTheEdgesFromTheFirst(t *testing.T) {
	s := parsed(t, "    ports: ['8080:80']\n    x-tender: {scale: {max: 3, cpu: 70%}}\n")
	if s, err := compose.Hold(s, false); err != nil || s.Publish != tender.PublishProxy {
		t.Errorf("held by %q, %v", s.Publish, err)
	}
	s = parsed(t, "    ports: ['8080:80']\n    x-tender: {publish: engine, scale: {max: 3, cpu: 70%}}\n")
	if _, err := compose.Hold(s, false); err == nil || !strings.Contains(err.Error(), "3 instances cannot share host port 8080") {
		t.Errorf("got %v", err)
	}
}

func TestScaleThatCannotBeIsRefusedWithItsLine(t *testing.T) {
	for _, tc := range []struct{ name, body, want string }{
		{"no max", "    x-tender: {scale: {min: 1, cpu: 70%}}\n", "compose.yaml:5:23: services.web.x-tender.scale: max is missing"},
		{"nothing to go by", "    x-tender:\n      scale:\n        max: 3\n", "compose.yaml:7:9: services.web: x-tender.scale: nothing says when"},
		{"min above max", "    x-tender:\n      scale:\n        min: 4\n        max: 3\n        cpu: 70%\n", "compose.yaml:7:9: services.web: x-tender.scale: min 4 is not between 1 and max, which is 3"},
		{"none", "    x-tender: {scale: {min: 0, max: 3, cpu: 70%}}\n", `"0": want a whole number from 1 to 1000`},
		{"no share", "    x-tender: {scale: {max: 3, cpu: 170%}}\n", `"170%": want a share such as 1%`},
		{"no number", "    x-tender: {scale: {max: 3, cpu: nan}}\n", "want a share such as 1%"},
		{"no rate", "    x-tender: {scale: {max: 3, requests: 200}}\n", "want text"},
		{"no target", "    x-tender: {scale: {max: 3, query: {expr: up}}}\n", "target is missing"},
		{"target 0", "    x-tender: {scale: {max: 3, query: {expr: up, target: 0}}}\n", `"0": want a number above 0`},
		{"a typo", "    x-tender: {scale: {max: 3, cpus: 70%}}\n", `unknown key "cpus", did you mean "cpu"?`},
		{"one name", "    container_name: only\n    x-tender: {scale: {max: 3, cpu: 70%}}\n", "compose.yaml:5:5: services.web: container_name is for one instance, and x-tender.scale.max is 3"},
		{"one network", "    network_mode: host\n    x-tender: {scale: {max: 3, cpu: 70%}}\n", "network_mode host is for one instance"},
		{"a job", "    x-tender: {scale: {max: 3, cpu: 70%}}\n  api:\n    image: x\n    depends_on: {web: {condition: service_completed_successfully}}\n", "it runs once"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := loadScale(t, tc.body); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v\nwant %s", err, tc.want)
			}
		})
	}
}
