package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/alertmanager/matcher/compat"
	"github.com/prometheus/alertmanager/pkg/labels"

	tender "github.com/tenderhq/tender"
)

// Shown is an alert as it is now.
type Shown struct {
	Alert
	Fingerprint string
	UpdatedAt   time.Time
	State       string   // active, suppressed, unprocessed
	SilencedBy  []string // silences
	InhibitedBy []string // fingerprints of alerts
	MutedBy     []string // time intervals
	Receivers   []string
}

// Matcher is one condition on a label.
type Matcher struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	IsRegex bool   `json:"isRegex"`
	IsEqual bool   `json:"isEqual"`
}

// String is how Alertmanager writes it: name="value", !=, =~, !~.
func (m Matcher) String() string {
	kind := labels.MatchEqual
	switch {
	case m.IsRegex && m.IsEqual:
		kind = labels.MatchRegexp
	case m.IsRegex:
		kind = labels.MatchNotRegexp
	case !m.IsEqual:
		kind = labels.MatchNotEqual
	}
	return (&labels.Matcher{Type: kind, Name: m.Name, Value: m.Value}).String()
}

// Matchers reads words as amtool takes them: name=value, name!=value,
// name=~regex, name!~regex; a first word without any of these is an alertname.
func Matchers(words []string) ([]Matcher, error) {
	var out []Matcher
	for i, w := range words {
		if i == 0 && !strings.ContainsAny(w, `=~{}"`) {
			w = "alertname=" + w
		}
		list, err := compat.Matchers(w, "tender")
		if err != nil {
			return nil, tender.Errorf(tender.Invalid, "%q is no matcher: %w", w, err).Hint(`write: alertname=DiskFull service=~"web|db" severity!=info`)
		}
		for _, m := range list {
			out = append(out, Matcher{
				Name: m.Name, Value: m.Value, IsRegex: m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp,
				IsEqual: m.Type == labels.MatchEqual || m.Type == labels.MatchRegexp,
			})
		}
	}
	return out, nil
}

// Silence mutes the alerts that all matchers fit.
type Silence struct {
	ID        string
	Matchers  []Matcher
	StartsAt  time.Time // zero: now
	EndsAt    time.Time
	CreatedBy string
	Comment   string
	State     string // active, pending, expired; not read when one is made
	UpdatedAt time.Time
}

// v2 asks Alertmanager's API, ours or one outside: what one shows the other does.
type v2 struct {
	base   *url.URL
	client *http.Client
}

// direct asks a handler without a network between.
type direct struct{ http.Handler }

// RoundTrip is http.RoundTripper's.
func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	w := &written{header: http.Header{}, status: http.StatusOK}
	d.ServeHTTP(w, r)
	return &http.Response{
		Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()), Request: r,
	}, nil
}

// written is an answer in memory.
type written struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *written) Header() http.Header         { return w.header }
func (w *written) WriteHeader(status int)      { w.status = status }
func (w *written) Write(b []byte) (int, error) { return w.body.Write(b) }

const answerMax = 64 << 20 // bytes of one answer

func (c *v2) do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	u := c.base.JoinPath("api/v2", path)
	u.RawQuery = query.Encode()
	user := u.User
	u.User = nil
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("ask Alertmanager: %w", err)
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return fmt.Errorf("ask Alertmanager: %w", err)
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if user != nil {
		password, _ := user.Password()
		r.SetBasicAuth(user.Username(), password)
	}
	resp, err := c.client.Do(r)
	if err != nil {
		return tender.Errorf(tender.Unavailable, "ask the Alertmanager at %s: %w", c.base.Redacted(), bare(err)).
			Hint("see whether it runs, and what alertmanager: in tender.yaml says")
	}
	defer resp.Body.Close() //nolint:errcheck // all of it was read
	b, err := io.ReadAll(io.LimitReader(resp.Body, answerMax))
	if err != nil {
		return fmt.Errorf("read Alertmanager's answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		var said string
		if json.Unmarshal(b, &said) != nil {
			said = strings.TrimSpace(string(b))
		}
		kind := tender.Internal
		switch resp.StatusCode {
		case http.StatusBadRequest, http.StatusUnprocessableEntity:
			kind = tender.Invalid
		case http.StatusNotFound:
			kind = tender.NotFound
		case http.StatusUnauthorized, http.StatusForbidden:
			kind = tender.Denied
		case http.StatusServiceUnavailable, http.StatusBadGateway:
			kind = tender.Unavailable
		}
		return tender.Errorf(kind, "Alertmanager answered %s: %s", resp.Status, cut(said, 500))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("read Alertmanager's answer: %w", err)
	}
	return nil
}

// bare is an error of an HTTP client without the URL, which may hold a password.
func bare(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// Alerts lists those that fire and fit all matchers.
func (r *Room) Alerts(ctx context.Context, match []Matcher) ([]Shown, error) {
	var got []struct {
		Labels       map[string]string `json:"labels"`
		Annotations  map[string]string `json:"annotations"`
		StartsAt     time.Time         `json:"startsAt"`
		EndsAt       time.Time         `json:"endsAt"`
		UpdatedAt    time.Time         `json:"updatedAt"`
		GeneratorURL string            `json:"generatorURL"`
		Fingerprint  string            `json:"fingerprint"`
		Receivers    []struct {
			Name string `json:"name"`
		} `json:"receivers"`
		Status struct {
			State       string   `json:"state"`
			SilencedBy  []string `json:"silencedBy"`
			InhibitedBy []string `json:"inhibitedBy"`
			MutedBy     []string `json:"mutedBy"`
		} `json:"status"`
	}
	if err := r.v2.do(ctx, http.MethodGet, "alerts", url.Values{"filter": filters(match)}, nil, &got); err != nil {
		return nil, err
	}
	out := make([]Shown, 0, len(got))
	for _, g := range got {
		s := Shown{
			Alert:       Alert{Labels: g.Labels, Annotations: g.Annotations, StartsAt: g.StartsAt, EndsAt: g.EndsAt, GeneratorURL: g.GeneratorURL},
			Fingerprint: g.Fingerprint, UpdatedAt: g.UpdatedAt, State: g.Status.State,
			SilencedBy: g.Status.SilencedBy, InhibitedBy: g.Status.InhibitedBy, MutedBy: g.Status.MutedBy,
		}
		for _, rc := range g.Receivers {
			s.Receivers = append(s.Receivers, rc.Name)
		}
		out = append(out, s)
	}
	return out, nil
}

func filters(match []Matcher) (out []string) {
	for _, m := range match {
		out = append(out, m.String())
	}
	return out
}

// wireSilence is a silence as the API has it.
type wireSilence struct {
	ID        string    `json:"id,omitempty"`
	Matchers  []Matcher `json:"matchers"`
	StartsAt  time.Time `json:"startsAt"`
	EndsAt    time.Time `json:"endsAt"`
	CreatedBy string    `json:"createdBy"`
	Comment   string    `json:"comment"`
	UpdatedAt time.Time `json:"updatedAt,omitzero"`
	Status    *struct {
		State string `json:"state"`
	} `json:"status,omitempty"`
}

// Silences lists all, those that have ended too; the newest last.
func (r *Room) Silences(ctx context.Context, match []Matcher) ([]Silence, error) {
	var got []wireSilence
	if err := r.v2.do(ctx, http.MethodGet, "silences", url.Values{"filter": filters(match)}, nil, &got); err != nil {
		return nil, err
	}
	out := make([]Silence, 0, len(got))
	for _, g := range got {
		out = append(out, g.silence())
	}
	slices.SortStableFunc(out, func(a, b Silence) int { return a.StartsAt.Compare(b.StartsAt) })
	return out, nil
}

func (g wireSilence) silence() Silence {
	s := Silence{ID: g.ID, Matchers: g.Matchers, StartsAt: g.StartsAt, EndsAt: g.EndsAt, CreatedBy: g.CreatedBy, Comment: g.Comment, UpdatedAt: g.UpdatedAt}
	if g.Status != nil {
		s.State = g.Status.State
	}
	return s
}

// Silence is one by its id.
func (r *Room) Silence(ctx context.Context, id string) (Silence, error) {
	var got wireSilence
	if err := r.v2.do(ctx, http.MethodGet, "silence/"+url.PathEscape(id), nil, nil, &got); err != nil {
		return Silence{}, absent(id, err)
	}
	return got.silence(), nil
}

// absent says what to type when there is no such silence.
func absent(id string, err error) error {
	if k := tender.KindOf(err); k == tender.NotFound || k == tender.Invalid {
		return tender.Errorf(tender.NotFound, "there is no silence %q", id).Hint("list them: tender alert silence ls --all")
	}
	return err
}

// AddSilence makes one and returns its id.
func (r *Room) AddSilence(ctx context.Context, s Silence) (string, error) {
	if s.StartsAt.IsZero() {
		s.StartsAt = time.Now()
	}
	var got struct {
		ID string `json:"silenceID"`
	}
	err := r.v2.do(ctx, http.MethodPost, "silences", nil, wireSilence{Matchers: s.Matchers, StartsAt: s.StartsAt.UTC(), EndsAt: s.EndsAt.UTC(), CreatedBy: s.CreatedBy, Comment: s.Comment}, &got)
	return got.ID, err
}

// ExpireSilence ends one.
func (r *Room) ExpireSilence(ctx context.Context, id string) error {
	return absent(id, r.v2.do(ctx, http.MethodDelete, "silence/"+url.PathEscape(id), nil, nil, nil))
}
