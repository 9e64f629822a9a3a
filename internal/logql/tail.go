package logql

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

// Follower is a store that tells of new rows.
type Follower interface {
	Store
	Follow(ctx context.Context, q logs.Query, fn func(logs.Chunk) error) error
}

// tailGap is when Tail looks for what came between its look back and the first that
// it was told of, if nothing comes before.
const tailGap = time.Second

// late is how far behind a line's own time may be when it comes, so that Tail still
// knows that it has handed it out.
const late = time.Minute

// Tail hands fn what history finds, and then what comes, until ctx ends (nil) or fn
// fails. missed counts rows that were left out before lines, because fn was too slow.
// What comes between history and the first row that the store tells of is not lost,
// and not handed out twice unless it is older than a minute when it comes.
func (e *Engine) Tail(ctx context.Context, store Follower, x Expr, plain bool, history func(emit func([]Line) error) error, fn func(lines []Line, missed int64) error) error {
	s, ok := x.(*selector)
	if !ok {
		return tender.Errorf(tender.Invalid, "%s yields numbers, which nobody can follow", x)
	}
	p, err := e.plan(ctx, s, 0, 0, nil, true)
	if err != nil {
		return err
	}
	if plain {
		p.query.Columns = p.columns()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type batch struct {
		lines  []Line
		missed int64
	}
	fresh := make(chan batch)
	var failed error
	var following sync.WaitGroup
	following.Go(func() {
		defer close(fresh)
		var b batch
		rows := p.rows(ctx, func(v *view) (bool, error) { return len(v.times) > 0, nil }, func(r *row) error {
			b.lines = append(b.lines, r.entry(plain))
			return nil
		})
		failed = store.Follow(ctx, p.query, func(c logs.Chunk) error {
			b = batch{missed: logs.Missed(c)}
			if err := rows(c); err != nil {
				return err
			}
			select {
			case fresh <- b:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	defer following.Wait()
	defer cancel()

	// Follow has begun to follow at some time between now and its first batch, so the
	// store is asked once more when that comes. What was handed out of an answer may be
	// among what Follow tells, once.
	sent := map[string]int{}
	key := func(l *Line) string { return l.Time.String() + logs.Labels(l.Stream).String() + l.Text }
	began := time.Now()
	err = history(func(lines []Line) error {
		for i := range lines {
			if lines[i].Time.After(began.Add(-late)) {
				sent[key(&lines[i])]++
			}
		}
		return fn(lines, 0)
	})
	if err != nil {
		return quiet(ctx, err)
	}
	look := func() error {
		lines, err := e.Lines(ctx, x, Lines{From: began.Add(-tailGap), Limit: e.limits.Entries, Plain: plain})
		if err != nil {
			return err
		}
		seen := map[string]int{}
		out := lines[:0]
		for _, l := range lines {
			k := key(&l)
			if seen[k]++; seen[k] > sent[k] {
				out = append(out, l)
			}
		}
		for k, n := range seen {
			sent[k] = max(n, sent[k])
		}
		if len(out) == 0 {
			return nil
		}
		return fn(out, 0)
	}
	gap, told := time.After(tailGap), false
	for {
		select {
		case <-gap:
			if gap = nil; told {
				continue
			}
			if err := look(); err != nil {
				return quiet(ctx, err)
			}
		case b, ok := <-fresh:
			if !ok {
				return quiet(ctx, failed)
			}
			if !told {
				told = true
				if err := look(); err != nil {
					return quiet(ctx, err)
				}
			}
			lines := b.lines[:0]
			for _, l := range b.lines {
				if k := key(&l); sent[k] > 0 {
					sent[k]--
					continue
				}
				lines = append(lines, l)
			}
			if len(lines) == 0 && b.missed == 0 {
				continue
			}
			if err := fn(lines, b.missed); err != nil {
				return quiet(ctx, err)
			}
		}
	}
}

// quiet: that ctx ended is no error.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, logs.ErrStop) {
		return nil
	}
	return err
}

// tailed is one message of tail.
type tailed struct {
	Streams []streamed `json:"streams"`
	Dropped []dropped  `json:"dropped_entries,omitempty"`
	Flags   []string   `json:"encodingFlags,omitempty"`
}

type dropped struct {
	Labels    map[string]string `json:"labels"`
	Timestamp string            `json:"timestamp"`
}

// maxDelay is the longest delay_for.
const maxDelay = 5

// tailPing is how often a silent connection is asked whether it lives.
const tailPing = 20 * time.Second

func (l *loki) tail(w http.ResponseWriter, r *http.Request) {
	refuse := func(err error) { writeError(w, err) }
	if err := r.ParseForm(); err != nil {
		refuse(tender.Errorf(tender.Invalid, "read the form: %v", err))
		return
	}
	x, err := Parse(r.Form.Get("query"))
	if err == nil && x.metric() {
		err = tender.Errorf(tender.Invalid, "%s yields numbers, which nobody can follow", x)
	}
	if err != nil {
		refuse(err)
		return
	}
	limit, err := count(r, "limit", 100, l.engine.limits.Entries)
	if err != nil {
		refuse(err)
		return
	}
	start, err := instant(r, "start", time.Now().Add(-time.Hour))
	if err != nil {
		refuse(err)
		return
	}
	if _, err := count(r, "delay_for", 0, maxDelay); err != nil {
		refuse(err)
		return
	}
	split := wantsApart(r)
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow() //nolint:errcheck // the end of all
	c.SetReadLimit(64 << 10)
	ctx := c.CloseRead(r.Context())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var pinging sync.WaitGroup
	pinging.Go(func() {
		t := time.NewTicker(tailPing)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				limit, stop := context.WithTimeout(ctx, tailPing)
				err := c.Ping(limit)
				stop()
				if err != nil {
					cancel()
					return
				}
			}
		}
	})
	newest := func(emit func([]Line) error) error {
		lines, err := l.engine.Lines(ctx, x, Lines{From: start, Limit: limit, Backward: true})
		if err != nil || len(lines) == 0 {
			return err
		}
		slices.Reverse(lines)
		return emit(lines)
	}
	err = l.engine.Tail(ctx, l.store, x, false, newest, func(lines []Line, missed int64) error {
		m := tailed{Streams: streams(lines, split), Flags: flags(split)}
		for range min(missed, 100) { // the store says how many, not which
			at := time.Now()
			if len(lines) > 0 {
				at = lines[0].Time
			}
			m.Dropped = append(m.Dropped, dropped{map[string]string{}, strconv.FormatInt(at.UnixNano(), 10)})
		}
		limit, stop := context.WithTimeout(ctx, tailPing)
		defer stop()
		return wsjson.Write(limit, c, m)
	})
	cancel()
	pinging.Wait()
	if err != nil {
		_ = c.Close(websocket.StatusInternalError, err.Error()[:min(100, len(err.Error()))])
		return
	}
	_ = c.Close(websocket.StatusNormalClosure, "")
}
