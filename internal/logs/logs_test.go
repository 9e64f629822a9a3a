package logs_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender/internal/logs"
)

func open(t testing.TB, dir string, o logs.Options) *logs.Store {
	t.Helper()
	if o.FreeBytes == 0 {
		o.FreeBytes = -1
	}
	s, err := logs.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func labels(project, service string) logs.Labels {
	return logs.Labels{{"project", project}, {"service", service}}
}

// plain is a row without structure.
func plain(at int64, text string) logs.Row {
	return logs.Row{Time: at, Shape: "\x00", Fields: []logs.Field{{"message", text}}}
}

func add(t testing.TB, s *logs.Store, b logs.Batch) {
	t.Helper()
	if err := s.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func flush(t testing.TB, s *logs.Store) {
	t.Helper()
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// entry is a found row, in words.
type entry struct {
	time   int64
	labels string
	text   string
	fields string
}

func (e entry) String() string {
	return fmt.Sprintf("%d %s %q %s", e.time, e.labels, e.text, e.fields)
}

func fieldsOf(fields []logs.Field) string {
	var b strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&b, " %s=%q", f.Name, f.Value)
	}
	return b.String()
}

// scan returns what a query finds, as sorted text, and checks the promises of chunks.
func scan(t testing.TB, s *logs.Store, q logs.Query) []string {
	t.Helper()
	var all []string
	prev, any := int64(0), false
	err := s.Scan(t.Context(), q, func(c logs.Chunk) error {
		bound := logs.Bound(c)
		if any && (q.Backward && bound > prev || !q.Backward && bound < prev) {
			t.Errorf("chunks out of order: %d after %d", bound, prev)
		}
		prev, any = bound, true
		times := c.Times()
		sorted := slices.Clone(times)
		slices.Sort(sorted)
		if q.Backward {
			slices.Reverse(sorted)
		}
		if !slices.Equal(times, sorted) || len(times) == 0 {
			t.Errorf("times are not in order, or none: %v", times)
		}
		if q.Backward && times[0] > bound || !q.Backward && times[0] < bound {
			t.Errorf("a row at %d beyond the bound %d", times[0], bound)
		}
		columns := map[string][]string{}
		for _, name := range c.Columns() {
			columns[name] = c.Column(name)
		}
		for i, at := range times {
			fields := c.Fields(nil, i)
			seen := map[string]bool{}
			for _, f := range fields {
				if seen[f.Name] {
					continue
				}
				seen[f.Name] = true
				if got := columns[f.Name]; got == nil || got[i] != f.Value {
					t.Errorf("column %q of row %d is not %q", f.Name, i, f.Value)
				}
			}
			for name, values := range columns {
				if values != nil && !seen[name] && values[i] != "" {
					t.Errorf("column %q has %q for a row without it", name, values[i])
				}
			}
			all = append(all, entry{at, c.Labels().String(), string(c.Text(nil, i)), fieldsOf(fields)}.String())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// naive finds the same without a store.
func naive(batches []logs.Batch, q logs.Query) []string {
	var all []string
	for _, b := range batches {
		for _, r := range b.Rows {
			stream := "stdout"
			if r.Stderr {
				stream = "stderr"
			}
			l := slices.Clone(b.Labels)
			at, _ := slices.BinarySearchFunc(l, "stream", func(f logs.Field, n string) int { return strings.Compare(f.Name, n) })
			l = slices.Insert(l, at, logs.Field{"stream", stream})
			if r.Time < q.From || q.To != 0 && r.Time >= q.To {
				continue
			}
			text := string(r.Text(nil))
			ok := true
			for _, c := range q.Labels {
				ok = ok && holds(c, l.Get(c.Name))
			}
			for _, c := range q.Text {
				ok = ok && holds(c, text)
			}
			for _, c := range q.Where {
				value := ""
				if i := slices.IndexFunc(r.Fields, func(f logs.Field) bool { return f.Name == c.Name }); i >= 0 {
					value = r.Fields[i].Value
				}
				ok = ok && holds(c, value)
			}
			if ok {
				all = append(all, entry{r.Time, l.String(), text, fieldsOf(r.Fields)}.String())
			}
		}
	}
	slices.Sort(all)
	return all
}

func holds(c logs.Condition, v string) bool {
	n, err := strconv.ParseFloat(v, 64)
	switch c.Op {
	case logs.Equal:
		return v == c.Value
	case logs.NotEqual:
		return v != c.Value
	case logs.Contains:
		return strings.Contains(v, c.Value)
	case logs.Lacks:
		return !strings.Contains(v, c.Value)
	case logs.Matches:
		return c.Regexp.MatchString(v)
	case logs.NotMatches:
		return !c.Regexp.MatchString(v)
	case logs.Above:
		return err == nil && n > c.Number
	case logs.AtLeast:
		return err == nil && n >= c.Number
	case logs.Below:
		return err == nil && n < c.Number
	case logs.AtMost:
		return err == nil && n <= c.Number
	}
	panic(c.Op)
}

// maker makes random rows of every kind that the store treats differently.
type maker struct{ *rand.Rand }

func (m maker) word() string {
	words := []string{"error", "Timeout", "connection", "refused", "ok", "deadbeef", "4711", "face", "user_id", "x", "", "héllo", "\x00", "a\nb", "\xff\xfe", "12", "0012", "level=error", `"`}
	if m.IntN(3) == 0 {
		return strconv.FormatUint(m.Uint64N(1_000_000), 36)
	}
	return words[m.IntN(len(words))]
}

func (m maker) value(name string) string {
	switch name {
	case "status":
		return strconv.Itoa(200 + 100*m.IntN(4) + m.IntN(5))
	case "id":
		return fmt.Sprintf("%016x", m.Uint64())
	case "uuid":
		u := fmt.Sprintf("%032x", m.Uint64())
		return u[:8] + "-" + u[8:12] + "-" + u[12:16] + "-" + u[16:20] + "-" + u[20:]
	case "level":
		return []string{"info", "warn", "error", "debug"}[m.IntN(4)]
	case "took":
		return strconv.FormatFloat(m.Float64()*100, 'f', m.IntN(4), 64)
	case "n":
		return strconv.FormatUint(m.Uint64N(1<<uint(1+m.IntN(50))), 10)
	}
	parts := make([]string, m.IntN(5))
	for i := range parts {
		parts[i] = m.word()
	}
	return strings.Join(parts, []string{" ", "-", "", "="}[m.IntN(4)])
}

func (m maker) row(at int64) logs.Row {
	r := logs.Row{Time: at, Stderr: m.IntN(5) == 0}
	switch m.IntN(6) {
	case 0:
		r.Shape, r.Fields = "\x00", []logs.Field{{"message", m.value("message")}}
		return r
	case 1:
		r.Shape = "started"
		return r
	case 2: // two values side by side, and a name twice
		r.Shape = "\x00\x00 end \x00"
		r.Fields = []logs.Field{{"a", m.value("a")}, {"a", m.value("a")}, {"n", m.value("n")}, {"level", m.value("level")}}
		return r
	case 3: // more holes than fields
		r.Shape, r.Fields = "x \x00 y \x00 z", []logs.Field{{"a", m.value("a")}}
		return r
	}
	names := []string{"ts", "level", "status", "id", "uuid", "took", "n", "message", "a", "odd name"}
	m.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	if m.IntN(2) == 0 {
		slices.Sort(names)
	}
	var b strings.Builder
	n := 3 + m.IntN(7)
	for i, name := range names[:n] {
		v := m.value(name)
		if name == "ts" {
			v = time.Unix(0, at).UTC().Format("2006-01-02T15:04:05.000Z")
		}
		r.Fields = append(r.Fields, logs.Field{name, v})
		if i == n-1 && m.IntN(3) == 0 {
			continue // derived: not in the text
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(name + "=\x00")
	}
	r.Shape = b.String()
	return r
}

func (m maker) batches(n, rows int) []logs.Batch {
	var all []logs.Batch
	base := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC).UnixNano()
	for i := range n {
		b := logs.Batch{Source: fmt.Sprintf("c%d", i%4), Labels: labels("shop", []string{"web", "db", "cache", "web2"}[i%4])}
		b.From = logs.Place{Seq: 1, Offset: int64(i)}
		b.To = logs.Place{Seq: 1, Offset: int64(i + 1)}
		for range m.IntN(rows) {
			base += m.Int64N(3e8)
			at := base
			if m.IntN(20) == 0 {
				at -= m.Int64N(5e9)
			}
			if i%4 == 1 {
				at -= at % 1e6
			}
			b.Rows = append(b.Rows, m.row(at))
		}
		all = append(all, b)
	}
	return all
}

// query makes a random query that is likely to find something of what there is.
func (m maker) query(batches []logs.Batch) logs.Query {
	var q logs.Query
	some := func() logs.Row {
		for {
			if b := batches[m.IntN(len(batches))]; len(b.Rows) > 0 {
				return b.Rows[m.IntN(len(b.Rows))]
			}
		}
	}
	if m.IntN(3) == 0 {
		q.From = some().Time
	}
	if m.IntN(3) == 0 {
		q.To = some().Time
	}
	if m.IntN(3) == 0 {
		q.Labels = append(q.Labels, []logs.Condition{
			{Name: "service", Op: logs.Equal, Value: "web"},
			{Name: "service", Op: logs.Matches, Regexp: regexp.MustCompile(`^(?:web.*)$`)},
			{Name: "stream", Op: logs.Equal, Value: "stderr"},
			{Name: "stream", Op: logs.NotEqual, Value: "stderr"},
			{Name: "nothing", Op: logs.Equal, Value: ""},
		}[m.IntN(5)])
	}
	for m.IntN(2) == 0 {
		r := some()
		text := string(r.Text(nil))
		if len(text) > 1 {
			from := m.IntN(len(text))
			text = text[from : from+m.IntN(min(12, len(text)-from)+1)]
		}
		c := logs.Condition{Op: []logs.Op{logs.Contains, logs.Contains, logs.Lacks}[m.IntN(3)], Value: text}
		if m.IntN(3) == 0 {
			c = logs.Condition{Op: logs.Matches, Regexp: regexp.MustCompile([]string{`(?i)TIMEOUT`, `error|refused`, `status=5\d\d`, `level=\w+r`, `(?i:kiss)|ok`, `^x`, `d$`, `a.b`, `connection.*refused`, `\d{5}`, `connection.*[4-9]{2} status=5`, `level=(info|error) .*\d=`, `(?i)Error[ =-].?x`, `warn.{0,3} ?\w{2}=`, `\bok\b.*refused`, `[^a]refused.`, `(?s)a.*b.error`, `errors?|ref[au]sed|71`, `(?i)(error|ace)`}[m.IntN(19)])}
		}
		q.Text = append(q.Text, c)
	}
	for m.IntN(2) == 0 {
		r := some()
		if len(r.Fields) == 0 {
			continue
		}
		f := r.Fields[m.IntN(len(r.Fields))]
		c := logs.Condition{Name: f.Name, Op: []logs.Op{logs.Equal, logs.NotEqual, logs.Contains, logs.Above, logs.AtLeast, logs.Below, logs.AtMost, logs.Matches, logs.NotMatches}[m.IntN(9)], Value: f.Value}
		switch c.Op {
		case logs.Matches, logs.NotMatches:
			c.Regexp = regexp.MustCompile([]string{`^(?:`, `(?:`}[m.IntN(2)] + regexp.QuoteMeta(strings.ToValidUTF8(f.Value, "?")) + []string{`|warn|4.*)$`, `)`}[m.IntN(2)])
		case logs.Above, logs.AtLeast, logs.Below, logs.AtMost:
			if !slices.Contains([]string{"status", "n", "took"}, f.Name) {
				continue // what else could be a duration
			}
			c.Number, _ = strconv.ParseFloat(f.Value, 64)
		}
		q.Where = append(q.Where, c)
	}
	q.Backward = m.IntN(2) == 0
	return q
}

// Whatever is asked, the store finds exactly what a look at every row finds: in
// memory, half on disk, on disk, after a new start, and merged.
func TestFindsWhatANaiveSearchFinds(t *testing.T) {
	for round := range uint64(4) {
		t.Run(strconv.FormatUint(round, 10), func(t *testing.T) {
			m := maker{rand.New(rand.NewPCG(round, 7))}
			dir := t.TempDir()
			s := open(t, dir, logs.Options{})
			rows := 40
			if round%2 == 1 {
				rows = 200
			}
			batches := m.batches(40, rows)
			ask := func(when string) {
				t.Helper()
				for range 12 {
					q := m.query(batches)
					if diff := cmp.Diff(naive(batches, q), scan(t, s, q)); diff != "" {
						t.Fatalf("%s: %s: missing -, too much +\n%s", when, show(q), diff)
					}
				}
			}
			for i, b := range batches {
				add(t, s, b)
				if i%7 == 0 && i < 30 {
					flush(t, s)
				}
			}
			ask("half in memory")
			flush(t, s)
			ask("on disk")
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir, logs.Options{})
			ask("after a new start")
			if r, err := s.Check(t.Context()); err != nil || len(r.Damage) > 0 {
				t.Errorf("check: %v, %v", r, err)
			}
		})
	}
}

func show(q logs.Query) string {
	var b strings.Builder
	for _, c := range slices.Concat(q.Labels, q.Text, q.Where) {
		fmt.Fprintf(&b, "[%s %s %q %v %v] ", c.Name, c.Op, c.Value, c.Regexp, c.Number)
	}
	return fmt.Sprintf("%d to %d, backward %v: %s", q.From, q.To, q.Backward, b.String())
}
