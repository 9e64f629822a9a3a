package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/logs"
)

// No line may be lost or come twice: four containers write numbered lines as
// fast as they can, through rotations, and serve is killed at random moments. What
// the engine keeps holds all that each of them writes, so that a slow machine
// loses nothing either. TENDER_SOAK is the number of rounds of make soak.
func TestNoLineMustBeLostOrDoubled(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	rounds, lines := 1, 150_000
	if n, err := strconv.Atoi(os.Getenv("TENDER_SOAK")); err == nil {
		rounds, lines = n/20+1, 600_000
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	moments := rand.New(rand.NewPCG(seed, 4))
	for round := range rounds {
		h.file("compose.yaml", writers(lines, round))
		h.must("up", "-d")
		for range 4 {
			time.Sleep(time.Duration(moments.IntN(1500)) * time.Millisecond) // a moment, not a wait
			h.kill()
			h.start()
		}
		h.until("all is written", func() error {
			for _, c := range h.containers("") {
				if c.State.Running || c.State.StartedAt == "" || strings.HasPrefix(c.State.StartedAt, "0001") {
					return fmt.Errorf("%s is %s", c.Name, c.State.Status)
				}
			}
			if n := len(h.containers("")); n != 4 {
				return fmt.Errorf("%d containers", n)
			}
			return nil
		})
		// Removed, and killed once more while the last lines are read from the spool.
		h.must("down")
		h.kill()
		h.start()
		h.until("all of the removed containers is stored", func() error {
			if left := h.spooled(); len(left) > 0 {
				return fmt.Errorf("the spool has %v", left)
			}
			return nil
		})
	}
	h.stop()

	got := map[string][]int{}
	store, err := logs.Open(filepath.Join(h.dir, "data", "logs"), logs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	err = store.Scan(t.Context(), logs.Query{Labels: []logs.Condition{{Name: "project", Op: logs.Equal, Value: h.project}}}, func(c logs.Chunk) error {
		for i := range c.Times() {
			text := string(c.Text(nil, i))
			_, number, _ := strings.Cut(text, "number")
			n, err := strconv.Atoi(strings.Trim(number, `": }`))
			if err != nil {
				return fmt.Errorf("a torn line: %q", text)
			}
			got[c.Labels().Get("service")] = append(got[c.Labels().Get("service")], n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range []string{"a", "b", "c", "d"} {
		seen := make(map[int]int, rounds*lines)
		for _, n := range got[service] {
			seen[n]++
		}
		lost, doubled := 0, 0
		for n := 1; n <= rounds*lines; n++ {
			switch seen[n] {
			case 0:
				lost++
			case 1:
			default:
				doubled++
			}
		}
		t.Logf("%s: %d lines", service, len(got[service]))
		if lost > 0 || doubled > 0 || len(seen) != rounds*lines {
			t.Errorf("%s: %d lines of %d are lost, %d doubled", service, lost, rounds*lines, doubled)
		}
	}
}

// writers are four services that write lines as fast as they can: 150 bytes each
// in the engine's files, of which it keeps 250 for each. It compresses those of b.
func writers(lines, round int) string {
	size := lines * 250 / 20 / 1000
	var b strings.Builder
	b.WriteString("services:\n")
	for _, name := range []string{"a", "b", "c", "d"} {
		format := `{\"level\":\"info\",\"message\":\"a line of some length\",\"number\":%d}\n`
		if name > "b" {
			format = `INFO a line of some length without any structure, number %d\n`
		}
		fmt.Fprintf(&b, `  %s:
    image: busybox
    command: [awk, 'BEGIN {for (i = %d; i <= %d; i++) printf("%s", i)}']
    restart: "no"
    logging: {driver: json-file, options: {max-size: %dk, max-file: "20", compress: "%v"}}
`, name, round*lines+1, (round+1)*lines, format, size, name == "b")
	}
	return b.String()
}

// spooled are the containers of which something is kept that is not yet stored.
func (h *host) spooled() (out []string) {
	root := strings.TrimSpace(docker("info", "-f", "{{.DockerRootDir}}").out)
	files, _ := filepath.Glob(filepath.Join(root, "tender-logs", "*", "*", "identity.json"))
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), `"Project":"`+h.project+`"`) {
			out = append(out, filepath.Base(filepath.Dir(f)))
		}
	}
	return out
}
