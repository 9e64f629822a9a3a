package logs_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/logs"
)

// segments lists the files of a store.
func segments(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".seg") {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// manyBlocks makes a store with one segment of blocks, closed.
func manyBlocks(t testing.TB, dir string, n int) {
	t.Helper()
	s, err := logs.Open(dir, logs.Options{FreeBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	m := maker{rand.New(rand.NewPCG(1, 5))}
	for i := range n {
		b := logs.Batch{Source: "a", Labels: labels("p", "a"), To: logs.Place{Offset: int64(i + 1)}}
		for k := range 50 {
			r := m.row(int64(1e15 + i*50 + k))
			r.Fields = append(r.Fields, logs.Field{"block", fmt.Sprint(i)})
			b.Rows = append(b.Rows, r)
		}
		add(t, s, b)
		flush(t, s)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// blocks says how many rows of each block are found.
func blocks(t testing.TB, s *logs.Store) map[string]int {
	t.Helper()
	n := map[string]int{}
	err := s.Scan(t.Context(), logs.Query{}, func(c logs.Chunk) error {
		for i := range c.Times() {
			fields := c.Fields(nil, i)
			c.Text(nil, i)
			n[fields[len(fields)-1].Value]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Wherever a byte is wrong, at most one block is lost, it is counted and told, and
// all others are found.
func TestDamageHarmsOneBlock(t *testing.T) {
	source := t.TempDir()
	manyBlocks(t, source, 12)
	path := segments(t, source)[0]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	name, err := filepath.Rel(source, path)
	if err != nil {
		t.Fatal(err)
	}
	var starts []int
	for at := 0; ; at += 4 {
		i := bytes.Index(whole[at:], []byte("TLB1"))
		if i < 0 {
			break
		}
		at += i
		starts = append(starts, at)
	}
	if len(starts) != 12 {
		t.Fatalf("%d blocks", len(starts))
	}
	r := rand.New(rand.NewPCG(2, 2))
	for round := range 40 {
		dir := t.TempDir()
		data := bytes.Clone(whole)
		// Not in the last blocks: what is wrong there is a torn end.
		hit := r.IntN(9)
		at := starts[hit] + r.IntN(starts[hit+1]-starts[hit])
		if round < 5 {
			at = starts[hit] + round*4
		}
		data[at] ^= byte(1 + r.IntN(255))
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir, logs.Options{})
		found := blocks(t, s)
		for i := range 12 {
			if n := found[fmt.Sprint(i)]; i != hit && n != 50 {
				t.Errorf("byte %d of block %d is wrong, and of block %d there are %d rows", at-starts[hit], hit, i, n)
			}
		}
		if s.Stats().Damaged != 1 && found[fmt.Sprint(hit)] != 50 {
			t.Errorf("byte %d of block %d is wrong: damaged %d", at-starts[hit], hit, s.Stats().Damaged)
		}
		report, err := s.Check(t.Context())
		if err != nil || len(report.Damage) != 1 || report.Damage[0].Offset != int64(starts[hit]) || report.Damage[0].File != name {
			t.Errorf("check of byte %d of block %d: %+v, %v", at-starts[hit], hit, report, err)
		}
		if at, ok := s.Last("a"); !ok || at.Offset != 12 {
			t.Errorf("last is %v", at)
		}
	}
}

// Wherever a file ends, the whole blocks before are there, and what comes next is
// written behind them.
func TestATornEndIsCut(t *testing.T) {
	source := t.TempDir()
	manyBlocks(t, source, 3)
	path := segments(t, source)[0]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(2, 2))
	lengths := []int{0, 1, 39, 40, 41, len(whole) - 1, len(whole)}
	for range 20 {
		lengths = append(lengths, r.IntN(len(whole)))
	}
	for _, n := range lengths {
		dir := t.TempDir()
		day := filepath.Join(dir, filepath.Base(filepath.Dir(path)))
		if err := os.MkdirAll(day, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(day, filepath.Base(path)), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir, logs.Options{})
		at, _ := s.Last("a")
		found := blocks(t, s)
		for i := range 3 {
			want := 0
			if int64(i) < at.Offset {
				want = 50
			}
			if found[fmt.Sprint(i)] != want {
				t.Errorf("%d bytes, last %d: %v", n, at.Offset, found)
			}
		}
		add(t, s, logs.Batch{Source: "a", Labels: labels("p", "a"), Rows: []logs.Row{{Time: 1, Shape: "next", Fields: []logs.Field{{"block", "next"}}}}})
		flush(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, logs.Options{})
		if found := blocks(t, s); found["next"] != 1 || len(found) != int(at.Offset)+1 {
			t.Errorf("%d bytes, then one more: %v", n, found)
		}
		if r, err := logs.Check(t.Context(), dir); err != nil || len(r.Damage) != 0 {
			t.Errorf("%d bytes: %+v, %v", n, r, err)
		}
	}
}

// A segment of a later release is refused, not taken for damage.
func TestANewerFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	manyBlocks(t, dir, 1)
	path := segments(t, dir)[0]
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[8] = 99
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := logs.Open(dir, logs.Options{}); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("got %v", err)
	}
}

// Random bytes in random places of a block, behind checksums that are right again:
// whatever comes of it is an error or rows, and soon.
func TestNonsenseIsRead(t *testing.T) {
	dir := t.TempDir()
	manyBlocks(t, dir, 1)
	whole, err := os.ReadFile(segments(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(4, 4))
	for range 400 {
		data := bytes.Clone(whole)
		for range 1 + r.IntN(4) {
			// Most of them where the structure is.
			at := 40 + r.IntN(len(data)-40)
			if r.IntN(3) > 0 {
				at = 40 + r.IntN(min(1500, len(data)-40))
			}
			data[at] = byte(r.Uint32())
		}
		logs.Mend(data)
		logs.ReadAll(t, data)
	}
}

// FuzzSegment reads anything as a segment, with all checksums made right, so that
// what is behind them is reached.
func FuzzSegment(f *testing.F) {
	dir := f.TempDir()
	manyBlocks(f, dir, 1)
	data, err := os.ReadFile(segments(f, dir)[0])
	if err != nil {
		f.Fatal(err)
	}
	small := f.TempDir()
	s, err := logs.Open(small, logs.Options{FreeBytes: -1})
	if err != nil {
		f.Fatal(err)
	}
	m := maker{rand.New(rand.NewPCG(1, 5))}
	var b logs.Batch
	for i := range 60 {
		r := plain(int64(i), fmt.Sprintf("%d some longer line of text %x", i, m.Uint64()))
		for _, name := range []string{"id", "uuid", "n", "status", "took"} {
			r.Fields = append(r.Fields, logs.Field{name, m.value(name)})
		}
		b.Rows = append(b.Rows, r)
	}
	add(f, s, b)
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	all, err := os.ReadFile(segments(f, small)[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(all, true)
	f.Add(data, false)
	f.Add(data, true)
	f.Add(data[:len(data)/2], true)
	f.Fuzz(func(t *testing.T, data []byte, mend bool) {
		data = slices.Clone(data)
		if mend {
			logs.Mend(data)
		}
		logs.ReadAll(t, data)
	})
}

// A file of which nothing can be read goes with its day, like any other.
func TestAWhollyDamagedFileGoesInTime(t *testing.T) {
	dir := t.TempDir()
	manyBlocks(t, dir, 1)
	old := filepath.Join(dir, "2020-01-01")
	if err := os.Mkdir(old, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(old, "000000000000-000000000000-0.seg"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, logs.Options{})
	if s.Stats().Damaged == 0 {
		t.Fatal("the damage is not counted")
	}
	s.RetireNow(t, time.Now())
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("the folder of its day stays: %v", err)
	}
	if s.Stats().Rows != 50 {
		t.Errorf("%d rows are left", s.Stats().Rows)
	}
}

// A block whose head nobody could read again must not be written.
func TestLabelsBeyondAHeadAreRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, logs.Options{})
	big := logs.Labels{{"project", "p"}, {"service", strings.Repeat("x", 2<<20)}}
	if err := s.Append(t.Context(), logs.Batch{Labels: big, Rows: []logs.Row{plain(1, "a")}}); err == nil {
		t.Error("labels of 2 MiB are taken")
	}
	big[1].Value = strings.Repeat("x", 400<<10)
	add(t, s, logs.Batch{Labels: big, Rows: []logs.Row{plain(1, "a")}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if st := open(t, dir, logs.Options{}).Stats(); st.Rows != 1 || st.Damaged != 0 {
		t.Errorf("%d rows, %d damaged", st.Rows, st.Damaged)
	}
}
