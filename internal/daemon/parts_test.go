package daemon

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestPartsStopInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stopped []string
		wait := func(name string) part {
			return part{name: name, vital: true, grace: time.Second, run: func(ctx context.Context) error {
				<-ctx.Done()
				stopped = append(stopped, name)
				return nil
			}}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := runParts(ctx, slog.New(slog.DiscardHandler), new(board), []part{wait("inventory"), wait("loop"), wait("api")}); err != nil {
			t.Fatal(err)
		}
		if want := []string{"api", "loop", "inventory"}; !slices.Equal(stopped, want) {
			t.Errorf("stopped %v, want %v", stopped, want)
		}
	})
}

func TestPartRestartsAndVitalPartEndsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		starts := 0
		b := new(board)
		err := runParts(t.Context(), slog.New(slog.DiscardHandler), b, []part{
			{name: "store", vital: true, grace: time.Second, run: func(ctx context.Context) error {
				select {
				case <-ctx.Done():
				case <-time.After(8 * time.Second):
				}
				return boom
			}},
			{name: "scan", grace: time.Second, run: func(context.Context) error { starts++; return boom }},
		})
		if !errors.Is(err, boom) {
			t.Fatalf("err = %v, want boom", err)
		}
		if starts != 4 { // at 0s, 1s, 3s and 7s
			t.Errorf("scan started %d times, want 4", starts)
		}
		shown := b.all()
		if len(shown) != 2 || shown[0].Name != "store" || shown[1].State != "restarting" || shown[1].Error != "boom" || shown[1].Restarts != 3 {
			t.Errorf("shown: %+v", shown)
		}
	})
}

func TestStuckPartIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := runParts(ctx, slog.New(slog.DiscardHandler), new(board), []part{
			{name: "api", vital: true, grace: 30 * time.Second, run: func(context.Context) error { <-release; return nil }},
		})
		if err == nil || err.Error() != "api: did not stop within 30s" {
			t.Errorf("err = %v", err)
		}
	})
}
