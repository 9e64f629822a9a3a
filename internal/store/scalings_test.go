package store

import (
	"strconv"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
)

func TestScalingsChangeTheNewestGenerationAndAreBounded(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	g := Generation{Project: "shop", N: 1, At: day, Services: []WantedService{{Service: tender.Service{Name: "web", Replicas: 2}}}}
	if err := s.Update(t.Context(), func(tx *Tx) error { return tx.AddGeneration(g, nil) }); err != nil {
		t.Fatal(err)
	}
	up := Scaling{Project: "shop", Service: "web", At: day.Add(time.Minute), Who: Autoscale, From: 2, To: 4, Cause: "cpu 140 %"}
	down := Scaling{Project: "shop", Service: "web", At: day.Add(time.Hour), Who: Autoscale, From: 4, To: 3, Cause: "cpu 20 %"}
	err := s.Update(t.Context(), func(tx *Tx) error {
		if err := tx.Rescale(up); err != nil {
			return err
		}
		return tx.Rescale(down)
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.View(t.Context(), func(tx *Tx) error {
		g, err := tx.Head("shop")
		if err != nil {
			return err
		}
		w := g.Services[0]
		if c := w.Counted; g.N != 1 || w.Service.Replicas != 3 || c == nil || c.From != 4 || c.Cause != "cpu 20 %" || !c.At.Equal(down.At) || !c.Added.Equal(up.At) {
			t.Errorf("generation %d wants %d, %+v", g.N, w.Service.Replicas, c)
		}
		list, err := tx.Scalings("shop", "web")
		if len(list) != 2 || list[0] != down || list[1] != up {
			t.Errorf("kept: %+v", list)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Update(t.Context(), func(tx *Tx) error {
		for n := range keepScalings + 5 {
			if err := tx.AddScaling(Scaling{Project: "shop", Service: "web", At: day, Who: "ann", From: n, To: n + 1, Cause: strconv.Itoa(n)}); err != nil {
				return err
			}
		}
		return tx.AddScaling(Scaling{Project: "other", Service: "web", At: day, Who: "ann", From: 1, To: 2})
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Update(t.Context(), func(tx *Tx) error {
		list, err := tx.Scalings("shop", "")
		if err != nil {
			return err
		}
		if len(list) != keepScalings || list[0].From != keepScalings+4 {
			t.Errorf("%d are kept, the newest from %d", len(list), list[0].From)
		}
		if err := tx.Forget("shop"); err != nil {
			return err
		}
		if list, err = tx.Scalings("shop", ""); len(list) != 0 {
			t.Errorf("%d are left of a project that was forgotten", len(list))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
