package cli

import (
	"bufio"
	"context"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What rests gives memory back, and goes on until it is told to end.
func TestMemoryIsGivenBackAtRest(t *testing.T) {
	forced := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/cycles/forced:gc-cycles"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		end := resting(ctx)
		before := forced()
		for n := 0; forced() == before; n++ { // others of this process may be busy
			if n == 10_000 {
				t.Fatal("nothing was given back")
			}
			time.Sleep(restEvery)
			synctest.Wait()
		}
		cancel()
		end()
	})
}

// What starting ran through is let go of, and the program goes on.
func TestCodeThatIsNotUsedIsUnmapped(t *testing.T) {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	resident := func() (kb int) {
		f, err := os.Open("/proc/self/smaps")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		within := false
		for lines := bufio.NewScanner(f); lines.Scan(); {
			w := strings.Fields(lines.Text())
			if !strings.HasSuffix(w[0], ":") {
				within = len(w) > 5 && w[5] == program
			} else if within && w[0] == "Rss:" {
				n, err := strconv.Atoi(w[1])
				if err != nil {
					t.Fatal(err)
				}
				kb += n
			}
		}
		return kb
	}
	before := resident()
	if err := unmapProgram(); err != nil {
		t.Fatal(err)
	}
	if after := resident(); after >= before {
		t.Errorf("%d KB of the program were mapped, and %d are", before, after)
	}
}

func TestWhatMayBeUnmapped(t *testing.T) {
	const smaps = `
00400000-031d2000 r-xp 00000000 fe:00 1 /usr/bin/tender
Rss:               42160 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me
031d2000-063d5000 r--p 02dd2000 fe:00 1 /usr/bin/tender
Anonymous:             4 kB
Swap:                  0 kB
063d5000-06400000 r--p 05fd5000 fe:00 1 /usr/bin/tender
Anonymous:             0 kB
Swap:                  8 kB
06400000-06500000 rw-p 06000000 fe:00 1 /usr/bin/tender
Anonymous:             0 kB
Swap:                  0 kB
06500000-06600000 r--s 06000000 fe:00 1 /usr/bin/tender
Anonymous:             0 kB
Swap:                  0 kB
c000000000-c002000000 rw-p 00000000 00:00 0
Anonymous:             0 kB
7f0000000000-7f0000001000 r-xp 00000000 fe:00 2 /usr/lib/other
Anonymous:             0 kB
7f0000002000-7f0000003000 r--p 00000000 fe:00 1 /usr/bin/tender
Anonymous:             0 kB
Swap:                  0 kB
`
	got, err := cleanMappings(strings.NewReader(smaps[1:]), "/usr/bin/tender")
	if err != nil {
		t.Fatal(err)
	}
	want := []mapping{{0x400000, 0x31d2000}, {0x7f0000002000, 0x7f0000003000}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(mapping{})); d != "" {
		t.Error(d)
	}
}
