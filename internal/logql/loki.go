package logql

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

// Shelf is what Loki's API asks beside what queries do; *logs.Store is one.
type Shelf interface {
	Store
	Follow(ctx context.Context, q logs.Query, fn func(logs.Chunk) error) error
	Volume(ctx context.Context, q logs.Query) (rows, bytes, chunks, streams int64, err error)
	Append(ctx context.Context, b logs.Batch) error
}

// LokiOptions of Loki; the zero value works.
type LokiOptions struct {
	Log     *slog.Logger // default: none
	Version string       // of the program
	Limits  Limits
	// Cut takes the fields out of lines that are pushed, each a row of one field with what
	// came beside it; nil: they are kept whole.
	Cut func(labels logs.Labels, rows []logs.Row) []logs.Row
	// Projects are those that who asks may see, of a request's context; none: all. nil:
	// whoever asks may see all.
	Projects func(context.Context) []string
}

// spoken is the version of Loki whose API this is; clients choose by it what they ask.
const spoken = "3.5.0"

type loki struct {
	LokiOptions
	store  Shelf
	engine *Engine

	mu      sync.Mutex
	streams map[string]bool // that were pushed
}

// Loki serves Loki's HTTP API: /loki/api/v1/..., /ready, /config, and all of it
// once more below /loki, for clients that are told to find it there. Who may ask is
// decided before.
func Loki(s Shelf, o LokiOptions) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l := &loki{LokiOptions: o, store: s, engine: New(s, o.Limits), streams: map[string]bool{}}
	all := l.routes()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The prefix /loki in front of what begins with /loki itself, or with nothing of ours.
		if rest, ok := strings.CutPrefix(r.URL.Path, "/loki"); ok && !strings.HasPrefix(r.URL.Path, "/loki/api/") {
			r2 := r.Clone(r.Context())
			r2.URL.Path, r2.URL.RawPath = rest, strings.TrimPrefix(r.URL.RawPath, "/loki")
			r = r2
		}
		var projects []string
		if o.Projects != nil {
			projects = o.Projects(r.Context())
		}
		if len(projects) == 0 {
			all.ServeHTTP(w, r)
			return
		}
		some := confined{s, projects}
		(&loki{LokiOptions: o, store: some, engine: New(some, o.Limits)}).routes().ServeHTTP(w, r)
	})
}

// routes are the paths of the API.
func (l *loki) routes() *http.ServeMux {
	mux := http.NewServeMux()
	read := func(path string, h func(*http.Request) (any, error)) {
		mux.HandleFunc("GET /loki/api/v1/"+path, l.answer(h))
		mux.HandleFunc("POST /loki/api/v1/"+path, l.answer(h))
	}
	read("query", l.query)
	read("query_range", l.queryRange)
	read("labels", l.labels)
	read("label", l.labels)
	read("label/{name}/values", l.labelValues)
	read("series", l.series)
	read("index/stats", l.stats)
	read("index/volume", l.volume)
	read("index/volume_range", l.volumeRange)
	read("detected_fields", l.detectedFields)
	read("detected_field/{name}/values", l.detectedValues)
	read("detected_labels", l.detectedLabels)
	read("patterns", func(*http.Request) (any, error) { return success{"success", []any{}}, nil })
	read("format_query", l.format)
	mux.HandleFunc("GET /loki/api/v1/tail", l.tail)
	mux.HandleFunc("POST /loki/api/v1/push", l.push)
	mux.HandleFunc("GET /loki/api/v1/status/buildinfo", l.answer(func(*http.Request) (any, error) {
		return map[string]string{
			"version": spoken, "revision": l.Version, "branch": "tender", "buildUser": "", "buildDate": "", "goVersion": runtime.Version(),
		}, nil
	}))
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ready\n") })
	mux.HandleFunc("GET /config", l.config)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, tender.Errorf(tender.NotFound, "%s %s is not part of Loki's API here", r.Method, r.URL.Path))
	})
	return mux
}

type success struct {
	Status string `json:"status"`
	Data   any    `json:"data"`
}

// maxForm bounds a query that comes as a form, in bytes.
const maxForm = 1 << 20

func (l *loki) answer(h func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		}
		if err := r.ParseForm(); err != nil {
			writeError(w, tender.Errorf(tender.Invalid, "read the form: %v", err))
			return
		}
		v, err := h(r)
		if err != nil {
			if r.Context().Err() == nil && tender.KindOf(err) == tender.Internal {
				l.Log.Error("log query", "path", r.URL.Path, "query", r.Form.Get("query"), "error", err)
			}
			writeError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		_ = e.Encode(v) // the client has gone
	}
}

// writeError answers as Prometheus does.
func writeError(w http.ResponseWriter, err error) {
	status, kind := http.StatusInternalServerError, "internal"
	switch tender.KindOf(err) {
	case tender.Invalid:
		status, kind = http.StatusBadRequest, "bad_data"
	case tender.NotFound:
		status, kind = http.StatusNotFound, "not_found"
	case tender.Denied:
		status, kind = http.StatusForbidden, "forbidden"
	case tender.Unavailable:
		status, kind = http.StatusServiceUnavailable, "timeout"
	}
	if errors.Is(err, context.Canceled) {
		status, kind = 499, "canceled" // nobody reads it; for a log between
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	text := err.Error()
	if hint := tender.AdviceOf(err); hint != "" {
		text += " (" + hint + ")"
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"status": "error", "errorType": kind, "error": text})
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// config says what a client may want to know of the limits, in Loki's words.
func (l *loki) config(w http.ResponseWriter, _ *http.Request) {
	m := l.engine.limits
	b, _ := json.MarshalIndent(map[string]any{"limits_config": map[string]any{
		"max_entries_limit_per_query": m.Entries, "max_query_series": m.Series, "query_timeout": m.Timeout.String(), "volume_enabled": true, "allow_structured_metadata": true,
	}}, "", "  ")
	writeText(w, http.StatusOK, string(b)+"\n") // JSON is YAML, too
}

// span is the time that a request asks for, from start to end.
func spanOf(r *http.Request, back time.Duration) (start, end time.Time, err error) {
	now := time.Now()
	if end, err = instant(r, "end", now); err != nil {
		return start, end, err
	}
	since := back
	if s := r.Form.Get("since"); s != "" {
		d, ok := duration(s)
		if !ok || d < 0 {
			return start, end, tender.Errorf(tender.Invalid, "since=%q is no duration", s)
		}
		since = d
	}
	from := end
	if end.After(now) {
		from = now
	}
	if start, err = instant(r, "start", from.Add(-since)); err != nil {
		return start, end, err
	}
	if end.Before(start) {
		return start, end, tender.Errorf(tender.Invalid, "end is before start")
	}
	return start, end, nil
}

// instant reads a point in time as Loki does: nanoseconds, or seconds if there are
// no more than ten digits, or with a fraction; or RFC 3339.
func instant(r *http.Request, name string, otherwise time.Time) (time.Time, error) {
	s := r.Form.Get(name)
	if s == "" {
		return otherwise, nil
	}
	if t, ok := moment(s); ok {
		return t, nil
	}
	return otherwise, tender.Errorf(tender.Invalid, "%s=%q is no time: nanoseconds or seconds since 1970, or RFC 3339", name, s)
}
