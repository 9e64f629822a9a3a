package logs_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender/internal/logs"
)

// headers makes a store of which half is still in memory.
func headers(t *testing.T) *logs.Store {
	s := open(t, t.TempDir(), logs.Options{})
	for i := range 200 {
		name := []string{"web", "db"}[i%2]
		r := logs.Row{Time: int64(1000 + i), Stderr: name == "web" && i%10 == 0, Shape: "took \x00 ms", Fields: []logs.Field{
			{"took", strconv.FormatFloat(float64(i)/4, 'f', -1, 64)}, {"level", "info"}, {"n", strconv.Itoa(i)},
		}}
		if name == "db" {
			r.Fields[2] = logs.Field{"n", "x" + strconv.Itoa(i)}
		}
		add(t, s, logs.Batch{Source: name, Labels: labels("shop", name), Rows: []logs.Row{r}})
		if i == 99 {
			flush(t, s)
		}
	}
	return s
}

func TestHeadersTell(t *testing.T) {
	s := headers(t)
	streams, err := s.Streams(t.Context(), logs.Query{Labels: []logs.Condition{{Name: "project", Op: logs.Equal, Value: "shop"}}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range streams {
		got = append(got, l.String())
	}
	want := []string{
		`{project="shop", service="db", stream="stdout"}`,
		`{project="shop", service="web", stream="stderr"}`,
		`{project="shop", service="web", stream="stdout"}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	fields, err := s.Fields(t.Context(), logs.Query{Labels: []logs.Condition{{Name: "service", Op: logs.Equal, Value: "web"}}})
	if err != nil {
		t.Fatal(err)
	}
	wantFields := map[string]logs.FieldStat{
		"took":  {Rows: 100, Distinct: 50, Type: "float"},
		"level": {Rows: 100, Distinct: 1, Type: "string"},
		"n":     {Rows: 100, Distinct: 50, Type: "int"},
	}
	if diff := cmp.Diff(wantFields, fields); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct {
		q             logs.Query
		rows, streams int64
	}{
		{logs.Query{}, 200, 2},
		{logs.Query{From: 1050, To: 1060}, 10, 2},
		{logs.Query{Labels: []logs.Condition{{Name: "stream", Op: logs.Equal, Value: "stderr"}}}, 20, 1},
		{logs.Query{Where: []logs.Condition{{Name: "n", Op: logs.Below, Number: 10}}}, 5, 1},
		{logs.Query{Text: []logs.Condition{{Op: logs.Contains, Value: "took 2.5 ms"}}}, 1, 1},
	} {
		rows, size, chunks, streams, err := s.Volume(t.Context(), c.q)
		if err != nil || rows != c.rows || streams != c.streams || size == 0 || chunks == 0 {
			t.Errorf("%s: %d rows, %d bytes, %d chunks, %d streams, %v", show(c.q), rows, size, chunks, streams, err)
		}
	}
}

func TestErrStopEndsAScan(t *testing.T) {
	s := headers(t)
	n := 0
	if err := s.Scan(t.Context(), logs.Query{}, func(logs.Chunk) error { n++; return logs.ErrStop }); err != nil || n != 1 {
		t.Errorf("%d chunks, %v", n, err)
	}
	mine := errors.New("mine")
	if err := s.Scan(t.Context(), logs.Query{}, func(logs.Chunk) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("got %v", err)
	}
}

// A needle may begin in one part of a text and end in another.
func TestNeedlesAcrossEdges(t *testing.T) {
	s := open(t, t.TempDir(), logs.Options{})
	shape := "{\"level\":\"\x00\",\"n\":\x00,\"msg\":\"\x00\x00\"}"
	var want []string
	for i := range 3000 {
		r := logs.Row{Time: int64(i), Shape: shape, Fields: []logs.Field{
			{"level", []string{"info", "error", "err"}[i%3]}, {"n", strconv.Itoa(i)}, {"msg", fmt.Sprint("order ", i*7919)}, {"rest", []string{"", "er", " 7 "}[i%3]},
		}}
		want = append(want, string(r.Text(nil)))
		add(t, s, logs.Batch{Labels: labels("p", "a"), Rows: []logs.Row{r}})
	}
	flush(t, s)
	for _, needle := range []string{
		`"level":"error"`, `"level":"err"`, `el":"err`, `error","n":1`, `r","n":17,"msg":"order 1`, `0er"}`, `9 7 "`, `order 79190`, `7919"}`, `{"level":"info","n":300,"msg":"order 2375700`,
		`"n":2`, `2999`, `,"msg":"`, `nothing of the kind`, `"}`, `}`, ` 7 `, `3er`,
	} {
		n := 0
		for _, w := range want {
			if strings.Contains(w, needle) {
				n++
			}
		}
		q := logs.Query{Text: []logs.Condition{{Op: logs.Contains, Value: needle}}}
		if got := texts(t, s, q); len(got) != n {
			t.Errorf("%s: %d rows, want %d", needle, len(got), n)
		}
		q.Text[0] = logs.Condition{Op: logs.Matches, Regexp: regexp.MustCompile("(?i)" + regexp.QuoteMeta(strings.ToUpper(needle)))}
		if got := texts(t, s, q); len(got) != n {
			t.Errorf("%s in either case: %d rows, want %d", needle, len(got), n)
		}
	}
}

// Everybody at once: writers, searches, merges, retention and the timer.
func TestAllAtOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, logs.Options{MaxRows: 500, FlushAfter: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	var run, all, readers sync.WaitGroup
	run.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	const writers, batches = 4, 300
	for w := range writers {
		all.Go(func() {
			name := fmt.Sprint("w", w)
			for i := range batches {
				b := logs.Batch{Source: name, Labels: labels("p", name), To: logs.Place{Offset: int64(i + 1)}}
				for k := range 7 {
					b.Rows = append(b.Rows, plain(int64(i*7+k), fmt.Sprint("row ", i*7+k)))
				}
				if err := s.Append(t.Context(), b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	readers.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			// What is found of a source has no holes, at any moment.
			seen := map[string][]int64{}
			err := s.Scan(t.Context(), logs.Query{}, func(c logs.Chunk) error {
				name := c.Labels().Get("service")
				seen[name] = append(seen[name], c.Times()...)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			for name, times := range seen {
				slices.Sort(times)
				for i, at := range times {
					if at != int64(i) {
						t.Errorf("%s: row %d at place %d of %d", name, at, i, len(times))
						return
					}
				}
			}
		}
	})
	readers.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				s.MergeNow(t)
				s.RetireNow(t, time.Now())
			}
		}
	})
	all.Wait()
	close(done)
	readers.Wait()
	cancel()
	run.Wait()
	s = open(t, dir, logs.Options{})
	if n := len(texts(t, s, logs.Query{})); n != writers*batches*7 {
		t.Errorf("%d rows", n)
	}
	for w := range writers {
		if at, ok := s.Last(fmt.Sprint("w", w)); !ok || at.Offset != batches {
			t.Errorf("last of w%d is %v", w, at)
		}
	}
}

// Of a few rows among many the text is made without unpacking columns whole.
func TestFewAmongMany(t *testing.T) {
	s := open(t, t.TempDir(), logs.Options{})
	m := maker{rand.New(rand.NewPCG(8, 8))}
	b := logs.Batch{Labels: labels("p", "a")}
	for i := range 6000 {
		r := logs.Row{Time: int64(i), Stderr: i%9 == 0, Shape: "\x00 \x00 took \x00 of \x00: \x00.", Fields: []logs.Field{
			{"level", m.value("level")}, {"n", strconv.Itoa(i)}, {"took", strconv.FormatFloat(float64(i)/8, 'f', -1, 64)}, {"status", m.value("status")}, {"message", fmt.Sprint("item ", i*31%5000, " of stock")},
		}}
		if i%3 == 0 {
			r.Shape, r.Fields = "\x00: \x00; \x00", []logs.Field{r.Fields[1], r.Fields[4], {"flag", []string{"yes", "no"}[i%2]}, r.Fields[3]}
		}
		b.Rows = append(b.Rows, r)
	}
	add(t, s, b)
	flush(t, s)
	for _, re := range []string{`item 49\d\d .*stock\.$`, `^59\d\d: item`, `took 7\d\d\.5 of 40\d`, `error 4\d1 took`, `item 7 .*no$`, `warn (17|18)\d\d took`, `(?i)ITEM 12\d\d OF`, `took \d+ of 2\d\d: item 3`} {
		q := logs.Query{Text: []logs.Condition{{Op: logs.Matches, Regexp: regexp.MustCompile(re)}}}
		want := naive([]logs.Batch{b}, q)
		if diff := cmp.Diff(want, scan(t, s, q)); diff != "" || len(want) == 0 {
			t.Errorf("%s: %d rows: missing -, too much +\n%s", re, len(want), diff)
		}
	}
}
