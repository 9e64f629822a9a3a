package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tenderhq/tender"
)

// Status is Backend's.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "/status", nil)
}

// Doctor is Backend's.
func (c *Client) Doctor(ctx context.Context) ([]Check, error) {
	return get[[]Check](ctx, c, "/doctor", nil)
}

// DoctorLogs is Backend's.
func (c *Client) DoctorLogs(ctx context.Context) ([]Check, error) {
	return get[[]Check](ctx, c, "/doctor/logs", nil)
}

// Projects is Backend's.
func (c *Client) Projects(ctx context.Context) ([]Project, error) {
	return get[[]Project](ctx, c, "/projects", nil)
}

// Project is Backend's.
func (c *Client) Project(ctx context.Context, project string) (Project, error) {
	return get[Project](ctx, c, pathf("/projects/%s", project), nil)
}

// Instances is Backend's.
func (c *Client) Instances(ctx context.Context, project string, all bool) ([]Instance, error) {
	return get[[]Instance](ctx, c, "/instances", url.Values{"project": {project}, "all": {flag(all)}})
}

// Config is Backend's.
func (c *Client) Config(ctx context.Context, project string, generation int) (string, error) {
	resp, err := c.send(ctx, call{method: http.MethodGet, path: pathf("/projects/%s/config", project), query: url.Values{"generation": {number(generation)}}})
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() //nolint:errcheck // all of it was read
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", c.unreachable(ctx, err)
	}
	return string(b), nil
}

// Plan is Backend's.
func (c *Client) Plan(ctx context.Context, s Submission) (Plan, error) {
	return post[Plan](ctx, c, "/plan", s)
}

// Up is Backend's.
func (c *Client) Up(ctx context.Context, s Submission, report func(Event)) (Result, error) {
	return c.change(ctx, "/up", s, report)
}

// Change is Backend's.
func (c *Client) Change(ctx context.Context, project string, ch Change, report func(Event)) (Result, error) {
	return c.change(ctx, pathf("/projects/%s/changes", project), ch, report)
}

// History is Backend's.
func (c *Client) History(ctx context.Context, project, service string) ([]Rollout, error) {
	return get[[]Rollout](ctx, c, pathf("/projects/%s/rollouts", project), url.Values{"service": {service}})
}

// Rollout is Backend's.
func (c *Client) Rollout(ctx context.Context, id int64) (Rollout, error) {
	return get[Rollout](ctx, c, fmt.Sprintf("/rollouts/%d", id), nil)
}

// Steer is Backend's.
func (c *Client) Steer(ctx context.Context, id int64, verb string) (Rollout, error) {
	return post[Rollout](ctx, c, fmt.Sprintf("/rollouts/%d/%s", id, verb), struct{}{})
}

// Why is Backend's.
func (c *Client) Why(ctx context.Context, project, service string) (Why, error) {
	return get[Why](ctx, c, pathf("/projects/%s/services/%s/why", project, service), nil)
}

// Events is Backend's.
func (c *Client) Events(ctx context.Context, project string, engine bool, report func(Event)) error {
	r := call{method: http.MethodGet, path: "/events", query: url.Values{"project": {project}}, accept: ndjson}
	if engine {
		r.query.Set("engine", "true")
	}
	return stream(ctx, c, r, func(e Event) error {
		if e.Kind == KindError && e.Error != nil {
			return e.Error.plain()
		}
		report(e)
		return nil
	})
}

// Audit is Backend's.
func (c *Client) Audit(ctx context.Context, project string, limit int) ([]Audit, error) {
	return get[[]Audit](ctx, c, "/audit", url.Values{"project": {project}, "limit": {number(limit)}})
}

// Logs is Backend's.
func (c *Client) Logs(ctx context.Context, project string, r LogRequest, line func(LogLine) error) error {
	query := url.Values{
		"instance": {r.Instance}, "since": {moment(r.Since)}, "until": {moment(r.Until)},
		"tail": {strconv.Itoa(r.Tail)}, "follow": {flag(r.Follow)}, "query": {r.Query}, "fields": {flag(r.Fields)},
	}
	if len(r.Services) > 0 {
		query["service"] = r.Services
	}
	type lineOrError struct {
		LogLine
		Error *Error `json:"error"`
	}
	return stream(ctx, c, call{method: http.MethodGet, path: pathf("/projects/%s/logs", project), query: query}, func(l lineOrError) error {
		if l.Error != nil {
			return l.Error.plain()
		}
		return line(l.LogLine)
	})
}

// LogNumbers is Backend's.
func (c *Client) LogNumbers(ctx context.Context, project string, n LogNumbers) ([]LogSeries, error) {
	query := url.Values{"query": {n.Query}, "start": {moment(n.Start)}, "end": {moment(n.End)}}
	if n.Step > 0 {
		query.Set("step", n.Step.String())
	}
	return get[[]LogSeries](ctx, c, pathf("/projects/%s/logs/numbers", project), query)
}

// Stats is Backend's; project "": of all projects.
func (c *Client) Stats(ctx context.Context, project string, services []string) ([]Sample, error) {
	if project == "" {
		return get[[]Sample](ctx, c, "/stats", nil)
	}
	return get[[]Sample](ctx, c, pathf("/projects/%s/stats", project), url.Values{"service": services})
}

// Top is Backend's.
func (c *Client) Top(ctx context.Context, project string, services []string) ([]Processes, error) {
	return get[[]Processes](ctx, c, pathf("/projects/%s/top", project), url.Values{"service": services})
}

// Wait is Backend's.
func (c *Client) Wait(ctx context.Context, t Target) (code int, err error) {
	ended := false
	err = stream(ctx, c, call{method: http.MethodGet, path: "/wait", query: t.query()}, func(e exit) error {
		if e.Error != nil {
			return e.Error.plain()
		}
		if e.Code != nil {
			code, ended = *e.Code, true
		}
		return nil
	})
	if err == nil && !ended {
		err = c.lost()
	}
	return code, err
}

// CopyFrom is Backend's. Reading fails where the daemon could not send everything.
func (c *Client) CopyFrom(ctx context.Context, t Target, path string) (io.ReadCloser, error) {
	query := t.query()
	query.Set("path", path)
	resp, err := c.send(ctx, call{method: http.MethodGet, path: "/files", query: query})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// CopyTo is Backend's.
func (c *Client) CopyTo(ctx context.Context, t Target, path string, tarball io.Reader) error {
	query := t.query()
	query.Set("path", path)
	_, err := ask[nothing](ctx, c, call{method: http.MethodPut, path: "/files", query: query, body: tarball, kind: "application/x-tar"})
	return err
}

// Images is Backend's.
func (c *Client) Images(ctx context.Context, refs []string) ([]Image, error) {
	return get[[]Image](ctx, c, "/images", url.Values{"reference": refs})
}

// Build is Backend's, with the contexts in the order in which they are sent.
func (c *Client) Build(ctx context.Context, b BuildRequest, contexts []BuildContext, report func(Event)) (id string, err error) {
	r, w := io.Pipe()
	defer r.Close() //nolint:errcheck // a pipe's Close only ends the writer
	m := multipart.NewWriter(w)
	go writeBuild(w, m, b, contexts)
	last, err := c.news(ctx, call{method: http.MethodPost, path: "/images/build", body: r, kind: m.FormDataContentType(), alone: true}, report)
	return last.Image, err
}

// Pull is Backend's.
func (c *Client) Pull(ctx context.Context, ref, auth string, report func(Event)) error {
	_, err := c.change(ctx, "/images/pull", imageIn{ref, auth}, report)
	return err
}

// Push is Backend's.
func (c *Client) Push(ctx context.Context, ref, auth string, report func(Event)) error {
	_, err := c.change(ctx, "/images/push", imageIn{ref, auth}, report)
	return err
}

// Secrets is Backend's.
func (c *Client) Secrets(ctx context.Context, project string) ([]Secret, error) {
	return get[[]Secret](ctx, c, "/secrets", url.Values{"project": {project}})
}

// Secret is Backend's.
func (c *Client) Secret(ctx context.Context, project, name string) (Secret, error) {
	return get[Secret](ctx, c, pathf("/secrets/%s", name), url.Values{"project": {project}})
}

// SetSecret is Backend's.
func (c *Client) SetSecret(ctx context.Context, project, name string, value []byte) (Secret, error) {
	return ask[Secret](ctx, c, call{
		method: http.MethodPut, path: pathf("/secrets/%s", name), query: url.Values{"project": {project}},
		body: bytes.NewReader(value), kind: "application/octet-stream",
	})
}

// RemoveSecret is Backend's.
func (c *Client) RemoveSecret(ctx context.Context, project, name string) error {
	_, err := ask[nothing](ctx, c, call{method: http.MethodDelete, path: pathf("/secrets/%s", name), query: url.Values{"project": {project}}})
	return err
}

// Tokens is Backend's.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	return get[[]Token](ctx, c, "/tokens", nil)
}

// CreateToken is Backend's.
func (c *Client) CreateToken(ctx context.Context, name string, scope Scope, projects []string, valid time.Duration) (Token, error) {
	return post[Token](ctx, c, "/tokens", tokenIn{name, scope, projects, valid})
}

// RemoveToken is Backend's.
func (c *Client) RemoveToken(ctx context.Context, id string) error {
	_, err := ask[nothing](ctx, c, call{method: http.MethodDelete, path: pathf("/tokens/%s", id)})
	return err
}

func (c *Client) change(ctx context.Context, path string, body any, report func(Event)) (Result, error) {
	r, err := jsonCall(http.MethodPost, path, nil, body)
	if err != nil {
		return Result{}, err
	}
	last, err := c.news(ctx, r, report)
	if err != nil || last.Result == nil {
		return Result{}, err
	}
	return *last.Result, nil
}

// news reports events until the last one, which it returns.
func (c *Client) news(ctx context.Context, r call, report func(Event)) (last Event, err error) {
	err = stream(ctx, c, r, func(e Event) error {
		switch {
		case e.Kind == KindError && e.Error != nil:
			return e.Error.plain()
		case e.Kind == KindDone:
			last = e
		case report != nil:
			report(e)
		}
		return nil
	})
	if err == nil && last.Kind != KindDone {
		err = c.lost()
	}
	return last, err
}

func (c *Client) lost() error {
	return tender.Errorf(tender.Unavailable, "the connection to the daemon at %s was lost", c.host).
		Hint("what was accepted goes on; see it with: tender status")
}

func (t Target) query() url.Values {
	return url.Values{"project": {t.Project}, "service": {t.Service}, "slot": {number(t.Slot)}, "instance": {t.Instance}}
}

// pathf fills in names, which may hold anything.
func pathf(format string, names ...string) string {
	args := make([]any, len(names))
	for i, n := range names {
		args[i] = url.PathEscape(n)
	}
	return fmt.Sprintf(format, args...)
}

func flag(b bool) string {
	if b {
		return "true"
	}
	return ""
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
