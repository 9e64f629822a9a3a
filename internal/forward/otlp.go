package forward

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tenderhq/tender/internal/logs"
)

// otlp exports to an OTLP receiver over HTTP, in protobuf.
type otlp struct {
	*poster
	url     string
	headers map[string]string // name: secret
	host    string
	buf     []byte
}

func otlpConfig(s *section, c *Config) {
	t := s.security()
	l := s.login("Bearer")
	u := s.address("url", s.must("url", "https://collector:4318"), "https://collector:4318", t, []string{"http"}, []string{"https"})
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/logs"
	}
	headers := map[string]string{}
	if h := s.optional("headers"); h != nil {
		for _, name := range h.names {
			headers[name] = h.secret(name)
		}
	}
	c.Where = u.Host
	c.Size, c.Request = 4*mB, 2*mB
	c.make = func(_ Config, o Options) wire {
		l.secret = o.Secret
		return &otlp{poster: newPoster(t, l), url: u.String(), headers: headers, host: o.Host}
	}
}

// resourceNames are what the semantic conventions call our labels.
var resourceNames = map[string]string{
	"service": "service.name", "project": "service.namespace", "instance": "service.instance.id",
	"revision": "service.version", "node": "host.name",
}

func protoAttribute(dst []byte, number protowire.Number, name, value string) []byte {
	return protoMessage(dst, number, func(b []byte) []byte {
		b = protoText(b, 1, strings.ToValidUTF8(name, "\uFFFD"))
		return protoMessage(b, 2, func(b []byte) []byte { return protoText(b, 1, strings.ToValidUTF8(value, "\uFFFD")) })
	})
}

// severities are the numbers of the log data model, and ours of syslog's.
var severities = map[string]struct{ otlp, syslog int }{
	"trace": {1, 7}, "debug": {5, 7}, "info": {9, 6}, "information": {9, 6}, "notice": {10, 5},
	"warn": {13, 4}, "warning": {13, 4}, "error": {17, 3}, "err": {17, 3}, "critical": {18, 2}, "crit": {18, 2},
	"alert": {19, 1}, "fatal": {21, 2}, "panic": {24, 0}, "emerg": {24, 0}, "emergency": {24, 0},
}

// encode writes a LogRecord; the numbers are those of opentelemetry/proto/logs/v1/logs.proto.
func (w *otlp) encode(dst []byte, r *row) []byte {
	dst = protowire.AppendFixed64(protowire.AppendTag(dst, 1, protowire.Fixed64Type), uint64(max(r.time, 0)))
	level := r.field("level")
	if n := severities[strings.ToLower(level)].otlp; n > 0 {
		dst = protowire.AppendVarint(protowire.AppendTag(dst, 2, protowire.VarintType), uint64(n))
	}
	if level != "" {
		dst = protoText(dst, 3, strings.ToValidUTF8(level, "\uFFFD"))
	}
	dst = protoMessage(dst, 5, func(b []byte) []byte { return protoText(b, 1, strings.ToValidUTF8(string(r.text), "\uFFFD")) })
	if v := r.labels.Get("stream"); v != "" {
		dst = protoAttribute(dst, 6, "log.iostream", v)
	}
	var trace, span []byte
	for i, f := range r.fields {
		switch id, err := hex.DecodeString(f.Value); {
		case f.Name == "level" || f.Name == "message" && f.Value == string(r.text):
		case f.Name == "trace_id" && err == nil && len(id) == 16:
			trace = id
		case f.Name == "span_id" && err == nil && len(id) == 8:
			span = id
		case f.Name != "" && !before(r.fields[:i], f.Name):
			dst = protoAttribute(dst, 6, f.Name, f.Value)
		}
	}
	if trace != nil {
		dst = protowire.AppendBytes(protowire.AppendTag(dst, 9, protowire.BytesType), trace)
	}
	if span != nil {
		dst = protowire.AppendBytes(protowire.AppendTag(dst, 10, protowire.BytesType), span)
	}
	return dst
}

// before: the name was there already. Keys of attributes must be unique.
func before(fields []logs.Field, name string) bool {
	for _, f := range fields {
		if f.Name == name {
			return true
		}
	}
	return false
}

func (w *otlp) text(body []byte) string { return protoFind(body, 5, 1) }

// resource writes what the rows of a stream have in common.
func (w *otlp) resource(dst []byte, l logs.Labels) []byte {
	return protoMessage(dst, 1, func(b []byte) []byte {
		for _, f := range l {
			name := f.Name
			if name == "stream" {
				continue
			}
			if known := resourceNames[name]; known != "" {
				name = known
			}
			b = protoAttribute(b, 1, name, f.Value)
		}
		if l.Get("node") == "" && w.host != "" {
			b = protoAttribute(b, 1, "host.name", w.host)
		}
		return b
	})
}

func (w *otlp) send(ctx context.Context, _ string, items []item) (verdict, error) {
	w.buf = w.buf[:0]
	for from := 0; from < len(items); {
		to := from + 1
		for to < len(items) && items[to].stream == items[from].stream {
			to++
		}
		// ExportLogsServiceRequest.resource_logs: resource, scope_logs: scope, log_records.
		w.buf = protoMessage(w.buf, 1, func(b []byte) []byte {
			b = w.resource(b, items[from].stream.labels)
			return protoMessage(b, 2, func(b []byte) []byte {
				b = protoMessage(b, 1, func(b []byte) []byte { return protoText(b, 1, "tender") })
				for _, it := range items[from:to] {
					b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), it.body)
				}
				return b
			})
		})
		from = to
	}
	header := map[string]string{"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
	for name, secret := range w.headers {
		v, err := open(ctx, w.login.secret, secret)
		if err != nil {
			return verdict{}, err
		}
		header[name] = v
	}
	r, err := w.post(ctx, w.url, header, squeeze(w.buf))
	if err != nil {
		return verdict{}, err
	}
	if r.status == http.StatusBadGateway || r.status == http.StatusGatewayTimeout {
		return verdict{}, &busyError{r.text(), retryAfter(r.header.Get("Retry-After"))}
	}
	if err := r.trouble(); err != nil {
		return verdict{}, err
	}
	// partial_success says how many and why, but not which; they must not be sent again.
	part := []byte(protoFind(r.body, 1))
	n := min(int64(protoNumber(part, 1)), int64(len(items))) //nolint:gosec // bounded by what was sent
	if n <= 0 {
		return verdict{}, nil
	}
	return verdict{unnamed: n, reason: fmt.Sprintf("%d of %d rows refused: %s", n, len(items), protoFind(part, 2))}, nil
}
