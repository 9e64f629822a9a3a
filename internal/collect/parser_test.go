package collect

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 123456789, time.UTC)

// record is a line as the engine writes it: with HTML escaped, as encoding/json does.
func record(text, stream string, at time.Time) string {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"log":%s,"stream":"%s","time":"%s"}`+"\n", b, stream, at.Format(time.RFC3339Nano))
}

func recordsOf(texts ...string) string {
	var b strings.Builder
	for i, t := range texts {
		b.WriteString(record(t+"\n", "stdout", noon.Add(time.Duration(i)*time.Microsecond)))
	}
	return b.String()
}

func parserOf(t testing.TB, l tender.Logs, labels ...string) *parser {
	t.Helper()
	r, err := newRules(l)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, n := range append(labels, "project", "service", "revision", "instance", "node", "stream") {
		names[n] = true
	}
	return newParser(r, names)
}

// show prints rows: the text, and the fields that searches find.
func show(list []logs.Row) string {
	var b strings.Builder
	for _, r := range list {
		fmt.Fprintf(&b, "%q", r.Text(nil))
		if r.Stderr {
			b.WriteString(" stderr")
		}
		seen := map[string]bool{}
		for _, f := range r.Fields {
			if seen[f.Name] || f.Name == rawField || f.Name == "message" && f.Value == string(r.Text(nil)) {
				continue
			}
			seen[f.Name] = true
			fmt.Fprintf(&b, " %s=%q", f.Name, f.Value)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestLines(t *testing.T) {
	for _, c := range []struct {
		name string
		set  tender.Logs
		in   []string
		want string
	}{
		{
			"JSON gives its fields, those that would be labels under another name",
			tender.Logs{},
			[]string{`{"level":"INFO","service":"user-service","message":"ok","user_id":"12345","n":1.5,"yes":true,"no":null}`},
			`"{\"level\":\"INFO\",\"service\":\"user-service\",\"message\":\"ok\",\"user_id\":\"12345\",\"n\":1.5,\"yes\":true,\"no\":null}" level="INFO" service_extracted="user-service" message="ok" user_id="12345" n="1.5" yes="true" detected_level="info"` + "\n",
		},
		{
			"values with escapes mean what they stand for",
			tender.Logs{},
			[]string{`{"msg":"say \"hi\"\n<b> \u00e9 \\","a":{"b":"x","c":[1,"two"]},"lvl":50}`},
			`"{\"msg\":\"say \\\"hi\\\"\\n<b> \\u00e9 \\\\\",\"a\":{\"b\":\"x\",\"c\":[1,\"two\"]},\"lvl\":50}" a.b="x" a.c="[1,\"two\"]" lvl="50" msg="say \"hi\"\n<b> é \\" level="error" detected_level="error" message="say \"hi\"\n<b> é \\"` + "\n",
		},
		{
			"logfmt where a key shows it",
			tender.Logs{},
			[]string{`level=warn msg="disk \"a\" full" traceId=abc`, `a=b c=d`, `just text = no`},
			`"level=warn msg=\"disk \\\"a\\\" full\" traceId=abc" level="warn" traceId="abc" msg="disk \"a\" full" detected_level="warn" message="disk \"a\" full" trace_id="abc"` + "\n" +
				`"a=b c=d"` + "\n" + `"just text = no"` + "\n",
		},
		{
			"access logs",
			tender.Logs{},
			[]string{`10.0.0.1 - bob [22/Nov/2026:12:00:00 +0000] "GET /a?b=c HTTP/1.1" 200 512 "http://x/" "curl/8"`, `::1 - - [22/Nov/2026:12:00:00 +0000] "-" 400 -`},
			`"10.0.0.1 - bob [22/Nov/2026:12:00:00 +0000] \"GET /a?b=c HTTP/1.1\" 200 512 \"http://x/\" \"curl/8\"" client="10.0.0.1" user="bob" time="22/Nov/2026:12:00:00 +0000" method="GET" path="/a?b=c" protocol="HTTP/1.1" status="200" size="512" referer="http://x/" agent="curl/8"` + "\n" +
				`"::1 - - [22/Nov/2026:12:00:00 +0000] \"-\" 400 -" client="::1" time="22/Nov/2026:12:00:00 +0000" status="400"` + "\n",
		},
		{
			"levels of plain lines",
			tender.Logs{},
			[]string{"2026-11-22 12:00:00,123 ERROR worker died", "[warn] slow", "I1129 22:30:00.000000 1 a.go:1] up", "WARNING:root:x", "errors are fun", "GET /error"},
			`"2026-11-22 12:00:00,123 ERROR worker died" level="error" detected_level="error"` + "\n" + `"[warn] slow" level="warn" detected_level="warn"` + "\n" +
				`"I1129 22:30:00.000000 1 a.go:1] up" level="info" detected_level="info"` + "\n" + `"WARNING:root:x" level="warn" detected_level="warn"` + "\n" + `"errors are fun"` + "\n" + `"GET /error"` + "\n",
		},
		{
			"colours stay in the text and are no part of what is searched",
			tender.Logs{},
			[]string{"\x1b[31mERROR\x1b[0m red", "\x1b[32mlevel\x1b[0m=info msg=hi"},
			`"\x1b[31mERROR\x1b[0m red" message="ERROR red" level="error" detected_level="error"` + "\n" + `"\x1b[32mlevel\x1b[0m=info msg=hi" level="info" msg="hi" detected_level="info" message="hi"` + "\n",
		},
		{
			"what is almost JSON is text",
			tender.Logs{},
			[]string{`{"a":1`, `{"a":1} tail`, `{}`, `{"a" : 1 }`, "{\"a\":\t1}", `{a:1}`},
			`"{\"a\":1"` + "\n" + `"{\"a\":1} tail"` + "\n" + `"{}"` + "\n" + `"{\"a\" : 1 }" a="1"` + "\n" + `"{\"a\":\t1}" a="1"` + "\n" + `"{a:1}"` + "\n",
		},
		{
			"stack traces are one entry",
			tender.Logs{},
			[]string{
				"ERROR boom", "java.lang.IllegalStateException: no", "\tat a.B.c(B.java:1)", "Caused by: x.Y: z", "\t... 12 more", "next",
				"panic: oh", "", "goroutine 1 [running]:", "main.main()", "\t/app/main.go:3 +0x1d", "exit status 2", "after",
				"/app/x.js:3", "    throw new Error('no')", "    ^", "", "Error: no", "    at run (/app/x.js:3:9)", "", "Node.js v20.1.0", "end",
			},
			`"ERROR boom\njava.lang.IllegalStateException: no\n\tat a.B.c(B.java:1)\nCaused by: x.Y: z\n\t... 12 more" level="error" detected_level="error"` + "\n" + `"next"` + "\n" +
				`"panic: oh\n\ngoroutine 1 [running]:\nmain.main()\n\t/app/main.go:3 +0x1d\nexit status 2" level="fatal" detected_level="fatal"` + "\n" + `"after"` + "\n" +
				`"/app/x.js:3\n    throw new Error('no')\n    ^\n\nError: no\n    at run (/app/x.js:3:9)\n\nNode.js v20.1.0"` + "\n" + `"end"` + "\n",
		},
		{
			"rules: drop, keep, rename, add, parse, redact",
			tender.Logs{
				Drop: []tender.LogMatch{{Text: "^debug"}, {Fields: map[string]string{"who": "root"}}}, Keep: []tender.LogMatch{{Text: "o"}},
				Rename: map[string]string{"ms": "duration"}, Add: map[string]string{"team": "core"},
				Parse: []string{`took %{NUMBER:ms}ms for %{WORD:who}`}, Redact: []string{"email", "card", "token", `pin=(\d+)`},
			},
			[]string{"debug o", "no match here?", "took 12.5ms for bob", "took 1ms for root", "to bob@example.com card 4111 1111 1111 1111 not 1234567890123", `{"password":"hunter2","a":"o"}`, "pin=123 o"},
			`"no match here?" team="core"` + "\n" + `"took 12.5ms for bob" duration="12.5" who="bob" team="core"` + "\n" +
				`"to [email] card [card] not 1234567890123" team="core"` + "\n" + `"{\"password\":\"[token]\",\"a\":\"o\"}" password="[token]" a="o" team="core"` + "\n" + `"pin=[redacted] o" team="core"` + "\n",
		},
		{
			"multiline by the user's own rule",
			tender.Logs{Multiline: `^\[`},
			[]string{"[1] a", "b", "[2] c"},
			`"[1] a\nb"` + "\n" + `"[2] c"` + "\n",
		},
		{
			"multiline off",
			tender.Logs{Multiline: "off", Format: "plain"},
			[]string{"a", "\tat b", `{"x":1}`},
			`"a"` + "\n" + `"\tat b"` + "\n" + `"{\"x\":1}"` + "\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := parserOf(t, c.set)
			p.block([]byte(recordsOf(c.in...)), true)
			if d := cmp.Diff(c.want, show(p.rows.list)); d != "" {
				t.Error(d)
			}
		})
	}
}

// The engine cuts lines at 16 KB: they come back whole, and what is longer than
// an entry may be is cut and says so.
func TestPartsMustComeBackWhole(t *testing.T) {
	long := `{"msg":"` + strings.Repeat("x", 40_000) + `","n":1}`
	in := record(long[:16384], "stdout", noon) + record("other\n", "stderr", noon) + record(long[16384:32768], "stdout", noon) + record(long[32768:]+"\n", "stdout", noon) + record("last", "stdout", noon)
	p := parserOf(t, tender.Logs{})
	if used, waits := p.block([]byte(in), false); !waits || used >= len(in) {
		t.Errorf("used %d of %d, waits %v", used, len(in), waits)
	}
	if len(p.rows.list) != 2 || string(p.rows.list[0].Text(nil)) != long || find(p.rows.list[0].Fields, "n") != "1" {
		t.Errorf("got %d rows", len(p.rows.list))
	}
	p.block([]byte(in), true)
	if n := len(p.rows.list); n != 3 || string(p.rows.list[2].Text(nil)) != "last" {
		t.Errorf("got %d rows at the end", n)
	}

	var b strings.Builder
	for range 70 {
		b.WriteString(record(strings.Repeat("y", 16384), "stdout", noon))
	}
	b.WriteString(record("z\n", "stdout", noon))
	total, rest := 0, []byte(b.String())
	for i := range 3 {
		used, _ := p.block(rest, i == 2)
		rest, p.goes = rest[used:], p.after
		for _, r := range p.rows.list {
			total += len(r.Text(nil))
			if cut := find(r.Fields, cutField) == "true"; cut != (len(r.Text(nil)) > maxEntry) {
				t.Errorf("an entry of %d bytes: cut %v", len(r.Text(nil)), cut)
			}
		}
	}
	if total != 70*16384+1 || len(rest) != 0 {
		t.Errorf("got %d bytes, %d are left", total, len(rest))
	}
}

// The first piece of a line that is too long decides for all of them, wherever a block
// ends: the rules were not asked about it, and what came behind it was taken for a line of its own.
func TestPiecesOfOneLineMustGoTheSameWay(t *testing.T) {
	line := func(first, stream string) string {
		var b strings.Builder
		b.WriteString(record(first+strings.Repeat("y", 16384-len(first)), stream, noon))
		for range 140 {
			b.WriteString(record(strings.Repeat("z", 16384), stream, noon))
		}
		b.WriteString(record("end\n", stream, noon))
		return b.String()
	}
	in := recordsOf("one") + line("drop", "stdout") + recordsOf("two") + line("keep", "stderr") + line("drop", "stderr") + recordsOf("three")
	for name, set := range map[string]tender.Logs{
		"drop": {Drop: []tender.LogMatch{{Text: "^(drop|end)"}}},
		"keep": {Keep: []tender.LogMatch{{Text: "^(keep|one|two|three)"}}},
	} {
		for _, step := range []int{len(in), 3 << 20, 1 << 20, 100_000} {
			p := parserOf(t, set)
			var got []string
			for rest, n := in, step; rest != ""; {
				n = min(n, len(rest))
				used, _ := p.block([]byte(rest[:n]), n == len(rest))
				for _, r := range p.rows.list {
					text := string(r.Text(nil))
					got = append(got, fmt.Sprintf("%.5s %d", text, len(text)))
				}
				if rest, p.goes = rest[used:], p.after; used == 0 {
					n += step
				} else {
					n = step
				}
			}
			want := []string{"one 3", "two 3", "keepy 1064960", "zzzzz 1064960", "zzzzz 180227", "three 5"}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s, %d bytes at once (-want +got)\n%s", name, step, d)
			}
		}
	}
}

// As printed the chapter's logger raises: its traceback is one entry. Repaired,
// every field of it is found.
func TestTheChaptersLogger(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here: the logger's real output cannot be made")
	}
	source, err := os.ReadFile("testdata/structured_logging.py")
	if err != nil {
		t.Fatal(err)
	}
	run := func(source string) []logs.Row {
		cmd := exec.Command(python, "-W", "ignore", "-c", source)
		cmd.Env = append(os.Environ(), "HOSTNAME=web-1", "APP_VERSION=1.2.3")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		p := parserOf(t, tender.Logs{})
		p.block([]byte(recordsOf(strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")...)), true)
		return p.rows.list
	}
	broken := run(string(source))
	if len(broken) != 1 {
		t.Fatalf("the traceback makes %d entries:\n%s", len(broken), show(broken))
	}
	if text := string(broken[0].Text(nil)); !strings.Contains(text, "AttributeError") || !strings.HasSuffix(text, "Arguments: ()") {
		t.Errorf("got %s", text)
	}
	fixed := strings.ReplaceAll(string(source), "'service': self.service_name", "'service': record.name")
	fixed = strings.Replace(fixed, "import json", "import json, os", 1)
	fine := run(fixed)
	if len(fine) != 1 {
		t.Fatalf("got %s", show(fine))
	}
	for name, want := range map[string]string{
		"level": "INFO", "detected_level": "info", "service_extracted": "user-service", "message": "User login successful",
		"container_id": "web-1", "version": "1.2.3", "user_id": "12345",
	} {
		if got := find(fine[0].Fields, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestOwnTimes(t *testing.T) {
	p := parserOf(t, tender.Logs{Zone: "Europe/Berlin"})
	for in, want := range map[string]time.Time{
		`{"time":"2026-11-22T11:59:59.5Z"}`:                      noon.Truncate(time.Second).Add(-500 * time.Millisecond),
		`{"ts":"2026-11-22 12:30:00,250"}`:                       noon.Truncate(time.Second).Add(-30*time.Minute + 250*time.Millisecond),
		`{"ts":1795348790}`:                                      time.Unix(1795348790, 0).UTC(),
		`{"ts":1795348790123.5}`:                                 time.Unix(1795348790, 123_500_000).UTC(),
		`{"timestamp":"2026-11-22T12:00:00Z"}`:                   noon, // as exact as it is, the engine's says the same
		`{"timestamp":"2026-11-21T12:00:00Z"}`:                   noon, // a day ago: not believed
		`{"timestamp":"2026-11-22T12:02:00Z"}`:                   noon,
		`{"timestamp":"2026-11-22T12:00:30Z"}`:                   noon.Truncate(time.Second).Add(30 * time.Second),
		`{"timestamp":"soon"}`:                                   noon,
		`1.1.1.1 - - [22/Nov/2026:11:59:58 +0000] "-" 400 -`:     noon.Truncate(time.Second).Add(-2 * time.Second),
		`{"timestamp":"2026-11-22T13:00:00.123456789012+01:00"}`: noon,
	} {
		p.block([]byte(recordsOf(in)), true)
		if got := time.Unix(0, p.rows.list[0].Time).UTC(); !got.Equal(want) {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// Whatever is written: the text comes back byte for byte, and where the block is
// cut changes nothing.
func FuzzBlock(f *testing.F) {
	f.Add("{\"a\":\"b\\n\\u0041\\\"\"}\n\x00\x1b[1mx\nlevel=info a=\"\\x\"\n", "Traceback (most recent call last):\n  x\nE: y\n", uint16(7))
	f.Add(`{"a":{"b":[1,{"c":"\\"}]},"d":null,"e":"<>"}`+"\n", "1.2.3.4 - - [x] \"GET / H\" 200 1\n", uint16(99))
	f.Add("{\"\\u0000\":1}\n{\"a\\\"b\":\"\\u00e9\"}\n", "\tat x\n", uint16(1))
	f.Fuzz(func(t *testing.T, one, two string, cut uint16) {
		var in strings.Builder
		want := map[bool]string{}
		a, b := strings.SplitAfter(strings.ToValidUTF8(one, "?"), "\n"), strings.SplitAfter(strings.ToValidUTF8(two, "?"), "\n")
		for i := range max(len(a), len(b)) {
			for n, list := range [][]string{a, b} {
				if i >= len(list) || !strings.HasSuffix(list[i], "\n") {
					continue
				}
				text := strings.TrimRight(list[i], "\r\n") + "\n"
				in.WriteString(record(text, []string{"stdout", "stderr"}[n], noon))
				want[n == 1] += text
			}
		}
		got := map[bool]string{}
		rest := in.String()
		p := parserOf(t, tender.Logs{})
		for first := true; ; first = false {
			data, last := rest, true
			if first && int(cut) < len(rest) {
				data, last = rest[:cut], false
			}
			used, _ := p.block([]byte(data), last)
			if used > len(data) {
				t.Fatalf("used %d of %d", used, len(data))
			}
			for _, r := range p.rows.list {
				got[r.Stderr] += string(r.Text(nil)) + "\n"
			}
			if rest = rest[used:]; last {
				break
			}
		}
		for _, stream := range []bool{false, true} {
			if got[stream] != want[stream] {
				t.Fatalf("stderr %v: got %q, want %q", stream, got[stream], want[stream])
			}
		}
	})
}

// Bytes that no engine wrote must not end the daemon.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"log":"x\n","stream":"stdout","attrs":{"a":"b"},"time":"2026-11-22T12:00:00Z"}` + "\n" + `{"log":"torn{"log":"x\n","stream":"stderr","time":"2026-11-22T12:00:00Z"}`))
	f.Add([]byte(`{"log":"{\"a\":\"\\`))
	f.Add([]byte(`{"log":"{\"a\":\"\\\"}\n","stream":"stdout","time":"2026-11-22T12:00:00.00000000000000Z"}` + "\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		p := parserOf(t, tender.Logs{Redact: []string{"email", "token", "card"}, Parse: []string{"%{SYSLOGLINE}"}})
		used, _ := p.block(in, false)
		if used < 0 || used > len(in) {
			t.Fatalf("used %d of %d", used, len(in))
		}
		p.block(in[used:], true)
		for _, r := range p.rows.list {
			r.Text(nil)
		}
	})
}

func BenchmarkBlock(b *testing.B) {
	var in strings.Builder
	for i := range 1000 {
		in.WriteString(record(fmt.Sprintf(`{"timestamp":"2026-11-22T12:00:00.%06dZ","level":"INFO","service":"user-service","message":"request served in some time","container_id":"4bf7a3e65e55","version":"1.4.2","user_id":"%d","path":"/api/v1/items/%d","status":200,"duration_ms":%d}`, i, i, i*7, i%300)+"\n", "stdout", noon.Add(time.Duration(i)*time.Microsecond)))
	}
	data := []byte(in.String())
	p := parserOf(b, tender.Logs{})
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		p.block(data, true)
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds()/1e6, "Mlines/s")
}

func BenchmarkPlain(b *testing.B) {
	var in strings.Builder
	for i := range 1000 {
		in.WriteString(record(fmt.Sprintf("2026-11-22 12:00:00,%03d INFO worker-%d finished the job %d of the queue in %d ms, nothing is left to do for it", i, i%8, i*31, i%300)+"\n", "stdout", noon.Add(time.Duration(i)*time.Microsecond)))
	}
	data := []byte(in.String())
	p := parserOf(b, tender.Logs{})
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		p.block(data, true)
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds()/1e6, "Mlines/s")
}

// What must not be kept is found however JSON spells it, and in what is too long for
// one entry, too.
func TestNothingIsRedactedByItsSpellingAlone(t *testing.T) {
	p := parserOf(t, tender.Logs{Redact: []string{"email", "token", "Müller"}})
	in := recordsOf(
		`{"msg":"from ann\u0040example.com","k":"a\\u0040b.cc"}`,
		`{"authorization":"Bearer ab\/cd\/efghijkl","who":"Max M\u00fcller \ud83d\ude00"}`,
		`{"msg":"caf\u00e9 \/ nothing"}`,
		`GET / Authorization: Basic b3BhcXVlOnNlc2FtZQ== curl`,
	)
	p.block([]byte(in), true)
	all := show(p.rows.list)
	for _, secret := range []string{"ann", "ab/cd", "efghijkl", "Müller", `M\u00fcller`, "u00fcller", "b3BhcX"} {
		if strings.Contains(all, secret) {
			t.Errorf("%q is kept: %s", secret, all)
		}
	}
	if got := string(p.rows.list[2].Text(nil)); got != `{"msg":"caf\u00e9 \/ nothing"}` {
		t.Errorf("without anything to redact: %s", got)
	}
	p = parserOf(t, tender.Logs{Redact: []string{"pin=([0-9]+)"}})
	p.block([]byte(record("pin=123456 "+strings.Repeat("x ", maxEntry/2), "stdout", noon)+record("y", "stdout", noon)+record("\n", "stdout", noon)), true)
	if text := string(p.rows.list[0].Text(nil)); find(p.rows.list[0].Fields, cutField) != "true" || strings.Contains(text, "123456") {
		t.Errorf("of a line that is cut is kept: %.99s", text)
	}
}
