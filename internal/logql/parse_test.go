package logql_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logql"
)

func TestErrorsSayWhere(t *testing.T) {
	for _, tt := range []struct{ query, want string }{
		{``, `1, col 1: unexpected end of query, expected a selector such as {service="web"}, a function or a number`},
		{`{service="web"`, `1, col 15: unexpected end of query, expected "," or "}"`},
		{`{service=web}`, `1, col 10: unexpected "web", expected a string`},
		{`{service=~"("}`, "1, col 11: error parsing regexp: missing closing ): `(`"},
		{`{service="web"} | jsn`, `1, col 19: there is no stage "jsn"; a filter is written jsn = "value"`},
		{`{service="web"} | distinct x`, `1, col 19: distinct is not part of this subset of LogQL`},
		{"{service=\"web\"}\n  |= web", `2, col 6: unexpected "web", expected a string`},
		{`{service="web"} | status >= "500"`, `1, col 26: ">=" compares numbers, durations and sizes; strings go with = != =~ !~`},
		{`{service="web"} | took > 5parsecs`, `1, col 26: "5parsecs" is no number, duration or size`},
		{`rate({service="web"})`, `1, col 1: rate needs a range such as [5m] behind the selector or the pipeline`},
		{`{service="web"}[5m]`, `1, col 16: a range belongs into a function such as count_over_time`},
		{`sum_over_time({a="b"}[5m])`, `1, col 1: sum_over_time needs a number of each line: add | unwrap NAME`},
		{`count_over_time({a="b"} | unwrap x [5m])`, `1, col 1: count_over_time counts lines; it does not go with unwrap`},
		{`approx_topk(3, rate({a="b"}[5m]))`, `1, col 1: approx_topk is not part of this subset of LogQL`},
		{`histogram(rate({a="b"}[5m]))`, `1, col 1: there is no function "histogram"`},
		{`rate({a="b"}[5m:1m])`, `1, col 16: there are no subqueries such as [1h:5m] in LogQL; a range holds lines`},
		{`rate({a="b"}[5m] @ 1)`, `1, col 18: there is no modifier "@" in LogQL; offset moves a range back`},
		{`{a="b"} | distinct x`, `1, col 11: distinct is not part of this subset of LogQL`},
		{`label_join(rate({a="b"}[5m]), "x", ",", "y")`, `1, col 1: label_join is not part of this subset of LogQL`},
		{`count_values("x", rate({a="b"}[5m]))`, `1, col 1: count_values is not part of this subset of LogQL`},
		{`variants(rate({a="b"}[5m])) of ({a="b"}[5m])`, `1, col 1: variants is not part of this subset of LogQL`},
		{`sum({a="b"})`, `1, col 5: sum works on series, such as those of count_over_time({...}[5m])`},
		{`rate({a="b"}[5m]) by (x)`, `1, col 19: rate has no grouping of its own: write sum by (x)(rate(...))`},
		{`{a="b"} + 1`, `1, col 9: "+" works on numbers, and {a="b"} yields lines`},
		{`vector(1) and 1`, `1, col 11: "and" works on vectors, not on the number 1`},
		{`{a="b"} | regexp "x"`, `1, col 18: the expression names nothing: write (?P<name>...)`},
		{"{a=\"b\"} | pattern `<a><b>`", `1, col 19: two captures with nothing between them`},
		{"{a=\"b\"} | line_format `{{.a`", `1, col 23: 1: unclosed action`},
		{`{a="b"} | label_format x=y, x="z"`, `1, col 29: label_format sets "x" twice; write two of them`},
		{`{a="b"} | json x="a["`, `1, col 18: "a[" is no path such as request.headers["User-Agent"] or servers[0]`},
		{`{a="b"} | logfmt --loose`, `1, col 18: logfmt has no flag --loose; it has --strict and --keep-empty`},
		{`{a="b"} |= ip("300.1")`, `1, col 15: "300.1" is no address, range such as 10.0.0.1-10.0.0.9, or network such as 10.0.0.0/8`},
		{`{a="b} `, `1, col 4: the string has no end`},
		{`topk(0, rate({a="b"}[5m]))`, `1, col 6: topk wants a whole number above 0`},
	} {
		_, err := logql.Parse(tt.query)
		got := "no error"
		if err != nil {
			got = err.Error()
		}
		if d := cmp.Diff("parse error at line "+tt.want, got); d != "" {
			t.Errorf("%s (-want +got)\n%s", tt.query, d)
		}
		if err != nil && tender.KindOf(err) != tender.Invalid {
			t.Errorf("%s: %s", tt.query, tender.KindOf(err))
		}
	}
}

// What Parse reads, String writes, and that is the same query.
func TestCanonicalForm(t *testing.T) {
	for _, tt := range []struct{ query, want string }{
		{"{ a = \"b\",c=~`d.`}|=`x` or \"y\"", `{a="b", c=~"d."} |= "x" or "y"`},
		{`sum(rate({a="b"}[90m]|json))by(x)`, `sum by (x)(rate({a="b"} | json [1h30m]))`},
		{`quantile_over_time(0.9,{a="b"}|unwrap duration(x)|__error__=""[1d]offset 2h)without(y)`, `quantile_over_time(0.9, {a="b"} | unwrap duration(x) | __error__="" [24h] offset 2h) without (y)`},
		{`1>bool vector(2)`, `(1 > bool vector(2))`},
		{`vector(1)/on(a)group_left(b)vector(2)`, `(vector(1) / on (a) group_left (b) vector(2))`},
		{`{a="b"}|x=1 or y>2s,z="q"`, `{a="b"} | ((x==1 or y>2s) and z="q")`},
		{`{a="b"}|drop x,y="z"|keep q|label_format a=b,c="d"|logfmt --strict u="v"|decolorize|unpack`, `{a="b"} | drop x, y="z" | keep q | label_format a=b, c="d" | logfmt --strict u="v" | decolorize | unpack`},
		{`topk(3,rate({a="b"}[1m]))`, `topk(3, rate({a="b"} [1m]))`},
	} {
		x, err := logql.Parse(tt.query)
		if err != nil {
			t.Errorf("%s: %v", tt.query, err)
			continue
		}
		if d := cmp.Diff(tt.want, x.String()); d != "" {
			t.Errorf("%s (-want +got)\n%s", tt.query, d)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, q := range []string{
		`{a="b"} |= "c" | json | d > 5m or e = ip("10.0.0.0/8") | line_format "{{.x}}" | label_format a=b`,
		`topk by (x) (2, sum without (y) (rate({a=~"b"} | logfmt --strict | unwrap bytes(z) | __error__="" [5m] offset 1h))) > bool 3 or vector(1)`,
		"{a!~`x`} | pattern `<a> <_>` | regexp `(?P<x>y)` | unpack | decolorize | drop a, b=\"c\" # end",
		`label_replace(rate({}[1d]), "a", "$1", "b", "(.*)") / on(a) group_left(c) vector(-1.5e3)`,
	} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, q string) {
		x, err := logql.Parse(q)
		if err != nil {
			if tender.KindOf(err) != tender.Invalid {
				t.Errorf("%q: %v", q, err)
			}
			return
		}
		again, err := logql.Parse(x.String())
		if err != nil {
			t.Fatalf("%q became %q: %v", q, x, err)
		}
		if again.String() != x.String() {
			t.Fatalf("%q became %q and then %q", q, x, again)
		}
	})
}

// Lines that nobody has seen before break no stage.
func FuzzStages(f *testing.F) {
	f.Add(`{"a":{"b":[1,2,{"c":"d"}],"e":null,"f":-1.5e3},"g":"\u00e4"}`)
	f.Add(`a=b c="d e" =f g= h "i`)
	f.Add("10.0.0.1 - [x] \x1b[31mred \xff\xfe")
	queries := []string{
		"{} | json", "{} | logfmt --keep-empty", "{} | logfmt --strict", "{} | json a=\"b[0].c\"", "{} | unpack", "{} | decolorize",
		"{} | pattern `<a> - [<_>] <b>`", "{} | regexp `(?P<a>\\w+)`", "{} |= ip(\"10.0.0.0/8\") or ip(\"::1\")", "{} | json | a > 5 | line_format `{{.}}`",
		"{} | json | label_format a=`{{.a | unixToTime}}`, b=a | keep a, b",
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := &shelf{}
		s.add(labels("service", "web"), plain(0, text))
		for _, q := range queries {
			x, err := logql.Parse(q)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := logql.New(s, logql.Limits{}).Lines(t.Context(), x, logql.Lines{}); err != nil {
				t.Errorf("%s: %v", q, err)
			}
		}
	})
}
