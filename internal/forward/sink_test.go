package forward

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenderhq/tender/internal/logs"
)

// script is a wire whose answers are written down; after the last one all is taken.
type script struct {
	mu      sync.Mutex
	took    []string
	tried   []time.Time
	answers []func(items []item) (verdict, error)
	always  func(items []item) (verdict, error)
	most    int // bytes in one request
}

func (w *script) encode(dst []byte, r *row) []byte { return append(dst, r.text...) }
func (w *script) text(b []byte) string             { return string(b) }
func (w *script) close()                           {}

func (w *script) send(_ context.Context, _ string, items []item) (verdict, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tried = append(w.tried, time.Now())
	answer := w.always
	if len(w.answers) > 0 {
		answer, w.answers = w.answers[0], w.answers[1:]
	}
	size := 0
	for _, it := range items {
		size += len(it.body)
	}
	w.most = max(w.most, size)
	var v verdict
	if answer != nil {
		var err error
		if v, err = answer(items); err != nil {
			return v, err
		}
	}
	for i, it := range items {
		if !slices.Contains(v.again, i) && !slices.ContainsFunc(v.refused, func(r refusal) bool { return r.index == i }) {
			w.took = append(w.took, string(it.body))
		}
	}
	return v, nil
}

func (w *script) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.took)
}

// scripted makes a sink of a script.
func scripted(w *script, src Source, k Keeper, change func(*Config)) *sink {
	c := Config{Name: "x", Kind: "script", Where: "there", Size: 1 << 20, Wait: time.Second, Request: 1 << 20, Rows: 1000}
	if change != nil {
		change(&c)
	}
	return newSink(c, w, Options{Source: src, Keeper: k, Log: quiet()})
}

func texts(from, n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("line %d", from+i))
	}
	return out
}

// inTime runs a sink in a bubble with a clock of its own.
func inTime(t *testing.T, s *sink, steps func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.run(ctx) }()
	synctest.Wait()
	steps()
	cancel()
	<-done
}

func TestWhatIsAwayIsTriedAgainLaterAndLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, k := newShelf(), &memory{}
		src.put(web, lines(0, 3)...)
		w := &script{always: func([]item) (verdict, error) { return verdict{}, errors.New("connection refused") }}
		s := scripted(w, src, k, nil)
		inTime(t, s, func() {
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			st := s.status(time.Now())
			if st.Phase != Waiting || st.Tries < 10 || st.Error != "connection refused" || st.Next.IsZero() {
				t.Errorf("status while away: %+v", st)
			}
			if k.state("x").Cursor != "" {
				t.Errorf("the cursor moved to %q", k.state("x").Cursor)
			}
			// It comes back: all of it, in order, once.
			w.mu.Lock()
			w.always = nil
			w.mu.Unlock()
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if got := w.all(); !slices.Equal(got, texts(0, 3)) {
				t.Errorf("taken: %q", got)
			}
			st = s.status(time.Now())
			if st.Phase != Idle || st.Lag != 0 || st.Sent != 3 || st.Tries != 0 {
				t.Errorf("status when it is back: %+v", st)
			}
		})
		for i := 1; i < len(w.tried); i++ {
			gap, least := w.tried[i].Sub(w.tried[i-1]), min(firstPause<<min(i-1, 6), lastPause)
			if gap < least || gap > least*6/5+time.Nanosecond {
				t.Errorf("try %d came after %s, want %s and at most a fifth more", i, gap, least)
			}
		}
		if k.state("x").Cursor != "1" {
			t.Errorf("cursor at the end: %q", k.state("x").Cursor)
		}
	})
}

func TestItWaitsAsLongAsTheOtherSideAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newShelf()
		src.put(web, lines(0, 1)...)
		w := &script{answers: []func([]item) (verdict, error){
			func([]item) (verdict, error) { return verdict{}, &busyError{"429", 3 * time.Minute} },
			func([]item) (verdict, error) { return verdict{}, &busyError{"429", 100 * time.Hour} },
		}}
		inTime(t, scripted(w, src, &memory{}, nil), func() { time.Sleep(time.Hour) })
		if len(w.tried) != 3 || w.tried[1].Sub(w.tried[0]) != 3*time.Minute || w.tried[2].Sub(w.tried[1]) != longestPause {
			t.Errorf("tried at %v", w.tried)
		}
	})
}

func TestRowsWaitForOthersButNotForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newShelf()
		w := &script{}
		s := scripted(w, src, &memory{}, func(c *Config) { c.Wait = 5 * time.Minute })
		inTime(t, s, func() {
			for i := range 10 {
				src.put(web, lines(i, 1)...)
				time.Sleep(time.Minute)
			}
			time.Sleep(10 * time.Minute)
		})
		if len(w.tried) != 2 || !slices.Equal(w.took, texts(0, 10)) {
			t.Errorf("%d requests with %q", len(w.tried), w.took)
		}
	})
}

// A request in which some rows are to blame is halved until they are found.
func TestRowsThatAreRefusedBecomeDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, k := newShelf(), &memory{}
		src.put(web, lines(0, 100)...)
		bad := func(it item) bool {
			return strings.HasSuffix(string(it.body), " 13") || strings.HasSuffix(string(it.body), " 77")
		}
		w := &script{always: func(items []item) (verdict, error) {
			if slices.ContainsFunc(items, bad) {
				return verdict{}, refused("400 Bad Request: unlucky")
			}
			return verdict{}, nil
		}}
		s := scripted(w, src, k, nil)
		inTime(t, s, func() { time.Sleep(time.Minute) })
		if want := slices.DeleteFunc(texts(0, 100), func(s string) bool { return bad(item{body: []byte(s)}) }); !slices.Equal(w.took, want) {
			t.Errorf("taken: %q", w.took)
		}
		if st := k.state("x"); st.Refused != 2 || st.Sent != 98 || st.Cursor != "1" {
			t.Errorf("state: %+v", st)
		}
		if len(k.letters) != 2 || k.letters[0].Text != "line 13" || k.letters[1].Reason != "400 Bad Request: unlucky" || k.letters[0].Labels != web.String() {
			t.Errorf("letters: %+v", k.letters)
		}
		if len(w.tried) > 40 {
			t.Errorf("%d requests to find two of a hundred", len(w.tried))
		}
	})
}

// A place that refuses everything and has never taken anything is the wrong place:
// nothing is thrown away on its word.
func TestTheWrongPlaceSkipsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, k := newShelf(), &memory{}
		src.put(web, lines(0, 5)...)
		w := &script{always: func([]item) (verdict, error) { return verdict{}, refused("400 Bad Request: what is this?") }}
		s := scripted(w, src, k, nil)
		inTime(t, s, func() {
			time.Sleep(time.Hour)
			if st := s.status(time.Now()); st.Refused != 0 || st.Phase != Waiting || !strings.Contains(st.Error, "what is this?") || !strings.Contains(st.Error, "right place") {
				t.Errorf("status: %+v", st)
			}
			w.mu.Lock()
			w.always = nil
			w.mu.Unlock()
			time.Sleep(5 * time.Minute)
		})
		if !slices.Equal(w.took, texts(0, 5)) || len(k.letters) != 0 {
			t.Errorf("taken %q, letters %v", w.took, k.letters)
		}
	})
}

func TestOnlyWhatWasNotTakenIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, k := newShelf(), &memory{}
		src.put(web, lines(0, 4)...)
		w := &script{answers: []func([]item) (verdict, error){
			func([]item) (verdict, error) {
				return verdict{again: []int{1, 3}, refused: []refusal{{2, "400: no"}}, reason: "429: full"}, nil
			},
		}}
		inTime(t, scripted(w, src, k, nil), func() { time.Sleep(time.Minute) })
		if want := []string{"line 0", "line 1", "line 3"}; !slices.Equal(w.took, want) {
			t.Errorf("taken: %q", w.took)
		}
		if st := k.state("x"); st.Sent != 3 || st.Refused != 1 || st.Failed != 1 || len(k.letters) != 1 || k.letters[0].Text != "line 2" {
			t.Errorf("state %+v, letters %+v", st, k.letters)
		}
	})
}

// Killed behind the send and before the cursor: sent again, never left out.
func TestAKillRepeatsAndNeverSkips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, k := newShelf(), &memory{}
		w := &script{}
		for i := range 20 {
			src.put(web, lines(10*i, 10)...)
		}
		for kill := range 12 {
			ctx, cancel := context.WithCancel(t.Context())
			n := 0
			w.always = func([]item) (verdict, error) {
				if n++; n > kill%3 {
					// It is taken, and nobody lives to hear so.
					k.mu.Lock()
					k.fail = errors.New("killed")
					k.mu.Unlock()
					cancel()
				}
				return verdict{}, nil
			}
			s := scripted(w, src, k, func(c *Config) { c.Size, c.Request, c.Rows = 100, 100, 7 })
			s.run(ctx)
			k.mu.Lock()
			k.fail = nil
			k.mu.Unlock()
			cancel()
		}
		w.always = nil
		inTime(t, scripted(w, src, k, nil), func() { time.Sleep(time.Minute) })
		// Each line's first coming is in order, and none is missing.
		var first []string
		for _, l := range w.took {
			if !slices.Contains(first, l) {
				first = append(first, l)
			}
		}
		if !slices.Equal(first, texts(0, 200)) {
			t.Errorf("first comings: %q", first)
		}
		if len(w.took) == 200 {
			t.Error("nothing was repeated: the kills did not happen")
		}
	})
}

// A place that is away for long costs no more memory than one batch, holds up no other
// sink, and gets all in order afterwards.
func TestLongAwayIsBoundedAndCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newShelf()
		away := &script{always: func([]item) (verdict, error) { return verdict{}, errors.New("away") }}
		fine := &script{}
		small := func(c *Config) { c.Size, c.Request = 1000, 500 }
		a, b := scripted(away, src, &memory{}, small), scripted(fine, src, &memory{}, small)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { a.run(ctx) })
		wg.Go(func() { b.run(ctx) })
		for i := range 300 {
			src.put(web, lines(10*i, 10)...)
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if got := fine.all(); !slices.Equal(got, texts(0, 3000)) {
			t.Errorf("the other sink got %d rows", len(got))
		}
		if lag := a.status(begin.Add(time.Hour)).Lag; lag != time.Hour {
			t.Errorf("lag %s", lag)
		}
		src.mu.Lock()
		if held := src.read - 300; held > 20 {
			t.Errorf("it holds %d blocks while the other side is away", held)
		}
		src.mu.Unlock()
		away.mu.Lock()
		away.always = nil
		away.mu.Unlock()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if got := away.all(); !slices.Equal(got, texts(0, 3000)) {
			t.Errorf("caught up with %d rows, or not in order", len(got))
		}
		if away.most > 600 {
			t.Errorf("a request of %d bytes", away.most)
		}
		cancel()
		wg.Wait()
	})
}

func TestWhatDoesNotMatchIsPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, k := newShelf(), &memory{}
		src.put(web, lines(0, 1)...)
		src.put(labelsOf("project", "shop", "service", "db"), plain(1, "db"))
		src.put(labelsOf("project", "blog", "service", "web"), plain(2, "blog"))
		w := &script{}
		s := scripted(w, src, k, func(c *Config) { c.Match = Match{Projects: []string{"shop"}, Services: []string{"web", "api"}} })
		inTime(t, s, func() { time.Sleep(time.Minute) })
		if !slices.Equal(w.took, texts(0, 1)) || k.state("x").Cursor != "3" {
			t.Errorf("taken %q, cursor %q", w.took, k.state("x").Cursor)
		}
	})
}

func TestFromNowSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, k := newShelf(), &memory{}
		src.put(web, plain(0, "old"))
		w := &script{}
		now := func(c *Config) { c.FromNow = true }
		inTime(t, scripted(w, src, k, now), func() { time.Sleep(time.Minute) })
		src.put(web, plain(1, "while it was down"))
		inTime(t, scripted(w, src, k, now), func() { time.Sleep(time.Minute) })
		if !slices.Equal(w.took, []string{"while it was down"}) {
			t.Errorf("taken: %q", w.took)
		}
	})
}

// A store that cannot be read, and a keeper that cannot be asked, are waited for.
func TestTroubleAtHomeIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, k, w := newShelf(), &memory{fail: errors.New("disk full")}, &script{}
		src.put(web, lines(0, 2)...)
		src.fail = errors.New("input/output error")
		s := scripted(w, src, k, nil)
		inTime(t, s, func() {
			time.Sleep(time.Minute)
			if st := s.status(time.Now()); st.Error != "disk full" {
				t.Errorf("status: %+v", st)
			}
			k.mu.Lock()
			k.fail = nil
			k.mu.Unlock()
			time.Sleep(3 * time.Minute)
			if st := s.status(time.Now()); st.Error != "input/output error" {
				t.Errorf("status: %+v", st)
			}
			src.mu.Lock()
			src.fail = nil
			src.mu.Unlock()
			time.Sleep(3 * time.Minute)
		})
		if !slices.Equal(w.took, texts(0, 2)) {
			t.Errorf("taken: %q", w.took)
		}
	})
}

// A thousand dead letters while their store is away keep memory bounded and the count true.
func TestDeadLettersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, k := newShelf(), &memory{}
		src.put(web, lines(0, 1001)...)
		w := &script{always: func(items []item) (verdict, error) {
			var v verdict
			for i := range items[1:] {
				v.refused = append(v.refused, refusal{i + 1, "no"})
			}
			k.mu.Lock()
			k.fail = errors.New("away")
			k.mu.Unlock()
			return v, nil
		}}
		s := scripted(w, src, k, func(c *Config) { c.Rows = 2000 })
		inTime(t, s, func() {
			time.Sleep(time.Minute)
			if st := s.status(time.Now()); st.Refused != 1000 {
				t.Errorf("refused %d", st.Refused)
			}
		})
		if len(s.dead) > lettersHeld {
			t.Errorf("%d letters are held", len(s.dead))
		}
	})
}

var _ logs.Chunk = chunk{}
