package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/store"
)

func TestStepsStandAtWhatWasPromotedLastAndNotUndone(t *testing.T) {
	s, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	put := func(step, digest string, undoes int64, end bool) (id int64) {
		t.Helper()
		now = now.Add(time.Minute)
		err := s.Update(t.Context(), func(tx *store.Tx) (err error) {
			if id, err = tx.BeginPromotion(store.Promotion{Step: step, Repository: "shop/web", Digest: digest, Undoes: undoes, At: now}); err != nil || !end {
				return err
			}
			return tx.EndPromotion(id, "")
		})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	say := func() string {
		t.Helper()
		var out strings.Builder
		err := s.View(t.Context(), func(tx *store.Tx) error {
			all, err := tx.Promotions("", "")
			for _, st := range store.Stands(all) {
				before := ""
				if st.Before != nil {
					before = st.Before.Digest
				}
				fmt.Fprintf(&out, "%s %s<%s at %s; ", st.Step, st.Now.Digest, before, st.Since.Format("04"))
			}
			for _, d := range []string{"a", "b", "c"} {
				if err != nil {
					return err
				}
				var steps []string
				steps, err = tx.PromotedTo(d)
				fmt.Fprintf(&out, "%s%v ", d, steps)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out.String())
	}
	check := func(want string) {
		t.Helper()
		if got := say(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	put("staging", "a", 0, true)
	first := put("production", "a", 0, true)
	second := put("production", "b", 0, true)
	check("production b<a at 03; staging a< at 01; a[staging production] b[production] c[]")
	put("production", "c", 0, false) // begun only
	check("production b<a at 03; staging a< at 01; a[staging production] b[production] c[]")
	put("production", "a", second, true)
	check("production a< at 05; staging a< at 01; a[staging production] b[] c[]")
	put("production", "", first, true)
	check("staging a< at 01; a[staging] b[] c[]")
	for range 600 { // so many are not kept
		put("staging", "c", 0, true)
	}
	if err := s.View(t.Context(), func(tx *store.Tx) error {
		all, err := tx.Promotions("shop/web", "staging")
		if err == nil && len(all) != 500 {
			t.Errorf("%d are kept", len(all))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
