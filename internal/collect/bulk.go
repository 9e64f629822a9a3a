package collect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Bulk takes logs in as clients of Elasticsearch send them: POST /_bulk and
// /INDEX/_bulk below where it is mounted, with what such clients ask before. The
// index becomes the service; documents can be made, not changed or deleted.
func (c *Collector) Bulk() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Elastic-Product", "Elasticsearch") // clients go on with nothing else
		path := strings.Trim(r.URL.Path, "/")
		index, action, nested := strings.Cut(path, "/")
		if !nested {
			index, action = "", path
		}
		switch {
		case path == "" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
			answer(w, http.StatusOK, map[string]any{
				"name": "tender", "cluster_name": "tender", "tagline": "You Know, for Search",
				"version": map[string]any{"number": "8.17.0", "build_flavor": "default", "lucene_version": "9.12.0", "minimum_wire_compatibility_version": "7.17.0", "minimum_index_compatibility_version": "7.0.0"},
			})
		case path == "_license" && r.Method == http.MethodGet:
			answer(w, http.StatusOK, map[string]any{"license": map[string]any{"status": "active", "type": "basic", "mode": "basic"}})
		case action == "_bulk" && (r.Method == http.MethodPost || r.Method == http.MethodPut):
			c.bulk(w, r, index)
		default:
			answer(w, http.StatusNotFound, map[string]any{
				"status": http.StatusNotFound,
				"error":  map[string]any{"type": "resource_not_found_exception", "reason": fmt.Sprintf("only _bulk is there, not %s %s", r.Method, r.URL.Path)},
			})
		}
	})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone
}

func (c *Collector) bulk(w http.ResponseWriter, r *http.Request, index string) {
	began := time.Now()
	b, ok := body(w, r)
	if !ok {
		return
	}
	items, failed := []any{}, false
	result := func(action, index string, status int, reason string) {
		item := map[string]any{"_index": index, "status": status}
		if reason != "" {
			failed = true
			item["error"] = map[string]any{"type": "mapper_parsing_exception", "reason": reason}
		} else {
			item["result"] = "created"
		}
		items = append(items, map[string]any{action: item})
	}
	for len(b) > 0 {
		line := nextLine(&b)
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var head map[string]struct {
			Index string `json:"_index"`
		}
		if err := json.Unmarshal(line, &head); err != nil || len(head) != 1 {
			answer(w, http.StatusBadRequest, map[string]any{"status": 400, "error": map[string]any{"type": "illegal_argument_exception", "reason": "a line of the bulk request names no action"}})
			return
		}
		for action, h := range head {
			where := h.Index
			if where == "" {
				where = index
			}
			switch action {
			case "index", "create":
				doc := bytes.TrimSpace(nextLine(&b))
				e, err := c.document(doc, where, began)
				if err != nil {
					result(action, where, http.StatusBadRequest, err.Error())
					continue
				}
				if err := c.put(r.Context(), e); err != nil {
					result(action, where, http.StatusTooManyRequests, err.Error())
					continue
				}
				result(action, where, http.StatusCreated, "")
			case "update":
				nextLine(&b)
				result(action, where, http.StatusBadRequest, "logs are not changed")
			default:
				result(action, where, http.StatusBadRequest, "logs are not deleted one by one")
			}
		}
	}
	answer(w, http.StatusOK, map[string]any{"took": time.Since(began).Milliseconds(), "errors": failed, "items": items})
}

func nextLine(b *[]byte) []byte {
	line, rest, _ := bytes.Cut(*b, []byte("\n"))
	*b = rest
	return line
}

func (c *Collector) document(doc []byte, index string, now time.Time) (entry, error) {
	m, err := object(doc)
	if err != nil {
		return entry{}, fmt.Errorf("a document is no JSON object: %w", err)
	}
	host, _ := m["host"].(map[string]any)
	instance := textOf(m["host"])
	if name := textOf(host["name"]); name != "" {
		instance = name
	}
	var text bytes.Buffer
	if err := json.Compact(&text, doc); err != nil {
		return entry{}, fmt.Errorf("a document is no JSON object: %w", err)
	}
	// The row's own time is found in the text, like any other's.
	return entry{labels: c.outside("elasticsearch", "", index, instance), time: now.UnixNano(), text: text.String()}, nil
}
