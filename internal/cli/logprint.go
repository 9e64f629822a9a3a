package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tenderhq/tender/internal/api"
)

// logPrinter prints lines as docker compose does: instance, bar, text.
type logPrinter struct {
	w, notes                     io.Writer
	json, stamps, prefix, colour bool
	grep                         *regexp.Regexp
	project                      string
	unknown                      error // no instance of a service that was named is there
	width                        int
	colours                      map[string]int
}

func (p *logPrinter) print(l api.LogLine) error {
	if l.Note != "" {
		if p.json {
			return json.NewEncoder(p.w).Encode(map[string]any{"note": l.Note})
		}
		_, err := fmt.Fprintln(p.notes, l.Note)
		return err
	}
	if p.grep != nil && !p.grep.MatchString(l.Text) {
		return nil
	}
	if p.json {
		e := json.NewEncoder(p.w)
		e.SetEscapeHTML(false)
		return e.Encode(l)
	}
	var b strings.Builder
	head := ""
	if p.prefix {
		name := shortName(p.project, l.Instance)
		p.width = max(p.width, len(name))
		head = fmt.Sprintf("%-*s | ", p.width, name)
		if p.colour {
			head = "\x1b[" + strconv.Itoa(p.colourOf(l.Service)) + "m" + head + "\x1b[0m"
		}
	}
	if p.stamps {
		head += l.Time.UTC().Format("2006-01-02T15:04:05.000000000Z") + " "
	}
	for text := range strings.SplitSeq(l.Text, "\n") { // a stack trace has several
		b.WriteString(head + text + "\n")
	}
	_, err := io.WriteString(p.w, b.String())
	return err
}

// colourOf gives each service a colour in order of appearance.
func (p *logPrinter) colourOf(service string) int {
	if p.colours == nil {
		p.colours = map[string]int{}
	}
	c, ok := p.colours[service]
	if !ok {
		c = []int{36, 33, 32, 35, 34, 96, 93, 92, 95, 94}[len(p.colours)%10]
		p.colours[service] = c
	}
	return c
}

// shortName is an instance's name without that of its project.
func shortName(project, instance string) string {
	return strings.TrimPrefix(instance, project+"-")
}

// moment reads a point in time: RFC 3339, a date, seconds since 1970, or a
// duration before now.
func moment(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := span(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && f >= 0 && f < 1e11 {
		return time.UnixMilli(int64(f * 1000)), nil
	}
	return time.Time{}, misuse("such as 10m, 2d, 2026-01-02 or 2026-01-02T15:04:05Z", "%s %q is no moment", flag, s)
}

// span reads a duration as people write it: Go's, and days and weeks.
func span(s string) (time.Duration, error) {
	if n, ok := strings.CutSuffix(s, "d"); ok {
		if days, err := strconv.ParseFloat(n, 64); err == nil {
			return time.Duration(days * 24 * float64(time.Hour)), nil
		}
	}
	if n, ok := strings.CutSuffix(s, "w"); ok {
		if weeks, err := strconv.ParseFloat(n, 64); err == nil {
			return time.Duration(weeks * 7 * 24 * float64(time.Hour)), nil
		}
	}
	return time.ParseDuration(s)
}
