package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

func TestGroupsOfRulesAreKept(t *testing.T) {
	s := open(t)
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	b := store.RuleGroup{Name: "b", Text: "groups: []", Who: "root", Changed: at}
	update(t, s, func(tx *store.Tx) error { return tx.PutRuleGroup(b) })
	update(t, s, func(tx *store.Tx) error { return tx.PutRuleGroup(store.RuleGroup{Name: "a", Logs: true, Changed: at}) })
	b.Text = "groups: [{}]"
	update(t, s, func(tx *store.Tx) error { return tx.PutRuleGroup(b) })
	view(t, s, func(tx *store.Tx) error {
		got, err := tx.RuleGroups()
		if d := cmp.Diff([]store.RuleGroup{{Name: "a", Logs: true, Changed: at}, b}, got); d != "" {
			t.Error(d)
		}
		return err
	})
	update(t, s, func(tx *store.Tx) error { return tx.RemoveRuleGroup("a") })
	if err := s.Update(t.Context(), func(tx *store.Tx) error { return tx.RemoveRuleGroup("a") }); tender.KindOf(err) != tender.NotFound {
		t.Errorf("removed twice: %v", err)
	}
}
