package logql

import (
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/snappy"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

// Bounds of what is pushed.
const (
	maxPushed        = 16 << 20 // bytes of a body as it comes
	maxUnpacked      = 64 << 20 // bytes of it unpacked
	maxPushedLabels  = 32       // of one stream
	maxPushedLabel   = 2048     // bytes of its value, as in Loki
	maxPushedLine    = 1 << 20  // bytes; what is longer is cut
	maxPushedFields  = 128      // of structured metadata with one line
	maxPushedStreams = 1000     // that were ever pushed to this process
)

// Whatever is pushed has a project and a service, so that tender logs finds it, and
// says whence it came.
const (
	outsiders = "outside"
	others    = "other"
)

// callers are the labels by which those who push name a service, the surest first.
var callers = []string{"service", "service_name", "app", "container", "container_name", "job", "compose_service"}

// pushed is one stream of a push.
type pushed struct {
	labels logs.Labels
	rows   []logs.Row
}

// push takes lines in, as Loki does: JSON, or a protobuf message in snappy; both
// may be gzipped.
func (l *loki) push(w http.ResponseWriter, r *http.Request) {
	err := l.pushed(w, r)
	if err != nil {
		writeError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (l *loki) pushed(w http.ResponseWriter, r *http.Request) error {
	var in io.Reader = http.MaxBytesReader(w, r.Body, maxPushed)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(in)
		if err != nil {
			return tender.Errorf(tender.Invalid, "unpack the body: %v", err)
		}
		defer z.Close() //nolint:errcheck // read to its end, or refused
		in = z
	}
	body, err := io.ReadAll(io.LimitReader(in, maxUnpacked+1))
	if err != nil {
		return tender.Errorf(tender.Invalid, "read the body: %v", err)
	}
	if len(body) > maxUnpacked {
		return tender.Errorf(tender.Invalid, "the body unpacks to more than %d MiB", maxUnpacked>>20)
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var streams []pushed
	switch kind {
	case "application/json":
		streams, err = pushedJSON(body)
	case "application/x-protobuf", "":
		streams, err = pushedSnappy(body)
	default:
		return tender.Errorf(tender.Invalid, "Content-Type %q is neither application/json nor application/x-protobuf", kind)
	}
	if err != nil {
		return tender.Errorf(tender.Invalid, "the push cannot be read: %v", err)
	}
	for _, s := range streams {
		if len(s.rows) == 0 {
			continue
		}
		if !l.room(s.labels) {
			return tender.Errorf(tender.Invalid, "more than %d streams were pushed", maxPushedStreams).Hint("use fewer labels: what differs from line to line is structured metadata")
		}
		if l.Cut != nil {
			s.rows = l.Cut(s.labels, s.rows)
		}
		if err := l.store.Append(r.Context(), logs.Batch{Labels: s.labels, Rows: s.rows}); err != nil {
			return fmt.Errorf("keep what was pushed: %w", err)
		}
	}
	return nil
}

// room reports whether one more stream may be pushed.
func (l *loki) room(labels logs.Labels) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := labels.String()
	if l.streams == nil { // Append refuses
		return true
	}
	if !l.streams[key] && len(l.streams) >= maxPushedStreams {
		return false
	}
	l.streams[key] = true
	return true
}

// label makes the labels of a stream, and takes out of them what belongs to rows.
func (s *pushed) label(fields []logs.Field) (stderr bool, err error) {
	if len(fields) == 0 {
		return false, errors.New("a stream has no labels")
	}
	if len(fields) > maxPushedLabels {
		return false, fmt.Errorf("a stream has more than %d labels", maxPushedLabels)
	}
	for _, f := range fields {
		switch {
		case len(f.Name) > maxPushedLabel || len(f.Value) > maxPushedLabel:
			return false, fmt.Errorf("the label %.64q has more than %d bytes", f.Name, maxPushedLabel)
		case !isName(f.Name):
			return false, fmt.Errorf("%q is no name of a label", f.Name)
		case f.Name == "stream" && (f.Value == "stdout" || f.Value == "stderr"):
			stderr = f.Value == "stderr"
		case f.Name == "stream":
			return false, fmt.Errorf("the label stream is stdout or stderr, not %q", f.Value)
		case f.Value != "":
			s.labels = append(s.labels, logs.Field{Name: f.Name, Value: f.Value})
		}
	}
	get := func(name string) string {
		for _, f := range s.labels {
			if f.Name == name {
				return f.Value
			}
		}
		return ""
	}
	service := others
	for _, name := range callers {
		if v := get(name); v != "" {
			service = v
			break
		}
	}
	for _, f := range []logs.Field{{Name: "project", Value: outsiders}, {Name: "service", Value: service}, {Name: "source", Value: "loki"}} {
		if get(f.Name) == "" {
			s.labels = append(s.labels, f)
		}
	}
	slices.SortFunc(s.labels, func(a, b logs.Field) int { return cmp.Compare(a.Name, b.Name) })
	for i := 1; i < len(s.labels); i++ {
		if s.labels[i].Name == s.labels[i-1].Name {
			return false, fmt.Errorf("a stream has the label %q twice", s.labels[i].Name)
		}
	}
	return stderr, nil
}

func (s *pushed) row(at int64, line string, stderr bool, with []logs.Field) error {
	if len(with) > maxPushedFields {
		return fmt.Errorf("a line comes with more than %d fields", maxPushedFields)
	}
	if len(line) > maxPushedLine {
		line = line[:maxPushedLine]
	}
	r := logs.Row{Time: at, Stderr: stderr, Shape: "\x00", Fields: []logs.Field{{Name: "message", Value: strings.TrimSuffix(line, "\n")}}}
	for _, f := range with {
		r.Fields = append(r.Fields, logs.Field{Name: sanitize(f.Name), Value: f.Value})
	}
	s.rows = append(s.rows, r)
	return nil
}

func pushedJSON(body []byte) ([]pushed, error) {
	var in struct {
		Streams []struct {
			Stream map[string]string   `json:"stream"`
			Values [][]json.RawMessage `json:"values"`
		} `json:"streams"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	var out []pushed
	for _, s := range in.Streams {
		var p pushed
		var fields []logs.Field
		for n, v := range s.Stream {
			fields = append(fields, logs.Field{Name: n, Value: v})
		}
		stderr, err := p.label(fields)
		if err != nil {
			return nil, err
		}
		for _, v := range s.Values {
			if len(v) != 2 && len(v) != 3 {
				return nil, errors.New("a value is [time, line] or [time, line, {fields}]")
			}
			var at, line string
			with := map[string]string{}
			if err := errors.Join(json.Unmarshal(v[0], &at), json.Unmarshal(v[1], &line)); err != nil {
				return nil, err
			}
			if len(v) == 3 {
				if err := json.Unmarshal(v[2], &with); err != nil {
					return nil, err
				}
			}
			ns, err := strconv.ParseInt(at, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%q is no time in nanoseconds", at)
			}
			var more []logs.Field
			for n, v := range with {
				more = append(more, logs.Field{Name: n, Value: v})
			}
			slices.SortFunc(more, func(a, b logs.Field) int { return cmp.Compare(a.Name, b.Name) })
			if err := p.row(ns, line, stderr, more); err != nil {
				return nil, err
			}
		}
		out = append(out, p)
	}
	return out, nil
}

func pushedSnappy(body []byte) ([]pushed, error) {
	n, err := snappy.DecodedLen(body)
	if err != nil {
		return nil, err
	}
	if n > maxUnpacked {
		return nil, fmt.Errorf("it unpacks to more than %d MiB", maxUnpacked>>20)
	}
	msg, err := snappy.Decode(nil, body)
	if err != nil {
		return nil, err
	}
	// PushRequest {streams = 1}, Stream {labels = 1, entries = 2},
	// Entry {timestamp = 1, line = 2, structuredMetadata = 3}, Pair {name = 1, value = 2}.
	var out []pushed
	err = each(msg, func(n protowire.Number, v []byte, _ uint64) error {
		if n != 1 {
			return nil
		}
		var p pushed
		var stderr, labelled bool
		var entries [][]byte
		err := each(v, func(n protowire.Number, v []byte, _ uint64) error {
			switch n {
			case 1:
				m, err := parseSelector(string(v))
				if err != nil {
					return err
				}
				var fields []logs.Field
				for _, m := range m {
					if m.op != logs.Equal {
						return fmt.Errorf("the labels %s do not name a stream", v)
					}
					fields = append(fields, logs.Field{Name: m.name, Value: m.value})
				}
				labelled = true
				stderr, err = p.label(fields)
				return err
			case 2:
				entries = append(entries, v)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if !labelled {
			return errors.New("a stream has no labels")
		}
		for _, e := range entries {
			if err := p.entry(e, stderr); err != nil {
				return err
			}
		}
		out = append(out, p)
		return nil
	})
	return out, err
}

func (s *pushed) entry(msg []byte, stderr bool) error {
	var at int64
	var line string
	var with []logs.Field
	err := each(msg, func(n protowire.Number, v []byte, _ uint64) error {
		switch n {
		case 1:
			return each(v, func(n protowire.Number, _ []byte, x uint64) error {
				switch n {
				case 1:
					at += int64(x) * 1e9
				case 2:
					at += int64(int32(x))
				}
				return nil
			})
		case 2:
			line = string(v)
		case 3:
			var f logs.Field
			err := each(v, func(n protowire.Number, v []byte, _ uint64) error {
				switch n {
				case 1:
					f.Name = string(v)
				case 2:
					f.Value = string(v)
				}
				return nil
			})
			with = append(with, f)
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.row(at, line, stderr, with)
}

// each calls fn with the fields of a protobuf message: bytes or a number.
func each(msg []byte, fn func(n protowire.Number, v []byte, x uint64) error) error {
	for len(msg) > 0 {
		n, kind, used := protowire.ConsumeTag(msg)
		if used < 0 {
			return protowire.ParseError(used)
		}
		msg = msg[used:]
		var v []byte
		var x uint64
		switch kind {
		case protowire.BytesType:
			v, used = protowire.ConsumeBytes(msg)
		case protowire.VarintType:
			x, used = protowire.ConsumeVarint(msg)
		default:
			used = protowire.ConsumeFieldValue(n, kind, msg)
		}
		if used < 0 {
			return protowire.ParseError(used)
		}
		msg = msg[used:]
		if err := fn(n, v, x); err != nil {
			return err
		}
	}
	return nil
}
