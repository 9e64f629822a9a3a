package metrics

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sys/unix"

	"github.com/tenderhq/tender/internal/sample"
)

// small is a disk that fills up soon; room gives it more.
func small(t *testing.T) (dir string, room func(size string)) {
	t.Helper()
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"); errors.Is(err, unix.EPERM) {
		t.Skip("a small disk can only be mounted by root")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(disk, "metrics"), func(size string) {
		if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT, "size="+size); err != nil {
			t.Fatal(err)
		}
	}
}

// killed is what a process leaves on the disk that is killed: it closes nothing.
func killed(t *testing.T, dir string) string {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "metrics")
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return copied
}

// A full disk left records in the log of writes that were begun and not ended, and series that it did not
// name: all that was kept after them was lost at the next start.
func TestADiskThatFillsUp(t *testing.T) {
	dir, room := small(t)
	d := open(t, Options{Dir: dir})
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	all := []sample.Point{{Series: series("n")}}
	for i := range 500 {
		all = append(all, sample.Point{Series: series("load", "i", strconv.Itoa(i))})
	}
	i, kept := 0, map[int]int{} // rounds, and how many series each had
	keep := func() error {
		i++
		for j := range all {
			all[j].Value = float64(i) + float64(j)/3
		}
		err := d.Keep(t.Context(), sample.Round{Source: "n", At: at.Add(time.Duration(i) * time.Second), Points: all})
		if err == nil {
			kept[i] = len(all)
		}
		return err
	}
	for refused := 0; refused < 20; {
		if i > 3000 {
			t.Fatal("the disk did not fill up")
		}
		if err := keep(); err != nil {
			if refused++; !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("a full disk is said as %v", err)
			}
			for j := range 100 {
				all = append(all, sample.Point{Series: series("born", "while", strconv.Itoa(refused), "i", strconv.Itoa(j))})
			}
		}
	}
	if p := d.Status().Problem(); p == "" {
		t.Error("nothing is said of it")
	}
	room("64m")
	for range 20 {
		if err := keep(); err != nil {
			t.Errorf("there is room again: %v", err)
		}
	}
	look := func(when string, d *DB) {
		t.Helper()
		there := map[int]int{}
		matchers := []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", "n|load|born")}
		err := d.each(t.Context(), matchers, at, at.Add(time.Hour), func(_ labels.Labels, all []moment, _ bool) {
			for _, m := range all {
				there[int(m.at.Sub(at)/time.Second)]++
			}
		})
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		for k, n := range kept {
			if there[k] < n {
				t.Fatalf("%s, of round %d there are %d samples, want %d", when, k, there[k], n)
			}
		}
		if got, want := ask(t, d, "n", at.Add(time.Duration(i)*time.Second)), fmt.Sprintf("map[__name__:n] %d", i); got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	look("at once", d)
	for range 2 { // the second is the start after that, with nothing to mend
		dir = killed(t, dir)
		again := open(t, Options{Dir: dir})
		look("after a kill", again)
		if list := again.Status().Damaged; len(list) != 0 {
			t.Errorf("nothing that was kept is lost, and yet: %v", list)
		}
		if _, err := os.Stat(filepath.Join(dir, unwrittenFile)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("series are not in the log of writes yet: %v", err)
		}
	}
}

// A disk that was full when chunks went from memory to files ended the process.
func TestAFullDiskWhenChunksAreMoved(t *testing.T) {
	dir, room := small(t)
	room("64m")
	d := open(t, Options{Dir: dir, Free: 1})
	at, n := time.Now().Add(-time.Hour).Truncate(time.Second), series("n")
	keep := func(i int) error {
		return d.Keep(t.Context(), sample.Round{Source: "n", At: at.Add(time.Duration(i) * time.Second), Points: []sample.Point{{Series: n, Value: float64(i)}}})
	}
	for i := range 300 { // some chunks
		if err := keep(i); err != nil {
			t.Fatal(err)
		}
	}
	other := filepath.Join(filepath.Dir(dir), "other")
	if err := os.WriteFile(other, make([]byte, 64<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	d.reserve.look() // as the library has it done before
	d.tsdb.ForceHeadMMap()
	if err := keep(300); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("what is kept now cannot be moved: %v", err)
	}
	if p := d.Status().Problem(); !strings.Contains(p, "no space left") {
		t.Errorf("problem %q", p)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	room("128m")
	d.reserve.look()
	if err := keep(301); err != nil {
		t.Errorf("there is room again: %v", err)
	}
	again := open(t, Options{Dir: killed(t, dir)})
	if got := ask(t, again, "count_over_time(n[1h])", at.Add(301*time.Second)); got != "map[] 301" {
		t.Errorf("after a kill: %s", got)
	}
}
