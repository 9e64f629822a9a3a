package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

func TestWaiversAreKeptForAYearAfterTheirEnd(t *testing.T) {
	s := open(t)
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	add := func(w tender.Waiver) {
		update(t, s, func(tx *store.Tx) error { _, err := tx.AddWaiver(w); return err })
	}
	a := tender.Waiver{ID: 1, Finding: "CVE-1", Scope: "shop", Reason: "r", By: "ann", Made: at, Until: at.Add(48 * time.Hour)}
	b := tender.Waiver{ID: 2, Finding: "CVE-2", Reason: "r", By: "bob", Made: at, Until: at.Add(24 * time.Hour)}
	add(a)
	add(b)
	want := func(all ...tender.Waiver) {
		t.Helper()
		view(t, s, func(tx *store.Tx) error {
			got, err := tx.Waivers()
			if d := cmp.Diff(all, got); d != "" {
				t.Error(d)
			}
			return err
		})
	}
	want(b, a)
	c := tender.Waiver{ID: 3, Finding: "CVE-3", Reason: "r", By: "ann", Made: at.AddDate(1, 0, 2), Until: at.AddDate(1, 1, 0)}
	add(c)
	want(a, c)
	update(t, s, func(tx *store.Tx) error { return tx.RemoveWaiver(3) })
	if err := s.Update(t.Context(), func(tx *store.Tx) error { return tx.RemoveWaiver(3) }); tender.KindOf(err) != tender.NotFound {
		t.Errorf("removed twice: %v", err)
	}
}

func TestTheNewestScanIsKeptWhileItIsNeeded(t *testing.T) {
	s := open(t)
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	put := func(r store.Scan) { update(t, s, func(tx *store.Tx) error { return tx.PutScan(r) }) }
	a := store.Scan{Image: "sha256:a", Reference: "web:1", Scanned: at, DB: at.Add(-time.Hour), Report: []byte(strings.Repeat("{}", 1000))}
	put(store.Scan{Image: "sha256:a", Reference: "web:1", Scanned: at.Add(-time.Hour), Report: []byte("old")})
	put(a)
	put(store.Scan{Image: "sha256:b", Reference: "web:2", Scanned: at, Report: []byte("{}")})
	update(t, s, func(tx *store.Tx) error {
		return tx.NeedScans([]string{"sha256:a", "sha256:none"}, at.AddDate(0, 0, 60))
	})
	put(store.Scan{Image: "sha256:c", Reference: "web:3", Scanned: at.AddDate(0, 0, 100), Report: []byte("{}")})
	view(t, s, func(tx *store.Tx) error {
		got, err := tx.Scan("sha256:a")
		if d := cmp.Diff(a, got); d != "" {
			t.Error(d)
		}
		if _, err := tx.Scan("sha256:b"); tender.KindOf(err) != tender.NotFound {
			t.Errorf("the scan of what nobody needs: %v", err)
		}
		return err
	})
}

func TestWhatWasPulledThroughIsNotWhatWasPushed(t *testing.T) {
	s := open(t)
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	update(t, s, func(tx *store.Tx) error {
		for repository, who := range map[string]string{"shop/web": "ann", "docker.io/library/nginx": "cache"} {
			digest := "sha256:" + who
			if err := tx.PutManifest(store.Manifest{Repository: repository, Digest: digest, Artifact: "application/vnd.oci.image.config.v1+json", Pushed: at, Who: who}); err != nil {
				return err
			}
			if err := tx.PutTag(store.Tag{Repository: repository, Tag: "1", Digest: digest, Pushed: at, Who: who}); err != nil {
				return err
			}
		}
		return nil
	})
	view(t, s, func(tx *store.Tx) error {
		got, err := tx.Unscanned("1", 10)
		if d := cmp.Diff([]store.Tag{{Repository: "shop/web", Tag: "1", Digest: "sha256:ann", Pushed: at}}, got); d != "" {
			t.Error(d)
		}
		return err
	})
}
