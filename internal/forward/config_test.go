package forward

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
)

func TestWhatIsWrittenWronglyIsRefusedWithItsPlace(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`[]`, `1:1: sinks is not a mapping | see docs/sinks.md`},
		{`es: {}`, `1:5: sinks.es has no kind | say what it is: elasticsearch, loki, opensearch, otlp, s3, syslog, webhook`},
		{`Es: {loki: {url: "https://x"}}`, `1:1: "Es" is no name for a sink | call it something like es or my-loki`},
		{"es:\n  loki: {url: 'https://x'}\n  otlp: {url: 'https://x'}", `2:3: sinks.es is both loki and otlp | give the second a name of its own under sinks:`},
		{`es: {elasticsearch: {urll: "https://x"}}`, `1:21: sinks.es.elasticsearch has no url | add, for example: url: https://es:9200`},
		{`es: {elasticsearch: {url: "https://x", keyy: x}}`, `1:40: unknown key "sinks.es.elasticsearch.keyy" | known here: fields, index, key, numbers, password, pipeline, tls, url, user`},
		{`es: {elasticsearch: {url: "https://x", key: s3cret}}`, `1:45: sinks.es.elasticsearch.key: secrets are named here, never written | keep the value in the vault (tender secret set NAME) and write key: {secret: NAME}`},
		{`es: {elasticsearch: {url: "https://u:p@x"}}`, `1:27: sinks.es.elasticsearch.url: secrets are named here, never written | take them out of the address: user: NAME and password: {secret: NAME}`},
		{`es: {elasticsearch: {url: "http://x:9200"}}`, `1:27: sinks.es.elasticsearch.url: to x:9200 logs would cross the network in the clear | use https://, or say that it may be: tls: {insecure: true}`},
		{`es: {elasticsearch: {url: "https://x", user: u}}`, `1:21: sinks.es.elasticsearch: user and password go together | give user: NAME and password: {secret: NAME}`},
		{`es: {elasticsearch: {url: "https://x", index: "Logs-{service}"}}`, `1:47: sinks.es.elasticsearch.index: "Logs-{service}" is no name of a data stream | write it like logs-{service}-{project}, in lower case`},
		{`es: {elasticsearch: {url: "https://x", index: "logs-{servce}"}}`, `1:47: sinks.es.elasticsearch.index: "logs-{servce}" is no name of a data stream | write it like logs-{service}-{project}, in lower case`},
		{`es: {elasticsearch: {url: "https://x", fields: other}}`, `1:48: sinks.es.elasticsearch.fields: "other" is not known | it may be ecs or stored`},
		{`es: {loki: {url: "https://x"}, from: yesterday}`, `1:38: sinks.es.from: "yesterday" is not known | oldest: all that is kept; now: what comes from now on`},
		{`es: {loki: {url: "https://x"}, match: {project: shop}}`, `1:40: unknown key "sinks.es.match.project" | known here: projects, services`},
		{`es: {loki: {url: "https://x"}, match: {projects: []}}`, `1:50: sinks.es.match.projects is empty | leave it out for all`},
		{`es: {loki: {url: "https://x"}, batch: {size: 1GB}}`, `1:46: sinks.es.batch.size: "1GB" is no such size | from 64KiB to 64MiB`},
		{`es: {loki: {url: "https://x"}, batch: {wait: soon}}`, `1:46: sinks.es.batch.wait: "soon" is no such time | from 10ms to 1h0m0s`},
		{`es: {loki: {url: "https://x", tls: {ca: /nowhere/ca.pem}}}`, `1:41: sinks.es.loki.tls.ca: open /nowhere/ca.pem: no such file or directory | name a file with certificates in PEM`},
		{`es: {loki: {url: "https://x", tls: {insecure: yes}}}`, `1:47: sinks.es.loki.tls.insecure: "yes" is not known | true or false`},
		{`es: {syslog: {url: "udp://x:514"}}`, `1:20: sinks.es.syslog.url: "udp://x:514" is no address | write it like tls://logs.example.com:6514`},
		{`es: {syslog: {url: "tls://x"}}`, `1:20: sinks.es.syslog.url: want a host and a port | write it like tls://logs.example.com:6514`},
		{`es: {s3: {bucket: b}}`, `1:10: sinks.es.s3 has no key | keep ACCESS:SECRET in the vault (tender secret set s3) and add: key: {secret: s3}`},
		{`es: {webhook: {url: "https://x"}, webhook: {url: "https://y"}}`, `1:35: sinks.es.webhook is there twice | keep one of them`},
	} {
		_, err := parseText(c.text)
		if err == nil {
			t.Errorf("%s was taken", c.text)
			continue
		}
		got := err.Error() + " | " + tender.AdviceOf(err)
		if got != c.want || tender.KindOf(err) != tender.Invalid {
			t.Errorf("%s:\n got %s (%s)\nwant %s", c.text, got, tender.KindOf(err), c.want)
		}
	}
}

func TestWhatIsWrittenWellIsTaken(t *testing.T) {
	configs := parse(t, `
es: {elasticsearch: {url: "https://es:9200", key: {secret: es}}}
os: {opensearch: {url: ["https://a:9200", "https://b:9200"], user: tender, password: {secret: os}, tls: {insecure: true}}, from: now}
hook: {webhook: {url: "https://example.com/in?token=x", sign: {secret: sign}}, match: {projects: shop, services: [web, api]}, batch: {size: 100kB, wait: 5s}}
archive: {s3: {bucket: logs, key: {secret: s3}}}
`)
	var got []string
	for _, c := range configs {
		got = append(got, strings.Join([]string{c.Name, c.Kind, c.Where, strings.Join(c.Secrets, "+"), c.Wait.String()}, " "))
	}
	want := []string{
		"es elasticsearch es:9200/logs-{service}-{project} es 1s",
		"os opensearch a:9200,b:9200/logs-{service}-{project} os 1s",
		"hook webhook example.com/in sign 5s",
		"archive s3 s3.amazonaws.com/logs/logs s3 5m0s",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sinks (-want +got):\n%s", diff)
	}
	if !configs[1].FromNow || configs[0].FromNow || configs[2].Size != 100<<10 || configs[2].Request != 100<<10 {
		t.Errorf("settings: %+v", configs)
	}
}

// What the page for users says to paste is taken.
func TestThePageForUsersIsTaken(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "sinks.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for part := range strings.SplitSeq(string(page), "```yaml\nsinks:\n") {
		text, _, ok := strings.Cut(part, "```")
		if !ok || !strings.HasPrefix(text, "  ") {
			continue
		}
		text = strings.ReplaceAll(text, "ca: /etc/tender/", "server_name_of_the_page: /etc/tender/")
		text = strings.ReplaceAll(text, "tls: {server_name_of_the_page: /etc/tender/ca.pem}", "tls: {}")
		configs, err := parseText(text)
		if err != nil {
			t.Errorf("%v\n%s", err, text)
		}
		for _, c := range configs {
			found[c.Kind] = true
		}
	}
	for kind := range kinds {
		if !found[kind] {
			t.Errorf("docs/sinks.md has nothing to paste for %s", kind)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{es: {elasticsearch: {url: "https://es:9200", key: {secret: es}}}}`)
	f.Add(`{a: {s3: {bucket: b, key: {secret: s3}}, match: {projects: [a]}, batch: {wait: 1s, size: 1MiB}}}`)
	f.Add("a: &x {syslog: {url: tls://x:1}}\nb: *x")
	f.Fuzz(func(t *testing.T, text string) {
		if configs, err := parseText(text); err == nil {
			for _, c := range configs {
				if c.Kind == "" || c.Where == "" || c.Size <= 0 {
					t.Errorf("%q gave %+v", text, c)
				}
			}
		}
	})
}

// Whatever a program wrote, what is sent stays well-formed.
func FuzzEncode(f *testing.F) {
	f.Add("text", "name", "value")
	f.Add("\xff\x00\u2028\"", "a..b", "\\")
	f.Fuzz(func(t *testing.T, text, name, value string) {
		r := row{stream: &stream{labels: web, key: web.String()}, time: begin.UnixNano(), text: []byte(text), place: "1.0"}
		r.fields = append(r.fields, labelsOf(name, value)...)
		var o object
		plainJSON(&o, &r)
		decode(t, o.dst)
		for _, ecs := range []bool{true, false} {
			e := &elastic{index: "logs-{service}-{project}", ecs: ecs, numbers: map[string]bool{name: true}}
			body := e.encode(nil, &r)
			if n := strings.Count(string(body), "\n"); n != 2 {
				t.Errorf("%d lines: %q", n, body)
			}
			doc := []byte(e.text(body))
			decode(t, doc)
			if err := noDuplicates(doc); err != nil {
				t.Errorf("%v: %s", err, doc)
			}
		}
		if m := (&syslog{facility: 16}).encode(nil, &r); !rfc5424.MatchString(strings.SplitN(string(m), " ", 2)[1]) {
			t.Errorf("message %q", m)
		}
		if got := (&loki{labels: []string{"service"}}).encode(nil, &r); protoFind(got, 2) != strings.ToValidUTF8(text, "\uFFFD") {
			t.Errorf("Loki gets %q", got)
		}
	})
}
