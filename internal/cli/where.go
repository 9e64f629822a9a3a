package cli

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	oneCondition = regexp.MustCompile(`^\s*([A-Za-z_][\w.-]*)\s*(==|!=|=~|!~|>=|<=|=|>|<)\s*(.*?)\s*$`)
	// What LogQL reads without quotes: numbers, durations and sizes.
	measure = regexp.MustCompile(`^-?[0-9.]+(?:(?:ns|us|µs|ms|s|m|h)(?:[0-9.]+(?:ns|us|µs|ms|s|m|h))*|[kKMGTP]?i?[bB]|[eE][+-]?[0-9]+)?$`)
	notName = regexp.MustCompile(`[.-]`)
	// Levels as every line's is found, whatever the line itself calls it.
	levels = []string{"trace", "debug", "info", "warn", "error", "critical", "fatal"}
)

// whereStage turns a condition as people write it into a stage of LogQL: a word on
// the right needs no quotes, and a name may be that of the field in the line, with
// dots. What is more than one condition is LogQL already.
func whereStage(s string) (string, error) {
	m := oneCondition.FindStringSubmatch(s)
	if m == nil {
		if strings.TrimSpace(s) == "" {
			return "", misuse("such as status>=500 or level=error", "--where is empty")
		}
		return "| " + s, nil
	}
	name, op, value := notName.ReplaceAllString(m[1], "_"), m[2], m[3]
	switch {
	case value == "" || strings.ContainsAny(value, "\"`()"): // quoted, or more than one
		return "| " + strings.Replace(s, m[1], name, 1), nil
	case strings.ContainsAny(op, "~"):
		return "| " + name + op + strconv.Quote(value), nil
	case measure.MatchString(value) && op != "=" && op != "!=":
		return "| " + name + op + value, nil
	case strings.ContainsAny(op, "<>"):
		return "", misuse("such as status>=500, took>1.5s or size<10MB", "--where %q: %q is no number, duration or size", s, value)
	}
	if op == "==" {
		op = "="
	}
	if name == "level" && slices.Contains(levels, value) {
		name = "detected_level" // whatever the line calls it: ERROR, err, 50
	}
	return "| " + name + op + strconv.Quote(value), nil
}
