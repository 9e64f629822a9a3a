package e2e

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
)

// Whatever a package allocates before main, each process of this binary does: serve, the edge, which
// needs little of it, and every command. What is seldom needed is made when it is (sync.OnceValue).
func TestNothingLargeMustBeMadeBeforeMain(t *testing.T) {
	t.Parallel()
	const most = 512 << 10
	known := map[string]bool{
		"github.com/santhosh-tekuri/jsonschema/v6": true, // 1.7 MB: the schemas of schemas; compose-go needs it
	}
	// The runtime counts what all of the process allocates meanwhile: of several starts the least is a package's own.
	least := map[string]int{}
	large := func() (names []string) {
		for name, n := range least {
			if n > most && !known[name] {
				names = append(names, name)
			}
		}
		return names
	}
	for start := range 8 {
		c := exec.CommandContext(t.Context(), binary, "--help")
		c.Env = append(os.Environ(), "GODEBUG=inittrace=1")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		all := regexp.MustCompile(`(?m)^init (\S+) @.* (\d+) bytes, \d+ allocs$`).FindAllStringSubmatch(string(out), -1)
		if len(all) < 100 {
			t.Fatalf("%d packages say what they allocate:\n%s", len(all), out)
		}
		for _, m := range all {
			n, err := strconv.Atoi(m[2])
			if err != nil {
				t.Fatal(err)
			}
			if before, known := least[m[1]]; !known || n < before {
				least[m[1]] = n
			}
		}
		if start > 0 && len(large()) == 0 {
			return
		}
	}
	for _, name := range large() {
		t.Errorf("%s allocates %d bytes before main: make it when it is needed, or say here why it cannot be", name, least[name])
	}
}
