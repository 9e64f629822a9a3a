package daemon

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	tender "github.com/tenderhq/tender"
)

func TestAWrittenLayerThatGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l layers
		there := []tender.Instance{{ID: "a", Name: "shop-web-1", Project: "shop"}, {ID: "b", Name: "shop-db-1", Project: "shop"}}
		sizes := map[string]int64{"a": 1 << 10, "b": 1 << 10}
		look := func() string {
			var lines []string
			for _, c := range l.checks(t.Context(), func(context.Context) (map[string]int64, error) { return sizes, nil }, there) {
				lines = append(lines, c.Result+" "+c.Name+": "+c.Text)
			}
			return strings.Join(lines, "\n")
		}
		want := func(want string) {
			t.Helper()
			if got := look(); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		}
		want("ok written layers: 2KiB in 2 instances")

		// A moment later nothing is known of a rate, and the first look stays what the next is held against.
		time.Sleep(10 * time.Second)
		sizes["a"] = 50 << 20
		want("ok written layers: 50MiB in 2 instances")
		time.Sleep(time.Hour - 10*time.Second)
		want("warning data of shop: shop-web-1 has written 50MiB into its own layer, which goes with it, and 50MiB more an hour")

		// It has come to rest.
		time.Sleep(time.Hour)
		want("ok written layers: 50MiB in 2 instances")

		// Slowly is not too much; a lot is, however it came there.
		time.Sleep(24 * time.Hour)
		sizes["b"] = 5 << 20
		want("ok written layers: 55MiB in 2 instances")
		sizes["b"] = 3 << 30
		want("warning data of shop: shop-db-1 has written 3GiB into its own layer, which goes with it")
	})
}

func TestLayersThatCannotBeMeasuredHoldNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l layers
		got := l.checks(t.Context(), func(ctx context.Context) (map[string]int64, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, nil)
		if len(got) != 1 || got[0].Result != okay || got[0].Text != "not known: the engine did not measure them in 8s" {
			t.Errorf("%+v", got)
		}
		got = l.checks(t.Context(), func(context.Context) (map[string]int64, error) { return nil, errors.New("it is away") }, nil)
		if len(got) != 1 || got[0].Text != "not known: it is away" {
			t.Errorf("%+v", got)
		}
	})
}
