package metrics

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/sample"
)

func TestSeriesOfTheLastProcessEnd(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	first, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	r := sample.Round{Source: "host", At: now.Add(-time.Minute), Points: []sample.Point{{Series: series("mem", "instance", "stays"), Value: 1}, {Series: series("mem", "instance", "goes"), Value: 2}}}
	if err := first.Keep(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	d := open(t, Options{Dir: dir})
	if err := d.Keep(t.Context(), sample.Round{Source: "host", At: now, Points: []sample.Point{{Series: series("mem", "instance", "stays"), Value: 3}}}); err != nil {
		t.Fatal(err)
	}
	if got, want := ask(t, d, "mem", now), "map[__name__:mem instance:stays] 3"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestAppendForever is what TestKillNine kills.
func TestAppendForever(t *testing.T) {
	dir := os.Getenv("TENDER_TEST_APPEND")
	if dir == "" {
		t.Skip("it is run by TestKillNineLosesNothingThatWasKept")
	}
	d, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	at, n := time.Now().Add(-time.Hour), series("n")
	all := []sample.Point{{Series: n}}
	for i := range 200 {
		all = append(all, sample.Point{Series: series("load", "i", strconv.Itoa(i))})
	}
	for i := 1; ; i++ {
		all[0].Value = float64(i)
		if err := d.Keep(t.Context(), sample.Round{Source: "n", At: at.Add(time.Duration(i) * time.Millisecond), Points: all}); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("kept %d\n", i)
	}
}

// What Keep has said to be kept is there after kill -9, whenever that comes.
func TestKillNineLosesNothingThatWasKept(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		c := exec.Command(os.Args[0], "-test.run=^TestAppendForever$")
		c.Env = append(os.Environ(), "TENDER_TEST_APPEND="+dir)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		kept := 0
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if n, ok := strings.CutPrefix(lines.Text(), "kept "); ok {
				kept, _ = strconv.Atoi(n)
			}
			if kept == 30+25*round {
				if err := c.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = c.Wait() // it was killed
		if kept == 0 {
			t.Fatal("nothing was kept")
		}
		d, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		got, err := d.Query(t.Context(), "max_over_time(n[2h])", time.Now())
		if err != nil || len(got) != 1 || int(got[0].Value) < kept {
			t.Errorf("round %d: %v, %v, want at least %d", round, got, err, kept)
		}
		if list := d.Status().Damaged; len(list) != 0 {
			t.Errorf("damaged: %v", list)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// filled makes a store with a block and something not yet in one.
func filled(t *testing.T, dir string) (at time.Time) {
	t.Helper()
	d, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	at = time.Now()
	s := series("old")
	for back := 12 * time.Hour; back >= 0; back -= time.Minute {
		if err := d.Keep(t.Context(), sample.Round{Source: "x", At: at.Add(-back), Points: []sample.Point{{Series: s, Value: 1}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(d.tsdb.Blocks()) < 2 {
		t.Fatalf("%d blocks", len(d.tsdb.Blocks()))
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return at
}

func blocksIn(t *testing.T, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "01*"))
	if err != nil || len(all) == 0 {
		t.Fatal("no blocks", err)
	}
	return all
}

func overwrite(t *testing.T, path string, offset int64, with string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(with), offset); err != nil {
		t.Fatal(err)
	}
}

// What is damaged is set aside and said; the rest is there, and new samples are kept.
func TestDamageIsSetAside(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		lost   string // part of a name below damaged; "" nothing was set aside
	}{
		{"no damage", func(*testing.T, string) {}, ""},
		{"an index that ends early", func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(blocksIn(t, dir)[0], "index"), 100); err != nil {
				t.Fatal(err)
			}
		}, "01"},
		{"an index of zeros", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(blocksIn(t, dir)[0], "index"), make([]byte, 4096), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "01"},
		{"a block without its description", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(blocksIn(t, dir)[0], "meta.json")); err != nil {
				t.Fatal(err)
			}
		}, "01"},
		{"chunks that are gone", func(t *testing.T, dir string) {
			overwrite(t, filepath.Join(blocksIn(t, dir)[0], "chunks", "000001"), 0, "notmagic")
		}, "01"},
		{"the log of writes in its middle", func(t *testing.T, dir string) {
			all, _ := filepath.Glob(filepath.Join(dir, "wal", "0*"))
			checkpoints, _ := filepath.Glob(filepath.Join(dir, "wal", "checkpoint*", "0*"))
			for _, f := range append(all, checkpoints...) {
				if s, err := os.Stat(f); err == nil && s.Size() > 200 {
					overwrite(t, f, 100, strings.Repeat("\xff", 50))
					return
				}
			}
			t.Fatal("no log of writes", all, checkpoints)
		}, "wal-"},
		{"no place for what was written last", func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "chunks_head")); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "chunks_head"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "head-"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			at := filled(t, dir)
			tt.damage(t, dir)
			d := open(t, Options{Dir: dir})
			list := d.Status().Damaged
			if tt.lost == "" && len(list) != 0 || tt.lost != "" && (len(list) != 1 || !strings.HasPrefix(list[0], tt.lost)) {
				t.Fatalf("damaged: %v, want %q", list, tt.lost)
			}
			if tt.lost != "" {
				if why, err := os.ReadFile(filepath.Join(dir, damagedDir, list[0], reasonFile)); err != nil || len(why) < 10 {
					t.Errorf("reason %q, %v", why, err)
				}
				if p := d.Status().Problem(); !strings.Contains(p, list[0]) {
					t.Errorf("problem %q", p)
				}
				if f := d.Figures(); !strings.Contains(f, "tender_metrics_damaged_parts 1\n") {
					t.Error("no figure of it")
				}
			}
			if got := ask(t, d, "count_over_time(old[12h]) > 100", at); !strings.HasPrefix(got, "map[] ") {
				t.Errorf("of the rest: %q", got)
			}
			if err := d.Keep(t.Context(), sample.Round{Source: "x", At: at.Add(time.Second), Points: []sample.Point{{Series: series("new"), Value: 1}}}); err != nil {
				t.Error(err)
			}
			if got := ask(t, d, "new", at.Add(2*time.Second)); !strings.HasSuffix(got, " 1") {
				t.Errorf("new: %q", got)
			}
		})
	}
}

// A chunk that a query finds damaged costs its block, and not each query from then on.
func TestAChunkThatIsDamagedIsFoundByAQuery(t *testing.T) {
	dir := t.TempDir()
	at := filled(t, dir)
	block := blocksIn(t, dir)[0]
	overwrite(t, filepath.Join(block, "chunks", "000001"), 20, strings.Repeat("\xff", 20))
	d := open(t, Options{Dir: dir})
	get := server(t, d)
	q := []string{"query", "count_over_time(old[12h])", "time", fmt.Sprint(at.Unix())}
	got := get("/api/v1/query", q...)
	if !strings.Contains(got, `"error"`) {
		t.Fatalf("the damage was not seen: %s", got)
	}
	if list := d.Status().Damaged; len(list) != 1 || list[0] != filepath.Base(block) {
		t.Fatalf("damaged: %v, want %s, of %s", list, filepath.Base(block), got)
	}
	if got = get("/api/v1/query", q...); !strings.Contains(got, `"success"`) {
		t.Errorf("after that: %s", got)
	}
}

func TestAProjectHasItsBounds(t *testing.T) {
	d := open(t, Options{Limit: 100})
	now := time.Now()
	keep := func(project string, n int) {
		t.Helper()
		r := sample.Round{Source: project, At: now}
		for i := range n {
			r.Points = append(r.Points, sample.Point{Series: series("hits", "path", "/fixed", "project", project, "user", strconv.Itoa(i)), Value: 1})
		}
		if err := d.Keep(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	keep("greedy", 150)
	keep("modest", 50)
	d.blame(t.Context(), now)
	if got, want := ask(t, d, "sort(count by (project) (hits))", now), "map[project:modest] 50\nmap[project:greedy] 100"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	s := d.Status()
	if len(s.Full) != 1 || s.Full[0].Project != "greedy" || s.Full[0].Series != 100 || s.Full[0].Refused != 50 {
		t.Errorf("status %+v", s.Full)
	}
	if got, want := s.Problem(), "project greedy has 100 series, as many as it may: no new ones are kept; the label user has 100 values"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, want := range []string{`tender_metrics_series{project="greedy"} 100`, `tender_metrics_refused_samples_total{project="greedy"} 50`, `tender_metrics_series_limit 100`} {
		if f := d.Figures(); !strings.Contains(f, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
}

// A disk that was full at the start was taken for damage, and the last hours were set aside.
func TestAFullDiskIsNoDamage(t *testing.T) {
	dir := t.TempDir()
	filled(t, dir)
	d := newDamage(dir, slog.New(slog.DiscardHandler))
	for _, err := range []error{
		fmt.Errorf("create WAL: %w", &os.PathError{Op: "write", Path: "wal/00000001", Err: syscall.ENOSPC}),
		errors.New("open chunks_head: too many open files"),
	} {
		if d.head(err) {
			t.Errorf("set aside because of %v", err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "wal")); err != nil || len(d.list()) != 0 {
		t.Errorf("%v, damaged: %v", err, d.list())
	}
}

// Killed while it read what was written last, a process left its links behind, which looked like damage.
func TestKilledWhileItRead(t *testing.T) {
	dir := t.TempDir()
	filled(t, dir)
	if _, err := newDamage(dir, slog.New(slog.DiscardHandler)).spareWAL(); err != nil {
		t.Fatal(err)
	}
	d, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if list := d.Status().Damaged; len(list) != 0 {
		t.Errorf("damaged: %v", list)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	// What is there alone stays: it may have been taken out of the store since.
	spare := filepath.Join(dir, damagedDir, "wal-20260301T000000.000000000Z", "wal")
	if err := os.MkdirAll(spare, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(spare, "00000000"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if list := open(t, Options{Dir: dir}).Status().Damaged; len(list) != 1 {
		t.Errorf("damaged: %v", list)
	}
}
