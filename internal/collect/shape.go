package collect

import (
	"bytes"

	"github.com/tenderhq/tender/internal/logs"
)

const (
	maxShapes = 512 // of one source; more means that keys are data, and lines are kept whole
	maxNames  = 4096
	maxFields = 256 // of one entry; what is beyond stays in its text alone
)

// shape is how lines of one kind are built: what stands between their values is
// always the same. A line that fits one is taken apart by comparing, which is
// several times as fast as reading its JSON.
type shape struct {
	text   string   // with a hole for each value
	pieces [][]byte // what stands between the values, escaped; one more than names
	quoted []bool   // the value is a string
	names  []string
	roles  roles
}

// roles are which of the values mean something, by their index; -1: none does.
type roles struct {
	time, level, message, trace, user int
	// named: the value goes by the right name already.
	hasLevel, hasMessage, hasTrace, hasUser bool
}

var noRoles = roles{time: -1, level: -1, message: -1, trace: -1, user: -1}

// see notes what the name of value i says; the first counts.
func (r *roles) see(i int, name string) {
	first := func(at *int) {
		if *at < 0 {
			*at = i
		}
	}
	switch name {
	case "level":
		r.level, r.hasLevel = i, true
	case "message":
		r.message, r.hasMessage = i, true
	case "trace_id":
		r.trace, r.hasTrace = i, true
	case "user_id":
		r.user, r.hasUser = i, true
	case "timestamp", "time", "ts", "@timestamp", "datetime", "date", "asctime", "eventTime", "event_time", "Timestamp", "Time", "t":
		first(&r.time)
	case "severity", "lvl", "loglevel", "log_level", "log.level", "logLevel", "levelname", "severity_text", "severityText", "Level", "LEVEL", "SEVERITY", "Severity":
		if !r.hasLevel {
			first(&r.level)
		}
	case "msg", "@message", "short_message", "Message", "body", "@m", "event.message":
		if !r.hasMessage {
			first(&r.message)
		}
	case "traceId", "traceID", "trace.id", "traceid", "dd.trace_id", "otelTraceID", "TraceId":
		if !r.hasTrace {
			first(&r.trace)
		}
	case "userId", "userID", "user.id", "userid", "UserId":
		if !r.hasUser {
			first(&r.user)
		}
	}
}

// fit takes s apart if it is of this shape: its values go to into. They are
// parts of s.
func (s *shape) fit(line []byte, into [][]byte) ([][]byte, bool) {
	if !bytes.HasPrefix(line, s.pieces[0]) {
		return into, false
	}
	line = line[len(s.pieces[0]):]
	for i, quoted := range s.quoted {
		var n int
		if quoted {
			if n = bytes.IndexByte(line, '\\'); n < 0 {
				return into, false
			}
		} else {
			for n < len(line) && line[n] != ',' && line[n] != '}' && line[n] != ' ' && line[n] != ']' && line[n] != '\\' {
				n++
			}
			if !scalar(line[:n]) {
				return into, false
			}
		}
		into = append(into, line[:n])
		line = line[n:]
		next := s.pieces[i+1]
		if !bytes.HasPrefix(line, next) {
			return into, false
		}
		line = line[len(next):]
	}
	return into, len(line) == 0
}

// shapes are those of one source.
type shapes struct {
	byText map[string]string // text of the shape, once
	recent [4]*shape         // the last one that fitted first
	names  map[string]string
}

// find returns the shape that line is of, and its values.
func (s *shapes) find(line []byte, into [][]byte) (*shape, [][]byte) {
	for i, x := range s.recent {
		if x == nil {
			break
		}
		if values, ok := x.fit(line, into); ok {
			if i > 0 {
				copy(s.recent[1:i+1], s.recent[:i])
				s.recent[0] = x
			}
			return x, values
		}
	}
	return nil, nil
}

func (s *shapes) learn(x *shape) {
	copy(s.recent[1:], s.recent[:])
	s.recent[0] = x
}

// intern returns text as a string that stays. ok false: there are too many, or it
// holds the byte that means a hole more often than there are values.
func (s *shapes) intern(text []byte, holes int) (string, bool) {
	if known, ok := s.byText[string(text)]; ok {
		return known, true
	}
	if len(s.byText) >= maxShapes || bytes.Count(text, []byte{logs.Hole}) != holes {
		return "", false
	}
	if s.byText == nil {
		s.byText = map[string]string{}
	}
	t := string(text)
	s.byText[t] = t
	return t, true
}

// name returns a name of a field as a string that stays, if there are not too many.
func (s *shapes) name(b []byte) string {
	if n, ok := s.names[string(b)]; ok {
		return n
	}
	if s.names == nil {
		s.names = map[string]string{}
	}
	n := string(b)
	if len(s.names) < maxNames {
		s.names[n] = n
	}
	return n
}

// scalar reports whether b is a number, true or false.
func scalar(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	switch b[0] {
	case 't':
		return string(b) == "true"
	case 'f':
		return string(b) == "false"
	}
	digits := false
	for i, c := range b {
		switch {
		case c >= '0' && c <= '9':
			digits = true
		case c == '-' && (i == 0 || b[i-1] == 'e' || b[i-1] == 'E'), c == '+' && i > 0, c == '.' && digits, (c == 'e' || c == 'E') && digits:
		default:
			return false
		}
	}
	return digits
}

// wholeShape is that of an entry without structure.
var wholeShape = string([]byte{logs.Hole})

// extracted is the name of a field that would be taken for a label.
func extracted(name string) string { return name + "_extracted" }
