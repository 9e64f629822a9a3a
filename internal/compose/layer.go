package compose

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/docker/go-units"
)

// muchLost is how much in a layer is more than what programs leave there in
// passing: pid files, caches, what they unpack at their start.
const muchLost = 10 << 20

// Layer is what instances of one service have written where nothing is
// mounted. It goes with them.
type Layer struct {
	Instances []string // their names
	Size      int64    // bytes, of all of them
	Files     []string // absolute paths in them; none: not known
}

// Much reports whether it is worth a word before it goes.
func (l Layer) Much() bool { return l.Size >= muchLost }

// Loses says what is lost when the instances of a service are replaced, in the
// words of Ephemeral; "" where that is not much.
func Loses(service string, l Layer) string {
	if !l.Much() {
		return ""
	}
	where := l.Instances[0]
	if n := len(l.Instances); n > 1 {
		where = fmt.Sprintf("%d instances", n)
	}
	text := fmt.Sprintf("%s keeps %s inside of %s, which is lost when it is replaced", service, units.BytesSize(float64(l.Size)), where)
	at, more := folders(l.Files)
	if len(at) == 0 {
		return text + fmt.Sprintf(": docker diff %s shows what; copy it out, and mount a volume there", l.Instances[0])
	}
	below := strings.Join(at, ", ")
	if more {
		below += " and elsewhere"
	}
	return text + fmt.Sprintf(": below %s; copy out what matters (tender cp %s:%s .), and mount a volume there, or a tmpfs for what may go", below, service, at[0])
}

// mostFolders are named in one line.
const mostFolders = 3

// folders are the few that hold all of files, those with the most first. Where
// they have little in common, more says that some are left out.
func folders(files []string) (at []string, more bool) {
	count := map[string]int{}
	for _, f := range files {
		count[path.Dir(path.Clean(f))]++
	}
	for len(count) > mostFolders {
		deepest := slices.MaxFunc(slices.Sorted(maps.Keys(count)), func(a, b string) int { return strings.Count(a, "/") - strings.Count(b, "/") })
		up := path.Dir(deepest)
		if up == "/" {
			break
		}
		count[up] += count[deepest]
		delete(count, deepest)
	}
	// What lies below another of them is said with it.
	for _, f := range slices.Sorted(maps.Keys(count)) {
		for up := path.Dir(f); up != "/" && up != "."; up = path.Dir(up) {
			if count[up] > 0 {
				count[up] += count[f]
				delete(count, f)
				break
			}
		}
	}
	at = slices.SortedStableFunc(slices.Values(slices.Sorted(maps.Keys(count))), func(a, b string) int { return count[b] - count[a] })
	if len(at) > mostFolders {
		return at[:mostFolders], true
	}
	return at, false
}
