package logs_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender/internal/logs"
)

// Blocks are searched by as many goroutines as there are processors, and it shows
// nowhere.
func TestASearchAheadShowsNowhere(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	s := open(t, t.TempDir(), logs.Options{})
	const blocks, each = 80, 40
	var want []string
	for b := range blocks {
		var rows []logs.Row
		for i := range each {
			at := int64(b*each + i)
			text := fmt.Sprintf("line %d of %d", i, b)
			if i == 7 {
				want = append(want, fmt.Sprintf("%d %s", at, text))
			}
			rows = append(rows, plain(at, text))
		}
		add(t, s, logs.Batch{Source: "c", Labels: labels("p", "a"), Rows: rows})
		flush(t, s)
	}
	q := logs.Query{Text: []logs.Condition{{Op: logs.Matches, Regexp: regexp.MustCompile(`line [6-8] of.*`)}, {Op: logs.Contains, Value: "line 7"}}}
	for _, backward := range []bool{false, true} {
		q.Backward = backward
		var got []string
		var inside atomic.Int32
		err := s.Scan(t.Context(), q, func(c logs.Chunk) error {
			if inside.Add(1) != 1 {
				t.Error("two chunks at once")
			}
			defer inside.Add(-1)
			for i, at := range c.Times() {
				got = append(got, fmt.Sprintf("%d %s", at, c.Text(nil, i)))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("backward %v: missing -, too much +\n%s", backward, diff)
		}
		slices.Reverse(want)
	}

	mine, n := errors.New("mine"), 0
	if err := s.Scan(t.Context(), q, func(logs.Chunk) error {
		if n++; n == 20 {
			return mine
		}
		return nil
	}); !errors.Is(err, mine) || n != 20 {
		t.Errorf("%d chunks, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.Scan(ctx, q, func(logs.Chunk) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	n = 0
	func() {
		defer func() {
			if p := recover(); p != "mine" {
				t.Errorf("recovered %v", p)
			}
		}()
		_ = s.Scan(t.Context(), q, func(logs.Chunk) error {
			if n++; n == 30 {
				panic("mine")
			}
			return nil
		})
	}()
	if n != 30 {
		t.Errorf("%d chunks", n)
	}
}
