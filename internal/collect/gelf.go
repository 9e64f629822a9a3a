package collect

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"
	"time"
)

const (
	maxChunks     = 128             // of one GELF message
	maxUnfinished = 256             // GELF messages that are not whole
	chunkPatience = 5 * time.Second // for all chunks of one
)

// chunked puts the chunks of GELF messages together. It is bounded in messages and in time.
type chunked struct{ open map[[8]byte]*unfinished }

type unfinished struct {
	parts [][]byte
	have  int
	size  int
	since time.Time
}

// add takes a datagram in, and returns the message that is whole with it.
func (c *chunked) add(b []byte, now time.Time) ([]byte, bool) {
	if len(b) < 2 || b[0] != 0x1e || b[1] != 0x0f {
		return b, len(b) > 0
	}
	if len(b) < 12 {
		return nil, false
	}
	id, n, count := [8]byte(b[2:10]), int(b[10]), int(b[11])
	if count < 1 || count > maxChunks || n >= count {
		return nil, false
	}
	for id, u := range c.open {
		if now.Sub(u.since) > chunkPatience {
			delete(c.open, id)
		}
	}
	if c.open == nil {
		c.open = map[[8]byte]*unfinished{}
	}
	u := c.open[id]
	if u == nil {
		if len(c.open) >= maxUnfinished {
			return nil, false
		}
		u = &unfinished{parts: make([][]byte, count), since: now}
		c.open[id] = u
	}
	if len(u.parts) != count || u.parts[n] != nil || u.size+len(b) > maxMessage {
		return nil, false
	}
	u.parts[n] = bytes.Clone(b[12:])
	u.size += len(b)
	if u.have++; u.have < count {
		return nil, false
	}
	delete(c.open, id)
	return bytes.Join(u.parts, nil), true
}

// inflate undoes gzip and zlib; what is neither stays.
func inflate(b []byte) ([]byte, error) {
	var r io.Reader
	var err error
	switch {
	case len(b) > 2 && b[0] == 0x1f && b[1] == 0x8b:
		r, err = gzip.NewReader(bytes.NewReader(b))
	case len(b) > 2 && b[0] == 0x78 && (uint(b[0])<<8|uint(b[1]))%31 == 0:
		r, err = zlib.NewReader(bytes.NewReader(b))
	default:
		return b, nil
	}
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(r, maxMessage+1))
	if err == nil && len(out) > maxMessage {
		err = fmt.Errorf("a message is longer than %d bytes", maxMessage)
	}
	return out, err
}

// gelf keeps a GELF message: its JSON is the text. The underscore before the names
// of a sender's own fields is no part of them.
func (c *Collector) gelf(ctx context.Context, b []byte, from string, now time.Time) error {
	e, err := c.readGELF(b, from, now)
	if err != nil {
		return err
	}
	return c.put(ctx, e)
}

func (c *Collector) readGELF(b []byte, from string, now time.Time) (entry, error) {
	b, err := inflate(b)
	if err != nil {
		return entry{}, fmt.Errorf("read a GELF message: %w", err)
	}
	m, err := object(b)
	if err != nil {
		return entry{}, fmt.Errorf("read a GELF message: %w", err)
	}
	at := now.UnixNano()
	if s, err := strconv.ParseFloat(textOf(m["timestamp"]), 64); err == nil && s > 1e8 && s < 1e10 {
		at = believed(int64(s*1e9), int64(time.Millisecond), at, believeLate)
	}
	where := textOf(m["host"])
	if where == "" {
		where = from
	}
	out := map[string]any{}
	for name, v := range m {
		switch name {
		case "version", "host", "timestamp":
		case "short_message":
			out["message"] = v
		case "level":
			out["level"] = v
			if n, err := strconv.Atoi(textOf(v)); err == nil && n >= 0 && n < len(severities) {
				out["level"] = severities[n]
			}
		default:
			out[strings.TrimPrefix(name, "_")] = v
		}
	}
	service := ""
	for _, name := range []string{"_service", "_container_name", "_tag", "facility"} {
		if service == "" {
			service = textOf(m[name])
		}
	}
	return entry{labels: c.outside("gelf", "", service, where), time: at, text: jsonText(out)}, nil
}

// object reads a JSON object, numbers as they are written.
func object(b []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		return nil, err
	}
	return m, nil
}

// textOf is a value of a decoded JSON as text; "" for what has none.
func textOf(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}

// jsonText writes an object in one line, without escaping what HTML needs escaped.
func jsonText(m map[string]any) string {
	m = maps.Clone(m)
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(m); err != nil {
		return fmt.Sprint(m)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
