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

func loadLogs(t *testing.T, body string) (compose.Document, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte("name: shop\nservices:\n  web:\n    image: x\n"+body), 0o600); err != nil {
		t.Fatal(err)
	}
	return compose.Load(t.Context(), compose.Source{Dir: dir})
}

func TestLogsAreReadAsWritten(t *testing.T) {
	d, err := loadLogs(t, `    logging: {options: {labels: "service=myapp,a.b,tier=back", max-file: "1"}}
    x-tender:
      logs:
        format: json
        drop: ['^GET /health', {level: debug, path: /a.*}]
        keep: x
        sample: 10%
        redact: [email, card, token, 'pin=(\d+)']
        add: {team: core, on: true}
        rename: {ms: duration}
        parse: '%{COMBINEDAPACHELOG}'
        zone: Europe/Berlin
        multiline: off
        labels: {tier: front}
        retain: {age: 14d, size: 2GiB}
`)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, w := range d.Warnings {
		told = append(told, w.String())
	}
	if text := strings.Join(told, "\n"); len(told) != 2 || !strings.Contains(text, "constant label") || !strings.Contains(text, "give 2 or more") {
		t.Errorf("warnings:\n%s", text)
	}
	p, err := compose.Parse([]byte(d.YAML))
	if err != nil {
		t.Fatal(err)
	}
	got, err := compose.Logs(p.Services[0].Spec)
	if err != nil {
		t.Fatal(err)
	}
	want := tender.Logs{
		Format: "json", Drop: []tender.LogMatch{{Text: "^GET /health"}, {Fields: map[string]string{"level": "debug", "path": "/a.*"}}}, Keep: []tender.LogMatch{{Text: "x"}},
		Sample: .1, Redact: []string{"email", "card", "token", `pin=(\d+)`}, Add: map[string]string{"team": "core", "on": "true"}, Rename: map[string]string{"ms": "duration"},
		Parse: []string{"%{COMBINEDAPACHELOG}"}, Zone: "Europe/Berlin", Multiline: "off", Labels: map[string]string{"tier": "front", "service": "myapp"},
		RetainAge: 14 * 24 * time.Hour, RetainSize: 2 << 30,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// How logs are read makes no other revision.
func TestLogsRestartNothing(t *testing.T) {
	spec := func(body string) []byte {
		d, err := loadLogs(t, body)
		if err != nil {
			t.Fatal(err)
		}
		p, err := compose.Parse([]byte(d.YAML))
		if err != nil {
			t.Fatal(err)
		}
		return p.Services[0].Spec
	}
	if !compose.Same(spec(""), spec("    x-tender: {logs: {format: json, redact: [email]}}\n")) {
		t.Error("logs alone make another revision")
	}
}

func TestWrongLogsAreRefusedWithTheirLine(t *testing.T) {
	for body, want := range map[string]string{
		`{formt: json}`:            `compose.yaml:5:23: services.web.x-tender.logs: unknown key "formt", did you mean "format"?`,
		`{format: jsno}`:           `compose.yaml:5:31: services.web.x-tender.logs.format: "jsno": want auto, json, logfmt, access or plain, did you mean "json"?`,
		`{drop: "("}`:              "want a regular expression",
		`{drop: [{level: "("}]}`:   "want a regular expression",
		`{sample: 120%}`:           "want a share such as 1%",
		`{redact: [emial]}`:        `want email, card, token or a regular expression, did you mean "email"?`,
		`{zone: Mars/Base}`:        "want the name of a time zone",
		`{retain: 14}`:             "want text: put it in quotes",
		`{retain: forever}`:        "want an age such as 14d or 36h",
		`{retain: {size: plenty}}`: "want a size such as 10MB",
		`[json]`:                   "want a mapping",
	} {
		if _, err := loadLogs(t, "    x-tender: {logs: "+body+"}\n"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", body, err, want)
		}
	}
}
