package alert_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/alert"
)

// world is the other side of every kind of receiver: one server that tells them
// apart by the path, one for mail, and a way to hosts that a kind has fixed.
type world struct {
	web, tls, proxy *httptest.Server
	mail            net.Listener

	mu  sync.Mutex
	got map[string][]string // what came, by kind
	ill bool                // all is refused
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{got: map[string][]string{}}
	w.web, w.tls = httptest.NewServer(w), httptest.NewTLSServer(w)
	w.proxy = httptest.NewServer(http.HandlerFunc(w.connect))
	var err error
	if w.mail, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := w.mail.Accept()
			if err != nil {
				return
			}
			go w.smtp(c)
		}
	}()
	t.Cleanup(func() {
		w.mail.Close()
		w.web.Close()
		w.tls.Close()
		w.proxy.Close()
	})
	return w
}

func (w *world) note(kind, text string) (ill bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got[kind] = append(w.got[kind], text)
	return w.ill
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	kind := strings.Split(r.URL.Path, "/")[1]
	if r.Host == "api.pushover.net" {
		kind = "pushover"
	}
	text := string(b)
	if form, err := url.ParseQuery(text); err == nil && kind == "sns" {
		text = fmt.Sprint(form)
	}
	if w.note(kind, fmt.Sprint(r.URL.Path, " ", r.URL.Query(), " ", r.Header.Get("Authorization"), " ", text)) {
		http.Error(rw, "the room is full", http.StatusBadRequest)
		return
	}
	switch kind {
	case "pagerduty", "opsgenie":
		rw.WriteHeader(http.StatusAccepted)
	case "slack":
		_, _ = io.WriteString(rw, "ok")
	case "telegram":
		rw.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(rw, `{"ok":true,"result":{"message_id":1,"date":1,"chat":{"id":7,"type":"group"}}}`)
	case "discord":
		rw.WriteHeader(http.StatusNoContent)
	case "sns":
		rw.Header().Set("Content-Type", "text/xml")
		_, _ = io.WriteString(rw, `<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult><MessageId>m-1</MessageId></PublishResult><ResponseMetadata><RequestId>r-1</RequestId></ResponseMetadata></PublishResponse>`)
	}
}

// connect is a proxy that leads everywhere to us.
func (w *world) connect(rw http.ResponseWriter, r *http.Request) {
	to, err := net.Dial("tcp", strings.TrimPrefix(w.tls.URL, "https://"))
	if err != nil || r.Method != http.MethodConnect {
		http.Error(rw, "no way", http.StatusBadGateway)
		return
	}
	defer to.Close()
	from, buffered, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		return
	}
	defer from.Close()
	_, _ = io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		_, _ = io.Copy(to, buffered)
		to.Close()
	}()
	_, _ = io.Copy(from, to)
}

func (w *world) smtp(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	say := func(line string) { _, _ = io.WriteString(c, line+"\r\n") }
	say("220 mail.test ESMTP")
	var all strings.Builder
	for data := false; ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		all.WriteString(line)
		switch verb := strings.ToUpper(line); {
		case data && line == ".\r\n":
			data = false
			if w.note("email", all.String()) {
				say("554 the room is full")
				continue
			}
			say("250 taken")
		case data:
		case strings.HasPrefix(verb, "DATA"):
			data = true
			say("354 go on")
		case strings.HasPrefix(verb, "QUIT"):
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

// config has one receiver with an integration of each kind; keys lie in files
// where the kind can read them there.
func (w *world) config(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	put("house.tmpl", `{{ define "house" }}{{ range .Alerts }}{{ .Labels.alertname }} of {{ .Labels.service }}: {{ .Annotations.summary }}{{ end }}{{ end }}`)
	return put("alertmanager.yml", strings.NewReplacer(
		"WEB", w.web.URL, "PROXY", w.proxy.URL, "MAIL", w.mail.Addr().String(),
		"SLACK", put("slack", w.web.URL+"/slack"), "PAGER", put("pager", "routing-key"), "OPSGENIE", put("opsgenie", "genie-key"), "TELEGRAM", put("telegram", "T0KEN"),
		"TEAMS", put("teams", w.web.URL+"/teams"),
	).Replace(`
templates: ['*.tmpl']
route: {receiver: all, group_by: [alertname], `+quick+`}
receivers:
- name: all
  webhook_configs: [{url: 'WEB/webhook'}]
  email_configs: [{to: ops@test, from: tender@test, smarthost: 'MAIL', hello: here.test, require_tls: false, text: '{{ template "house" . }}', html: ''}]
  slack_configs: [{api_url_file: SLACK, channel: '#ops', text: '{{ template "house" . }}'}]
  pagerduty_configs: [{routing_key_file: PAGER, url: 'WEB/pagerduty', description: '{{ template "house" . }}'}]
  opsgenie_configs: [{api_key_file: OPSGENIE, api_url: 'WEB/opsgenie/', message: '{{ template "house" . }}'}]
  telegram_configs: [{bot_token_file: TELEGRAM, api_url: 'WEB/telegram', chat_id: 7, message: '{{ template "house" . }}'}]
  discord_configs: [{webhook_url: 'WEB/discord', message: '{{ template "house" . }}'}]
  msteams_configs: [{webhook_url_file: TEAMS, text: '{{ template "house" . }}'}]
  msteamsv2_configs: [{webhook_url: 'WEB/teams2', text: '{{ template "house" . }}'}]
  pushover_configs: [{user_key: u, token: t, message: '{{ template "house" . }}', http_config: {proxy_url: 'PROXY', tls_config: {insecure_skip_verify: true}}}]
  sns_configs: [{api_url: 'WEB/sns', sigv4: {region: eu-1, access_key: k, secret_key: s}, topic_arn: 'arn:aws:sns:eu-1:1:ops', message: '{{ template "house" . }}'}]
`))
}

// kinds with what must be in what they send, beside the message.
var kinds = map[string][]string{
	"webhook": {`"receiver":"all"`}, "email": {"RCPT TO:<ops@test>", "From: tender@test"}, "slack": {"#ops"}, "pagerduty": {"routing-key", `"event_action":"trigger"`},
	"opsgenie": {"/opsgenie/v2/alerts", "GenieKey genie-key"}, "telegram": {"/telegram/botT0KEN/sendMessage", `"chat_id":"7"`}, "discord": {"embeds"},
	"teams": {"themeColor"}, "teams2": {"AdaptiveCard"}, "pushover": {"token", "user"}, "sns": {"arn:aws:sns:eu-1:1:ops", "AWS4-HMAC-SHA256"},
}

func (w *world) missing(name string) (out []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for kind, want := range kinds {
		if !slices.ContainsFunc(w.got[kind], func(text string) bool {
			return strings.Contains(text, name) && !slices.ContainsFunc(want, func(part string) bool { return !strings.Contains(text, part) })
		}) {
			out = append(out, fmt.Sprintf("%s: %q", kind, w.got[kind]))
		}
	}
	return out
}

// Each kind of receiver delivers, what fires and a sample; what it is refused is said.
func TestEveryKindOfReceiverDelivers(t *testing.T) {
	w := newWorld(t)
	r := room(t, alert.Options{})
	if err := r.Load(w.config(t)); err != nil {
		t.Fatal(err)
	}
	put(t, r, fires("DiskFull"))
	for deadline := time.Now().Add(patience); len(w.missing("DiskFull")) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not delivered: %s", strings.Join(w.missing("DiskFull"), "\n"))
		}
	}
	tries, err := r.Test(t.Context(), "all", alert.Sample(time.Now()))
	if err != nil || len(tries) != len(kinds) {
		t.Fatalf("%+v, %v", tries, err)
	}
	for _, try := range tries {
		if try.Error != "" || try.Receiver != "all" {
			t.Errorf("%+v", try)
		}
	}
	if missing := w.missing("TenderTest"); len(missing) > 0 {
		t.Errorf("not delivered: %s", strings.Join(missing, "\n"))
	}
	w.mu.Lock()
	w.ill = true
	w.mu.Unlock()
	tries, err = r.Test(t.Context(), "", alert.Sample(time.Now()))
	if err != nil || len(tries) != len(kinds) {
		t.Fatalf("%+v, %v", tries, err)
	}
	for _, try := range tries {
		if try.Error == "" {
			t.Errorf("it was refused: %+v", try)
		}
	}
}
