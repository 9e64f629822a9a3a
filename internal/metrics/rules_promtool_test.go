package metrics

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// promtool is Debian's, which e2e/debian.sh gets.
func promtool(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("../../e2e/debian.sh", "prometheus").Output()
	if err != nil {
		if os.Getenv("TENDER_E2E") == "" {
			t.Skipf("there is no promtool: e2e/debian.sh prometheus: %v", err)
		}
		t.Fatalf("e2e/debian.sh prometheus: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "usr/bin/promtool")
}

// What promtool takes we take, and what it refuses we refuse, at the same place.
func TestRuleFilesAreReadAsPromtoolReadsThem(t *testing.T) {
	tool := promtool(t)
	files, err := filepath.Glob("testdata/rules/*.yml")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, file := range append(files, "rules_builtin.yml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			said, theirs := exec.Command(tool, "check", "rules", file).CombinedOutput()
			groups, ours := ReadRules(file, content, false, nil)
			if (theirs != nil) != (len(ours) > 0) {
				t.Errorf("promtool: %v\n%s\nwe: %v", theirs, said, ours)
			}
			if want := strings.HasPrefix(filepath.Base(file), "bad-"); want != (theirs != nil) {
				t.Errorf("promtool: %v\n%s", theirs, said)
			}
			for _, p := range ours {
				if place, _, _ := strings.Cut(p.Error(), ": "); !strings.Contains(string(said), place) {
					t.Errorf("promtool says\n%s\nwe say\n%v", said, p)
				}
			}
			if len(ours) > 0 {
				return
			}
			// Written and read again it is the same.
			text, err := WriteRules(groups)
			if err != nil {
				t.Fatal(err)
			}
			if _, problems := ReadRules(file, text, false, nil); problems != nil {
				t.Errorf("%v in\n%s", problems, text)
			}
			for _, g := range groups {
				if problems := CheckGroup(g, nil); problems != nil {
					t.Errorf("group %s: %v", g.Name, problems)
				}
			}
		})
	}
}

// Each built-in alert fires where it should and is silent where it should be:
// testdata/builtin_test.yml, run by promtool itself.
func TestBuiltinAlerts(t *testing.T) {
	tool := promtool(t)
	groups, err := BuiltinGroups(Builtin{})
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile("testdata/builtin_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	var said struct {
		Tests []struct {
			Alerts []struct {
				Name     string `yaml:"alertname"`
				Expected []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		} `yaml:"tests"`
	}
	if err := yaml.Unmarshal(content, &said); err != nil {
		t.Fatal(err)
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, x := range said.Tests {
		for _, a := range x.Alerts {
			if len(a.Expected) > 0 {
				fires[a.Name] = true
			} else {
				silent[a.Name] = true
			}
		}
	}
	doc, err := os.ReadFile("../../docs/runbooks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		for _, r := range g.Rules {
			if !fires[r.Alert] || !silent[r.Alert] {
				t.Errorf("%s: fires %v, silent %v in testdata/builtin_test.yml", r.Alert, fires[r.Alert], silent[r.Alert])
			}
			if !strings.Contains(string(doc), "\n## "+r.Alert+"\n") {
				t.Errorf("docs/runbooks.md has no section %s", r.Alert)
			}
			for _, name := range []string{"summary", "description", "runbook_url"} {
				if r.Annotations[name] == "" {
					t.Errorf("%s has no %s", r.Alert, name)
				}
			}
			if !slices.Contains([]string{"warning", "critical"}, r.Labels["severity"]) {
				t.Errorf("%s is %q", r.Alert, r.Labels["severity"])
			}
		}
	}
	out, err := exec.Command(tool, "test", "rules", "testdata/builtin_test.yml").CombinedOutput()
	if err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
}

func TestBuiltinAlertsCanBeChanged(t *testing.T) {
	limit, level := 0.8, "page"
	find := func(b Builtin, name string) (out []Rule) {
		groups, err := BuiltinGroups(b)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			for _, r := range g.Rules {
				if r.Alert == name {
					out = append(out, r)
				}
			}
		}
		return out
	}
	if got := find(Builtin{Off: []string{"CPUThrottled"}}, "CPUThrottled"); got != nil {
		t.Errorf("it is off: %v", got)
	}
	if got := find(Builtin{None: true}, "TargetDown"); got != nil {
		t.Errorf("all are off: %v", got)
	}
	groups, err := BuiltinGroups(Builtin{})
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		for _, r := range g.Rules {
			got := find(Builtin{Set: map[string]Tuning{r.Alert: {Threshold: &limit, Severity: level}}}, r.Alert)
			if len(got) != 1 || !strings.HasSuffix(got[0].Expr, " 0.8") || got[0].Labels["severity"] != level || got[0].For != r.For {
				t.Errorf("%s: %v", r.Alert, got)
			}
		}
	}
	for text, b := range map[string]Builtin{
		`no built-in alert "Nope"`: {Off: []string{"Nope"}}, `no built-in alert "Nein"`: {Set: map[string]Tuning{"Nein": {}}},
	} {
		if _, err := BuiltinGroups(b); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
