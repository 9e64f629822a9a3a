package collect

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender/internal/logs"
)

// sink keeps rows as text, by stream.
type sink struct {
	mu   sync.Mutex
	rows []string
	come chan struct{}
}

func (s *sink) Append(_ context.Context, b logs.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range strings.Split(strings.TrimSpace(show(b.Rows)), "\n") {
		s.rows = append(s.rows, b.Labels.Get("service")+"/"+b.Labels.Get("instance")+" "+line)
	}
	close(s.come)
	s.come = make(chan struct{})
	return nil
}

func (s *sink) Last(string) (logs.Place, bool) { return logs.Place{}, false }

func (s *sink) await(t *testing.T, n int) []string {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		s.mu.Lock()
		rows, come := slices.Clone(s.rows), s.come
		s.mu.Unlock()
		if len(rows) >= n {
			slices.Sort(rows)
			return rows
		}
		select {
		case <-come:
		case <-deadline:
			t.Fatalf("got %q", rows)
		}
	}
}

func outsideOf(t testing.TB) (*Collector, *sink) {
	t.Helper()
	s := &sink{come: make(chan struct{})}
	c, err := New(Options{Store: s, Dir: filepath.Join(t.TempDir(), "collect")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return c, s
}

// heavy notes how large batches are.
type heavy struct {
	sink
	most int
}

func (h *heavy) Append(ctx context.Context, b logs.Batch) error {
	n := 0
	for i := range b.Rows {
		n += len(b.Rows[i].Text(nil))
	}
	h.mu.Lock()
	h.most = max(h.most, n)
	h.mu.Unlock()
	return h.sink.Append(ctx, b)
}

// However large what others send is, so much of it waits, and the store refuses none
// of it for its size.
func TestWhatWaitsIsBoundedInBytes(t *testing.T) {
	s := &heavy{sink: sink{come: make(chan struct{})}}
	c, err := New(Options{Store: s, Dir: filepath.Join(t.TempDir(), "collect")})
	if err != nil {
		t.Fatal(err)
	}
	e := entry{labels: c.outside("syslog", "", "app", ""), time: 1, text: strings.Repeat("x", 1<<20)}
	n := 0
	for c.offer(e) {
		n++
	}
	if n != intakeBytes>>20 {
		t.Errorf("%d MiB wait", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Run(ctx)
	}()
	if err := c.put(t.Context(), e); err != nil { // once there is room again
		t.Fatal(err)
	}
	s.await(t, n+1)
	cancel()
	<-done
	if s.most > intakeAtOnce+1<<20 {
		t.Errorf("a batch has %d bytes", s.most)
	}
}

func TestSyslogMessages(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 5, 0, 0, time.UTC)
	for in, want := range map[string]syslogMessage{
		`<165>1 2026-01-01T00:00:00.003Z web.example.com shop 8710 ID47 [origin ip="1.2.3.4" x="a\"b\]"][m@1 n="2"] ` + "\ufeffit works": {
			message: "it works", time: now.Add(-5*time.Minute + 3*time.Millisecond), level: "info", facility: "local4", host: "web.example.com", app: "shop", pid: "8710", id: "ID47",
			data: []logs.Field{{Name: "origin.ip", Value: "1.2.3.4"}, {Name: "origin.x", Value: `a"b]`}, {Name: "m@1.n", Value: "2"}},
		},
		`<34>1 - - - - - - x`:                        {message: "x", time: now, level: "critical", facility: "auth"},
		`<13>Dec 31 23:59:58 db postgres[77]: ready`: {message: "ready", time: time.Date(2025, 12, 31, 23, 59, 58, 0, time.Local), level: "info", facility: "user", host: "db", app: "postgres", pid: "77"},
		`<11>cron: no stamp`:                         {message: "no stamp", time: now, level: "error", facility: "user", app: "cron"},
		`no syslog at all`:                           {message: "no syslog at all", time: now},
		`<999>x`:                                     {message: "<999>x", time: now},
	} {
		want.text = in
		got := readSyslog(in, now)
		if !got.time.Equal(want.time) {
			t.Errorf("%s: time %s, want %s", in, got.time, want.time)
		}
		got.time = want.time
		if d := cmp.Diff(want, got, cmp.AllowUnexported(syslogMessage{})); d != "" {
			t.Errorf("%s:\n%s", in, d)
		}
	}
}

// Whoever speaks one of these protocols today can send here.
func TestOthersSendOverTheirOwnProtocols(t *testing.T) {
	c, s := outsideOf(t)
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	dial := func(protocol string) net.Conn {
		address := free()
		work.Go(func() {
			if err := c.Listen(ctx, protocol, address); err != nil {
				t.Errorf("%s: %v", protocol, err)
			}
		})
		for {
			if conn, err := net.Dial("tcp", address); err == nil {
				t.Cleanup(func() { conn.Close() }) // one that nobody holds is closed at any time
				return conn
			}
		}
	}
	send := func(conn net.Conn, b string) {
		if _, err := io.WriteString(conn, b); err != nil {
			t.Error(err)
		}
	}
	syslog := dial("syslog")
	send(syslog, "<11>1 - h1 app1 - - - one\n26 <12>1 - h1 app1 - - - two\n")
	gelf := dial("gelf")
	send(gelf, `{"version":"1.1","host":"h2","short_message":"three","level":3,"_user_id":7,"_service":"app2"}`+"\x00")
	fluent := dial("fluent")
	record := "\x82\xa3log\xa5four\n\xaecontainer_name\xa3/c1"
	packed := "\x92\xd7\x00" + string(binary.BigEndian.AppendUint32(nil, uint32(time.Now().Unix()))) + "\x00\x00\x00\x00" + "\x81\xa1n\x05"
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	io.WriteString(z, packed)
	z.Close()
	send(fluent, "\x93\xa4app3\xce\x00\x00\x00\x00"+record)
	send(fluent, "\x93\xa4app3\xc4"+string([]byte{byte(zipped.Len())})+zipped.String()+"\x82\xaacompressed\xa4gzip\xa5chunk\xa2c1")
	ack := make([]byte, 10)
	if _, err := io.ReadFull(fluent, ack); err != nil || string(ack) != "\x81\xa3ack\xda\x00\x02c1" {
		t.Errorf("ack %q, %v", ack, err)
	}

	post := func(h http.Handler, path, kind, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	otlp := `{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"app4"}},{"key":"host.name","value":{"stringValue":"h4"}}]},
		"scopeLogs":[{"logRecords":[{"severityNumber":17,"body":{"stringValue":"five"},"attributes":[{"key":"n","value":{"intValue":"5"}}],"traceId":"abcd"}]}]}]}`
	if w := post(c.OTLP(), "/v1/logs", "application/json", otlp); w.Code != 200 || w.Body.String() != "{}" {
		t.Errorf("OTLP JSON: %d %s", w.Code, w.Body)
	}
	// The same in protobuf, as the exporter of OpenTelemetry's Go SDK writes it.
	tag := func(n int, b string) string { return string([]byte{byte(n<<3 | 2), byte(len(b))}) + b }
	value := tag(1, "six")
	request := tag(1, tag(1, tag(1, tag(1, "service.name")+tag(2, tag(1, "app5"))))+
		tag(2, tag(2, "\x10\x09"+tag(3, "WARN")+tag(5, value)+tag(6, tag(1, "k")+tag(2, "\x18\x07"))+tag(9, "\xab\xcd"))))
	if w := post(c.OTLP(), "/v1/logs", "application/x-protobuf", request); w.Code != 200 || w.Body.Len() != 0 {
		t.Errorf("OTLP protobuf: %d %s", w.Code, w.Body)
	}
	w := post(c.Bulk(), "/_bulk", "application/x-ndjson", `{"create":{"_index":"app6"}}
{"message":"seven","log":{"level":"error"},"host":{"name":"h6"}}
{"delete":{"_index":"app6","_id":"1"}}
{"index":{"_index":"app6"}}
{"broken"
`)
	var answer struct {
		Errors bool
		Items  []map[string]struct{ Status int }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || !answer.Errors || len(answer.Items) != 3 ||
		answer.Items[0]["create"].Status != 201 || answer.Items[1]["delete"].Status != 400 || answer.Items[2]["index"].Status != 400 {
		t.Errorf("bulk: %d %s", w.Code, w.Body)
	}
	if w.Header().Get("X-Elastic-Product") != "Elasticsearch" {
		t.Error("clients of Elasticsearch refuse who does not say that it is one")
	}

	got := strings.Join(s.await(t, 8), "\n")
	want := strings.Join([]string{
		`app1/h1 "<11>1 - h1 app1 - - - one" message="one" level="error" facility="user" detected_level="error"`,
		`app1/h1 "<12>1 - h1 app1 - - - two\n" message="two" level="warn" facility="user" detected_level="warn"`,
		`app2/h2 "{\"level\":\"error\",\"message\":\"three\",\"service\":\"app2\",\"user_id\":7}" level="error" message="three" service_extracted="app2" user_id="7" detected_level="error"`,
		`app3/127.0.0.1 "{\"n\":5}" n="5"`,
		`app3/c1 "{\"container_name\":\"/c1\",\"message\":\"four\"}" container_name="/c1" message="four"`,
		`app4/h4 "five" level="error" trace_id="abcd" n="5" host.name="h4" service.name="app4" detected_level="error"`,
		`app5/ "six" level="warn" trace_id="abcd" k="7" service.name="app5" detected_level="warn"`,
		`app6/h6 "{\"message\":\"seven\",\"log\":{\"level\":\"error\"},\"host\":{\"name\":\"h6\"}}" message="seven" log.level="error" host.name="h6" level="error" detected_level="error"`,
	}, "\n")
	if d := cmp.Diff(strings.ReplaceAll(want, `two\n"`, `two"`), got); d != "" {
		t.Error(d)
	}
}

func TestChunksOfGELFComeTogether(t *testing.T) {
	var c chunked
	now := time.Now()
	chunk := func(id string, n, count int, text string) []byte {
		return append(append([]byte{0x1e, 0x0f}, id...), append([]byte{byte(n), byte(count)}, text...)...)
	}
	if _, ok := c.add(chunk("12345678", 1, 2, "b"), now); ok {
		t.Error("half a message is taken for a whole one")
	}
	if b, ok := c.add(chunk("12345678", 0, 2, "a"), now); !ok || string(b) != "ab" {
		t.Errorf("got %q", b)
	}
	for i := range 2 * maxUnfinished {
		c.add(chunk(fmt.Sprintf("%08d", i), 0, 2, "a"), now)
	}
	if len(c.open) != maxUnfinished {
		t.Errorf("%d messages wait", len(c.open))
	}
	c.add(chunk("87654321", 0, 2, "a"), now.Add(time.Minute))
	if len(c.open) != 1 {
		t.Errorf("%d messages wait long after", len(c.open))
	}
}

func TestTheDaemonsOwnLogIsKept(t *testing.T) {
	c, s := outsideOf(t)
	var out bytes.Buffer
	log := slog.New(NewOwn(slog.NewTextHandler(&out, nil), func() *Collector { return c })).With("part", "api")
	log.Error("it broke", "err", io.EOF)
	c.Audit(time.Now(), map[string]string{"who": "root", "what": "up"})
	rows := strings.Join(s.await(t, 2), "\n")
	for _, want := range []string{`audit/audit "{\"what\":\"up\",\"who\":\"root\"}" what="up" who="root"`, `part="api"`, `err="EOF"`, `detected_level="error"`, `message="it broke"`} {
		if !strings.Contains(rows, want) {
			t.Errorf("no %s in\n%s", want, rows)
		}
	}
	if !strings.Contains(out.String(), "it broke") {
		t.Error("the log itself has lost it")
	}
}

// A line that was escaped in memory which the next one took lost its end.
func TestEntriesOfOneBatchDoNotShareMemory(t *testing.T) {
	p := newParser(&rules{single: true}, map[string]bool{})
	var list []entry
	for i := range 200 {
		list = append(list, entry{text: fmt.Sprintf(`{"n":%d,"a":"x\ny","b":["%d"]}`, i, i)})
	}
	for i, r := range p.entries(list) {
		if got := string(r.Text(nil)); got != list[i].text || find(r.Fields, "n") != fmt.Sprint(i) || find(r.Fields, "a") != "x\ny" {
			t.Fatalf("entry %d is %s, want %s", i, got, list[i].text)
		}
	}
}

func FuzzOutside(f *testing.F) {
	f.Add([]byte(`<165>1 2026-01-01T00:00:00Z h a 1 i [x y="z"] m`), uint8(0))
	f.Add([]byte(`{"short_message":"x","_a":{"b":1}}`), uint8(1))
	f.Add([]byte("\x93\xa1a\xce\x00\x00\x00\x00\x81\xa1b\x93\x01\xc0\xd7\x00\x00\x00\x00\x00\x00\x00\x00\x00"), uint8(2))
	f.Add([]byte("\x0a\x10\x12\x0e\x12\x0c\x2a\x0a\x0a\x08abcdefgh"), uint8(3))
	f.Add([]byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"kvlistValue":{"values":[{"key":"a"}]}}}]}]}]}`), uint8(4))
	f.Add([]byte("12 <1>a b: ccc\n<2>x\n"), uint8(5))
	gelf, _ := base64.StdEncoding.DecodeString("eJyrVkrOzy0oSi0uTk1RsqoFAC8vBdE=")
	f.Add(gelf, uint8(1))
	c, err := New(Options{Store: &sink{come: make(chan struct{})}, Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	p := newParser(&rules{single: true}, map[string]bool{})
	f.Fuzz(func(t *testing.T, in []byte, kind uint8) {
		now := time.Now()
		var list []entry
		switch kind % 6 {
		case 0:
			list = append(list, c.syslog(in, "h", now))
		case 1:
			if e, err := c.readGELF(in, "h", now); err == nil {
				list = append(list, e)
			}
		case 2:
			d := msgpack{r: bufio.NewReader(bytes.NewReader(in)), left: 1 << 20}
			if v, err := d.value(0); err == nil {
				list, _, _ = c.readForward(v, "h", now)
			}
		case 3, 4:
			records, err := readOTLP(in)
			if kind%6 == 4 {
				records, err = readOTLPJSON(in)
			}
			for _, x := range records {
				if err == nil {
					list = append(list, c.otlpEntry(x, now))
				}
			}
		case 5:
			_ = eachSyslog(bufio.NewReader(bytes.NewReader(in)), func(b []byte) error {
				list = append(list, c.syslog(b, "h", now))
				return nil
			})
		}
		for i, r := range p.entries(list) {
			if got := string(r.Text(nil)); got != list[i].text && strings.TrimSuffix(list[i].text, "\r") != got {
				t.Fatalf("the text %q became %q", list[i].text, got)
			}
		}
	})
}

// A container's own labels may be of any size; those of a stream may not.
func TestConstantLabelsAreBounded(t *testing.T) {
	attrs := map[string]string{}
	for i := range 1000 {
		attrs[fmt.Sprintf("label%03d", i)] = strings.Repeat("x", 1<<16)
	}
	got, _ := labelsOf(Identity{Project: "shop", Service: "web"}, attrs)
	if len(got) != maxLabels+2 || len(got.Get("label000")) != maxLabel || got.Get("service") != "web" {
		t.Errorf("%d labels, one of %d bytes", len(got), len(got.Get("label000")))
	}
}
