package compose

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones are known on hosts that have none, too

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
)

var (
	logMatch = &word{
		kind: "string", rule: expression, about: "A regular expression for the text",
		or: &word{about: "Fields, each with a regular expression for its whole value", free: &word{kind: "string", rule: expression}},
	}
	logParse = &word{about: "A regular expression with named groups, or a grok pattern such as %{COMBINEDAPACHELOG}", kind: "string", rule: filled("a pattern")}

	logsWords = &word{about: "How its lines are read, and what is kept of them", keys: map[string]*word{
		"format":    {about: "auto, which is the default, finds it out line by line; access is that of web servers", enum: []string{"auto", "json", "logfmt", "access", "plain"}},
		"drop":      {about: "Entries that are not kept", items: logMatch, or: logMatch},
		"keep":      {about: "Entries that are kept; all others are not", items: logMatch, or: logMatch},
		"sample":    {about: "The share of entries below warn that is kept, such as 10%", rule: share},
		"redact":    {about: "email, card, token, and regular expressions for what is taken out before anything is kept", items: &word{kind: "string", rule: redactable}, or: &word{kind: "string", rule: redactable}},
		"add":       {about: "Constant fields", free: &word{}},
		"rename":    {about: "Other names for fields, old: new", free: &word{kind: "string", rule: filled("a name")}},
		"parse":     {about: "Patterns whose named groups become fields; the first that matches counts", items: logParse, or: logParse},
		"zone":      {about: "Of times that do not say theirs, such as Europe/Berlin; default UTC", kind: "string", rule: zoneName},
		"multiline": {about: "A regular expression for the first line of an entry; off: each line is one; default: stack traces are joined", kind: "string", rule: expression},
		"labels":    {about: "Constant labels of the stream", free: &word{}},
		"retain": {about: "How long its logs are kept, such as 14d", or: &word{kind: "string", rule: ageRule}, keys: map[string]*word{
			"age":  {about: "such as 14d", kind: "string", rule: ageRule},
			"size": {about: "On the disk, such as 2GiB; the oldest go first", rule: bytesRule},
		}},
	}}
)

func expression(v string) error {
	if v == "" {
		return fmt.Errorf("want a regular expression")
	}
	if _, err := regexp.Compile(v); err != nil {
		return fmt.Errorf("want a regular expression: %w", err)
	}
	return nil
}

func redactable(v string) error {
	if plainWord.MatchString(v) && v != "email" && v != "card" && v != "token" {
		return fmt.Errorf("want email, card, token or a regular expression%s", meant(v, []string{"email", "card", "token"}))
	}
	return expression(v)
}

var plainWord = regexp.MustCompile(`^[a-z]+$`)

func zoneName(v string) error {
	if _, err := time.LoadLocation(v); err != nil || v == "" || v == "Local" {
		return fmt.Errorf("want the name of a time zone such as Europe/Berlin or UTC")
	}
	return nil
}

func ageRule(v string) error {
	_, err := ageOf(v)
	return err
}

// ageOf reads a duration that may be in days or weeks: 36h, 14d, 2w.
func ageOf(v string) (time.Duration, error) {
	for unit, length := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if n, ok := strings.CutSuffix(v, unit); ok {
			if days, err := strconv.Atoi(n); err == nil && days > 0 && days < 100_000 {
				return time.Duration(days) * length, nil
			}
		}
	}
	if d, err := time.ParseDuration(v); err == nil && d > 0 {
		return d, nil
	}
	return 0, fmt.Errorf("want an age such as 14d or 36h")
}

// Logs reads what x-tender.logs of the one service in spec says, and the constant
// labels among its log options.
func Logs(spec []byte) (tender.Logs, error) {
	p, err := whole(spec)
	if err != nil {
		return tender.Logs{}, err
	}
	for _, s := range p.Services {
		return logsOf(s)
	}
	return tender.Logs{}, nil
}

func logsOf(s types.ServiceConfig) (tender.Logs, error) {
	r := reader{path: extensionKey + ".logs"}
	m := asMap(asMap(s.Extensions[extensionKey])["logs"])
	out := tender.Logs{
		Format: r.held(m, "format", logsWords.keys["format"].only),
		Drop:   r.matches(m, "drop"), Keep: r.matches(m, "keep"), Sample: valueAt(&r, m, "sample", shareOf),
		Redact: r.texts(m, "redact"), Parse: r.texts(m, "parse"), Add: r.pairs(m, "add"), Rename: r.pairs(m, "rename"), Labels: r.pairs(m, "labels"),
		Zone: r.held(m, "zone", zoneName), Multiline: r.held(m, "multiline", expression),
	}
	for _, v := range out.Redact {
		if err := redactable(v); err != nil {
			r.fail("redact", v, err)
		}
	}
	if keep := asMap(m["retain"]); len(keep) > 0 {
		below := r.at("retain")
		out.RetainAge, out.RetainSize = valueAt(below, keep, "age", ageOf), valueAt(below, keep, "size", bytesOf)
	} else if m["retain"] != nil {
		out.RetainAge = valueAt(&r, m, "retain", ageOf)
	}
	for name, value := range constantLabels(s) {
		if out.Labels == nil {
			out.Labels = map[string]string{}
		}
		if _, said := out.Labels[name]; !said {
			out.Labels[name] = value
		}
	}
	return out, r.err()
}

// matches reads one condition or a list of them.
func (r *reader) matches(m map[string]any, key string) (out []tender.LogMatch) {
	var list []any
	switch v := m[key].(type) {
	case nil:
	case []any:
		list = v
	default:
		list = []any{v}
	}
	for _, v := range list {
		var l tender.LogMatch
		if fields := asMap(v); len(fields) > 0 {
			l.Fields = map[string]string{}
			for name, pattern := range fields {
				l.Fields[name] = fmt.Sprint(pattern)
			}
		} else {
			l.Text = fmt.Sprint(v)
		}
		for _, pattern := range append([]string{l.Text}, mapValues(l.Fields)...) {
			if pattern != "" {
				if err := expression(pattern); err != nil {
					r.fail(key, pattern, err)
				}
			}
		}
		out = append(out, l)
	}
	return out
}

func mapValues(m map[string]string) (out []string) {
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

// constantLabels are those that the log option labels gives as name=value. To the
// engine it is a list of names of the container's labels.
func constantLabels(s types.ServiceConfig) map[string]string {
	var options string
	if s.Logging != nil {
		options = s.Logging.Options["labels"]
	}
	out := map[string]string{}
	for part := range strings.SplitSeq(options, ",") {
		if name, value, ok := strings.Cut(strings.TrimSpace(part), "="); ok && name != "" {
			out[name] = value
		}
	}
	return out
}

// logOption warns of log options that do something else than they seem to.
func (w *walk) logOption(k, v *yaml.Node, at place) {
	if w.normal || at.field != "services.*.logging.options.*" {
		return
	}
	switch value := follow(v).Value; {
	case k.Value == "labels" && strings.Contains(value, "="):
		w.warn(w.tree, k, at.text("to the engine %q is the name of a container's label; Tender takes it as a constant label of the logs, x-tender: {logs: {labels: {…}}} says so plainly", value))
	case k.Value == "max-file" && value == "1":
		w.warn(w.tree, k, at.text("with one file the engine empties it in place, and what was not read by then is lost: give 2 or more"))
	}
}
