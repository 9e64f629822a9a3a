package daemon

import (
	"slices"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/store"
)

// A project that was removed and came again with a generation of the same number kept
// the settings of its logs from before.
func TestHeadsAreReadOnce(t *testing.T) {
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := st.Update(t.Context(), func(tx *store.Tx) error {
		if err := tx.AddGeneration(store.Generation{Project: "shop", N: 1, At: time.Unix(100, 0)}, nil); err != nil {
			return err
		}
		return tx.AddGeneration(store.Generation{Project: "blog", N: 1, At: time.Unix(100, 0)}, nil)
	}); err != nil {
		t.Fatal(err)
	}
	read := func(before map[string]ofHead[string]) (again []string, all map[string]ofHead[string]) {
		if err := st.View(t.Context(), func(tx *store.Tx) error {
			names, heads, err := readHeads(tx, before, func(g store.Generation) string {
				again = append(again, g.Project)
				return "read"
			})
			all = heads
			if !slices.Equal(names, []string{"blog", "shop"}) {
				t.Errorf("projects %q", names)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return again, all
	}
	first, all := read(nil)
	if !slices.Equal(first, []string{"blog", "shop"}) || all["shop"].is != "read" {
		t.Errorf("at first %q %v", first, all)
	}
	if again, _ := read(all); again != nil {
		t.Errorf("read again: %q", again)
	}
	gone := all["shop"]
	gone.at = time.Unix(1, 0)
	all["shop"] = gone
	if again, _ := read(all); !slices.Equal(again, []string{"shop"}) {
		t.Errorf("of another generation with the same number: %q", again)
	}
}
