package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/policy"
)

var now = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

func print(all []tender.Verdict) string {
	var b strings.Builder
	for _, v := range all {
		what := "warn"
		if v.Deny {
			what = "deny"
		}
		if v.Waiver != nil {
			what = fmt.Sprintf("waived by %s until %s", v.Waiver.By, v.Waiver.Until.Format(time.DateOnly))
		}
		fmt.Fprintf(&b, "%s %s %s: %s\n", what, strings.Join(v.Services, "+"), v.Rule, v.Why)
		if v.Fix != "" {
			fmt.Fprintf(&b, "  %s\n", v.Fix)
		}
	}
	return b.String()
}

func rules(t *testing.T, all ...policy.Rule) (out []policy.Rule) {
	t.Helper()
	var c policy.Compiler
	for _, r := range all {
		r, err := c.Compile(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

var (
	openssl = tender.Finding{
		Kind: tender.Vulnerability, ID: "DSA-1", Aliases: []string{"CVE-2024-1"}, Severity: tender.Critical, Score: 9.8, Package: "libssl3", Source: "openssl",
		Version: "3.0.11-1", Fixed: "3.0.15-1", Layer: 1, Published: now.Add(-100 * day),
	}
	zlib = tender.Finding{
		Kind: tender.Vulnerability, ID: "CVE-2024-2", Severity: tender.High, Package: "zlib1g", Version: "1.2.13", Layer: 0, Published: now.Add(-2 * day),
	}
	curl = tender.Finding{
		Kind: tender.Vulnerability, ID: "CVE-2024-3", Severity: tender.High, Package: "curl", Version: "7.88", Fixed: "7.88-2", Layer: -1, Published: now.Add(-2 * day),
	}
	minor  = tender.Finding{Kind: tender.Vulnerability, ID: "CVE-2024-4", Severity: tender.Low, Package: "tar", Version: "1", Fixed: "2"}
	secret = tender.Finding{Kind: tender.SecretLeft, ID: "secret/aws-key", Title: "a key of AWS", Severity: tender.High, Path: "root/.aws/credentials", Layer: 1}
	root   = tender.Finding{Kind: tender.Setup, ID: "setup/root-user", Title: "it runs as root", Severity: tender.Medium, Layer: -1}
)

func scanned(f ...tender.Finding) *policy.Scan {
	return &policy.Scan{Taken: now.Add(-3 * time.Hour), Findings: f, Steps: []string{"ADD rootfs.tar /", "RUN apt-get   install -y openssl"}}
}

func web(i policy.Image) policy.Service {
	if i.Reference == "" {
		i.Reference = "registry.company.com/shop/web:1.4.2"
	}
	if i.Digest == "" {
		i.Digest = "sha256:1"
	}
	return policy.Service{Name: "web", Image: i}
}

func TestCheck(t *testing.T) {
	all := []tender.Finding{minor, zlib, secret, openssl, curl, root}
	for _, tt := range []struct {
		name string
		in   policy.Input
		want string
	}{
		{name: "without a gate everything may run", in: policy.Input{Services: []policy.Service{web(policy.Image{Scan: scanned(all...)})}}},
		{
			name: "a threshold denies what is as bad and worse, the worst first, each with what mends it",
			in:   policy.Input{Project: "shop", Gates: []policy.Gate{{Deny: tender.High}}, Services: []policy.Service{web(policy.Image{Scan: scanned(all...)})}},
			want: `
deny web gate/severity: DSA-1 (critical 9.8) in libssl3 3.0.11-1
  upgrade openssl to 3.0.15-1 (layer 1: RUN apt-get install -y openssl)
deny web gate/severity: CVE-2024-2 (high) in zlib1g 1.2.13, not fixed yet
  do without it (layer 0: ADD rootfs.tar /), or tender policy waive CVE-2024-2 --project shop --until 2026-12-30 --reason '…'
deny web gate/severity: secret/aws-key (high): a key of AWS, /root/.aws/credentials
  change it, for it is known; build with RUN --mount=type=secret (layer 1: RUN apt-get install -y openssl)
deny web gate/severity: CVE-2024-3 (high) in curl 7.88
  upgrade curl to 7.88-2
`,
		},
		{
			name: "fixable leaves out what nobody can mend, and no secret; fresh ones only warn",
			in:   policy.Input{Gates: []policy.Gate{{Deny: tender.High, Fixable: true, Grace: 7 * day}}, Services: []policy.Service{web(policy.Image{Scan: scanned(all...)})}},
			want: `
deny web gate/severity: DSA-1 (critical 9.8) in libssl3 3.0.11-1
  upgrade openssl to 3.0.15-1 (layer 1: RUN apt-get install -y openssl)
deny web gate/severity: secret/aws-key (high): a key of AWS, /root/.aws/credentials
  change it, for it is known; build with RUN --mount=type=secret (layer 1: RUN apt-get install -y openssl)
warn web gate/severity: CVE-2024-3 (high) in curl 7.88; published 2 days ago, denies from 2026-12-05 on
  upgrade curl to 7.88-2
`,
		},
		{
			name: "of two gates each must hold: the stricter wins for every finding",
			in: policy.Input{
				Gates:    []policy.Gate{{Deny: tender.High, Fixable: true, Grace: 7 * day}, {Deny: tender.High, Fixable: true}},
				Services: []policy.Service{web(policy.Image{Scan: scanned(zlib, curl)})},
			},
			want: `
deny web gate/severity: CVE-2024-3 (high) in curl 7.88
  upgrade curl to 7.88-2
`,
		},
		{
			name: "what was not scanned is denied, once for two services of one image",
			in: policy.Input{Gates: []policy.Gate{{Deny: tender.High}}, Services: []policy.Service{
				web(policy.Image{}), {Name: "worker", Image: policy.Image{Reference: "registry.company.com/shop/web:1.4.2", Digest: "sha256:1"}},
			}},
			want: `
deny web+worker gate/scan: it is not scanned yet
  tender image scan registry.company.com/shop/web:1.4.2
`,
		},
		{
			name: "a scan may be too old",
			in: policy.Input{Gates: []policy.Gate{{Deny: tender.High, ScanAge: 7 * day}, {ScanAge: time.Hour}}, Services: []policy.Service{
				web(policy.Image{Scan: scanned()}),
			}},
			want: `
deny web gate/scan: its scan is 3 hours old, more than 1 hour
  tender image scan registry.company.com/shop/web:1.4.2
`,
		},
		{
			name: "an image that is not here is asked for its name alone",
			in: policy.Input{
				Gates:    []policy.Gate{{Deny: tender.High, Sign: []string{"release"}, Registries: []string{"docker.io/library"}}},
				Services: []policy.Service{web(policy.Image{Absent: true})},
			},
			want: `
deny web gate/registry: it comes from registry.company.com/shop/web, which is not among the allowed: docker.io/library
  push it to one of these, or allow it under registries: in tender.yaml
warn web gate/scan: it is not here yet: up asks again when it is
  tender pull web
`,
		},
		{
			name: "each named key must have signed",
			in: policy.Input{
				Gates:    []policy.Gate{{Sign: []string{"team"}}, {Sign: []string{"release", "team"}}},
				Services: []policy.Service{web(policy.Image{Signers: []string{"team"}}), {Name: "db", Image: policy.Image{Reference: "postgres:15"}}},
			},
			want: `
deny web gate/signature: the key release did not sign it, only team
  tender image sign registry.company.com/shop/web:1.4.2 --key release
deny db gate/signature: nobody can say whether the key team signed it
  tender image sign postgres:15 --key team
deny db gate/signature: nobody can say whether the key release signed it
  tender image sign postgres:15 --key release
`,
		},
		{
			name: "only what was promoted to the step may run there",
			in: policy.Input{
				Environment: "production", Gates: []policy.Gate{{}, {From: "staging"}},
				Services: []policy.Service{web(policy.Image{Promoted: []string{"dev", "staging"}}), {Name: "ok", Image: policy.Image{Reference: "ok", Digest: "sha256:2", Promoted: []string{"production"}}}},
			},
			want: `
deny web gate/promotion: it was not promoted to production: to dev, staging only
  tender image promote registry.company.com/shop/web:1.4.2 --to production
`,
		},
		{
			name: "a promotion asks for the step before, and what was never pushed cannot be promoted",
			in: policy.Input{
				Promote: true, Environment: "production", Gates: []policy.Gate{{From: "staging"}},
				Services: []policy.Service{
					{Image: policy.Image{Reference: "a", Digest: "sha256:2", Promoted: []string{"staging"}}},
					{Image: policy.Image{Reference: "b", Digest: "sha256:2", Promoted: []string{}}},
					{Image: policy.Image{Reference: "c"}},
				},
			},
			want: `
deny  gate/promotion: it was not promoted to staging: to no step
  tender image promote b --to staging
deny  gate/promotion: it has no digest, for it was never pushed, and so it was not promoted to staging
  tender image build --push, or docker push; then tender image promote c --to staging
`,
		},
		{
			name: "a gate that wants promoted images alone asks so of what runs, and not of what is promoted",
			in: policy.Input{
				Gates:    []policy.Gate{{Promoted: true}},
				Services: []policy.Service{web(policy.Image{Promoted: []string{"dev"}})},
			},
			want: `
deny web gate/promotion: its project names no step of the pipeline that it could have been promoted to
  x-tender: {environment: NAME} in its Compose file
`,
		},
		{
			name: "rules about services are not asked of a promotion, those about images are",
			in: policy.Input{
				Promote: true, Environment: "dev",
				Gates: []policy.Gate{{Promoted: true, Rules: rules(
					t, policy.Rule{Name: "limited", Expr: "service.mem_limit > 0"}, policy.Rule{Name: "both", Expr: `service.user != "" || image.user != ""`},
					policy.Rule{Name: "each", Expr: "[service].all(s, s.read_only)"}, policy.Rule{Name: "tagged", Expr: `image.tag != "latest"`},
				)}},
				Services: []policy.Service{{Image: policy.Image{Reference: "a", Digest: "sha256:2", Promoted: []string{}}}},
			},
			want: `
deny  tagged: it is false: image.tag != "latest"
`,
		},
		{
			name: "images have an age, and those that do not say it are old",
			in: policy.Input{Gates: []policy.Gate{{BaseAge: 90 * day}, {BaseAge: 30 * day}}, Services: []policy.Service{
				web(policy.Image{Created: now.Add(-40 * day)}), {Name: "old", Image: policy.Image{Reference: "nix", Created: time.Unix(0, 0)}},
			}},
			want: `
deny web gate/age: it was built 40 days ago, more than 30 days
  build it anew on a fresh base: tender build --pull
deny old gate/age: it does not say when it was built, as images do that are made to be the same each time
  build it with SOURCE_DATE_EPOCH of its commit
`,
		},
		{
			name: "references are read as Docker reads them",
			in: policy.Input{Gates: []policy.Gate{{Registries: []string{"docker.io/library", "registry.company.com"}}}, Services: []policy.Service{
				{Name: "a", Image: policy.Image{Reference: "nginx"}},
				{Name: "b", Image: policy.Image{Reference: "index.docker.io/library/nginx:1"}},
				{Name: "c", Image: policy.Image{Reference: "registry.company.com/x@sha256:" + strings.Repeat("a", 64)}},
				{Name: "d", Image: policy.Image{Reference: "shop/web"}},
				{Name: "e", Image: policy.Image{Reference: "docker.io/librarymen/x"}},
				{Name: "f", Image: policy.Image{Reference: "registry.company.com.evil.io/x"}},
				{Name: "g", Image: policy.Image{Reference: "registry.company.com:5000/x"}},
			}},
			want: `
deny d gate/registry: it comes from docker.io/shop/web, which is not among the allowed: docker.io/library, registry.company.com
  push it to one of these, or allow it under registries: in tender.yaml
deny e gate/registry: it comes from docker.io/librarymen/x, which is not among the allowed: docker.io/library, registry.company.com
  push it to one of these, or allow it under registries: in tender.yaml
deny f gate/registry: it comes from registry.company.com.evil.io/x, which is not among the allowed: docker.io/library, registry.company.com
  push it to one of these, or allow it under registries: in tender.yaml
deny g gate/registry: it comes from registry.company.com:5000/x, which is not among the allowed: docker.io/library, registry.company.com
  push it to one of these, or allow it under registries: in tender.yaml
`,
		},
		{
			name: "waivers hold within their scope until they end, by an alias too",
			in: policy.Input{
				Project: "shop", Gates: []policy.Gate{{Deny: tender.High, Sign: []string{"release"}}},
				Services: []policy.Service{web(policy.Image{Scan: scanned(openssl, curl, zlib), Signers: []string{}})},
				Waivers: []tender.Waiver{
					{ID: 1, Finding: "cve-2024-1", Scope: "shop/web", By: "ann", Until: now.Add(day)},
					{ID: 2, Finding: "CVE-2024-3", Scope: "shop", By: "ann", Until: now.Add(-4 * day)},
					{ID: 3, Finding: "CVE-2024-3", Scope: "registry.company.com/shop/web", By: "ann", Until: now.Add(-2 * day)},
					{ID: 4, Finding: "CVE-2024-2", Scope: "other", By: "bob", Until: now.Add(day)},
					{ID: 5, Finding: "CVE-2024-2", Scope: "shop/db", By: "bob", Until: now.Add(day)},
					{ID: 6, Finding: "gate/signature", By: "bob", Until: now.Add(9 * day)},
				},
			},
			want: `
deny web gate/severity: CVE-2024-3 (high) in curl 7.88; waiver 3 by ann expired 2 days ago
  upgrade curl to 7.88-2
deny web gate/severity: CVE-2024-2 (high) in zlib1g 1.2.13, not fixed yet
  do without it (layer 0: ADD rootfs.tar /), or tender policy waive CVE-2024-2 --project shop --until 2026-12-30 --reason '…'
waived by ann until 2026-12-01 web gate/severity: DSA-1 (critical 9.8) in libssl3 3.0.11-1
  upgrade openssl to 3.0.15-1 (layer 1: RUN apt-get install -y openssl)
waived by bob until 2026-12-09 web gate/signature: the key release did not sign it
  tender image sign registry.company.com/shop/web:1.4.2 --key release
`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.in.Now = now
			if d := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), print(policy.Check(tt.in))); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestRulesAskImageAndService(t *testing.T) {
	all := rules(
		t,
		policy.Rule{Name: "no-privileged", Expr: `!service.privileged`, Why: "it is privileged", Fix: "drop privileged:"},
		policy.Rule{Name: "owner", Expr: `"owner" in service.labels && service.labels.owner != ""`, Why: "nobody owns it", Warn: true},
		policy.Rule{Name: "team", Expr: `service.labels.team == "x"`},
		policy.Rule{Name: "high-ports", Expr: `service.ports.all(p, p.published == 0 || p.published >= 1024)`},
		policy.Rule{Name: "socket", Expr: `!service.volumes.exists(v, v.source == "/var/run/docker.sock")`, Why: "it mounts the engine's socket"},
		policy.Rule{Name: "tag", Expr: `image.tag != "latest" || image.digest != "" && environment != "production"`, Why: "latest is no version"},
		policy.Rule{Name: "official", Expr: `image.registry == "docker.io" && image.repository.startsWith("library/")`},
		policy.Rule{Name: "young", Expr: `image.age < duration("720h")`},
		policy.Rule{Name: "no-rce", Expr: `!image.findings.exists(f, f.severity == "critical" && f.score > 9.0)`, Why: "it may be taken over from afar"},
	)
	in := policy.Input{Now: now, Environment: "production", Gates: []policy.Gate{{Rules: all}}, Services: []policy.Service{{
		Name: "web", Image: policy.Image{Reference: "nginx", Created: now.Add(-31 * day), Scan: scanned(openssl)},
		Fields: policy.Fields{
			Privileged: true, Labels: map[string]string{"a": "b"}, Ports: []policy.Port{{Published: 80}},
			Volumes: []policy.Volume{{Type: "bind", Source: "/var/run/docker.sock"}},
		},
	}}, Waivers: []tender.Waiver{{ID: 1, Finding: "young", By: "ann", Until: now.Add(day)}}}
	want := `deny web no-privileged: it is privileged
  drop privileged:
deny web team: service.labels.team == "x" cannot be answered: no such key: team
  ask with has(…) first for what may be missing
deny web high-ports: it is false: service.ports.all(p, p.published == 0 || p.published >= 1024)
deny web socket: it mounts the engine's socket
deny web tag: latest is no version
deny web no-rce: it may be taken over from afar
warn web owner: nobody owns it
waived by ann until 2026-12-01 web young: it is false: image.age < duration("720h")
`
	if d := cmp.Diff(want, print(policy.Check(in))); d != "" {
		t.Error(d)
	}
	in.Services[0].Image.Scan = nil
	if got := print(policy.Check(in)); !strings.Contains(got, "gate/scan: it is not scanned yet") || strings.Contains(got, "no-rce") {
		t.Errorf("a rule about findings of what was not scanned: %s", got)
	}
	if scan, signers, promoted := in.Gates[0].Needs(); !scan || signers || promoted {
		t.Errorf("the rules need a scan alone: %t %t %t", scan, signers, promoted)
	}
	in.Services[0].Image.Absent = true
	if got := print(policy.Check(in)); !strings.Contains(got, "warn web young: its image is not here yet") || !strings.Contains(got, "deny web no-privileged") {
		t.Errorf("an image that is not here: %s", got)
	}
}

func TestExpressionsAreRefusedWithTheirPlace(t *testing.T) {
	for expr, want := range map[string]string{
		`!service.privileged &&`:       `1:23: Syntax error: mismatched input '<EOF>'`,
		`service.priviledged`:          `1:8: undefined field 'priviledged', did you mean 'privileged'?`,
		"true &&\n  image.usr == \"\"": `2:8: undefined field 'usr', did you mean 'user'?`,
		`service.ports[0].pub == 1`:    `1:17: undefined field 'pub'`,
		`service.name`:                 `1:1: it is string, and must be true or false`,
		`service.replicas == "two"`:    `1:18: found no matching overload for '_==_'`,
		`nothing`:                      `1:1: undeclared reference to 'nothing'`,
		``:                             `1:1: it is empty`,
	} {
		var c policy.Compiler
		if _, err := c.Compile(policy.Rule{Expr: expr}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", expr, err, want)
		}
	}
}

func TestARuleMayNotCostTooMuch(t *testing.T) {
	names := make([]string, 200)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	r := rules(t, policy.Rule{Name: "slow", Expr: `service.command.all(a, service.command.all(b, service.command.all(c, service.command.all(d, a + b + c + d != "x"))))`})
	got := print(policy.Check(policy.Input{Now: now, Gates: []policy.Gate{{Rules: r}}, Services: []policy.Service{{Name: "web", Fields: policy.Fields{Command: names}}}}))
	if !strings.Contains(got, "actual cost limit exceeded") {
		t.Error(got)
	}
}

func TestRegistriesAreHostsWithPaths(t *testing.T) {
	for entry, want := range map[string]string{
		"registry.company.com": "", "docker.io/library": "", "docker.io": "", "localhost:5000": "", "localhost": "",
		"library":             "does not begin with a registry's host",
		"index.docker.io/x":   "is not a host with a path as Docker reads it",
		"docker.io/Library/x": "is not a host with a path",
		"a.io/x:1":            "is not a host with a path",
	} {
		if err := policy.CheckRegistry(entry); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", entry, err, want)
		}
	}
}

// Of two gates the one that denies wins, whichever is asked first.
func TestARuleThatWarnsDoesNotHideOneThatDenies(t *testing.T) {
	rule := policy.Rule{Name: "limited", Expr: `service.mem_limit > 0`, Why: "it has no limit"}
	soft := rule
	soft.Warn = true
	warns, denies := policy.Gate{Rules: rules(t, soft)}, policy.Gate{Rules: rules(t, rule)}
	for _, gates := range [][]policy.Gate{{warns, denies}, {denies, warns}} {
		got := print(policy.Check(policy.Input{Now: now, Gates: gates, Services: []policy.Service{{Name: "web", Image: policy.Image{Reference: "nginx"}}}}))
		if want := "deny web limited: it has no limit\n"; got != want {
			t.Errorf("got %swant %s", got, want)
		}
	}
}

// What is asked of an image in a roundabout way is asked all the same.
func TestARuleThatReadsTheImageByAnotherName(t *testing.T) {
	all := rules(t, policy.Rule{Name: "no-rce", Expr: `[image].all(i, i.findings.size() == 0)`}, policy.Rule{Name: "whole", Expr: `image == image`})
	for _, r := range all {
		scan, signers, promoted := policy.Gate{Rules: []policy.Rule{r}}.Needs()
		if !scan || !signers || !promoted {
			t.Errorf("%s needs %t %t %t", r.Expr, scan, signers, promoted)
		}
	}
	in := policy.Input{Now: now, Gates: []policy.Gate{{Rules: all[:1]}}, Services: []policy.Service{{Name: "web", Image: policy.Image{Reference: "nginx"}}}}
	if got := print(policy.Check(in)); !strings.HasPrefix(got, "deny web gate/scan: it is not scanned yet") {
		t.Errorf("what nobody has scanned: %s", got)
	}
	in.Services[0].Image.Absent = true
	if got := print(policy.Check(in)); !strings.Contains(got, "warn web no-rce: its image is not here yet") {
		t.Errorf("what is not here: %s", got)
	}
}

// One that says to come from tomorrow would never be old.
func TestImagesOfTheFuture(t *testing.T) {
	in := policy.Input{
		Now: now, Gates: []policy.Gate{{BaseAge: 30 * day, Rules: rules(t, policy.Rule{Name: "young", Expr: `image.age < duration("720h")`, Why: "it is old"})}},
		Services: []policy.Service{web(policy.Image{Created: time.Date(2099, 1, 2, 0, 0, 0, 0, time.UTC)})},
	}
	want := `deny web gate/age: it says that it was built on 2099-01-02, which is to come
  build it with SOURCE_DATE_EPOCH of its commit
deny web young: it is old
`
	if d := cmp.Diff(want, print(policy.Check(in))); d != "" {
		t.Error(d)
	}
	in.Services[0].Image.Created = now.Add(time.Hour) // a clock that is a little ahead
	if got := print(policy.Check(in)); got != "" {
		t.Errorf("built an hour ahead: %s", got)
	}
	f := curl
	f.Published = now.Add(90 * day)
	in = policy.Input{Now: now, Gates: []policy.Gate{{Deny: tender.High}}, Services: []policy.Service{web(policy.Image{Scan: scanned(f)})}}
	if got := print(policy.Check(in)); !strings.HasPrefix(got, "deny web gate/severity") {
		t.Errorf("an advisory of the future, without grace: %s", got)
	}
}

// An ID names no registry, though it reads as if it came from Docker Hub.
func TestAnImageByItsID(t *testing.T) {
	id := "sha256:4bcff63911fc" + strings.Repeat("0", 52)
	gates := []policy.Gate{{Registries: []string{"docker.io/library"}}}
	for ref, denied := range map[string]bool{"4bcff63911fc": true, id: true, "sha256:4bcff6": true, "4b": true, "docker.io/library/4b": false, "nginx": false, "4c": false} {
		all := policy.Check(policy.Input{Now: now, Gates: gates, Services: []policy.Service{{Name: "web", Image: policy.Image{Reference: ref, ID: id}}}})
		if policy.Denied(all) > 0 != denied {
			t.Errorf("%s: %s", ref, print(all))
		}
	}
	// Before it is here, its form alone tells.
	all := policy.Check(policy.Input{Now: now, Gates: gates, Services: []policy.Service{{Name: "web", Image: policy.Image{Reference: "sha256:4bcff6", Absent: true}}}})
	if policy.Denied(all) != 1 {
		t.Errorf("absent: %s", print(all))
	}
}

// A waiver of one tag would be one of all of them.
func TestAScopeIsAWholeRepository(t *testing.T) {
	for ref, want := range map[string]string{
		"nginx": "docker.io/library/nginx", "registry.company.com:5000/db": "registry.company.com:5000/db",
		"registry.company.com/db:1.2": "", "nginx@sha256:" + strings.Repeat("a", 64): "", "A b": "",
	} {
		if got, err := policy.Repository(ref); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", ref, got, err)
		}
	}
}

// Whether there is a healthcheck may be the image's to say.
func TestAHealthcheckOfAnImageThatIsNotHere(t *testing.T) {
	in := policy.Input{Now: now, Gates: []policy.Gate{{Rules: rules(t, policy.Rule{Name: "checked", Expr: `service.healthcheck`})}}, Services: []policy.Service{
		{Name: "web", Image: policy.Image{Reference: "nginx", Absent: true}},
	}}
	if got := print(policy.Check(in)); !strings.HasPrefix(got, "warn web checked: its image is not here yet") {
		t.Error(got)
	}
	in.Services[0].Healthcheck = true
	if got := print(policy.Check(in)); got != "" {
		t.Error(got)
	}
}

// Through a volume of type image anything could run that no registry allowed.
func TestImagesThatAreMounted(t *testing.T) {
	in := policy.Input{
		Now: now, Gates: []policy.Gate{{Registries: []string{"docker.io/library"}, Rules: rules(
			t, policy.Rule{Name: "no-latest", Expr: `image.tag != "latest"`, Why: "latest is no version"}, policy.Rule{Name: "owner", Expr: `"owner" in service.labels`, Why: "nobody owns it", Warn: true},
		)}},
		Services: []policy.Service{{Name: "web", Image: policy.Image{Reference: "nginx:1"}, Mounts: []policy.Image{{Reference: "shop/tools"}}}},
	}
	want := `deny web gate/registry: it comes from docker.io/shop/tools, which is not among the allowed: docker.io/library
  push it to one of these, or allow it under registries: in tender.yaml
deny web no-latest: latest is no version
warn web owner: nobody owns it
`
	if d := cmp.Diff(want, print(policy.Check(in))); d != "" {
		t.Error(d)
	}
}
