package collect

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"time"
)

// fluent speaks the forward protocol of fluentd: messages, batches, packed and
// compressed ones, and acknowledgements. A shared key is not asked for.
func (c *Collector) fluent(ctx context.Context, in *bufio.Reader, conn net.Conn, from string) error {
	for {
		d := msgpack{r: in, left: 16 * maxMessage}
		v, err := d.value(0)
		if err != nil {
			return err
		}
		entries, ack, err := c.readForward(v, from, time.Now())
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := c.put(ctx, e); err != nil {
				return err
			}
		}
		if ack != "" { // {"ack": chunk}
			out := append([]byte{0x81, 0xa3}, "ack"...)
			out = binary.BigEndian.AppendUint16(append(out, 0xda), uint16(len(ack)))
			if _, err := conn.Write(append(out, ack...)); err != nil {
				return err
			}
		}
	}
}

var errForward = errors.New("this is not fluent's forward protocol")

// readForward takes one message of the protocol apart.
func (c *Collector) readForward(v any, from string, now time.Time) (out []entry, ack string, err error) {
	list, ok := v.([]any)
	if !ok || len(list) < 2 {
		return nil, "", errForward
	}
	tag, ok := list[0].(string)
	if !ok {
		return nil, "", errForward
	}
	options := map[string]any{}
	if m, ok := list[len(list)-1].(map[string]any); ok && len(list) > 2 {
		if _, single := list[1].([]any); single || len(list) == 4 {
			options = m
		}
		if _, packed := list[1].(string); packed {
			options = m
		}
	}
	if ack, _ = options["chunk"].(string); len(ack) > math.MaxUint16 {
		return nil, "", errForward
	}
	keep := func(when, record any) {
		if m, ok := record.(map[string]any); ok {
			out = append(out, c.fluentEntry(tag, when, m, from, now))
		}
	}
	switch body := list[1].(type) {
	case []any:
		for _, e := range body {
			if pair, ok := e.([]any); ok && len(pair) >= 2 {
				keep(pair[0], pair[1])
			}
		}
	case string: // entries one after the other
		var r io.Reader = strings.NewReader(body)
		if options["compressed"] == "gzip" {
			z, err := gzip.NewReader(r)
			if err != nil {
				return nil, "", fmt.Errorf("read a compressed batch: %w", err)
			}
			r = io.LimitReader(z, 16*maxMessage)
		}
		d := msgpack{r: bufio.NewReader(r), left: 16 * maxMessage}
		for {
			e, err := d.value(0)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, "", err
			}
			if pair, ok := e.([]any); ok && len(pair) >= 2 {
				keep(pair[0], pair[1])
			}
		}
	default:
		if len(list) < 3 {
			return nil, "", errForward
		}
		keep(list[1], list[2])
	}
	return out, ack, nil
}

func (c *Collector) fluentEntry(tag string, when any, m map[string]any, from string, now time.Time) entry {
	at := now.UnixNano()
	switch t := when.(type) {
	case int64:
		at = believed(t*int64(time.Second), int64(time.Second), at, believeLate)
	case time.Time:
		at = believed(t.UnixNano(), 1, at, believeLate)
	}
	text, _ := m["log"].(string)
	service, instance := tag, from
	if name, ok := m["container_name"].(string); ok { // the engine's own driver sends it
		instance = strings.TrimPrefix(name, "/")
	}
	e := entry{labels: c.outside("fluent", "", service, instance), time: at, stderr: m["source"] == "stderr"}
	if text != "" && strings.HasPrefix(text, "{") {
		e.text = oneLine(text)
		return e
	}
	if text != "" {
		delete(m, "log")
		m["message"] = oneLine(text)
	}
	e.text = jsonText(m)
	return e
}

// msgpack reads what fluent sends, bounded in size and depth.
type msgpack struct {
	r    *bufio.Reader
	left int // bytes that values may take
}

func (d *msgpack) take(n int) ([]byte, error) {
	if n < 0 || n > d.left {
		return nil, fmt.Errorf("a message is longer than %d bytes", 16*maxMessage)
	}
	d.left -= n
	if n > 1<<20 { // what it says may be a lie: memory only for what comes
		var b bytes.Buffer
		_, err := io.CopyN(&b, d.r, int64(n))
		return b.Bytes(), err
	}
	b := make([]byte, n)
	_, err := io.ReadFull(d.r, b)
	return b, err
}

func (d *msgpack) number(n int) (uint64, error) {
	b, err := d.take(n)
	var v uint64
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	return v, err
}

func (d *msgpack) value(depth int) (any, error) {
	if depth > 32 {
		return nil, errors.New("a message goes too deep")
	}
	head, err := d.take(1)
	if err != nil {
		return nil, err
	}
	b := head[0]
	v, err := d.of(b, depth)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return v, err
}

func (d *msgpack) of(b byte, depth int) (any, error) {
	text := func(n uint64, err error) (any, error) {
		if err != nil || n > uint64(d.left) {
			return nil, errors.Join(err, errForward)
		}
		s, err := d.take(int(n))
		return string(s), err
	}
	sized := func(size int) (any, error) { return text(d.number(size)) }
	switch {
	case b <= 0x7f:
		return int64(b), nil
	case b <= 0x8f:
		return d.object(uint64(b&0x0f), depth)
	case b <= 0x9f:
		return d.array(uint64(b&0x0f), depth)
	case b <= 0xbf:
		return text(uint64(b&0x1f), nil)
	case b >= 0xe0:
		return int64(int8(b)), nil
	}
	switch b {
	case 0xc0:
		return nil, nil //nolint:nilnil // nil is the value
	case 0xc2, 0xc3:
		return b == 0xc3, nil
	case 0xc4, 0xd9:
		return sized(1)
	case 0xc5, 0xda:
		return sized(2)
	case 0xc6, 0xdb:
		return sized(4)
	case 0xca:
		n, err := d.number(4)
		return float64(math.Float32frombits(uint32(n))), err
	case 0xcb:
		n, err := d.number(8)
		return math.Float64frombits(n), err
	case 0xcc, 0xcd, 0xce, 0xcf:
		n, err := d.number(1 << (b - 0xcc))
		return int64(n), err
	case 0xd0, 0xd1, 0xd2, 0xd3:
		size := 1 << (b - 0xd0)
		n, err := d.number(size)
		shift := 64 - 8*size
		return int64(n<<shift) >> shift, err
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8:
		return d.extension(1 << (b - 0xd4))
	case 0xc7, 0xc8, 0xc9:
		n, err := d.number(1 << (b - 0xc7))
		if err != nil {
			return nil, err
		}
		return d.extension(int(min(n, math.MaxInt32)))
	case 0xdc, 0xdd:
		n, err := d.number(2 << (b - 0xdc))
		if err != nil {
			return nil, err
		}
		return d.array(n, depth)
	case 0xde, 0xdf:
		n, err := d.number(2 << (b - 0xde))
		if err != nil {
			return nil, err
		}
		return d.object(n, depth)
	}
	return nil, errForward
}

// extension reads fluent's time; what else there is comes as nothing.
func (d *msgpack) extension(n int) (any, error) {
	b, err := d.take(n + 1)
	if err != nil {
		return nil, err
	}
	if b[0] == 0 && n == 8 {
		return time.Unix(int64(binary.BigEndian.Uint32(b[1:])), int64(binary.BigEndian.Uint32(b[5:]))), nil
	}
	return nil, nil //nolint:nilnil // nil is the value
}

func (d *msgpack) array(n uint64, depth int) (any, error) {
	if n > uint64(d.left) {
		return nil, errForward
	}
	out := make([]any, 0, min(n, 1024))
	for range n {
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func (d *msgpack) object(n uint64, depth int) (any, error) {
	if n > uint64(d.left) {
		return nil, errForward
	}
	out := map[string]any{}
	for range n {
		k, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		name, ok := k.(string)
		if !ok {
			name = fmt.Sprint(k)
		}
		out[name] = plainValue(v)
	}
	return out, nil
}

// plainValue is a value as JSON can have it.
func plainValue(v any) any {
	switch v := v.(type) {
	case string:
		if strings.ToValidUTF8(v, "") != v {
			return base64.StdEncoding.EncodeToString([]byte(v))
		}
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Sprint(v)
		}
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	}
	return v
}
