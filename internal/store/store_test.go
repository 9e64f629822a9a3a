package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenderhq/tender"
)

var day = time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)

func open(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
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

func TestWhatWasWrittenIsThereAfterReopening(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	if err := s.Update(t.Context(), func(tx *Tx) error {
		return tx.AddAudit(Audit{Time: day, Who: "root", What: "up", Project: "shop"})
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	got := audits(t, s, "shop", 0)
	if len(got) != 1 || !got[0].Time.Equal(day) || got[0].What != "up" {
		t.Errorf("audit after reopening: %+v", got)
	}
	for _, name := range []string{fileName, fileName + "-wal", "reserve", "lock"} {
		if i, err := os.Stat(filepath.Join(dir, name)); err != nil || i.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", name, i, err)
		}
	}
}

func audits(t *testing.T, s *Store, project string, limit int) (list []Audit) {
	t.Helper()
	err := s.View(t.Context(), func(tx *Tx) (err error) {
		list, err = tx.Audits(project, limit)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestAFailedUpdateLeavesNoTrace(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	boom := errors.New("boom")
	err := s.Update(t.Context(), func(tx *Tx) error {
		if err := tx.AddAudit(Audit{Time: day, What: "up"}); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("got %v, want boom", err)
	}
	if got := audits(t, s, "", 0); len(got) != 0 {
		t.Errorf("there is a trace: %v", got)
	}
}

func TestAViewCannotWrite(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	err := s.View(t.Context(), func(tx *Tx) error { return tx.AddAudit(Audit{Time: day}) })
	if err == nil {
		t.Error("a view wrote")
	}
}

func TestASecondDaemonIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, Options{})
	_, err := Open(dir, Options{})
	if tender.KindOf(err) != tender.Conflict || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("got %v, want a conflict that names the process", err)
	}
}

func TestManyWritersAndReadersAtOnce(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if err := s.Update(context.Background(), func(tx *Tx) error {
					_, err := tx.NextSecret("shop", "db")
					return err
				}); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 20 {
				if err := s.View(context.Background(), func(tx *Tx) error {
					_, err := tx.Secrets("shop", "")
					return err
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := s.Update(t.Context(), func(tx *Tx) error {
		n, err := tx.NextSecret("shop", "db")
		if n != 8*20+1 {
			t.Errorf("next number is %d: numbers were given twice", n)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestMigrationsCopyFirstAndKeepTwo(t *testing.T) {
	dir := t.TempDir()
	steps := slices.Clone(migrations)
	for n := range 4 {
		s := open(t, dir, Options{migrations: steps})
		if err := s.Update(t.Context(), func(tx *Tx) error {
			return tx.AddAudit(Audit{Time: day, What: "with schema " + strconv.Itoa(len(steps))})
		}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, "CREATE TABLE later"+strconv.Itoa(n)+" (a INTEGER)")
	}
	first := len(migrations)
	found, err := filepath.Glob(filepath.Join(dir, fileName+".schema*"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Join(dir, fileName+".schema"+strconv.Itoa(first+1)), filepath.Join(dir, fileName+".schema"+strconv.Itoa(first+2))}
	slices.Sort(found)
	if !slices.Equal(found, slices.Sorted(slices.Values(want))) { // as texts: 10 stands before 9
		t.Errorf("copies: %v, want %v", found, want)
	}

	// An older binary refuses and names the copy; the copy can be put back as said.
	old := Options{migrations: steps[:first+2]}
	_, err = Open(dir, old)
	if tender.KindOf(err) != tender.Unavailable || !strings.Contains(tender.AdviceOf(err), want[1]) {
		t.Fatalf("an older binary: %v (%s), want it to name %s", err, tender.AdviceOf(err), want[1])
	}
	path := filepath.Join(dir, fileName)
	copied, err := os.ReadFile(want[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(path+"-wal"), os.RemoveAll(path+"-shm"), os.WriteFile(path, copied, 0o600)); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, old)
	if got := audits(t, s, "", 0); len(got) != 3 {
		t.Errorf("the copy holds %d lines, want the 3 written before the upgrade", len(got))
	}
}

func TestAFailedMigrationLeavesTheOldSchema(t *testing.T) {
	dir := t.TempDir()
	if err := open(t, dir, Options{}).Close(); err != nil {
		t.Fatal(err)
	}
	bad := append(slices.Clone(migrations), "CREATE TABLE half (a INTEGER); CREATE TABLE audit (a INTEGER)")
	if _, err := Open(dir, Options{migrations: bad}); err == nil {
		t.Fatal("the bad migration went through")
	}
	open(t, dir, Options{})
}

func TestDamageSaysWhatToDo(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"not a database": func([]byte) []byte { return []byte(strings.Repeat("no database ", 1000)) },
		"cut off":        func(b []byte) []byte { return b[:len(b)/2] },
		"a page overwritten": func(b []byte) []byte {
			for i := 4096; i < 2*4096; i++ {
				b[i] = 0xa5
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := open(t, dir, Options{}).Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, fileName)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = Open(dir, Options{})
			if err == nil || !strings.Contains(err.Error(), "is damaged") || !strings.Contains(tender.AdviceOf(err), path) {
				t.Errorf("got %v (%s)", err, tender.AdviceOf(err))
			}
		})
	}
}

func TestADatabaseOfAnotherProgramIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{migrations: []string{"CREATE TABLE theirs (a INTEGER)"}})
	if _, err := s.writer.Exec("PRAGMA application_id = 7"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); tender.KindOf(err) != tender.Invalid {
		t.Errorf("got %v, want it refused", err)
	}
}

// big writes n secrets of 64 KiB in one transaction.
func big(n int) func(tx *Tx) error {
	return func(tx *Tx) error {
		for v := range n {
			if err := tx.PutSecret(Secret{Project: "shop", Name: "big", Version: v + 1, Sealed: make([]byte, 64<<10), Created: day}); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestAFullDiskReleasesTheReserve(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may mount the small disk that this needs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=6m"); err != nil {
		t.Skipf("no small disk can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s := open(t, dir, Options{Reserve: 3 << 20})
	if err := s.Spare(); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}

	// Goes through thanks to the reserve, and asks for no more generations.
	if err := s.Update(t.Context(), big(20)); err != nil {
		t.Fatalf("with the reserve: %v", err)
	}
	if err := s.Spare(); tender.KindOf(err) != tender.Unavailable {
		t.Errorf("spare on a full disk: %v", err)
	}
	// Nothing is left now: an honest error, and the store goes on working.
	err := s.Update(t.Context(), big(100))
	if tender.KindOf(err) != tender.Unavailable || !strings.Contains(err.Error(), "full") {
		t.Errorf("without the reserve: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), func(tx *Tx) error { return tx.RemoveSecret("shop", "big", 0) }); err != nil {
		t.Errorf("after making room: %v", err)
	}
}

func TestTheAuditIsBounded(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	if err := s.Update(t.Context(), func(tx *Tx) error {
		// In one statement: one by one, under the race detector, takes long.
		if _, err := tx.exec(`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i < ?)
			INSERT INTO audit (time, who, what, project, detail, outcome) SELECT 1, '', i, '', '', '' FROM n`, KeepAudit-1); err != nil {
			return err
		}
		for i := KeepAudit; i < KeepAudit+25; i++ {
			project := "shop"
			if i%2 == 0 {
				project = "blog"
			}
			if err := tx.AddAudit(Audit{Time: day, What: strconv.Itoa(i), Project: project}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	all := audits(t, s, "", 0)
	if len(all) != KeepAudit || all[0].What != strconv.Itoa(KeepAudit+24) || all[len(all)-1].What != "25" {
		t.Errorf("%d lines, from %s to %s", len(all), all[0].What, all[len(all)-1].What)
	}
	if got := audits(t, s, "blog", 3); len(got) != 3 || got[0].Project != "blog" || got[0].What != strconv.Itoa(KeepAudit+24) {
		t.Errorf("blog: %v", got)
	}
}

func TestTokens(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	issue := func(tok Token) (secret string, err error) {
		err = s.Update(t.Context(), func(tx *Tx) (err error) {
			_, secret, err = tx.IssueToken(tok)
			return err
		})
		return secret, err
	}
	find := func(secret string, now time.Time) (tok Token, err error) {
		err = s.View(t.Context(), func(tx *Tx) (err error) {
			tok, err = tx.TokenOf(secret, now)
			return err
		})
		return tok, err
	}

	ci := Token{Name: "ci", Scope: "deploy", Projects: []string{"shop"}, Created: day, Expires: day.Add(time.Hour)}
	secret, err := issue(ci)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := issue(ci); tender.KindOf(err) != tender.Conflict {
		t.Errorf("the same name again: %v", err)
	}
	got, err := find(secret, day)
	if err != nil || got.Name != "ci" || got.Scope != "deploy" || !slices.Equal(got.Projects, ci.Projects) || !got.Expires.Equal(ci.Expires) {
		t.Errorf("found %+v, %v", got, err)
	}
	for why, try := range map[string]func() (Token, error){
		"expired": func() (Token, error) { return find(secret, day.Add(time.Hour)) },
		"unknown": func() (Token, error) { return find(secret+"x", day) },
		"empty":   func() (Token, error) { return find("", day) },
	} {
		if _, err := try(); tender.KindOf(err) != tender.Denied {
			t.Errorf("%s: %v", why, err)
		}
	}
	for _, name := range []string{fileName, fileName + "-wal"} {
		b, err := os.ReadFile(filepath.Join(s.Dir(), name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), strings.TrimPrefix(secret, tokenPrefix)) {
			t.Errorf("%s holds the token itself", name)
		}
	}
	remove := func() error {
		return s.Update(t.Context(), func(tx *Tx) error { return tx.RemoveToken(got.ID) })
	}
	if err := remove(); err != nil {
		t.Error(err)
	}
	if err := remove(); tender.KindOf(err) != tender.NotFound {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := find(secret, day); tender.KindOf(err) != tender.Denied {
		t.Errorf("a removed token: %v", err)
	}
}
