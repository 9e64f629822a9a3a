package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender/internal/store"
)

func TestSinksRememberHowFarTheyCame(t *testing.T) {
	s := open(t)
	want := store.Sink{Name: "es", Cursor: "17", Sent: 4, Bytes: 5, Failed: 6, Refused: 1003, Expired: 8}
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	letters := func(from, n int) (out []store.DeadLetter) {
		for i := range n {
			out = append(out, store.DeadLetter{Time: at, Logged: at.Add(-time.Hour), Labels: `{a="b"}`, Text: fmt.Sprint(from + i), Reason: "400"})
		}
		return out
	}
	update(t, s, func(tx *store.Tx) error {
		if _, known, err := tx.Sink("es"); known || err != nil {
			t.Errorf("known %v, %v", known, err)
		}
		return tx.PutSink(store.Sink{Name: "other"}, letters(0, 1))
	})
	update(t, s, func(tx *store.Tx) error { return tx.PutSink(store.Sink{Name: "es"}, letters(0, 3)) })
	update(t, s, func(tx *store.Tx) error { return tx.PutSink(want, letters(3, 1000)) })
	view(t, s, func(tx *store.Tx) error {
		got, known, err := tx.Sink("es")
		if diff := cmp.Diff(want, got); diff != "" || !known || err != nil {
			t.Errorf("known %v, %v, (-want +got):\n%s", known, err, diff)
		}
		list, err := tx.DeadLetters("es", 5000)
		if diff := cmp.Diff(letters(3, 1000), list); diff != "" || err != nil {
			t.Errorf("%v, letters (-want +got):\n%s", err, diff)
		}
		if list, err = tx.DeadLetters("es", 2); len(list) != 2 || list[1].Text != "1002" || err != nil {
			t.Errorf("the newest two: %v, %v", list, err)
		}
		list, err = tx.DeadLetters("other", 10)
		if len(list) != 1 {
			t.Errorf("those of the other sink: %v", list)
		}
		return err
	})
}
