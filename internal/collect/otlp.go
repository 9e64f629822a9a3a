package collect

import (
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tenderhq/tender/internal/logs"
)

const maxBody = 16 << 20 // bytes of a request, unpacked

// body reads a request's, which may be compressed.
func body(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	var in io.Reader = http.MaxBytesReader(w, r.Body, maxBody)
	if strings.EqualFold(r.Header.Get("Content-Encoding"), "gzip") {
		z, err := gzip.NewReader(in)
		if err != nil {
			http.Error(w, "the body is not gzip: "+err.Error(), http.StatusBadRequest)
			return nil, false
		}
		in = z
	}
	b, err := io.ReadAll(io.LimitReader(in, maxBody+1))
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil, false
	case len(b) > maxBody:
		http.Error(w, fmt.Sprintf("the body is larger than %d bytes", maxBody), http.StatusRequestEntityTooLarge)
		return nil, false
	}
	return b, true
}

// OTLP takes logs in as OpenTelemetry's exporters send them over HTTP: POST
// /v1/logs, protobuf or JSON.
func (c *Collector) OTLP() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			http.Error(w, "POST logs here", http.StatusMethodNotAllowed)
			return
		}
		b, ok := body(w, r)
		if !ok {
			return
		}
		var records []otlpRecord
		var err error
		asJSON := strings.HasPrefix(r.Header.Get("Content-Type"), "application/json")
		if asJSON {
			records, err = readOTLPJSON(b)
		} else {
			records, err = readOTLP(b)
		}
		if err != nil {
			http.Error(w, "read OTLP logs: "+err.Error(), http.StatusBadRequest)
			return
		}
		now := time.Now()
		for _, x := range records {
			if err := c.put(r.Context(), c.otlpEntry(x, now)); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		if asJSON {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, "{}") //nolint:errcheck // the client is gone
			return
		}
		w.Header().Set("Content-Type", "application/x-protobuf") // an empty answer says that all is taken
	})
}

// otlpRecord is one, with what it belongs to.
type otlpRecord struct {
	resource, attributes map[string]any
	scope, event         string
	time, observed       uint64
	severity             string
	number               uint64
	body                 any
	trace, span          string
}

func (c *Collector) otlpEntry(x otlpRecord, now time.Time) entry {
	name := func(key string) string { s, _ := x.resource[key].(string); return s }
	at := now.UnixNano()
	for _, t := range []uint64{x.time, x.observed} {
		if t > 0 && t < math.MaxInt64 {
			at = believed(int64(t), 1, at, believeLate)
			break
		}
	}
	instance := name("service.instance.id")
	if instance == "" {
		instance = name("host.name")
	}
	e := entry{time: at, labels: c.outside("otlp", name("service.namespace"), name("service.name"), instance)}
	switch b := x.body.(type) {
	case string:
		e.text = b
	case map[string]any:
		e.text = jsonText(b)
	case nil:
	default:
		raw, _ := json.Marshal(b) //nolint:errchkjson // numbers, truth values and lists of these
		e.text = string(raw)
	}
	add := func(name, value string) {
		if value != "" && len(e.fields) < maxFields {
			e.fields = append(e.fields, logs.Field{Name: name, Value: value})
		}
	}
	e.fields = []logs.Field{{Name: "message", Value: e.text}}
	level := levelOf(x.severity)
	if level == "" && x.number >= 1 && x.number <= 24 {
		level = [...]string{levelTrace, levelDebug, levelInfo, levelWarn, levelError, levelFatal}[(x.number-1)/4]
	}
	add("level", level)
	add("trace_id", x.trace)
	add("span_id", x.span)
	add("scope", x.scope)
	add("event", x.event)
	for _, m := range []map[string]any{x.attributes, x.resource} {
		flat(numbers(m), "", 0, func(name, value string) bool {
			add(name, value)
			return len(e.fields) < maxFields
		})
	}
	return e
}

// numbers writes numbers as text, which flat knows.
func numbers(m map[string]any) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		switch v := v.(type) {
		case int64:
			out[k] = strconv.FormatInt(v, 10)
		case float64:
			out[k] = strconv.FormatFloat(v, 'g', -1, 64)
		case map[string]any:
			out[k] = numbers(v)
		default:
			out[k] = v
		}
	}
	return out
}

var errProto = errors.New("the message is cut off or no protobuf")

// protoFields calls take for each field of a protobuf message: n is its number, b
// its bytes where it has some, v its value where it has none.
func protoFields(b []byte, take func(n uint64, v uint64, b []byte) error) error {
	for len(b) > 0 {
		key, k := binary.Uvarint(b)
		if k <= 0 {
			return errProto
		}
		b = b[k:]
		var v uint64
		var data []byte
		switch key & 7 {
		case 0:
			if v, k = binary.Uvarint(b); k <= 0 {
				return errProto
			}
			b = b[k:]
		case 1:
			if len(b) < 8 {
				return errProto
			}
			v, b = binary.LittleEndian.Uint64(b), b[8:]
		case 2:
			n, k := binary.Uvarint(b)
			if k <= 0 || n > uint64(len(b)-k) {
				return errProto
			}
			data, b = b[k:k+int(n)], b[k+int(n):]
		case 5:
			if len(b) < 4 {
				return errProto
			}
			v, b = uint64(binary.LittleEndian.Uint32(b)), b[4:]
		default:
			return errProto
		}
		if err := take(key>>3, v, data); err != nil {
			return err
		}
	}
	return nil
}

// readOTLP reads an ExportLogsServiceRequest.
func readOTLP(b []byte) (out []otlpRecord, err error) {
	err = protoFields(b, func(n, _ uint64, b []byte) error {
		if n != 1 {
			return nil
		}
		resource := map[string]any{}
		var scopes [][]byte
		err := protoFields(b, func(n, _ uint64, b []byte) error {
			switch n {
			case 1:
				return protoFields(b, func(n, _ uint64, b []byte) error {
					if n == 1 {
						return protoPair(b, resource, 0)
					}
					return nil
				})
			case 2:
				scopes = append(scopes, b)
			}
			return nil
		})
		for _, b := range scopes {
			if err == nil {
				err = protoScope(b, resource, &out)
			}
		}
		return err
	})
	return out, err
}

func protoScope(b []byte, resource map[string]any, out *[]otlpRecord) error {
	scope, first := "", len(*out)
	err := protoFields(b, func(n, _ uint64, b []byte) error {
		switch n {
		case 1:
			return protoFields(b, func(n, _ uint64, b []byte) error {
				if n == 1 {
					scope = string(b)
				}
				return nil
			})
		case 2:
			x := otlpRecord{resource: resource, attributes: map[string]any{}}
			err := protoFields(b, func(n, v uint64, b []byte) (err error) {
				switch n {
				case 1:
					x.time = v
				case 2:
					x.number = v
				case 3:
					x.severity = string(b)
				case 5:
					x.body, err = protoValue(b, 0)
				case 6:
					return protoPair(b, x.attributes, 0)
				case 9:
					x.trace = hex.EncodeToString(b)
				case 10:
					x.span = hex.EncodeToString(b)
				case 11:
					x.observed = v
				case 12:
					x.event = string(b)
				}
				return err
			})
			*out = append(*out, x)
			return err
		}
		return nil
	})
	for i := first; i < len(*out); i++ {
		(*out)[i].scope = scope
	}
	return err
}

func protoPair(b []byte, into map[string]any, depth int) error {
	key := ""
	var value any
	err := protoFields(b, func(n, _ uint64, b []byte) (err error) {
		switch n {
		case 1:
			key = string(b)
		case 2:
			value, err = protoValue(b, depth+1)
		}
		return err
	})
	into[key] = value
	return err
}

func protoValue(b []byte, depth int) (value any, err error) {
	if depth > maxDepth {
		return nil, errors.New("a value goes too deep")
	}
	err = protoFields(b, func(n, v uint64, b []byte) error {
		switch n {
		case 1:
			value = string(b)
		case 2:
			value = v != 0
		case 3:
			value = int64(v)
		case 4:
			value = plainValue(math.Float64frombits(v))
		case 5:
			list := []any{}
			err := protoFields(b, func(_, _ uint64, b []byte) error {
				x, err := protoValue(b, depth+1)
				list = append(list, x)
				return err
			})
			value = list
			return err
		case 6:
			m := map[string]any{}
			value = m
			return protoFields(b, func(_, _ uint64, b []byte) error { return protoPair(b, m, depth+1) })
		case 7:
			value = base64.StdEncoding.EncodeToString(b)
		}
		return nil
	})
	return value, err
}

// wire is OTLP's JSON of a value.
type wire struct {
	StringValue *string      `json:"stringValue"`
	BoolValue   *bool        `json:"boolValue"`
	IntValue    *json.Number `json:"intValue"`
	DoubleValue *float64     `json:"doubleValue"`
	BytesValue  *string      `json:"bytesValue"`
	ArrayValue  *struct {
		Values []wire `json:"values"`
	} `json:"arrayValue"`
	KvlistValue *struct {
		Values []wirePair `json:"values"`
	} `json:"kvlistValue"`
}

type wirePair struct {
	Key   string `json:"key"`
	Value wire   `json:"value"`
}

func (w wire) value() any {
	switch {
	case w.StringValue != nil:
		return *w.StringValue
	case w.BoolValue != nil:
		return *w.BoolValue
	case w.IntValue != nil:
		return w.IntValue.String()
	case w.DoubleValue != nil:
		return *w.DoubleValue
	case w.BytesValue != nil:
		return *w.BytesValue
	case w.ArrayValue != nil:
		list := []any{}
		for _, v := range w.ArrayValue.Values {
			list = append(list, v.value())
		}
		return list
	case w.KvlistValue != nil:
		return pairsMap(w.KvlistValue.Values)
	}
	return nil
}

func pairsMap(list []wirePair) map[string]any {
	m := map[string]any{}
	for _, p := range list {
		m[p.Key] = p.Value.value()
	}
	return m
}

func readOTLPJSON(b []byte) (out []otlpRecord, err error) {
	var request struct {
		ResourceLogs []struct {
			Resource struct {
				Attributes []wirePair `json:"attributes"`
			} `json:"resource"`
			ScopeLogs []struct {
				Scope struct {
					Name string `json:"name"`
				} `json:"scope"`
				LogRecords []struct {
					TimeUnixNano         json.Number `json:"timeUnixNano"`
					ObservedTimeUnixNano json.Number `json:"observedTimeUnixNano"`
					SeverityNumber       uint64      `json:"severityNumber"`
					SeverityText         string      `json:"severityText"`
					Body                 wire        `json:"body"`
					Attributes           []wirePair  `json:"attributes"`
					TraceID              string      `json:"traceId"`
					SpanID               string      `json:"spanId"`
					EventName            string      `json:"eventName"`
				} `json:"logRecords"`
			} `json:"scopeLogs"`
		} `json:"resourceLogs"`
	}
	if err := json.Unmarshal(b, &request); err != nil {
		return nil, err
	}
	nanos := func(n json.Number) uint64 {
		v, _ := strconv.ParseUint(n.String(), 10, 64) //nolint:errcheck // what is no number is not said
		return v
	}
	for _, r := range request.ResourceLogs {
		resource := pairsMap(r.Resource.Attributes)
		for _, s := range r.ScopeLogs {
			for _, x := range s.LogRecords {
				out = append(out, otlpRecord{
					resource: resource, attributes: pairsMap(x.Attributes), scope: s.Scope.Name, event: x.EventName,
					time: nanos(x.TimeUnixNano), observed: nanos(x.ObservedTimeUnixNano), severity: x.SeverityText, number: x.SeverityNumber,
					body: x.Body.value(), trace: x.TraceID, span: x.SpanID,
				})
			}
		}
	}
	return out, nil
}
