package sample

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// many writes the files of n instances and returns the folder with them.
func many(t testing.TB, n int) (root string, all []Instance) {
	t.Helper()
	root = t.TempDir()
	files := recorded(t, "v2-systemd")
	put(t, filepath.Join(root, "proc/self/mountinfo"), strings.ReplaceAll(files["proc/self/mountinfo"], "ROOT", root))
	for k := range n {
		i := web()
		i.ID, i.PID, i.Name = fmt.Sprintf("%064x", k+1), k+2, fmt.Sprint("shop-web-", k)
		for name, text := range files {
			if below, ok := strings.CutPrefix(name, group); ok {
				put(t, filepath.Join(root, "cgroup/docker", i.ID, below), text)
			}
		}
		proc := filepath.Join(root, "proc", fmt.Sprint(i.PID))
		put(t, filepath.Join(proc, "cgroup"), "0::/docker/"+i.ID+"\n")
		put(t, filepath.Join(proc, "net/dev"), files["proc/4242/net/dev"])
		put(t, filepath.Join(proc, "ns/net"), "")
		all = append(all, i)
	}
	return root, all
}

// A round in which nothing is new makes no garbage.
func TestARoundAllocatesNothing(t *testing.T) {
	root, all := many(t, 5)
	s := in(t, root)
	ctx := t.Context()
	s.Take(ctx, all)
	if n := testing.AllocsPerRun(3*limitsEvery, func() { s.Take(ctx, all) }); n >= 1 {
		t.Errorf("%v allocations in a round", n)
	}
}

// BenchmarkTake is a round of 100 instances on files of a disk: what Tender itself
// takes of it, without the kernel's part of making them up. go run ./bench sample has both.
func BenchmarkTake(b *testing.B) {
	root, all := many(b, 100)
	s, err := New(Options{Node: "n1", Proc: filepath.Join(root, "proc"), Sys: filepath.Join(root, "sys"), NoHost: true})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	points := 0
	for b.Loop() {
		points = len(s.Take(b.Context(), all).Points)
	}
	b.ReportMetric(float64(points), "points")
}
