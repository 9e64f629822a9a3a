package compose_test

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/tenderhq/tender/internal/compose"
)

// A command that began with a blank line once came back with its script's
// indentation gone: what the YAML library writes, it does not always read.
func FuzzTextsComeThrough(f *testing.F) {
	for _, s := range []string{
		"\n  a\n b", "\n 0", "a\n\n", "a\n b\n", "\ta\n", "a\r\nb", "a \nb", "\n", "a\n\n\nb  \n   ", "#\n", "- a\n", "a: b\n", "...\n",
		"---\na", "\u2028a\nb", "\ufeff\na", "x\n\ty", "\x00", "tender-text-0", "é\n", "~", "1e3", "0x1f", "null", "!!str", "<<", "=", "on", "2020-01-01", " a ", "a\u0085b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 1000 {
			t.Skip("long")
		}
		quoted := yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: strings.ReplaceAll(s, "$", "$$")}
		text, err := yaml.Marshal(&quoted)
		var back string
		if err != nil || yaml.Unmarshal(text, &back) != nil || back != quoted.Value {
			t.Skip("not a text that YAML can hold")
		}
		q := strings.TrimSuffix(strings.ReplaceAll(string(text), "\n", " "), " ")
		src := "services:\n  web:\n    image: x\n    command: [" + q + "]\n    labels: {a: " + q + "}\nx-other: [" + q + "]\n"
		d, err := compose.Load(t.Context(), compose.Source{Files: []string{"-"}, Dir: "/", Name: "shop", Stdin: strings.NewReader(src)})
		if err != nil {
			t.Skip(err)
		}
		p, err := compose.Parse([]byte(d.YAML))
		if err != nil {
			t.Fatalf("%q: %v\n%s", s, err, d.YAML)
		}
		spec, err := compose.Spec(p.Services[0].Spec)
		if err != nil {
			t.Fatal(err)
		}
		web := spec.Services["web"]
		if web.Command[0] != s || web.Labels["a"] != s {
			t.Errorf("%q came through as %q and %q\n%s", s, web.Command[0], web.Labels["a"], d.YAML)
		}
		if string(p.Spec) != d.YAML {
			t.Errorf("%q: written again it differs\n%s\n%s", s, d.YAML, p.Spec)
		}
	})
}
