package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	restEvery = 30 * time.Second
	// restBelow is how much may be allocated within restEvery by what rests: the runtime
	// would let as much lie for minutes, and under load it is taken again at once.
	restBelow = 4 << 20
	// unmapEvery is how many restEvery lie between two looks for code that is not used any more;
	// in the first unmapFirst of them each is one, for a host's services start with it.
	unmapEvery = 20
	unmapFirst = 4
)

// resting starts rest; what it returns ends it.
func resting(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { rest(ctx) })
	return func() {
		cancel()
		work.Wait()
	}
}

// rest gives memory back to the host while a process has little to do: what is left from its
// start and from its last busy minute. It ends with ctx.
func rest(ctx context.Context) {
	tick := time.NewTicker(restEvery)
	defer tick.Stop()
	before, freed := allocated(), uint64(0)
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := allocated()
		if now-before < restBelow && now-freed > restBelow/16 { // there is something to free
			debug.FreeOSMemory()
			now = allocated()
			freed = now
		}
		before = now
		if n < unmapFirst || n%unmapEvery == 0 {
			_ = unmapProgram() // what stays mapped costs memory, nothing else
		}
	}
}

// allocated is what has ever been, in bytes.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// unmapProgram lets go of the pages of the program's own file that this process has mapped:
// starting runs through most of it, and what is used from then on is far less. They stay in
// the kernel's cache as long as it has room, and come back one by one as they are used.
func unmapProgram() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer f.Close()
	all, err := cleanMappings(f, program)
	for _, m := range all {
		if _, _, no := syscall.Syscall(syscall.SYS_MADVISE, m.start, m.end-m.start, syscall.MADV_DONTNEED); no != 0 {
			err = errors.Join(err, fmt.Errorf("unmap %x-%x: %w", m.start, m.end, no))
		}
	}
	return err
}

// mapping is a piece of a process's memory.
type mapping struct{ start, end uintptr }

// cleanMappings reads smaps for what is mapped of a file and as it is in it: nothing can be
// written there, and no page is the process's own, as those are that a loader or a debugger
// has changed and that would be lost.
func cleanMappings(smaps io.Reader, file string) (all []mapping, err error) {
	var m mapping
	clean := false
	keep := func() {
		if clean {
			all = append(all, m)
		}
		clean = false
	}
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		w := strings.Fields(lines.Text())
		switch {
		case len(w) == 3 && (w[0] == "Anonymous:" || w[0] == "Swap:"):
			clean = clean && w[1] == "0"
		case len(w) >= 5 && !strings.HasSuffix(w[0], ":"):
			keep()
			from, to, _ := strings.Cut(w[0], "-")
			start, serr := strconv.ParseUint(from, 16, strconv.IntSize)
			end, eerr := strconv.ParseUint(to, 16, strconv.IntSize)
			if err := errors.Join(serr, eerr); err != nil {
				return nil, fmt.Errorf("read what is mapped: %w", err)
			}
			m = mapping{uintptr(start), uintptr(end)}
			clean = strings.Join(w[5:], " ") == file && strings.HasPrefix(w[1], "r-") && strings.HasSuffix(w[1], "p")
		}
	}
	keep()
	return all, lines.Err()
}
