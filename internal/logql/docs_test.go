package logql

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// docs/logql.md promises what the parser holds, all of it and no more.
func TestTheDocsSayWhatTheParserKnows(t *testing.T) {
	raw, err := os.ReadFile("../../docs/logql.md")
	if err != nil {
		t.Fatal(err)
	}
	doc, n := string(raw), 0
	for _, block := range regexp.MustCompile("(?s)```logql\n(.*?)```").FindAllStringSubmatch(doc, -1) {
		for query := range strings.Lines(block[1]) {
			n++
			if _, err := Parse(query); err != nil {
				t.Errorf("%s%v", query, err)
			}
		}
	}
	if n < 40 {
		t.Errorf("only %d queries were found", n)
	}
	says := func(name string) {
		if !regexp.MustCompile(`\b` + name + `\b`).MatchString(doc) {
			t.Errorf("docs/logql.md does not say %s", name)
		}
	}
	for name := range rangeOps {
		says(name)
	}
	for _, name := range foldOps {
		says(name)
	}
	for name := range functions {
		says(name)
	}
	for _, name := range []string{errJSON, errLogfmt, errSample, errFilter, errTemplate} {
		says(name)
	}
	_, not, _ := strings.Cut(doc, "Not there:")
	not, _, _ = strings.Cut(not, "\n\n")
	for _, name := range outside {
		if name != "group" && name != "quantile" && name != "absent" && !strings.Contains(not, "`"+name+"`") {
			t.Errorf("docs/logql.md does not say that %s is not there", name)
		}
	}
	for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(not, -1) {
		for _, q := range []string{m[1] + `(1, rate({a="b"}[5m]))`, `{a="b"} | ` + m[1] + " x"} {
			if _, err := Parse(q); err == nil {
				t.Errorf("%s is there", m[1])
			}
		}
	}
}
