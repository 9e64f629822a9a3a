package collect

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/tenderhq/tender/internal/logs"
)

var (
	facilities = [...]string{
		"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
		"ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
	}
	severities = [...]string{levelFatal, levelFatal, levelCritical, levelError, levelWarn, levelInfo, levelInfo, levelDebug}
)

// eachSyslog reads the messages of a connection, counted in octets or one a line
// (RFC 6587).
func eachSyslog(in *bufio.Reader, take func([]byte) error) error {
	for {
		first, err := in.Peek(1)
		if err != nil {
			return err
		}
		if first[0] < '1' || first[0] > '9' {
			line, err := in.ReadSlice('\n')
			if err != nil && (len(line) == 0 || len(line) > maxDatagram-1) {
				return err
			}
			if line = bytes.TrimRight(line, "\r\n"); len(line) > 0 {
				if terr := take(line); terr != nil {
					return terr
				}
			}
			if err != nil {
				return err
			}
			continue
		}
		count, err := in.ReadString(' ')
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(strings.TrimSuffix(count, " "))
		if err != nil || n < 1 || n > maxMessage {
			return fmt.Errorf("a message of %q bytes", count)
		}
		m := make([]byte, n)
		if _, err := io.ReadFull(in, m); err != nil {
			return err
		}
		if err := take(bytes.TrimRight(m, "\r\n")); err != nil {
			return err
		}
	}
}

// syslog reads a message of RFC 5424 or 3164; what is neither is kept as it is.
func (c *Collector) syslog(line []byte, from string, now time.Time) entry {
	m := readSyslog(strings.ToValidUTF8(string(line), "\ufffd"), now)
	if m.host == "" {
		m.host = from
	}
	e := entry{time: m.time.UnixNano(), text: m.text, labels: c.outside("syslog", "", m.app, m.host)}
	add := func(name, value string) {
		if value != "" {
			e.fields = append(e.fields, logs.Field{Name: name, Value: value})
		}
	}
	e.fields = []logs.Field{{Name: "message", Value: m.message}}
	add("level", m.level)
	add("facility", m.facility)
	add("pid", m.pid)
	add("msgid", m.id)
	e.fields = append(e.fields, m.data...)
	e.time = believed(m.time.UnixNano(), 1, now.UnixNano(), believeLate)
	return e
}

// syslogMessage is one, taken apart.
type syslogMessage struct {
	text, message      string
	time               time.Time
	level, facility    string
	host, app, pid, id string
	data               []logs.Field
}

func readSyslog(text string, now time.Time) syslogMessage {
	m := syslogMessage{text: text, message: text, time: now}
	rest, ok := strings.CutPrefix(text, "<")
	if !ok {
		return m
	}
	number, rest, ok := strings.Cut(rest, ">")
	priority, err := strconv.Atoi(number)
	if !ok || err != nil || priority < 0 || priority > 191 {
		return m
	}
	m.level, m.facility = severities[priority&7], facilities[priority>>3]
	if v5424, ok := strings.CutPrefix(rest, "1 "); ok {
		m.read5424(v5424)
	} else {
		m.read3164(rest, now)
	}
	return m
}

func (m *syslogMessage) read5424(rest string) {
	word := func() string {
		w, after, _ := strings.Cut(rest, " ")
		rest = after
		if w == "-" {
			return ""
		}
		return w
	}
	stamp := word()
	if t, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
		m.time = t
	}
	m.host, m.app, m.pid, m.id = word(), word(), word(), word()
	switch {
	case strings.HasPrefix(rest, "-"):
		rest = rest[1:]
	case strings.HasPrefix(rest, "["):
		rest = m.structured(rest)
	}
	m.message = strings.TrimPrefix(strings.TrimPrefix(rest, " "), "\ufeff")
}

// structured reads [id name="value" …]… and returns what follows.
func (m *syslogMessage) structured(s string) string {
	for strings.HasPrefix(s, "[") {
		i := 1
		for i < len(s) && s[i] != ' ' && s[i] != ']' {
			i++
		}
		id := s[1:i]
		for i < len(s) && s[i] == ' ' {
			i++
			from := i
			for i < len(s) && s[i] != '=' && s[i] != ']' {
				i++
			}
			if i+1 >= len(s) || s[i] != '=' || s[i+1] != '"' {
				return s[min(i, len(s)):]
			}
			name := s[from:i]
			var value strings.Builder
			for i += 2; i < len(s) && s[i] != '"'; i++ {
				if s[i] == '\\' && i+1 < len(s) {
					i++
				}
				value.WriteByte(s[i])
			}
			i++
			if len(m.data) < maxFields {
				m.data = append(m.data, logs.Field{Name: id + "." + name, Value: value.String()})
			}
		}
		if i >= len(s) || s[i] != ']' {
			return s[min(i, len(s)):]
		}
		s = s[i+1:]
	}
	return s
}

func (m *syslogMessage) read3164(rest string, now time.Time) {
	if len(rest) > 16 {
		if t, err := time.ParseInLocation(time.Stamp, rest[:15], time.Local); err == nil {
			t = t.AddDate(now.Year()-t.Year(), 0, 0)
			if t.After(now.Add(24 * time.Hour)) { // December, read in January
				t = t.AddDate(-1, 0, 0)
			}
			m.time = t
			m.host, rest, _ = strings.Cut(strings.TrimLeft(rest[15:], " "), " ")
		}
	}
	tag, message, ok := strings.Cut(rest, ": ")
	if !ok || strings.ContainsAny(tag, " \t") || len(tag) > 64 {
		if ok && m.host != "" && strings.HasSuffix(m.host, ":") { // no host, as local senders write it
			m.app, m.host = strings.TrimSuffix(m.host, ":"), ""
		}
		m.message = rest
		return
	}
	m.message = message
	m.app, m.pid, _ = strings.Cut(tag, "[")
	m.pid = strings.TrimSuffix(m.pid, "]")
}
