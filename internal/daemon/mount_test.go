package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
	"github.com/tenderhq/tender/internal/vault"
)

// shut is a host whose daemon has run, and does not now.
func shut(t *testing.T, services ...store.WantedService) Config {
	t.Helper()
	dir := t.TempDir()
	c := Config{DataDir: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run"), Key: filepath.Join(dir, "key")}
	st, err := store.Open(c.DataDir, store.Options{Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	v, _, err := vault.Init(t.Context(), st, vault.Options{KeyFile: c.Key})
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"first", "second"} {
		if _, _, err := v.Put(t.Context(), "ann", "shop", "password", []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	g := store.Generation{Project: "shop", N: 1, At: time.Now(), Who: "ann", Services: services}
	if err := st.Update(t.Context(), func(tx *store.Tx) error { return tx.AddGeneration(g, nil) }); err != nil {
		t.Fatal(err)
	}
	return c
}

func sealedIn(service, revision string, version int) store.WantedService {
	return store.WantedService{Service: tender.Service{Name: service, Revision: revision, Secrets: []tender.SecretFile{
		{Name: "password", Source: "password", Target: "/run/secrets/password", Mode: 0o400, Version: version},
	}}}
}

func (c Config) secret(service, revision string) string {
	return filepath.Join(c.RunDir, "secrets", "shop", service, revision, "password")
}

func TestMountUnsealsWhatMayRun(t *testing.T) {
	stopped := sealedIn("idle", "r1", 1)
	stopped.Stopped = true
	c := shut(t, sealedIn("db", "r2", 2), stopped, store.WantedService{Service: tender.Service{Name: "web", Revision: "r1"}})
	// A rollout from r1 is under way: instances of both revisions may be there.
	st, err := store.Open(c.DataDir, store.Options{Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	err = st.Update(t.Context(), func(tx *store.Tx) error {
		if err := tx.SaveRevision(store.Revision{Project: "shop", Service: sealedIn("db", "r1", 1).Service, Made: time.Now(), Last: 1}); err != nil {
			return err
		}
		_, err := tx.AddRollout(store.Rollout{Project: "shop", Service: "db", Generation: 1, From: "r1", To: "r2", Started: time.Now()})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Mount(t.Context(), c, Options{}); tender.KindOf(err) != tender.Conflict {
		t.Errorf("while a daemon has the store: %v", err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}

	for range 2 { // the second time nothing is left to do
		done, err := Mount(t.Context(), c, Options{})
		if err != nil || len(done) != 2 {
			t.Fatalf("mounted %v, err %v", done, err)
		}
	}
	for revision, want := range map[string]string{"r1": "first", "r2": "second"} {
		path := c.secret("db", revision)
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("%s holds %q, err %v", path, got, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o400 {
			t.Errorf("mode %v, err %v", info.Mode(), err)
		}
	}
	if _, err := os.Stat(c.secret("idle", "r1")); !os.IsNotExist(err) {
		t.Errorf("the secret of a stopped service: %v", err)
	}
}

func TestMountOfOneThatFailsStopsNoOther(t *testing.T) {
	c := shut(t, sealedIn("bad", "r1", 7), sealedIn("db", "r2", 2))
	done, err := Mount(t.Context(), c, Options{})
	if err == nil || !strings.Contains(err.Error(), "version 7") || !strings.Contains(err.Error(), "bad") {
		t.Errorf("err %v", err)
	}
	if len(done) != 1 || done[0].Service != "db" {
		t.Errorf("mounted %v", done)
	}
}

func TestMountMakesNoKeyAndNoStore(t *testing.T) {
	dir := t.TempDir()
	c := Config{DataDir: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run"), Key: filepath.Join(dir, "key")}
	if done, err := Mount(t.Context(), c, Options{}); err != nil || done != nil {
		t.Errorf("before the first start: %v, %v", done, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("it made %v, err %v", left, err)
	}

	c = shut(t, sealedIn("db", "r1", 1))
	if err := os.Remove(c.Key); err != nil {
		t.Fatal(err)
	}
	if _, err := Mount(t.Context(), c, Options{}); tender.KindOf(err) != tender.Unavailable || tender.AdviceOf(err) == "" {
		t.Errorf("without its key: %v", err)
	}
	if _, err := os.Stat(c.Key); !os.IsNotExist(err) {
		t.Errorf("a key was made: %v", err)
	}
}
