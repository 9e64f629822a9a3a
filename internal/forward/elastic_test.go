package forward

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender/internal/logs"
)

// cluster is an Elasticsearch as the reference of its bulk API describes it: strict
// about form, with dynamic mappings that refuse what does not fit.
type cluster struct {
	t  *testing.T
	mu sync.Mutex
	// documents by index and id, in the order in which they came.
	documents map[string]map[string]map[string]any
	order     []string
	mappings  map[string]map[string]string // index: path: type
	limit     int                          // http.max_content_length
	key       string
	// queue refuses an item with 429 while it returns true.
	queue      func(index string, nth int) bool
	answers    []func(http.ResponseWriter)
	bulks      int
	opensearch bool
}

func newCluster(t *testing.T) *cluster {
	return &cluster{t: t, documents: map[string]map[string]map[string]any{}, mappings: map[string]map[string]string{}, limit: 100 * mB}
}

var (
	goodIndex = regexp.MustCompile(`^[^-_+A-Z\\/*?"<>| ,#:][^A-Z\\/*?"<>| ,#:]*$`)
	bulkTypes = []string{"application/json", "application/x-ndjson"}
)

func (c *cluster) problem(w http.ResponseWriter, status int, kind, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"error":{"root_cause":[{"type":%q,"reason":%q}],"type":%q,"reason":%q},"status":%d}`, kind, reason, kind, reason, status)
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.opensearch {
		w.Header().Set("X-Elastic-Product", "Elasticsearch")
	}
	if c.key != "" && r.Header.Get("Authorization") != c.key {
		c.problem(w, 401, "security_exception", "missing authentication credentials for REST request")
		return
	}
	if r.URL.Path != "/_bulk" || r.Method != http.MethodPost && r.Method != http.MethodPut {
		c.problem(w, 405, "method_not_allowed", r.Method+" "+r.URL.Path)
		return
	}
	c.bulks++
	if len(c.answers) > 0 {
		answer := c.answers[0]
		c.answers = c.answers[1:]
		answer(w)
		return
	}
	if !slices.Contains(bulkTypes, r.Header.Get("Content-Type")) {
		c.problem(w, 406, "media_type_header_exception", "Content-Type header ["+r.Header.Get("Content-Type")+"] is not supported")
		return
	}
	var in io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(in)
		if err != nil {
			c.problem(w, 400, "parse_exception", err.Error())
			return
		}
		in = z
	}
	body, err := io.ReadAll(in)
	if err != nil {
		c.problem(w, 400, "parse_exception", err.Error())
		return
	}
	if len(body) > c.limit {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	if len(body) == 0 || body[len(body)-1] != '\n' {
		c.problem(w, 400, "illegal_argument_exception", "The bulk request must be terminated by a newline [\\n]")
		return
	}
	texts := bytes.Split(body[:len(body)-1], []byte("\n"))
	if len(texts)%2 != 0 {
		c.problem(w, 400, "illegal_argument_exception", "Malformed action/metadata line")
		return
	}
	failed := false
	items := make([]map[string]any, 0, len(texts)/2)
	for i := 0; i < len(texts); i += 2 {
		var action map[string]struct {
			Index string `json:"_index"`
			ID    string `json:"_id"`
		}
		d := json.NewDecoder(bytes.NewReader(texts[i]))
		d.DisallowUnknownFields()
		if err := d.Decode(&action); err != nil || len(action) != 1 {
			c.problem(w, 400, "illegal_argument_exception", fmt.Sprintf("Malformed action/metadata line [%d]: %v", i+1, err))
			return
		}
		meta, create := action["create"]
		status, why := 0, ""
		switch {
		case !create:
			status, why = 400, `{"type":"illegal_argument_exception","reason":"only write ops with an op_type of create are allowed in data streams"}`
		case !goodIndex.MatchString(meta.Index) || len(meta.Index) > 255:
			status, why = 400, fmt.Sprintf(`{"type":"invalid_index_name_exception","reason":"Invalid index name [%s]"}`, meta.Index)
		case c.queue != nil && c.queue(meta.Index, i/2):
			status, why = 429, `{"type":"es_rejected_execution_exception","reason":"rejected execution of coordinating operation"}`
		default:
			status, why = c.index(meta.Index, meta.ID, texts[i+1])
		}
		result := map[string]any{"status": status}
		if status >= 300 {
			failed = true
			result["error"] = json.RawMessage(why)
		}
		items = append(items, map[string]any{"create": result})
	}
	w.Header().Set("Content-Type", "application/json")
	// filter_path leaves out what was not asked for.
	if err := json.NewEncoder(w).Encode(map[string]any{"errors": failed, "items": items}); err != nil {
		c.t.Error(err)
	}
}

// index takes one document, or says why not.
func (c *cluster) index(index, id string, doc []byte) (int, string) {
	bad := func(format string, args ...any) (int, string) {
		reason, _ := json.Marshal(fmt.Sprintf(format, args...))
		return 400, fmt.Sprintf(`{"type":"document_parsing_exception","reason":"[1:1] failed to parse","caused_by":{"type":"illegal_argument_exception","reason":%s}}`, reason)
	}
	if err := noDuplicates(doc); err != nil {
		return bad("%v", err)
	}
	var source map[string]any
	if err := json.Unmarshal(doc, &source); err != nil {
		return bad("%v", err)
	}
	if stamp, _ := source["@timestamp"].(string); stamp == "" {
		return bad("data stream timestamp field [@timestamp] is missing")
	}
	if _, there := c.documents[index][id]; id != "" && there {
		return 409, fmt.Sprintf(`{"type":"version_conflict_engine_exception","reason":"[%s]: version conflict, document already exists (current version [1])"}`, id)
	}
	mapping := map[string]string{}
	for k, v := range c.mappings[index] {
		mapping[k] = v
	}
	if err := mapFields(mapping, "", source); err != nil {
		return bad("%v", err)
	}
	c.mappings[index] = mapping
	if c.documents[index] == nil {
		c.documents[index] = map[string]map[string]any{}
	}
	if id == "" {
		id = fmt.Sprint(len(c.order))
	}
	c.documents[index][id] = source
	message, _ := source["message"].(string)
	c.order = append(c.order, message)
	return 201, ""
}

// mapFields maps what is new and refuses what is of another type.
func mapFields(m map[string]string, prefix string, v map[string]any) error {
	for name, value := range v {
		for part := range strings.SplitSeq(name, ".") {
			if strings.TrimSpace(part) == "" {
				return fmt.Errorf("field name cannot contain only whitespace: [%s]", prefix+name)
			}
		}
		// A dotted name is an object to Elasticsearch, and so is each part of it.
		parts := strings.Split(prefix+name, ".")
		for i := 1; i < len(parts); i++ {
			p := strings.Join(parts[:i], ".")
			if kind := m[p]; kind != "" && kind != "object" {
				return fmt.Errorf("can't merge a non object mapping [%s] with an object mapping", p)
			}
			m[p] = "object"
		}
		kind := "keyword"
		switch x := value.(type) {
		case map[string]any:
			kind = "object"
			if err := mapFields(m, prefix+name+".", x); err != nil {
				return err
			}
		case float64:
			kind = "number"
		}
		if had := m[prefix+name]; had == "number" && kind == "keyword" || had != "" && (had == "object") != (kind == "object") {
			return fmt.Errorf("failed to parse field [%s] of type [%s]", prefix+name, had)
		} else if had == "" {
			m[prefix+name] = kind
		}
	}
	return nil
}

// noDuplicates refuses an object with a name twice, as the parser there does.
func noDuplicates(doc []byte) error {
	d := json.NewDecoder(bytes.NewReader(doc))
	var in []map[string]bool // of the objects around, nil for arrays
	name := false
	for {
		tok, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch x := tok.(type) {
		case json.Delim:
			if x == '{' {
				in, name = append(in, map[string]bool{}), true
				continue
			}
			if x == '[' {
				in = append(in, nil)
			} else {
				in = in[:len(in)-1]
			}
		case string:
			if name && len(in) > 0 && in[len(in)-1] != nil {
				if in[len(in)-1][x] {
					return fmt.Errorf("Duplicate field '%s'", x)
				}
				in[len(in)-1][x] = true
				name = false
				continue
			}
		}
		name = len(in) > 0 && in[len(in)-1] != nil
	}
}

func (c *cluster) came() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.order)
}

func (c *cluster) ids() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, d := range c.documents {
		n += len(d)
	}
	return n
}

func TestElasticsearchGetsDocumentsInDataStreams(t *testing.T) {
	es := newCluster(t)
	es.key = "ApiKey a2V5"
	srv := httptest.NewServer(es)
	t.Cleanup(srv.Close)
	src := newShelf()
	src.put(labelsOf("instance", "shop-web-1", "node", "host1", "project", "My Shop", "revision", "7f3a", "service", "web-front", "stream", "stderr", "team", "a"),
		entry{begin.UnixNano(), `{"msg":"no","level":"error","status":500,"host":"x"}`, []logs.Field{
			{Name: "message", Value: "no"},
			{Name: "level", Value: "error"},
			{Name: "status", Value: "500"},
			{Name: "host", Value: "x"},
			{Name: "status", Value: "twice"},
			{Name: "a..b", Value: "\xff"},
			{Name: "trace_id", Value: "abc"},
		}})
	src.put(web, plain(1, "plain \"quoted\" \x01 \u2028 text"))
	s, _ := start(t, `{es: {elasticsearch: {url: "`+srv.URL+`", key: {secret: es}, numbers: [status]}}}`, src, &memory{})
	soon(t, "both documents", func() bool { return len(es.came()) == 2 })
	es.mu.Lock()
	defer es.mu.Unlock()
	var got []map[string]any
	for _, index := range []string{"logs-web_front-my_shop", "logs-web-shop"} {
		for _, d := range es.documents[index] {
			got = append(got, d)
		}
	}
	want := []map[string]any{
		{
			"@timestamp": "2026-11-29T12:59:59.000000000Z", "message": "no", "event.original": `{"msg":"no","level":"error","status":500,"host":"x"}`,
			"ecs.version": "8.17.0", "service.name": "web-front", "service.version": "7f3a", "service.node.name": "shop-web-1", "host.name": "host1",
			"stream": "stderr", "log.level": "error", "trace.id": "abc", "labels": map[string]any{"project": "My Shop", "team": "a"},
			"fields": map[string]any{"status": 500.0, "host": "x", "_a__b": "\uFFFD"},
		},
		{
			"@timestamp": "2026-11-29T12:59:59.001000000Z", "message": "plain \"quoted\" \x01 \u2028 text",
			"ecs.version": "8.17.0", "service.name": "web", "service.version": "7f3a", "service.node.name": "shop-web-1", "host.name": "host1",
			"stream": "stdout", "labels": map[string]any{"project": "shop"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("documents (-want +got):\n%s", diff)
	}
	if where := only(s).Where; strings.Contains(where, "a2V5") || !strings.HasSuffix(where, "/logs-{service}-{project}") {
		t.Errorf("where: %s", where)
	}
}

// 429 for some items and for whole requests, documents that do not fit, a proxy's
// page with 200, a restarting node: nothing is lost, nothing goes round for ever.
func TestElasticsearchThatRefusesInParts(t *testing.T) {
	es := newCluster(t)
	es.mappings["logs-web-shop"] = map[string]string{"fields": "object", "fields.size": "number"} // by its template
	full := 3
	es.queue = func(_ string, nth int) bool {
		if nth%3 == 1 && full > 0 {
			if nth > 6 {
				full--
			}
			return true
		}
		return false
	}
	es.answers = []func(http.ResponseWriter){
		func(w http.ResponseWriter) { fmt.Fprint(w, "<html>It works!</html>") },
		func(w http.ResponseWriter) { es.problem(w, 429, "circuit_breaking_exception", "Data too large") },
		func(w http.ResponseWriter) { fmt.Fprint(w, `{"errors":false,"items":[]}`) },
	}
	srv := httptest.NewServer(es)
	t.Cleanup(srv.Close)
	src, k := newShelf(), &memory{}
	rows := lines(0, 10)
	number := func(v string) []logs.Field {
		return []logs.Field{{Name: "message", Value: "n " + v}, {Name: "size", Value: v}}
	}
	rows = append(rows, entry{begin.UnixNano(), "n 1", number("1")}, entry{begin.UnixNano(), "n many", number("many")}, entry{begin.UnixNano(), "n 3", number("3")})
	src.put(web, rows...)
	start(t, `{es: {elasticsearch: {url: ["`+srv.URL+`"], numbers: size}, batch: {wait: 10ms}}}`, src, k)
	soon(t, "all is taken or refused", func() bool { return k.state("es").Cursor == "1" })
	got := es.came()
	slices.Sort(got)
	want := append(texts(0, 10), "n 1", "n 3")
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("documents (-want +got):\n%s", diff)
	}
	if len(k.dead()) != 1 || !strings.Contains(k.dead()[0].Reason, "document_parsing_exception") || !strings.Contains(k.dead()[0].Reason, "failed to parse field [fields.size] of type [number]") ||
		!strings.Contains(k.dead()[0].Text, `"size":"many"`) {
		t.Errorf("letters: %+v", k.dead())
	}
	if st := k.state("es"); st.Sent != 12 || st.Refused != 1 || st.Failed < 4 {
		t.Errorf("state: %+v", st)
	}
}

// What is sent again is the same document, also to OpenSearch.
func TestElasticsearchTakesRepeatsForOne(t *testing.T) {
	es := newCluster(t)
	es.opensearch = true
	srv := httptest.NewServer(es)
	t.Cleanup(srv.Close)
	src := newShelf()
	src.put(web, append(lines(0, 50), lines(0, 50)...)...) // the same text at the same time twice is two rows
	config := `{os: {opensearch: {url: "` + srv.URL + `", fields: stored}}}`
	for range 3 { // whose cursor is lost each time
		k := &memory{}
		_, stop := start(t, config, src, k)
		soon(t, "all is taken", func() bool { return k.state("os").Cursor == "1" })
		stop()
	}
	if n := es.ids(); n != 100 || es.bulks < 3 {
		t.Errorf("%d documents after %d requests", n, es.bulks)
	}
}

func TestElasticsearchWithALimit(t *testing.T) {
	es := newCluster(t)
	es.limit = 20 * kB
	srv := httptest.NewServer(es)
	t.Cleanup(srv.Close)
	src, k := newShelf(), &memory{}
	rows := lines(0, 200)
	rows = append(rows, plain(200, strings.Repeat("x", 30*kB)))
	src.put(web, append(rows, lines(201, 1)...)...)
	start(t, `{es: {elasticsearch: {url: "`+srv.URL+`"}}}`, src, k)
	soon(t, "all is taken or refused", func() bool { return k.state("es").Cursor == "1" })
	if diff := cmp.Diff(append(texts(0, 200), "line 201"), es.came()); diff != "" {
		t.Errorf("documents (-want +got):\n%s", diff)
	}
	if len(k.dead()) != 1 || !strings.HasPrefix(k.dead()[0].Reason, "413") || len(k.dead()[0].Text) > letterBytes {
		t.Errorf("letters: %d", len(k.dead()))
	}
}

// A wrong key is for people to mend: it is said, and nothing is thrown away.
func TestElasticsearchThatDoesNotKnowTheKey(t *testing.T) {
	es := newCluster(t)
	es.key = "ApiKey other"
	srv := httptest.NewServer(es)
	t.Cleanup(srv.Close)
	src, k := newShelf(), &memory{}
	src.put(web, lines(0, 2)...)
	s, _ := start(t, `{es: {elasticsearch: {url: "`+srv.URL+`", key: {secret: es}}}}`, src, k)
	soon(t, "the trouble is shown", func() bool { st := only(s); return st.Phase == Waiting && strings.Contains(st.Error, "401") })
	es.mu.Lock()
	es.key = "ApiKey a2V5"
	es.mu.Unlock()
	soon(t, "it goes on when it is mended", func() bool { return len(es.came()) == 2 })
	if len(k.dead()) != 0 {
		t.Errorf("letters: %+v", k.dead())
	}
}
