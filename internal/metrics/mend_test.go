package metrics

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/tenderhq/tender/internal/sample"
)

// logged is a log of writes with records of many sizes, and what is in them.
func logged(t testing.TB, how compression.Type) (file []byte, recs [][]byte) {
	t.Helper()
	dir := t.TempDir()
	w, err := wlog.New(nil, nil, dir, how)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 200 {
		rec := []byte(fmt.Sprintf("record %d ", i))
		for range rnd.IntN(1 << rnd.IntN(14)) {
			rec = strconv.AppendUint(rec, rnd.Uint64(), 10)
		}
		recs = append(recs, rec)
		if err := w.Log(rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file, err = os.ReadFile(wlog.SegmentName(dir, 0))
	if err != nil {
		t.Fatal(err)
	}
	return file, recs
}

func wholeOf(t testing.TB, file []byte) (out [][]byte, found flaws) {
	t.Helper()
	found, err := whole(bytes.NewReader(file), func(rec []byte) error {
		out = append(out, bytes.Clone(rec))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out, found
}

// missed is how many of all are not in some, which has no others and no other order.
func missed(t testing.TB, all, some [][]byte) (n int) {
	t.Helper()
	for _, rec := range all {
		if len(some) > 0 && bytes.Equal(rec, some[0]) {
			some = some[1:]
			continue
		}
		n++
	}
	if len(some) > 0 {
		t.Fatalf("something that was never written: %.40q", some[0])
	}
	return n
}

func TestWholeRecords(t *testing.T) {
	for _, how := range []compression.Type{compression.None, compression.Snappy, compression.Zstd} {
		file, recs := logged(t, how)
		pages := len(file) / pageSize
		if pages < 10 {
			t.Fatalf("%d pages", pages)
		}
		got, found := wholeOf(t, file)
		if n := missed(t, recs, got); n > 0 || found.any() {
			t.Errorf("%s: without damage %d are missed, %+v", how, n, found)
		}
		for _, at := range []int{3, 5*pageSize + 1, 7*pageSize - 1, len(file)/2 + 1000} {
			b := bytes.Clone(file)
			b[at] ^= 0x40
			got, found := wholeOf(t, b)
			if n := missed(t, recs, got); n > 20 || found.unread == 0 {
				t.Errorf("%s, a byte at %d: %d are missed, %+v", how, at, n, found)
			}
		}
		b := bytes.Clone(file)
		clear(b[4*pageSize : 5*pageSize])
		if got, found := wholeOf(t, b); missed(t, recs, got) > 20 || found.unread == 0 {
			t.Errorf("%s, a page of zeros: %d are missed, %+v", how, missed(t, recs, got), found)
		}
		// The end of a process: it can be anywhere, and costs the record that was being written.
		for at := len(file) - 3*pageSize; at < len(file); at += 1009 {
			got, found := wholeOf(t, file[:at])
			if n := missed(t, recs, got); found.unread > 0 || found.torn > 1 || n > 0 && found.torn == 0 && !bytes.HasPrefix(file[at:], file[at:at+1]) {
				t.Errorf("%s, it ends at %d: %d are missed, %+v", how, at, n, found)
			}
		}
	}
}

// Whatever is damaged, no record comes out that was not written.
func FuzzWholeRecords(f *testing.F) {
	file, recs := logged(f, compression.Snappy)
	f.Add(uint32(100), []byte{0xff}, uint32(0))
	f.Add(uint32(pageSize), bytes.Repeat([]byte{0}, 100), uint32(5*pageSize+17))
	f.Fuzz(func(t *testing.T, at uint32, with []byte, end uint32) {
		b := bytes.Clone(file)
		copy(b[int(at)%len(b):], with)
		if end > 0 {
			b = b[:int(end)%len(b)]
		}
		got, _ := wholeOf(t, b)
		missed(t, recs, got)
	})
}

// A damaged place costs what lay there, and not what was kept after it: that was up to two hours.
func TestADamagedPlaceCostsItself(t *testing.T) {
	for _, tt := range []struct {
		name string
		late bool // samples that come late have a log of their own
		log  string
	}{{"what was written last", false, "wal"}, {"what came late", true, wlog.WblDirName}} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			d := open(t, Options{Dir: dir})
			const rounds = 300
			at := time.Now().Add(-30 * time.Minute).Truncate(time.Second)
			var all []sample.Point
			for i := range 300 {
				all = append(all, sample.Point{Series: series("load", "i", strconv.Itoa(i))})
			}
			round := func(i int) {
				t.Helper()
				for j := range all {
					all[j].Value = float64(i) + float64(j)/7
				}
				if err := d.Keep(t.Context(), sample.Round{Source: "n", At: at.Add(time.Duration(i) * time.Second), Points: all}); err != nil {
					t.Fatal(err)
				}
			}
			if tt.late {
				round(rounds)
			}
			for i := range rounds {
				round(i)
			}
			dir = killed(t, dir)
			file := wlog.SegmentName(filepath.Join(dir, tt.log), 0)
			b, err := os.ReadFile(file)
			if err != nil || len(b) < 8*pageSize {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			again := open(t, Options{Dir: dir})
			got, err := again.Query(t.Context(), fmt.Sprintf("count(load) and min(count_over_time(load[%ds])) > %d", rounds+1, rounds-30), at.Add(rounds*time.Second))
			if err != nil || len(got) != 1 || int(got[0].Value) != len(all) {
				t.Errorf("of %d series there are %v, %v", len(all), got, err)
			}
			list := again.Status().Damaged
			if len(list) != 1 {
				t.Fatalf("damaged: %v", list)
			}
			set := filepath.Join(dir, damagedDir, list[0])
			if why, err := os.ReadFile(filepath.Join(set, reasonFile)); err != nil || !strings.Contains(string(why), tt.log+"/00000000") {
				t.Errorf("reason %q, %v", why, err)
			}
			if was, err := os.ReadFile(filepath.Join(set, tt.log, "00000000")); err != nil || !bytes.Equal(was, b) {
				t.Errorf("what was damaged is not as it was: %d bytes, %v", len(was), err)
			}
			third := open(t, Options{Dir: killed(t, dir)})
			if list := third.Status().Damaged; len(list) != 1 {
				t.Errorf("at the start after that: %v", list)
			}
		})
	}
}

// A mend that finds no room leaves what it was to mend as it was, for the next start.
func TestAMendWithoutRoom(t *testing.T) {
	dir, room := small(t)
	if err := os.MkdirAll(filepath.Join(dir, "wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	file, recs := logged(t, compression.Snappy)
	file[5*pageSize+100] ^= 1
	path := wlog.SegmentName(filepath.Join(dir, "wal"), 0)
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	// Of a mend that was killed.
	left := filepath.Join(dir, "mending")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(wlog.SegmentName(left, 7), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "other"), make([]byte, 8<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	d := newDamage(dir, slog.New(slog.DiscardHandler))
	if _, err := d.mend(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("without room: %v", err)
	}
	if is, err := os.ReadFile(path); err != nil || !bytes.Equal(is, file) {
		t.Errorf("it was changed: %d bytes, %v", len(is), err)
	}
	room("64m")
	if lost, err := d.mend(); lost == nil || err != nil {
		t.Errorf("with room: lost %v, %v", lost, err)
	}
	is, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, found := wholeOf(t, is); missed(t, recs, got) > 20 || found.any() {
		t.Errorf("%d are missed, %+v", missed(t, recs, got), found)
	}
	if lost, err := d.mend(); lost != nil || err != nil {
		t.Errorf("once more: lost %v, %v", lost, err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("it left something behind")
	}
}
