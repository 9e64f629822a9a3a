package forward

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"
	"github.com/elastic/go-elasticsearch/v9/esapi"
)

// elastic writes to data streams of Elasticsearch or OpenSearch with the bulk API.
// It uses the transport and the requests of the official client; the client around
// them refuses OpenSearch.
type elastic struct {
	transport *http.Transport
	nodes     *elastictransport.Client
	login     login
	index     string
	pipeline  string
	ecs       bool
	numbers   map[string]bool
	host      string
	out       object
}

func elasticsearchConfig(s *section, c *Config) {
	t := s.security()
	l := s.login("ApiKey")
	var nodes []*url.URL
	if !s.has("url") {
		s.must("url", "https://es:9200")
	}
	for _, text := range s.list("url") {
		nodes = append(nodes, s.address("url", text, "https://es:9200", t, []string{"http"}, []string{"https"}))
	}
	index := s.text("index", "logs-{service}-{project}")
	if rest := strings.NewReplacer("{service}", "", "{project}", "").Replace(index); strings.ContainsAny(rest, "{}") || index == "" || dataStreamPart(rest) != strings.ReplaceAll(rest, "-", "_") {
		s.fail(s.value("index"), "write it like logs-{service}-{project}, in lower case", "%s.index: %q is no name of a data stream", s.path, index)
	}
	ecs := s.word("fields", "ecs", "stored") == "ecs"
	numbers := map[string]bool{}
	for _, name := range s.list("numbers") {
		numbers[name] = true
	}
	pipeline := s.text("pipeline", "")
	hosts := make([]string, 0, len(nodes))
	for _, n := range nodes {
		hosts = append(hosts, n.Host)
	}
	c.Where = strings.Join(hosts, ",") + "/" + index
	c.Size, c.Request = 8*mB, 5*mB
	c.make = func(_ Config, o Options) wire {
		l.secret = o.Secret
		e := &elastic{transport: t.transport(), login: l, index: index, pipeline: pipeline, ecs: ecs, numbers: numbers, host: o.Host}
		// It errs only over options of one kind that contradict each other.
		e.nodes, _ = elastictransport.NewClient(elastictransport.WithURLs(nodes...), elastictransport.WithTransport(e.transport),
			elastictransport.WithDisableRetry(), elastictransport.WithUserAgent("tender"))
		return e
	}
}

func (e *elastic) close() { e.transport.CloseIdleConnections() }

// dataStreamPart turns a label's value into a part of a data stream's name.
func dataStreamPart(v string) string {
	v = strings.Map(func(r rune) rune {
		if r < 0x21 || r > 0x7e || strings.ContainsRune(`\/*?"<>|,#:-`, r) {
			return '_'
		}
		return r
	}, strings.ToLower(v))
	if len(v) > 100 {
		v = v[:100]
	}
	if v == "" {
		return "unknown"
	}
	return v
}

func (e *elastic) encode(dst []byte, r *row) []byte {
	// The id makes a row that is sent twice the same document.
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%d\x00%s\x00", r.place, r.time, r.key)
	h.Write(r.text)
	id := hex.EncodeToString(h.Sum(nil)[:16])
	index := strings.NewReplacer("{service}", dataStreamPart(r.labels.Get("service")), "{project}", dataStreamPart(r.labels.Get("project"))).Replace(e.index)
	dst = append(dst, `{"create":{"_index":`...)
	dst = quoteJSON(dst, index)
	dst = append(dst, `,"_id":"`...)
	dst = append(dst, id...)
	dst = append(dst, "\"}}\n"...)
	e.out.dst = dst
	if e.ecs {
		e.ecsJSON(r)
	} else {
		plainJSON(&e.out, r)
	}
	return append(e.out.dst, '\n')
}

// ecsNames are the labels and fields that the Elastic Common Schema has a name for.
var ecsNames = map[string]string{
	"level": "log.level", "trace_id": "trace.id", "span_id": "span.id", "user_id": "user.id",
	"service": "service.name", "revision": "service.version", "instance": "service.node.name", "node": "host.name", "stream": "stream",
}

// ecsJSON writes a row in the names of the Elastic Common Schema. What it has no name
// for goes below labels (constant labels, project) and fields, where it collides with nothing.
func (e *elastic) ecsJSON(r *row) {
	o := &e.out
	o.open()
	o.name("@timestamp")
	o.dst = timeJSON(o.dst, r.time)
	o.name("message")
	if message := r.field("message"); message != "" && message != string(r.text) {
		o.dst = quoteJSON(o.dst, message)
		o.name("event.original")
	}
	o.dst = quoteJSON(o.dst, r.text)
	o.text("ecs.version", "8.17.0")
	for _, l := range r.labels {
		if name := ecsNames[l.Name]; name != "" {
			o.text(name, l.Value)
		}
	}
	if r.labels.Get("node") == "" && e.host != "" {
		o.text("host.name", e.host)
	}
	for _, f := range r.fields {
		if name := ecsNames[f.Name]; name != "" && f.Value != "" {
			o.text(name, f.Value)
		}
	}
	o.name("labels")
	labels := object{dst: o.dst}
	labels.open()
	for _, l := range r.labels {
		if ecsNames[l.Name] == "" {
			labels.text(fieldName(l.Name), l.Value)
		}
	}
	labels.close()
	o.dst = labels.dst
	fields := object{dst: o.dst}
	for _, f := range r.fields {
		if ecsNames[f.Name] != "" || f.Name == "message" {
			continue
		}
		if !fields.any {
			o.dst = fields.dst
			o.name("fields")
			fields.dst = o.dst
			fields.open()
		}
		if fields.name(fieldName(f.Name)) {
			fields.dst = e.value(fields.dst, f.Name, f.Value)
		}
	}
	if fields.any {
		fields.close()
	}
	o.dst = fields.dst
	o.close()
}

// value writes a text, or a number where the configuration says that it is one.
// All else would change its type with what a program writes, and be refused then.
func (e *elastic) value(dst []byte, name, value string) []byte {
	if e.numbers[name] {
		if f, err := strconv.ParseFloat(value, 64); err == nil && json.Valid([]byte(value)) {
			_ = f
			return append(dst, value...)
		}
	}
	return quoteJSON(dst, value)
}

// fieldName makes a name that Elasticsearch takes: no part of it between dots is empty.
func fieldName(name string) string {
	name = strings.ToValidUTF8(name, "\uFFFD")
	for part := range strings.SplitSeq(name, ".") {
		if strings.TrimSpace(part) == "" {
			return "_" + strings.ReplaceAll(name, ".", "_")
		}
	}
	return name
}

func (e *elastic) text(body []byte) string {
	_, doc, _ := bytes.Cut(body, []byte("\n"))
	return string(bytes.TrimSpace(doc))
}

// bulkAnswer is what of an answer is looked at.
type bulkAnswer struct {
	Errors *bool `json:"errors"`
	Items  []map[string]struct {
		Status int             `json:"status"`
		Error  json.RawMessage `json:"error"`
	} `json:"items"`
}

func (e *elastic) send(ctx context.Context, _ string, items []item) (verdict, error) {
	var v verdict
	size := 0
	for _, it := range items {
		size += len(it.body)
	}
	body := make([]byte, 0, size)
	for _, it := range items {
		body = append(body, it.body...)
	}
	auth, err := e.login.header(ctx)
	if err != nil {
		return v, err
	}
	header := http.Header{"Content-Type": {"application/x-ndjson"}, "Accept": {"application/json"}, "Content-Encoding": {"gzip"}}
	if auth != "" {
		header.Set("Authorization", auth)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	answer, err := esapi.BulkRequest{
		Body: bytes.NewReader(squeeze(body)), Header: header, Pipeline: e.pipeline,
		FilterPath: []string{"errors", "items.*.status", "items.*.error"},
	}.Do(ctx, e.nodes)
	if err != nil {
		return v, err
	}
	defer answer.Body.Close()
	r, err := readReply(answer.StatusCode, answer.Header, answer.Body)
	if err != nil {
		return v, err
	}
	if err := r.trouble(); err != nil {
		return v, err
	}
	var a bulkAnswer
	if err := json.Unmarshal(r.body, &a); err != nil || a.Errors == nil || len(a.Items) != len(items) {
		return v, fmt.Errorf("this is no answer of the bulk API: %s", r.text())
	}
	for i, it := range a.Items {
		for _, one := range it { // the one action
			reason := fmt.Sprintf("%d: %s", one.Status, bulkReason(one.Error))
			switch {
			case one.Status >= 200 && one.Status < 300:
			case one.Status == http.StatusConflict: // it is there: this was sent before
			case one.Status == http.StatusBadRequest, one.Status == http.StatusRequestEntityTooLarge, one.Status == http.StatusUnprocessableEntity:
				v.refused = append(v.refused, refusal{i, reason})
			default: // 429 and 503, and what people must mend: rights, blocks, a missing template
				v.again, v.reason = append(v.again, i), reason
			}
		}
	}
	return v, nil
}

// bulkReason is the error of an item on one line, with its innermost cause.
func bulkReason(raw json.RawMessage) string {
	type cause struct {
		Type   string          `json:"type"`
		Reason string          `json:"reason"`
		Cause  json.RawMessage `json:"caused_by"`
	}
	out := ""
	for range 5 {
		var c cause
		if json.Unmarshal(raw, &c) != nil || c.Type == "" {
			break
		}
		if out != "" {
			out += ": "
		}
		out += c.Type + ": " + c.Reason
		raw = c.Cause
	}
	if out == "" {
		return string(raw)
	}
	return out
}
