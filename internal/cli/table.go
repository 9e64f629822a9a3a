package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"
	"unicode/utf8"

	"github.com/docker/go-units"
)

// table prints rows under a heading, aligned with spaces.
func table(w io.Writer, heading []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	fmt.Fprintln(t, strings.Join(heading, "\t"))
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	return t.Flush()
}

// printJSON prints one value for machines. A nil slice is an empty list.
func printJSON(w io.Writer, v any) error {
	if r := reflect.ValueOf(v); r.Kind() == reflect.Slice && r.IsNil() {
		v = []struct{}{}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// listed is formatted for the commands whose --format json is one list in Docker
// Compose, not an object a line.
func listed[T any](w io.Writer, format, standard string, headings map[string]string, rows []T) error {
	if format != "json" {
		return formatted(w, format, standard, headings, rows)
	}
	if rows == nil {
		rows = []T{}
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(rows)
}

// formatted prints rows as Docker's --format says: "json", "table", "table
// TEMPLATE" or TEMPLATE. headings gives the heading of each field; standard is
// the template of the plain table.
func formatted[T any](w io.Writer, format, standard string, headings map[string]string, rows []T) error {
	if format == "json" {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		for _, r := range rows {
			if err := e.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	if format == "" || format == "table" {
		format = "table " + standard
	}
	text, isTable := strings.CutPrefix(format, "table")
	if isTable {
		text = strings.TrimLeft(text, " ")
	}
	// The shell hands \t and \n over as they were typed.
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	t, err := template.New("format").Option("missingkey=error").Funcs(templateFuncs).Parse(text)
	if err != nil {
		return misuse("see --help for the fields", "--format: %v", err)
	}
	out := io.Writer(w)
	if isTable {
		aligned := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
		defer aligned.Flush()
		out = aligned
		if err := t.Execute(out, headings); err != nil {
			return misuse(fieldsOf(headings), "--format: %v", err)
		}
		fmt.Fprintln(out)
	}
	for _, r := range rows {
		var line strings.Builder
		if err := t.Execute(&line, r); err != nil {
			return misuse(fieldsOf(headings), "--format: %v", err)
		}
		fmt.Fprintln(out, line.String())
	}
	return nil
}

func fieldsOf(headings map[string]string) string {
	return "fields: ." + strings.Join(sortedKeys(headings), " .")
}

// templateFuncs are those of docker's --format.
var templateFuncs = template.FuncMap{
	"json": func(v any) (string, error) {
		b, err := json.Marshal(v)
		return string(b), err
	},
	"join":  strings.Join,
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
	"split": strings.Split,
	"title": func(s string) string {
		if s == "" {
			return s
		}
		return strings.ToUpper(s[:1]) + s[1:]
	},
	"pad": func(s string, before, after int) string {
		return strings.Repeat(" ", max(before, 0)) + s + strings.Repeat(" ", max(after, 0))
	},
	"truncate": func(s string, n int) string {
		if r := []rune(s); len(r) > n && n >= 0 {
			return string(r[:n])
		}
		return s
	},
}

// ago says how long before now t was: "3 hours ago", or "" for no time.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strings.ToLower(units.HumanDuration(max(now.Sub(t), 0))) + " ago"
}

// stamp prints a moment to the second in the user's time zone.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// took prints a duration as people say it: 0.4s, 12.3s, 2m05s, 1h10m.
func took(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

// shortID cuts an id of the engine as docker does.
func shortID(id string) string {
	_, hex, ok := strings.Cut(id, ":")
	if !ok {
		hex = id
	}
	if len(hex) > 12 {
		return hex[:12]
	}
	return hex
}

// clip cuts s to width columns, with an ellipsis. Runes count as one column.
func clip(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	if width < 1 {
		return ""
	}
	return string([]rune(s)[:width-1]) + "…"
}

// orDash stands for an empty cell.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
