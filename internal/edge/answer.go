package edge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	tender "github.com/tenderhq/tender"
)

// Status is how an edge is.
type Status struct {
	Version   string    `json:"version"`
	PID       int       `json:"pid"`
	Protocol  int       `json:"protocol"`
	Format    int       `json:"format"`
	Table     uint64    `json:"table"` // version of the table served
	Started   time.Time `json:"started"`
	Listeners []string  `json:"listeners"`
	Settings  string    `json:"settings"` // a sum of what it was started with
	// Draining: another edge serves; this one ends when what is under way has.
	Draining bool `json:"draining"`
}

// asked is a request to one revision, and answered what it said.
type asked struct {
	Route    string      `json:"route"`
	Revision string      `json:"revision"`
	Method   string      `json:"method"`
	URL      string      `json:"url"`
	Host     string      `json:"host,omitempty"`
	Header   http.Header `json:"header,omitempty"`
	Body     []byte      `json:"body,omitempty"`
}

type answered struct {
	Status int         `json:"status"`
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"`
}

const (
	maxTable = 256 << 20 // bytes of a table
	maxBody  = 1 << 20   // bytes of an asked request's body, and of what comes back
)

// handler is what the socket answers; whoever reaches it is root.
func (e *edge) handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("PUT /table", func(w http.ResponseWriter, r *http.Request) {
		var t Table
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxTable)).Decode(&t); err != nil {
			problem(w, tender.Errorf(tender.Invalid, "read the table: %w", err))
			return
		}
		if err := e.set(t); err != nil {
			problem(w, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	m.HandleFunc("GET /report", func(w http.ResponseWriter, _ *http.Request) {
		if e.handing.Load() == handedOver {
			problem(w, errHanding) // the other one has these counts and its own
			return
		}
		report := e.counts.report(e.proxy.Report())
		report.Problems = append(report.Problems, e.inside.problems()...)
		write(w, report)
	})
	m.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		write(w, Status{
			Version: e.config.Version, PID: os.Getpid(), Protocol: Protocol, Format: Format, Table: e.version(),
			Started: e.started, Settings: e.config.sum(), Listeners: e.sockets.names(), Draining: e.handing.Load() == handedOver,
		})
	})
	m.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		fmt.Fprintf(w, "# HELP tender_edge_info The edge that serves.\n# TYPE tender_edge_info gauge\ntender_edge_info{version=%q} 1\n", e.config.Version)
		fmt.Fprintf(w, "# HELP tender_edge_start_time_seconds When the edge started, in seconds since the epoch.\n# TYPE tender_edge_start_time_seconds gauge\ntender_edge_start_time_seconds %d\n", e.started.Unix())
		e.proxy.Metrics(w)
	})
	m.HandleFunc("POST /ask", e.ask)
	m.HandleFunc("POST /hello", e.hand)
	m.HandleFunc("POST /carry/{run}", func(w http.ResponseWriter, r *http.Request) {
		var c Carried
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxTable)).Decode(&c); err != nil {
			problem(w, tender.Errorf(tender.Invalid, "read what was counted: %w", err))
			return
		}
		e.counts.take(r.PathValue("run"), c)
		write(w, e.version())
	})
	m.HandleFunc("GET /table", func(w http.ResponseWriter, _ *http.Request) {
		e.setting.Lock()
		t := e.table
		e.setting.Unlock()
		write(w, t)
	})
	m.HandleFunc("GET /table/{after}", e.next)
	return m
}

// nextWait is how long somebody waits for another table before asking again.
const nextWait = 20 * time.Second

// next answers with the table as soon as it is another one than that of the version after.
func (e *edge) next(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.ParseUint(r.PathValue("after"), 10, 64)
	if err != nil {
		problem(w, tender.Errorf(tender.Invalid, "read the version: %w", err))
		return
	}
	limit := time.NewTimer(nextWait)
	defer limit.Stop()
	for {
		e.setting.Lock()
		t, moved := e.table, e.moved
		e.setting.Unlock()
		if t.Proxy.Version != after {
			write(w, t)
			return
		}
		select {
		case <-moved:
		case <-limit.C:
			write(w, t)
			return
		case <-r.Context().Done():
			return
		case <-e.succeeded:
			problem(w, errHanding)
			return
		case <-e.ending:
			write(w, t)
			return
		}
	}
}

func (e *edge) ask(w http.ResponseWriter, r *http.Request) {
	var a asked
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 2*maxBody)).Decode(&a); err != nil {
		problem(w, tender.Errorf(tender.Invalid, "read the request: %w", err))
		return
	}
	req, err := http.NewRequestWithContext(r.Context(), a.Method, a.URL, bytes.NewReader(a.Body))
	if err != nil {
		problem(w, tender.Errorf(tender.Invalid, "ask %s: %w", a.Route, err))
		return
	}
	if a.Header != nil {
		req.Header = a.Header
	}
	if a.Host != "" {
		req.Host = a.Host
	}
	res, err := e.proxy.Ask(r.Context(), a.Route, a.Revision, req)
	if err != nil {
		problem(w, fmt.Errorf("ask %s: %w", a.Route, err))
		return
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		problem(w, tender.Errorf(tender.Unavailable, "ask %s: read the answer: %w", a.Route, err))
		return
	}
	write(w, answered{Status: res.StatusCode, Header: res.Header, Body: body})
}

// said is an error as it travels over the socket.
type said struct {
	Kind  tender.Kind `json:"kind"`
	Error string      `json:"error"`
	Hint  string      `json:"hint,omitempty"`
}

var statuses = map[tender.Kind]int{
	tender.Invalid: http.StatusUnprocessableEntity, tender.NotFound: http.StatusNotFound, tender.Conflict: http.StatusConflict,
	tender.Denied: http.StatusForbidden, tender.Unavailable: http.StatusServiceUnavailable, tender.Internal: http.StatusInternalServerError,
}

func problem(w http.ResponseWriter, err error) {
	kind := tender.KindOf(err)
	if errors.Is(err, errHanding) {
		w.Header().Set(handingHeader, "1")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statuses[kind])
	_ = json.NewEncoder(w).Encode(said{Kind: kind, Error: err.Error(), Hint: tender.AdviceOf(err)}) // who went away does not need it
}

// readProblem is problem's other end.
func readProblem(res *http.Response) error {
	var s said
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	if err != nil || s.Error == "" {
		return tender.Errorf(tender.Unavailable, "the edge answers %s: %s", res.Status, body)
	}
	e := tender.Errorf(s.Kind, "%s", s.Error)
	if s.Hint != "" {
		e = e.Hint("%s", s.Hint)
	}
	return e
}

func write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who went away does not need it
}
