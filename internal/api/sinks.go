package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Sink is one place that logs are sent on to, and how it fares.
type Sink struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"` // elasticsearch, opensearch, loki, otlp, syslog, s3, webhook
	Where string `json:"where"`
	// Phase: starting, sending, waiting (the other side is away or asks for patience), idle.
	Phase string  `json:"phase"`
	Lag   float64 `json:"lag"` // seconds: the age of the oldest row that was not yet taken
	// Rows and Waiting are what is durable and not yet taken, bytes before compression.
	Rows    int64 `json:"rows"`
	Waiting int64 `json:"waiting"`
	// Counts since the sink was first there: rows taken and their bytes, requests that
	// failed and were repeated, rows refused for good, rows that retention took before
	// they were sent.
	Sent    int64 `json:"sent"`
	Bytes   int64 `json:"bytes"`
	Failed  int64 `json:"failed"`
	Refused int64 `json:"refused"`
	Expired int64 `json:"expired"`

	Tries     int       `json:"tries"`           // in vain since the last success
	Next      time.Time `json:"next,omitzero"`   // of the next try
	Last      time.Time `json:"last,omitzero"`   // success since the daemon's start
	Error     string    `json:"error,omitempty"` // the last one
	ErrorTime time.Time `json:"error_time,omitzero"`
}

// DeadLetter is a row that a sink refused for good.
type DeadLetter struct {
	Time   time.Time `json:"time"`   // when it was refused
	Logged time.Time `json:"logged"` // the row's own time
	Labels string    `json:"labels"`
	Text   string    `json:"text"` // what was sent, its first 4 KiB
	Reason string    `json:"reason"`
}

// sinkRoutes are for those who may see all projects: a sink is fed from all.
func (h *handler) sinkRoutes() {
	read := rule{scope: Read}
	add(h, read, huma.Operation{OperationID: "sinks", Method: http.MethodGet, Path: "/logs/sinks", Summary: "Where logs are sent on to, and how far"},
		func(ctx context.Context, _ *nothing) (*answer[[]Sink], error) {
			return list(h.backend.Sinks(ctx))
		})
	add(h, read, huma.Operation{OperationID: "deadLetters", Method: http.MethodGet, Path: "/logs/sinks/{sink}/dead", Summary: "Rows that a sink refused for good, the newest last"},
		func(ctx context.Context, in *struct {
			Sink  string `path:"sink" maxLength:"63"`
			Limit int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
		},
		) (*answer[[]DeadLetter], error) {
			return list(h.backend.DeadLetters(ctx, in.Sink, in.Limit))
		})
}

// Sinks is Backend's.
func (c *Client) Sinks(ctx context.Context) ([]Sink, error) {
	return get[[]Sink](ctx, c, "/logs/sinks", nil)
}

// DeadLetters is Backend's.
func (c *Client) DeadLetters(ctx context.Context, sink string, limit int) ([]DeadLetter, error) {
	return get[[]DeadLetter](ctx, c, pathf("/logs/sinks/%s/dead", sink), url.Values{"limit": {strconv.Itoa(limit)}})
}
