package daemon

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

func TestAWrittenLayerThatGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l layers
		there := []tender.Instance{{ID: "a", Name: "shop-web-1", Project: "shop"}, {ID: "b", Name: "shop-db-1", Project: "shop"}}
		sizes := map[string]int64{"a": 1 << 10, "b": 1 << 10}
		look := func() string {
			var lines []string
			for _, c := range l.checks(t.Context(), func(context.Context, ...string) (map[string]int64, error) { return sizes, nil }, there) {
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
		got := l.checks(t.Context(), func(ctx context.Context, _ ...string) (map[string]int64, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, nil)
		if len(got) != 1 || got[0].Result != okay || got[0].Text != "not known: the engine did not measure them in 8s" {
			t.Errorf("%+v", got)
		}
		got = l.checks(t.Context(), func(context.Context, ...string) (map[string]int64, error) { return nil, errors.New("it is away") }, nil)
		if len(got) != 1 || got[0].Text != "not known: it is away" {
			t.Errorf("%+v", got)
		}
	})
}

// measured is an engine that says what its instances have written.
type measured struct {
	engine.Reader
	sizes   map[string]int64
	written map[string][]string
	hang    bool
	asked   []string
}

func (m *measured) Sizes(ctx context.Context, ids ...string) (map[string]int64, error) {
	m.asked = append(m.asked, "sizes "+strings.Join(ids, " "))
	if m.hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return m.sizes, nil
}

func (m *measured) Written(_ context.Context, id string) ([]string, error) {
	m.asked = append(m.asked, "written "+id)
	if files := m.written[id]; files != nil {
		return files, nil
	}
	return nil, errors.New("gone meanwhile")
}

func TestWhatGoesWithInstances(t *testing.T) {
	leaving := []tender.Instance{
		{ID: "a", Name: "shop-web-1", Service: "web"},
		{ID: "b", Name: "shop-web-2", Service: "web"},
		{ID: "c", Name: "shop-db-1", Service: "db"},
		{ID: "d", Name: "shop-mail-1", Service: "mail"},
		{ID: "e", Name: "shop-gone-1", Service: "gone"},
	}
	m := &measured{
		sizes:   map[string]int64{"a": 6 << 20, "b": 7 << 20, "c": 20 << 20, "d": 9 << 20},
		written: map[string][]string{"b": {"/data/x", "/data/y"}},
	}
	want := []string{
		"db keeps 20MiB inside of shop-db-1, which is lost when it is replaced: docker diff shop-db-1 shows what; copy it out, and mount a volume there",
		"web keeps 13MiB inside of 2 instances, which is lost when it is replaced: below /data; copy out what matters (tender cp web:/data .), and mount a volume there, or a tmpfs for what may go",
	}
	if diff := cmp.Diff(want, lost(t.Context(), m, leaving)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"sizes a b c d e", "written c", "written b"}, m.asked); diff != "" {
		t.Errorf("asked of the engine, -want +got:\n%s", diff)
	}

	m = &measured{}
	if got := lost(t.Context(), m, nil); got != nil || m.asked != nil {
		t.Errorf("nobody leaves: %q, asked %q", got, m.asked)
	}
}

func TestAPlanWaitsForSizesAMomentOnly(t *testing.T) {
	for _, tt := range []struct {
		leaving []tender.Instance
		want    string
	}{
		{[]tender.Instance{{ID: "a", Service: "web"}}, "how much web keeps inside"},
		{[]tender.Instance{{ID: "a", Service: "web"}, {ID: "b", Service: "db"}}, "how much db and web keep inside"},
		{[]tender.Instance{{ID: "a", Service: "web"}, {ID: "b", Service: "db"}, {ID: "c", Service: "mail"}}, "how much db and 2 more services keep inside"},
	} {
		synctest.Test(t, func(t *testing.T) {
			want := []string{tt.want + " of what is replaced, and is lost then, is not known: the engine did not measure it in 3s"}
			if diff := cmp.Diff(want, lost(t.Context(), &measured{hang: true}, tt.leaving)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
