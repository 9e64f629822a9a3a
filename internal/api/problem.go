package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/tenderhq/tender"
)

// Statuses of the six kinds: the one place where they meet.
var statuses = map[tender.Kind]int{
	tender.Invalid:     http.StatusBadRequest,
	tender.NotFound:    http.StatusNotFound,
	tender.Conflict:    http.StatusConflict,
	tender.Denied:      http.StatusForbidden,
	tender.Unavailable: http.StatusServiceUnavailable,
	tender.Internal:    http.StatusInternalServerError,
}

// kindOf is the way back, for what others on the way answered too.
func kindOf(status int) tender.Kind {
	switch {
	case status == http.StatusNotFound:
		return tender.NotFound
	case status == http.StatusConflict:
		return tender.Conflict
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return tender.Denied
	case status == http.StatusServiceUnavailable || status == http.StatusBadGateway || status == http.StatusGatewayTimeout:
		return tender.Unavailable
	case status >= 400 && status < 500:
		return tender.Invalid
	}
	return tender.Internal
}

// problem turns any error into what travels.
func problem(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	kind := tender.KindOf(err)
	if kind == tender.Internal && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		kind = tender.Unavailable
	}
	return &Error{Status: statuses[kind], Kind: string(kind), Detail: err.Error(), Hint: tender.AdviceOf(err)}
}

// plain is the way back: the error as rooms and cli know it.
func (e *Error) plain() error {
	kind := tender.Kind(e.Kind)
	if _, known := statuses[kind]; !known {
		kind = kindOf(e.Status)
	}
	t := tender.Errorf(kind, "%s", e.Detail)
	if e.Hint != "" {
		return t.Hint("%s", e.Hint)
	}
	return t
}

func (e *Error) Error() string { return e.Detail }

// GetStatus is the HTTP status that the error travels with.
func (e *Error) GetStatus() int { return e.Status }

// ContentType names the format of RFC 9457.
func (e *Error) ContentType(string) string { return "application/problem+json" }

func writeProblem(w http.ResponseWriter, err error) {
	e := problem(err)
	w.Header().Set("Content-Type", e.ContentType(""))
	if e.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="tender"`)
	}
	w.WriteHeader(e.Status)
	_ = json.NewEncoder(w).Encode(e) // nobody is left to be told
}
