package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// house is a data directory and, elsewhere, a key.
type house struct{ data, key string }

func newHouse(t *testing.T) house {
	return house{filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "etc", "vault.key")}
}

func (h house) open(t *testing.T, o Options) (v *Vault, recovery string, closeStore func()) {
	t.Helper()
	s, err := store.Open(h.data, store.Options{Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	o.KeyFile = h.key
	v, recovery, err = Init(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	return v, recovery, func() {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// fails opens the vault and expects an error of a kind, with these words and a hint.
func (h house) fails(t *testing.T, kind tender.Kind, words string) {
	t.Helper()
	s, err := store.Open(h.data, store.Options{Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, _, err = Init(t.Context(), s, Options{KeyFile: h.key})
	if tender.KindOf(err) != kind || !strings.Contains(fmt.Sprint(err), words) || tender.AdviceOf(err) == "" {
		t.Errorf("got %v (%s), want %s with %q and a hint", err, tender.AdviceOf(err), kind, words)
	}
}

func put(t *testing.T, v *Vault, project, name, value string) (int, bool) {
	t.Helper()
	ver, changed, err := v.Put(t.Context(), "root", project, name, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return ver.Version, changed
}

func wantValue(t *testing.T, v *Vault, project, name string, version int, want string) {
	t.Helper()
	got, err := v.Open(t.Context(), project, name, version)
	if err != nil || string(got) != want {
		t.Errorf("%s/%s version %d is %q, %v; want %q", project, name, version, got, err, want)
	}
}

func TestVersions(t *testing.T) {
	v, _, _ := newHouse(t).open(t, Options{})
	for _, k := range []struct {
		value   string
		version int
		changed bool
	}{{"a", 1, true}, {"a", 1, false}, {"b", 2, true}, {"a", 3, true}, {"", 4, true}, {"", 4, false}} {
		version, changed := put(t, v, "shop", "db", k.value)
		if version != k.version || changed != k.changed {
			t.Errorf("put %q: version %d, changed %v; want %d, %v", k.value, version, changed, k.version, k.changed)
		}
	}
	wantValue(t, v, "shop", "db", 1, "a")
	wantValue(t, v, "shop", "db", 2, "b")
	if _, err := v.Open(t.Context(), "shop", "db", 9); tender.KindOf(err) != tender.NotFound {
		t.Errorf("version 9: %v", err)
	}

	// A project's secret and the one for all are two.
	put(t, v, "", "db", "for all")
	wantValue(t, v, "", "db", 1, "for all")
	if _, err := v.Newest(t.Context(), "blog", "db"); tender.KindOf(err) != tender.NotFound || tender.AdviceOf(err) != "set it with: tender secret set db --project blog" {
		t.Errorf("blog has none: %v (%s)", err, tender.AdviceOf(err))
	}
	put(t, v, "shop", "api", "x")
	l, err := v.List(t.Context(), "shop")
	if err != nil || len(l) != 2 || l[0].Name != "api" || l[1].Name != "db" || l[1].Version.Version != 4 || len(l[1].Versions) != 4 || l[1].Versions[3].Size != 1 || l[1].Who != "root" {
		t.Errorf("list: %+v, %v", l, err)
	}

	// A number is never given again.
	if err := v.Remove(t.Context(), "shop", "db"); err != nil {
		t.Fatal(err)
	}
	if err := v.Remove(t.Context(), "shop", "db"); tender.KindOf(err) != tender.NotFound {
		t.Errorf("removed twice: %v", err)
	}
	if version, changed := put(t, v, "shop", "db", ""); version != 5 || !changed {
		t.Errorf("after removal: version %d, changed %v", version, changed)
	}
}

func TestLastTenAndThoseInUseStay(t *testing.T) {
	var v *Vault
	v, _, _ = newHouse(t).open(t, Options{InUse: func(project, name string, version int) []string {
		if err := v.store.View(t.Context(), func(tx *store.Tx) error { _, err := tx.Tokens(); return err }); err != nil {
			t.Error(err)
		}
		if project == "shop" && name == "db" && version == 2 {
			return []string{"shop/web", "shop/db", "shop/web"}
		}
		return nil
	}})
	for i := 1; i <= 15; i++ {
		put(t, v, "shop", "db", fmt.Sprint(i))
	}
	s, err := v.Show(t.Context(), "shop", "db")
	if err != nil {
		t.Fatal(err)
	}
	var kept []int
	for _, k := range s.Versions {
		kept = append(kept, k.Version)
	}
	if got := fmt.Sprint(kept); got != "[15 14 13 12 11 10 9 8 7 6 2]" {
		t.Errorf("kept %s", got)
	}
	wantValue(t, v, "shop", "db", 2, "2")
	if err := v.Remove(t.Context(), "shop", "db"); tender.KindOf(err) != tender.Conflict || err.Error() != `secret "db" is used by shop/db, shop/web` {
		t.Errorf("removed in use: %v", err)
	}
}

func TestNamesAndSizes(t *testing.T) {
	v, _, _ := newHouse(t).open(t, Options{})
	for _, bad := range []string{"", "a/b", "a b", "ä", strings.Repeat("x", 129)} {
		if _, _, err := v.Put(t.Context(), "root", "", bad, nil); tender.KindOf(err) != tender.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, _, err := v.Put(t.Context(), "root", "", "big", make([]byte, MaxValue+1)); tender.KindOf(err) != tender.Invalid {
		t.Errorf("over the limit: %v", err)
	}
	put(t, v, "", "big", strings.Repeat("x", MaxValue))
}

// What lies in the data directory must not hold the value, nor the key.
func TestNothingPlainOnDisk(t *testing.T) {
	h := newHouse(t)
	v, recovery, closeStore := h.open(t, Options{})
	value := "correct-horse-battery-staple"
	put(t, v, "shop", "db", strings.Repeat(value, 1000))
	key, err := os.ReadFile(h.key)
	if err != nil {
		t.Fatal(err)
	}
	if i, err := os.Stat(h.key); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v, %v", i.Mode(), err)
	}
	if !strings.HasPrefix(recovery, "AGE-SECRET-KEY-1") || bytes.Contains(key, []byte(recovery)) {
		t.Errorf("recovery key %q", recovery)
	}
	secret := strings.Fields(string(key)[strings.Index(string(key), "AGE-SECRET"):])[0]
	look := func() {
		t.Helper()
		err := filepath.WalkDir(h.data, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			for _, s := range []string{value, secret, recovery} {
				if bytes.Contains(b, []byte(s)) {
					t.Errorf("%s holds %s", path, s)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	look() // with the journal
	closeStore()
	look()
}

func TestTheRecoveryKeyOpensEverything(t *testing.T) {
	h := newHouse(t)
	v, recovery, closeStore := h.open(t, Options{})
	put(t, v, "shop", "db", "value")
	closeStore()
	if err := os.Remove(h.key); err != nil {
		t.Fatal(err)
	}
	h.fails(t, tender.Unavailable, "is missing, and 1 values are sealed")
	if err := os.WriteFile(h.key, []byte(recovery+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v, again, closeStore := h.open(t, Options{})
	if again != "" {
		t.Error("a second recovery key was made")
	}
	wantValue(t, v, "shop", "db", 1, "value")
	put(t, v, "shop", "db", "new")
	closeStore()
	v, _, _ = h.open(t, Options{})
	wantValue(t, v, "shop", "db", 2, "new")
}

func TestWrongKeys(t *testing.T) {
	h, other := newHouse(t), newHouse(t)
	v, _, closeStore := h.open(t, Options{})
	put(t, v, "", "db", "value")
	closeStore()
	_, _, closeStore = other.open(t, Options{})
	closeStore()

	wrong := house{h.data, other.key}
	wrong.fails(t, tender.Unavailable, "does not open what is sealed")
	if err := os.WriteFile(other.key, []byte("garbage SECRET\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wrong.fails(t, tender.Invalid, "is no key of the vault")
	house{h.data, filepath.Join(h.data, "key")}.fails(t, tender.Invalid, "beside what it seals")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(h.data, link); err != nil {
		t.Fatal(err)
	}
	house{h.data, filepath.Join(link, "key")}.fails(t, tender.Invalid, "beside what it seals")

	v, _, _ = h.open(t, Options{})
	wantValue(t, v, "", "db", 1, "value")
}

func TestASealedValueDoesNotOpenUnderAnotherName(t *testing.T) {
	v, _, _ := newHouse(t).open(t, Options{})
	put(t, v, "shop", "cheap", "x")
	if err := v.store.Update(t.Context(), func(tx *store.Tx) error {
		s, _, err := tx.Secret("shop", "cheap", 1)
		s.Name = "precious"
		return errors.Join(err, tx.PutSecret(s))
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := v.Open(t.Context(), "shop", "precious", 1); err == nil {
		t.Errorf("it opened as %q", got)
	}
}

// Killed between any two steps of a rotation, everything must open afterwards.
func TestRotationSurvivesAKill(t *testing.T) {
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	h := newHouse(t)
	v, first, closeStore := h.open(t, Options{})
	for i := range 5 {
		put(t, v, "shop", fmt.Sprint("s", i), fmt.Sprint("value", i))
	}
	closeStore()
	before := newHouse(t)
	if err := os.CopyFS(before.data, os.DirFS(h.data)); err != nil {
		t.Fatal(err)
	}
	oldKey := read(h.key)
	v, _, closeStore = h.open(t, Options{})
	second, err := v.Rotate(t.Context())
	if err != nil || second == first {
		t.Fatalf("%v", err)
	}
	wantValue(t, v, "shop", "s3", 1, "value3")
	closeStore()
	newKey := read(h.key)

	for name, k := range map[string]struct {
		data string
		key  []byte
	}{
		"nothing done":            {before.data, oldKey},
		"new key written":         {before.data, append(bytes.Clone(newKey), oldKey...)},
		"all sealed anew":         {h.data, append(bytes.Clone(newKey), oldKey...)},
		"old key dropped":         {h.data, newKey},
		"with the recovery key":   {h.data, []byte(second + "\n")},
		"before, by recovery key": {before.data, []byte(first + "\n")},
	} {
		t.Run(name, func(t *testing.T) {
			now := newHouse(t)
			if err := errors.Join(os.CopyFS(now.data, os.DirFS(k.data)), os.MkdirAll(filepath.Dir(now.key), 0o700), os.WriteFile(now.key, k.key, 0o600)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				v, _, closeStore := now.open(t, Options{})
				for i := range 5 {
					wantValue(t, v, "shop", fmt.Sprint("s", i), 1, fmt.Sprint("value", i))
				}
				closeStore()
			}
			if n := strings.Count(string(read(now.key)), "AGE-SECRET-KEY-1"); n != 1 {
				t.Errorf("%d keys are left in the file", n)
			}
		})
	}
	// The old keys open nothing any more.
	for _, key := range [][]byte{oldKey, []byte(first + "\n")} {
		if err := os.WriteFile(h.key, key, 0o600); err != nil {
			t.Fatal(err)
		}
		h.fails(t, tender.Unavailable, "does not open what is sealed")
	}
}

func TestRotateWhileInUse(t *testing.T) {
	v, _, _ := newHouse(t).open(t, Options{})
	put(t, v, "shop", "db", "value")
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for i := range 10 {
				if _, _, err := v.Put(context.Background(), "root", "shop", fmt.Sprint("s", n), []byte(fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
				if got, err := v.Open(context.Background(), "shop", "db", 1); err != nil || string(got) != "value" {
					t.Errorf("%q, %v", got, err)
				}
			}
		})
	}
	for range 3 {
		if _, err := v.Rotate(t.Context()); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}

func value(s string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(s), nil }
}

func TestDeliver(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets", "shop", "web", "abc")
	files := []File{{Name: "db", Value: value("v"), Mode: 0o444, UID: os.Getuid(), GID: os.Getgid()}, {Name: "key", Value: value(""), Mode: 0o400, UID: os.Getuid(), GID: os.Getgid()}}
	if os.Getuid() == 0 {
		files[1].UID, files[1].GID = 1234, 5678
	}
	if err := Deliver(dir, files); err != nil {
		t.Fatal(err)
	}
	stat := func(path string) (fs.FileInfo, *syscall.Stat_t) {
		i, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return i, i.Sys().(*syscall.Stat_t)
	}
	for d := dir; filepath.Base(d) != "secrets"; d = filepath.Dir(d) {
		if i, _ := stat(d); i.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %s", d, i.Mode())
		}
	}
	inodes := map[string]uint64{}
	for _, f := range files {
		i, s := stat(filepath.Join(dir, f.Name))
		inodes[f.Name] = s.Ino
		if i.Mode().Perm() != f.Mode || int(s.Uid) != f.UID || int(s.Gid) != f.GID {
			t.Errorf("%s: %s %d:%d", f.Name, i.Mode(), s.Uid, s.Gid)
		}
	}

	// Again: the same files, not equal ones. A changed mode is put right in place.
	if err := os.Chmod(filepath.Join(dir, "db"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Deliver(dir, files); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		i, s := stat(filepath.Join(dir, f.Name))
		if s.Ino != inodes[f.Name] || i.Mode().Perm() != f.Mode {
			t.Errorf("%s was written again, or has mode %s", f.Name, i.Mode())
		}
	}

	files[0].Value = value("other")
	if err := Deliver(dir, files); tender.KindOf(err) != tender.Conflict {
		t.Errorf("another value for the same path: %v", err)
	}
	boom := errors.New("sealed")
	if err := Deliver(dir, []File{{Name: "no", Value: func() ([]byte, error) { return nil, boom }}}); !errors.Is(err, boom) {
		t.Errorf("a value that does not open: %v", err)
	}
	for _, bad := range []string{"", ".", "..", "a/b", "/a"} {
		if err := Deliver(dir, []File{{Name: bad, Value: value("")}}); tender.KindOf(err) != tender.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("in the folder: %v, %v", left, err)
	}
}
