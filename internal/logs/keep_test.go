package logs_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

func texts(t testing.TB, s *logs.Store, q logs.Query) []string {
	t.Helper()
	var all []string
	err := s.Scan(t.Context(), q, func(c logs.Chunk) error {
		for i := range c.Times() {
			all = append(all, string(c.Text(nil, i)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestASecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, logs.Options{})
	_, err := logs.Open(dir, logs.Options{})
	if tender.KindOf(err) != tender.Conflict || tender.AdviceOf(err) == "" {
		t.Errorf("got %v, want a conflict with advice", err)
	}
}

// Durable says what Last says after a new start, for each source in order.
func TestDurableIsTheCheckpoint(t *testing.T) {
	dir := t.TempDir()
	var told []string
	o := logs.Options{Durable: func(source string, to logs.Place) { told = append(told, fmt.Sprint(source, to.Offset)) }}
	s := open(t, dir, o)
	for i := range 3 {
		add(t, s, logs.Batch{Source: "a", Labels: labels("p", "a"), To: logs.Place{Seq: 1, Offset: int64(i + 1), Head: 7, HeadSize: 9}, Rows: []logs.Row{plain(int64(i), "x")}})
	}
	if _, ok := s.Last("a"); ok {
		t.Error("durable before a flush")
	}
	flush(t, s)
	// What was dropped by a pipeline moves the place, too.
	add(t, s, logs.Batch{Source: "a", Labels: labels("p", "a"), To: logs.Place{Seq: 2, Offset: 9}})
	flush(t, s)
	if want := []string{"a3", "a9"}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, logs.Options{})
	if at, ok := s.Last("a"); !ok || at != (logs.Place{Seq: 2, Offset: 9}) {
		t.Errorf("last is %v, %v", at, ok)
	}
}

func TestAGapIsARow(t *testing.T) {
	s := open(t, t.TempDir(), logs.Options{})
	add(t, s, logs.Batch{Source: "a", Labels: labels("p", "a"), Gap: 1234, Rows: []logs.Row{plain(50, "after")}})
	add(t, s, logs.Batch{Source: "a", Labels: labels("p", "a"), Gap: -1})
	got := texts(t, s, logs.Query{Where: []logs.Condition{{Name: "gap", Op: logs.AtLeast, Number: -1}}})
	want := []string{"lines before this one were lost, 1234 bytes of them", "lines before this one were lost, nobody knows how many bytes of them"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// The first of what is wanted is found without a look at what is older.
func TestLimitEndsAScan(t *testing.T) {
	s := open(t, t.TempDir(), logs.Options{})
	for i := range 50 {
		for j := range 20 {
			add(t, s, logs.Batch{Source: "a", Labels: labels("p", "a"), Rows: []logs.Row{plain(int64(100*i+j), fmt.Sprint("line ", i, " ", j))}})
		}
		flush(t, s)
	}
	chunks := 0
	var got []string
	err := s.Scan(t.Context(), logs.Query{Backward: true, Limit: 30}, func(c logs.Chunk) error {
		chunks++
		for i := range c.Times() {
			got = append(got, string(c.Text(nil, i)))
		}
		return nil
	})
	if err != nil || chunks != 2 || len(got) != 30 || got[0] != "line 49 19" || got[29] != "line 48 10" {
		t.Errorf("%d chunks, %v: %q", chunks, err, got)
	}
}

// Rows come to a follower at once; one that sleeps holds nobody up and learns what he missed.
func TestFollow(t *testing.T) {
	s := open(t, t.TempDir(), logs.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, resume := make(chan string, 1), make(chan struct{})
	var lost atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		first := true
		err := s.Follow(ctx, logs.Query{Labels: []logs.Condition{{Name: "service", Op: logs.Equal, Value: "a"}}}, func(c logs.Chunk) error {
			if first {
				first = false
				got <- string(c.Text(nil, 0))
				<-resume
			}
			lost.Add(logs.Missed(c))
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	// It follows once the first row arrives.
	for following := false; !following; {
		add(t, s, logs.Batch{Labels: labels("p", "b"), Rows: []logs.Row{plain(1, "not asked for")}})
		add(t, s, logs.Batch{Labels: labels("p", "a"), Rows: []logs.Row{plain(1, "hello")}})
		select {
		case text := <-got:
			following = true
			if text != "hello" {
				t.Errorf("got %q", text)
			}
		default:
			runtime.Gosched()
		}
	}
	big := strings.Repeat("x", 1<<20)
	for range 20 {
		add(t, s, logs.Batch{Labels: labels("p", "a"), Rows: []logs.Row{plain(2, big), plain(2, big)}})
	}
	if lost.Load() != 0 {
		t.Error("it did not sleep")
	}
	close(resume)
	for lost.Load() == 0 {
		add(t, s, logs.Batch{Labels: labels("p", "a"), Rows: []logs.Row{plain(3, "end")}})
		runtime.Gosched()
	}
	if n := lost.Load(); n < 30 {
		t.Errorf("missed %d rows of 40 or more", n)
	}
	cancel()
	wg.Wait()
}

// A sink that stops anywhere and goes on from its cursor gets every row, also when
// blocks were merged meanwhile.
func TestReadGoesOnAfterItsCursor(t *testing.T) {
	s := open(t, t.TempDir(), logs.Options{})
	write := func(from, to int) {
		for i := from; i < to; i++ {
			r := plain(int64(i), strconv.Itoa(i))
			r.Stderr = i%3 == 0
			name := fmt.Sprint("s", i%5)
			add(t, s, logs.Batch{Source: name, Labels: labels("p", name), To: logs.Place{Offset: int64(i)}, Rows: []logs.Row{r, r}})
			if i%2 == 0 {
				flush(t, s)
			}
		}
		flush(t, s)
	}
	grown := s.Grown()
	write(0, 300)
	select {
	case <-grown:
	default:
		t.Error("nothing said that the store has grown")
	}
	seen := map[string]int{}
	var at logs.Cursor
	read := func(max int) {
		err := s.Read(t.Context(), at, max, func(c logs.Chunk, behind logs.Cursor) error {
			for i := range c.Times() {
				seen[string(c.Text(nil, i))]++
			}
			at = behind
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := logs.ParseCursor(at.String())
		if err != nil || parsed != at {
			t.Fatalf("%v, %v", parsed, err)
		}
	}
	read(100)
	if n := len(seen); n < 50 || n > 60 {
		t.Errorf("read %d rows for 100", n)
	}
	write(300, 1400)
	s.MergeNow(t)
	if st := s.Stats(); st.Merges == 0 || st.Blocks > 300 {
		t.Fatalf("not merged: %+v", st)
	}
	read(0)
	if at != s.Newest() {
		t.Errorf("the cursor is %v, the newest block %v", at, s.Newest())
	}
	for i := range 1400 {
		if seen[strconv.Itoa(i)] < 2 {
			t.Fatalf("row %d came %d times, not 2", i, seen[strconv.Itoa(i)])
		}
	}
	if got := texts(t, s, logs.Query{}); len(got) != 2800 {
		t.Errorf("%d rows after the merge", len(got))
	}
}

// What is found does not change by merging, nor by what a kill leaves of it.
func TestMergeChangesNothing(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(3, 3))}
	dir := t.TempDir()
	s := open(t, dir, logs.Options{})
	batches := m.batches(640, 4)
	for _, b := range batches {
		add(t, s, b)
		flush(t, s)
	}
	old := filepath.Join(t.TempDir(), "old")
	if err := os.CopyFS(old, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	want := scan(t, s, logs.Query{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, logs.Options{})
	s.MergeNow(t)
	check := func(when string) {
		t.Helper()
		if !slices.Equal(scan(t, s, logs.Query{}), want) {
			t.Errorf("%s: other rows", when)
		}
		for _, name := range []string{"c0", "c1", "c2", "c3"} {
			i := slices.IndexFunc(batches, func(b logs.Batch) bool { return b.Source == name })
			last := batches[len(batches)-4+i].To
			if at, ok := s.Last(name); !ok || at != last {
				t.Errorf("%s: last of %s is %v, want %v", when, name, at, last)
			}
		}
	}
	check("merged")
	if st := s.Stats(); st.Blocks > 40 || st.Merges == 0 {
		t.Errorf("%d blocks after %d merges", st.Blocks, st.Merges)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The old segments are there again, as if killed before they went, and one that was not finished.
	if err := filepath.WalkDir(old, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".seg") {
			return err
		}
		rel, err := filepath.Rel(old, path)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return errors.Join(os.WriteFile(filepath.Join(dir, rel), data, 0o600), os.WriteFile(filepath.Join(dir, rel+".tmp"), data[:100], 0o600))
	}); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, logs.Options{})
	check("with leftovers")
	if r, err := s.Check(t.Context()); err != nil || len(r.Damage) > 0 {
		t.Errorf("%v, %v", r, err)
	}
}

// Where a service asks for less than the others, its logs go and theirs stay; how
// far its source was read stays too.
func TestRetention(t *testing.T) {
	day := 24 * time.Hour
	dir := t.TempDir()
	o := logs.Options{Retention: logs.Retention{Age: 10 * day}, Retain: func(_, service string) logs.Retention {
		if service == "short" {
			return logs.Retention{Age: 2 * day}
		}
		return logs.Retention{}
	}}
	s := open(t, dir, o)
	now := time.Now()
	told := map[string]int64{}
	s.Watch(func(gone []logs.Gone) {
		for _, g := range gone {
			told[g.Service] += g.Rows
			if g.Project != "p" || g.Behind.After(s.Newest()) {
				t.Errorf("told of %+v", g)
			}
		}
	})
	for i := range 40 {
		for _, name := range []string{"short", "long"} {
			add(t, s, logs.Batch{Source: name, Labels: labels("p", name), To: logs.Place{Offset: int64(i + 1)}, Rows: []logs.Row{plain(now.UnixNano(), name)}})
		}
		flush(t, s)
	}
	count := func() map[string]int {
		n := map[string]int{}
		for _, l := range texts(t, s, logs.Query{}) {
			n[l]++
		}
		return n
	}
	s.RetireNow(t, now.Add(day))
	if n := count(); n["short"] != 40 || n["long"] != 40 {
		t.Errorf("after a day: %v", n)
	}
	s.RetireNow(t, now.Add(4*day))
	if n := count(); n["short"] != 0 || n["long"] != 40 {
		t.Errorf("after four days: %v", n)
	}
	if len(told) != 1 || told["short"] != 40 {
		t.Errorf("told of what went: %v", told)
	}
	s.RetireNow(t, now.Add(12*day))
	if n := count(); len(n) != 0 {
		t.Errorf("after twelve days: %v", n)
	}
	newest := s.Newest()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, o)
	for _, name := range []string{"short", "long"} {
		if at, ok := s.Last(name); !ok || at.Offset != 40 {
			t.Errorf("last of %s is %v, %v", name, at, ok)
		}
	}
	// Sinks must not be ahead of what is written next.
	add(t, s, logs.Batch{Labels: labels("p", "new"), Rows: []logs.Row{plain(1, "new")}})
	flush(t, s)
	found := 0
	if err := s.Read(t.Context(), newest, 0, func(logs.Chunk, logs.Cursor) error { found++; return nil }); err != nil || found != 1 {
		t.Errorf("a sink finds %d chunks after %v: %v", found, newest, err)
	}
}

// The oldest go when all together is too much, and when the disk is short.
func TestTheOldestGoFirst(t *testing.T) {
	s := open(t, t.TempDir(), logs.Options{Retention: logs.Retention{Size: 40 << 10}})
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 60 {
		var noise strings.Builder
		for range 200 {
			fmt.Fprintf(&noise, "%x", r.Uint64())
		}
		add(t, s, logs.Batch{Labels: labels("p", "a"), Rows: []logs.Row{plain(time.Now().UnixNano(), fmt.Sprintf("%03d %s", i, &noise))}})
		flush(t, s)
	}
	s.RetireNow(t, time.Now())
	got := texts(t, s, logs.Query{})
	if len(got) < 5 || len(got) > 30 || got[len(got)-1][:3] != "059" || s.Stats().Expired == 0 {
		t.Errorf("%d rows are left, %+v", len(got), s.Stats())
	}
	s.SetFree(func() int64 { return 0 }, 1)
	s.Roll(t)
	s.RetireNow(t, time.Now())
	if got := texts(t, s, logs.Query{}); len(got) != 0 || s.Stats().Pressed == 0 {
		t.Errorf("%d rows are left, %+v", len(got), s.Stats())
	}
}

// A child appends and is killed; what it had been told to be durable is there, what
// is there is a prefix of what it wrote, and nothing is there twice.
func TestKill(t *testing.T) {
	if dir := os.Getenv("TENDER_LOGS_CHILD"); dir != "" {
		child(t, dir)
		return
	}
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(9, 9))
	for round := range 6 {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestKill$", "-test.v=false")
		cmd.Env = append(os.Environ(), "TENDER_LOGS_CHILD="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Killed after so many promises, wherever it is just then.
		promised := map[string]int64{}
		lines, stop := bufio.NewScanner(out), 5+r.IntN(60)
		for n := 0; n < stop && lines.Scan(); n++ {
			var source string
			var to int64
			if k, err := fmt.Sscanf(lines.Text(), "durable %s %d", &source, &to); err != nil || k != 2 {
				t.Fatalf("the child says %q", lines.Text())
			}
			promised[source] = to
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		if len(promised) == 0 {
			t.Fatal("the child promised nothing")
		}
		s, err := logs.Open(dir, logs.Options{FreeBytes: -1})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string][]int64{}
		err = s.Scan(t.Context(), logs.Query{}, func(c logs.Chunk) error {
			for i := range c.Times() {
				var n int64
				if _, err := fmt.Sscanf(string(c.Text(nil, i)), "line %d", &n); err != nil {
					return err
				}
				got[c.Labels().Get("service")] = append(got[c.Labels().Get("service")], n)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for source, to := range promised {
			last, ok := s.Last(source)
			if !ok || last.Offset < to {
				t.Errorf("round %d: %s: promised %d, last is %v", round, source, to, last)
			}
			lines := got[source]
			slices.Sort(lines)
			if int64(len(lines)) != last.Offset {
				t.Errorf("round %d: %s: %d lines, last is %d", round, source, len(lines), last.Offset)
			}
			for i, n := range lines {
				if n != int64(i) {
					t.Fatalf("round %d: %s: line %d where %d should be", round, source, n, i)
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// child goes on behind what is durable until it is killed, with merges in between.
func child(t *testing.T, dir string) {
	out := bufio.NewWriter(os.Stdout)
	o := logs.Options{FreeBytes: -1, MaxRows: 300, FlushAfter: time.Millisecond, Durable: func(source string, to logs.Place) {
		fmt.Fprintf(out, "durable %s %d\n", source, to.Offset)
		if err := out.Flush(); err != nil {
			os.Exit(3)
		}
	}}
	s, err := logs.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(t.Context()) })
	for i := range 3 {
		name := fmt.Sprint("s", i)
		at, _ := s.Last(name)
		wg.Go(func() {
			for n := 0; ; n++ {
				size := int64(1 + n%40)
				b := logs.Batch{Source: name, Labels: labels("p", name), From: at}
				for k := range size {
					b.Rows = append(b.Rows, plain(at.Offset+k, fmt.Sprint("line ", at.Offset+k)))
				}
				at.Offset += size
				b.To = at
				if err := s.Append(t.Context(), b); err != nil {
					os.Exit(4)
				}
			}
		})
	}
	for {
		s.MergeNow(t)
	}
}

// When the disk is full nothing is lost: rows wait, Append waits, and all is
// written once there is room.
func TestAFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("cannot mount a small disk here: %v", err)
	}
	s, err := logs.Open(filepath.Join(dir, "logs"), logs.Options{FreeBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(s.Close(), syscall.Unmount(dir, 0)); err != nil {
			t.Error(err)
		}
	}()
	r := rand.New(rand.NewPCG(5, 5))
	n := 0
	write := func() {
		var b logs.Batch
		b.Source, b.Labels = "a", labels("p", "a")
		for range 100 {
			b.Rows = append(b.Rows, plain(int64(n), fmt.Sprintf("%d %x%x%x%x", n, r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64())))
			n++
		}
		b.To.Offset = int64(n)
		add(t, s, b)
	}
	write()
	flush(t, s)
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		write()
		if err := s.Flush(t.Context()); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("flush on a full disk: %v", err)
		}
	}
	if s.Stats().Failing == "" {
		t.Error("nobody says that it fails")
	}
	if last, _ := s.Last("a"); last.Offset != 100 {
		t.Errorf("last is %d", last.Offset)
	}
	if got := texts(t, s, logs.Query{}); len(got) != n {
		t.Errorf("%d rows of %d are found", len(got), n)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	flush(t, s)
	if last, _ := s.Last("a"); last.Offset != int64(n) || s.Stats().Failing != "" {
		t.Errorf("last is %d, %+v", last.Offset, s.Stats())
	}
	if r, err := s.Check(t.Context()); err != nil || len(r.Damage) > 0 || r.Rows != int64(n) {
		t.Errorf("%+v, %v", r, err)
	}
}

// The oldest go to make room on a full disk: the places of those who say nothing more, and
// of those whose next rows still wait, went with them, and all would have come again after a kill.
func TestAFullDiskForgetsNoPlace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("cannot mount a small disk here: %v", err)
	}
	s, err := logs.Open(filepath.Join(dir, "logs"), logs.Options{FreeBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(s.Close(), syscall.Unmount(dir, 0)); err != nil {
			t.Error(err)
		}
	}()
	r := rand.New(rand.NewPCG(5, 5))
	write := func(source string, to, rows int) {
		b := logs.Batch{Source: source, Labels: labels("p", source), To: logs.Place{Offset: int64(to)}}
		for i := range rows {
			b.Rows = append(b.Rows, plain(int64(i), fmt.Sprintf("%x%x%x%x", r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64())))
		}
		add(t, s, b)
	}
	const silent = 100 // the marks of so many are more than a page that is half full
	for i := range silent {
		write(fmt.Sprint("silent", i), 7, 10)
	}
	write("waiting", 7, 10)
	flush(t, s)
	s.Roll(t)
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	write("waiting", 8, 500) // more than a page
	if err := s.Flush(t.Context()); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("flush on a full disk: %v", err)
	}
	s.SetFree(func() int64 { return 0 }, 1)
	s.RetireNow(t, time.Now())
	if s.Stats().Pressed == 0 {
		t.Fatal("nothing went")
	}
	// What a kill leaves.
	left := t.TempDir()
	if err := os.CopyFS(left, os.DirFS(filepath.Join(dir, "logs"))); err != nil {
		t.Fatal(err)
	}
	after := open(t, left, logs.Options{})
	if p, ok := after.Last("waiting"); !ok || p.Offset != 7 {
		t.Errorf("last of the one that waits is %v, %v", p, ok)
	}
	for i := range silent {
		if p, ok := after.Last(fmt.Sprint("silent", i)); !ok || p.Offset != 7 {
			t.Fatalf("last of silent %d is %v, %v", i, p, ok)
		}
	}
}

// When the labels of a source change, what came before is on disk first: else a kill
// in between would leave a hole that nobody reads again.
func TestNewLabelsKeepTheOrder(t *testing.T) {
	s := open(t, t.TempDir(), logs.Options{})
	for i, name := range []string{"one", "two", "one"} {
		add(t, s, logs.Batch{Source: "a", Labels: labels("p", name), To: logs.Place{Offset: int64(i + 1)}, Rows: []logs.Row{plain(9, strconv.Itoa(i))}})
	}
	flush(t, s)
	var got []string
	err := s.Read(t.Context(), logs.Cursor{}, 0, func(c logs.Chunk, _ logs.Cursor) error {
		got = append(got, c.Labels().Get("service")+string(c.Text(nil, 0)))
		return nil
	})
	if want := []string{"one0", "two1", "one2"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("read %v, %v", got, err)
	}
	if at, _ := s.Last("a"); at.Offset != 3 {
		t.Errorf("last is %v", at)
	}
}

// A service that may keep so many bytes keeps its newest, and the others theirs.
func TestSizeOfAService(t *testing.T) {
	s := open(t, t.TempDir(), logs.Options{Retain: func(_, service string) logs.Retention {
		if service == "chatty" {
			return logs.Retention{Size: 8 << 10}
		}
		return logs.Retention{}
	}})
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 30 {
		for _, name := range []string{"chatty", "other"} {
			noise := make([]byte, 1000)
			for k := range noise {
				noise[k] = byte(r.Uint32())
			}
			add(t, s, logs.Batch{Labels: labels("p", name), Rows: []logs.Row{plain(time.Now().UnixNano(), fmt.Sprintf("%02d %s %s", i, name, noise))}})
		}
		flush(t, s)
	}
	s.RetireNow(t, time.Now())
	n := map[string]int{}
	for _, l := range texts(t, s, logs.Query{}) {
		n[strings.Fields(l)[1]]++
	}
	if n["other"] != 30 || n["chatty"] < 3 || n["chatty"] > 8 {
		t.Errorf("left are %v", n)
	}
}

// Of a hundred thousand rows in quick succession none waits for a disk that is slow
// to sync, and what waits in memory stays bounded.
func TestMemoryIsBounded(t *testing.T) {
	s := open(t, t.TempDir(), logs.Options{})
	line := strings.Repeat("some text that is not short ", 20)
	for i := range 1200 {
		b := logs.Batch{Source: fmt.Sprint("s", i%60), Labels: labels("p", fmt.Sprint("s", i%60))}
		for k := range 100 {
			b.Rows = append(b.Rows, plain(int64(i*100+k), line))
		}
		add(t, s, b)
		if n := s.Stats().Unflushed; n > 40<<20 {
			t.Fatalf("%d bytes wait", n)
		}
	}
	rows, _, _, _, err := s.Volume(t.Context(), logs.Query{})
	if err != nil || rows != 120_000 {
		t.Errorf("%d rows, %v", rows, err)
	}
}
