package store_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

func update(t *testing.T, s *store.Store, write func(*store.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), write); err != nil {
		t.Fatal(err)
	}
}

func view(t *testing.T, s *store.Store, read func(*store.Tx) error) {
	t.Helper()
	if err := s.View(t.Context(), read); err != nil {
		t.Fatal(err)
	}
}

// web is a project of one service with one config at generation n.
func web(n int, revision string) store.Generation {
	return store.Generation{
		Project: "shop", N: n, At: time.Unix(int64(n), 0).UTC(), Who: "ann", Reason: "up", YAML: []byte("services:\n"),
		Files: []string{revision}, Services: []store.WantedService{{
			Service: tender.Service{
				Name: "web", Revision: revision, Replicas: 2, Spec: []byte("web " + revision),
				Configs: []tender.ConfigFile{{Source: "conf", SHA256: revision}}, Secrets: []tender.SecretFile{{Name: "key", Version: n}},
			},
			Image: tender.ImageID{Reference: "web", ID: "sha256:" + revision}, Adopted: map[string]string{"id": revision},
		}},
	}
}

func open(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Options{Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestGenerationComesBackAsItWas(t *testing.T) {
	s := open(t)
	g := web(1, "r1")
	update(t, s, func(tx *store.Tx) error { return tx.AddGeneration(g, map[string][]byte{"r1": []byte("content")}) })
	update(t, s, func(tx *store.Tx) error {
		return tx.SetMade("shop", 1, store.Made{Networks: []string{"shop_default"}})
	})
	g.Made = &store.Made{Networks: []string{"shop_default"}}
	view(t, s, func(tx *store.Tx) error {
		got, err := tx.Head("shop")
		if d := cmp.Diff(g, got); d != "" {
			t.Errorf("want -, got +:\n%s", d)
		}
		content, err2 := tx.File("r1")
		if err2 != nil || string(content) != "content" {
			t.Errorf("file %q, %v", content, err2)
		}
		if _, err := tx.Head("nobody"); tender.KindOf(err) != tender.NotFound {
			t.Errorf("unknown project: %v", err)
		}
		return err
	})
}

func TestOldOnesGoAndTheGoodOneStays(t *testing.T) {
	s := open(t)
	for n := 1; n <= store.KeepGenerations+10; n++ {
		g := web(n, fmt.Sprintf("r%d", n))
		update(t, s, func(tx *store.Tx) error {
			err := tx.SaveRevision(store.Revision{Project: "shop", Service: g.Services[0].Service, Image: g.Services[0].Image, Made: g.At, Last: n})
			if err != nil {
				return err
			}
			if err := tx.AddGeneration(g, map[string][]byte{g.Files[0]: []byte("x")}); err != nil {
				return err
			}
			id, err := tx.AddRollout(store.Rollout{Project: "shop", Service: "web", Generation: n, To: g.Files[0], Started: g.At})
			if err != nil || n == 2 {
				// Only the second one was any good.
				_, err2 := tx.EndRollout(id, store.RolloutDone, "", g.At)
				return errors.Join(err, err2)
			}
			if err := tx.AddStep(id, g.At, "tried"); err != nil {
				return err
			}
			_, err = tx.EndRollout(id, store.RolloutFailed, "bad", g.At)
			return err
		})
	}
	view(t, s, func(tx *store.Tx) error {
		for revision, want := range map[string]tender.Kind{"r1": tender.NotFound, "r2": "", "r3": tender.NotFound, "r29": ""} {
			_, err := tx.Revision("shop", "web", revision)
			if err == nil && want != "" || err != nil && tender.KindOf(err) != want {
				t.Errorf("revision %s: %v", revision, err)
			}
			// The content of a config stays as long as its revision.
			_, err = tx.File(revision)
			if err == nil && want != "" || err != nil && tender.KindOf(err) != want {
				t.Errorf("file of %s: %v", revision, err)
			}
		}
		good, err := tx.GoodRollouts("shop")
		if err != nil || len(good) != 1 || good[0].To != "r2" {
			t.Errorf("good %+v, %v", good, err)
		}
		last, err := tx.LastRollouts("shop")
		if err != nil || len(last) != 1 || last[0].State != store.RolloutFailed || last[0].Reason != "bad" {
			t.Errorf("last %+v, %v", last, err)
		}
		full, err := tx.Rollout(last[0].ID)
		if err != nil || len(full.Steps) != 1 || full.Steps[0].Text != "tried" {
			t.Errorf("steps %+v, %v", full.Steps, err)
		}
		return nil
	})
	update(t, s, func(tx *store.Tx) error { return tx.Forget("shop") })
	view(t, s, func(tx *store.Tx) error {
		names, err := tx.Projects()
		if len(names) > 0 {
			t.Errorf("projects %v", names)
		}
		if _, err := tx.File("r2"); tender.KindOf(err) != tender.NotFound {
			t.Errorf("a file of a project that is forgotten: %v", err)
		}
		return err
	})
}

func TestRejectedUntilWantedAgain(t *testing.T) {
	s := open(t)
	r := store.Revision{Project: "shop", Service: tender.Service{Name: "web", Revision: "r1"}, Made: time.Unix(1, 0).UTC(), Last: 1}
	update(t, s, func(tx *store.Tx) error { return tx.SaveRevision(r) })
	update(t, s, func(tx *store.Tx) error { return tx.Reject("shop", "web", "r1", "exited with 1") })
	view(t, s, func(tx *store.Tx) error {
		got, err := tx.Revision("shop", "web", "r1")
		if got.Rejected != "exited with 1" {
			t.Errorf("got %+v", got)
		}
		return err
	})
	r.Last, r.Made = 2, time.Unix(2, 0).UTC()
	update(t, s, func(tx *store.Tx) error { return tx.SaveRevision(r) })
	view(t, s, func(tx *store.Tx) error {
		got, err := tx.Revision("shop", "web", "r1")
		if got.Rejected != "" || !got.Made.Equal(time.Unix(1, 0)) || got.Last != 2 {
			t.Errorf("got %+v", got)
		}
		return err
	})
}
