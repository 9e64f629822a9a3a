package forward

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/snappy"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tenderhq/tender/internal/logs"
)

const (
	// lokiMetadata entries a row may have: Loki takes 128 by default.
	lokiMetadata = 100
	// lokiMetadataBytes of one row: Loki takes 64 KiB by default.
	lokiMetadataBytes = 48 * kB
)

// loki pushes to Loki, or to what speaks its push API: snappy and protobuf.
type loki struct {
	*poster
	url    string
	tenant string
	labels []string // of the stream; all other labels are structured metadata
	fields []string // as structured metadata; nil: all
	buf    []byte
}

func lokiConfig(s *section, c *Config) {
	t := s.security()
	l := s.login("Bearer")
	u := s.address("url", s.must("url", "https://loki:3100"), "https://loki:3100", t, []string{"http"}, []string{"https"})
	if u.Path == "" || u.Path == "/" {
		u.Path = "/loki/api/v1/push"
	}
	tenant := s.text("tenant", "")
	labels := s.list("labels")
	if labels == nil {
		labels = []string{"project", "service", "node", "stream"}
	}
	if len(labels) > 15 {
		s.fail(s.value("labels"), "Loki takes 15 labels", "%s.labels: %d are too many", s.path, len(labels))
	}
	fields := s.list("metadata")
	c.Where = u.Host
	c.Size, c.Request = 4*mB, 1*mB
	c.make = func(_ Config, o Options) wire {
		l.secret = o.Secret
		return &loki{poster: newPoster(t, l), url: u.String(), tenant: tenant, labels: labels, fields: fields}
	}
}

// labelName makes a name that Prometheus and Loki take.
func labelName(name string) string {
	out := strings.Map(func(r rune) rune {
		if r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, name)
	if out == "" || out[0] >= '0' && out[0] <= '9' {
		return "_" + out
	}
	return out
}

// stream is the selector that Loki knows the stream by.
func (k *loki) stream(l logs.Labels) string {
	var own logs.Labels
	for _, name := range k.labels {
		if v := l.Get(name); v != "" {
			own = append(own, logs.Field{Name: labelName(name), Value: strings.ToValidUTF8(v, "\uFFFD")})
		}
	}
	if own == nil {
		own = logs.Labels{{Name: "service", Value: "unknown"}} // Loki takes no stream without a label
	}
	slices.SortFunc(own, func(a, b logs.Field) int { return strings.Compare(a.Name, b.Name) })
	return own.String()
}

// The numbers are those of grafana/loki's pkg/push/push.proto: EntryAdapter.
func (k *loki) encode(dst []byte, r *row) []byte {
	dst = protoMessage(dst, 1, func(b []byte) []byte { return protoTime(b, r.time) })
	dst = protoText(dst, 2, strings.ToValidUTF8(string(r.text), "\uFFFD"))
	n, bytes := 0, 0
	var seen [lokiMetadata]string
	meta := func(name, value string) {
		name = labelName(name)
		if n == lokiMetadata || value == "" || bytes+len(name)+len(value) > lokiMetadataBytes || slices.Contains(seen[:n], name) {
			return
		}
		seen[n] = name
		n++
		bytes += len(name) + len(value)
		dst = protoMessage(dst, 3, func(b []byte) []byte {
			return protoText(protoText(b, 1, name), 2, strings.ToValidUTF8(value, "\uFFFD"))
		})
	}
	for _, l := range r.labels {
		if !slices.Contains(k.labels, l.Name) {
			meta(l.Name, l.Value)
		}
	}
	for _, f := range r.fields {
		if k.fields == nil && f.Name != "message" || slices.Contains(k.fields, f.Name) {
			meta(f.Name, f.Value)
		}
	}
	return dst
}

func (k *loki) text(body []byte) string { return protoFind(body, 2) }

func (k *loki) send(ctx context.Context, _ string, items []item) (v verdict, err error) {
	r, err := k.push(ctx, items)
	if err != nil {
		return verdict{}, err
	}
	if r.status != http.StatusBadRequest {
		return verdict{}, r.trouble()
	}
	// Loki has taken the others, and a row that comes a second time is one row to it. So
	// what is to blame is found by sending again: stream by stream first.
	defer func() {
		slices.Sort(v.again)
		slices.SortFunc(v.refused, func(a, b refusal) int { return a.index - b.index })
	}()
	var order []string
	groups := map[string][]int{}
	for i, it := range items {
		name := k.stream(it.stream.labels)
		if groups[name] == nil {
			order = append(order, name)
		}
		groups[name] = append(groups[name], i)
	}
	if len(order) > 1 {
		for _, name := range order {
			k.some(ctx, items, groups[name], &v)
		}
		return v, nil
	}
	oldest, _ := acceptable(string(r.body))
	var rest []int
	for i, it := range items {
		if it.time < oldest {
			v.refused = append(v.refused, refusal{i, r.text()})
		} else {
			rest = append(rest, i)
		}
	}
	if len(v.refused) == 0 {
		return v, r.trouble()
	}
	if len(rest) > 0 {
		k.some(ctx, items, rest, &v)
	}
	return v, nil
}

// some sends a few of the items and adds to v what became of them.
func (k *loki) some(ctx context.Context, items []item, which []int, v *verdict) {
	few := make([]item, 0, len(which))
	for _, i := range which {
		few = append(few, items[i])
	}
	in, err := k.send(ctx, "", few)
	if err != nil {
		v.again = append(v.again, which...)
		v.reason, v.after = err.Error(), max(v.after, pause(err))
		return
	}
	for _, r := range in.refused {
		v.refused = append(v.refused, refusal{which[r.index], r.reason})
	}
	for _, i := range in.again {
		v.again = append(v.again, which[i])
		v.reason, v.after = in.reason, max(v.after, in.after)
	}
}

func (k *loki) push(ctx context.Context, items []item) (reply, error) {
	var order []string
	of := map[*stream]string{}
	entries := map[string][]byte{}
	for _, it := range items {
		name, ok := of[it.stream]
		if !ok {
			name = k.stream(it.stream.labels)
			of[it.stream] = name
		}
		b, ok := entries[name]
		if !ok {
			order = append(order, name)
		}
		b = protowire.AppendTag(b, 2, protowire.BytesType)
		entries[name] = protowire.AppendBytes(b, it.body)
	}
	k.buf = k.buf[:0]
	for _, name := range order {
		k.buf = protoMessage(k.buf, 1, func(b []byte) []byte { return append(protoText(b, 1, name), entries[name]...) })
	}
	header := map[string]string{"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
	if k.tenant != "" {
		header["X-Scope-OrgID"] = k.tenant
	}
	return k.post(ctx, k.url, header, snappy.Encode(nil, k.buf))
}

var acceptablePattern = regexp.MustCompile(`oldest acceptable timestamp is: (\d{4}-\d\d-\d\dT[0-9:.]+Z)`)

// acceptable reads from a refusal of rows of one stream how old they may be. The
// moment moves on with every row that Loki takes, so the newest that is named counts.
func acceptable(text string) (int64, bool) {
	var oldest int64
	found := false
	for _, m := range acceptablePattern.FindAllStringSubmatch(text, -1) {
		if t, err := time.Parse(time.RFC3339Nano, m[1]); err == nil {
			oldest, found = max(oldest, t.UnixNano()), true
		}
	}
	return oldest, found
}

// protoMessage appends a field that is a message; write appends what is in it.
func protoMessage(dst []byte, number protowire.Number, write func([]byte) []byte) []byte {
	dst = protowire.AppendTag(dst, number, protowire.BytesType)
	from := len(dst)
	dst = write(dst)
	n := len(dst) - from
	// The length stands in front: the message moves behind it.
	size := protowire.SizeVarint(uint64(n))
	for range size {
		dst = append(dst, 0)
	}
	copy(dst[from+size:], dst[from:from+n])
	protowire.AppendVarint(dst[:from], uint64(n))
	return dst
}

func protoText(dst []byte, number protowire.Number, v string) []byte {
	return protowire.AppendString(protowire.AppendTag(dst, number, protowire.BytesType), v)
}

// protoTime appends what is in a google.protobuf.Timestamp.
func protoTime(dst []byte, ns int64) []byte {
	s, n := ns/1e9, ns%1e9
	if n < 0 {
		s, n = s-1, n+1e9
	}
	dst = protowire.AppendVarint(protowire.AppendTag(dst, 1, protowire.VarintType), uint64(s))
	return protowire.AppendVarint(protowire.AppendTag(dst, 2, protowire.VarintType), uint64(n))
}

// protoFind returns the bytes of a field, "" if it is not there. Several numbers lead
// from message to message.
func protoFind(b []byte, path ...protowire.Number) string {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return ""
		}
		b = b[n:]
		if number == path[0] && kind == protowire.BytesType {
			v, n := protowire.ConsumeBytes(b)
			switch {
			case n < 0:
				return ""
			case len(path) == 1:
				return string(v)
			}
			return protoFind(v, path[1:]...)
		}
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return ""
		}
		b = b[n:]
	}
	return ""
}

// protoNumber returns the varint of a field, 0 if it is not there.
func protoNumber(b []byte, wanted protowire.Number) uint64 {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return 0
		}
		b = b[n:]
		if number == wanted && kind == protowire.VarintType {
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return 0
			}
			return v
		}
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return 0
		}
		b = b[n:]
	}
	return 0
}
