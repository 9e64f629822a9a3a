package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/tenderhq/tender/internal/api"
)

// heartbeat calls an address while all is well, so that somebody outside notices when
// nothing here is able to tell any more.
type heartbeat struct {
	url   string
	every time.Duration // default 1 min
	wait  time.Duration // for an answer; default 10 s
	// ill says why all is not well; "" when it is.
	ill    func(now time.Time) string
	tell   func(change func(*api.Part))
	client *http.Client
}

// run is the part.
func (h *heartbeat) run(ctx context.Context) error {
	every := cmp.Or(h.every, time.Minute)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		h.beat(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (h *heartbeat) beat(ctx context.Context) {
	problem := h.ill(time.Now())
	if problem != "" {
		problem = "not called: " + problem
	} else if err := h.call(ctx); err != nil {
		problem = err.Error()
	}
	if ctx.Err() != nil {
		return
	}
	h.tell(func(p *api.Part) {
		if p.Error = problem; problem == "" {
			p.Done = time.Now().UTC()
		}
	})
}

// call asks for the address; its path may be a secret, so that no error names it.
func (h *heartbeat) call(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(h.wait, 10*time.Second))
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url, nil)
	if err != nil {
		return errors.New("call the heartbeat: its address is none")
	}
	r.Header.Set("User-Agent", "tender")
	doing := func(err error) error {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("call %s: %w", r.URL.Host, err)
	}
	resp, err := cmp.Or(h.client, http.DefaultClient).Do(r)
	if err != nil {
		return doing(err)
	}
	defer resp.Body.Close() //nolint:errcheck // what it says does not matter
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	if resp.StatusCode/100 != 2 {
		return doing(errors.New(resp.Status))
	}
	return nil
}

// heartbeat is that of the configuration.
func (b *backend) heartbeat() *heartbeat {
	return &heartbeat{
		url: b.config.Heartbeat, every: b.config.HeartbeatEvery, ill: b.ill,
		tell: func(change func(*api.Part)) { b.board.set("heartbeat", change) },
	}
}

// ill says why the heartbeat is not called.
func (b *backend) ill(now time.Time) string {
	for _, p := range b.board.all() {
		if p.State != "running" && p.State != "off" {
			return p.Name + " is " + p.State
		}
	}
	if picture, _ := b.inventory.Picture(); picture.Taken.IsZero() || !picture.Stale.IsZero() {
		return "the engine does not answer"
	}
	if b.rules != nil {
		return b.rules.rules.Behind(now)
	}
	return ""
}
