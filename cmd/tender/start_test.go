package main

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
)

// Whatever a package allocates before main, each process of this binary does: serve, the edge, which
// needs little of it, and every command. What is seldom needed is made when it is (sync.OnceValue).
func TestNothingLargeIsMadeBeforeMain(t *testing.T) {
	const most = 512 << 10
	known := map[string]bool{
		"github.com/santhosh-tekuri/jsonschema/v6": true, // 1.7 MB: the schemas of schemas; compose-go needs it
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self, "-test.run=^$")
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
		if n, err := strconv.Atoi(m[2]); err != nil || n > most && !known[m[1]] {
			t.Errorf("%s allocates %s bytes before main: make it when it is needed, or say here why it cannot be", m[1], m[2])
		}
	}
}
