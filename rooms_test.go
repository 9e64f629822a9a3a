package tender_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tenderhq/tender"

// rooms says which of our own packages each room may import; everybody may import
// the root. It is the map of docs/architecture.md: a new arrow is a decision, made
// here with its reason. "*" is every room; a name that ends in /... is all below.
//
// Only what ends up in the binary counts: tests may reach further.
var rooms = map[string]string{
	"": "",

	// The line to the runtime.
	"internal/engine":            "",
	"internal/engine/docker":     "internal/engine",
	"internal/engine/enginetest": "internal/engine",

	// What is wanted, what comes next, and doing it.
	"internal/compose": "",
	"internal/store":   "",
	"internal/vault":   "internal/store",
	"internal/plan":    "",
	"internal/deploy":  "internal/plan internal/engine internal/store",

	// What carries traffic.
	"internal/dns":   "",
	"internal/proxy": "",
	"internal/edge":  "internal/proxy internal/dns", // both as one process

	// What instances write.
	"internal/logs":    "",              // keeps and finds
	"internal/collect": "internal/logs", // reads, parses, hands batches in
	"internal/logql":   "internal/logs", // asks, in LogQL, and over the API of Loki
	"internal/forward": "internal/logs", // sends on

	// What instances use, and who is told.
	"internal/sample":  "",                // reads
	"internal/metrics": "internal/sample", // keeps, scrapes, asks, evaluates rules
	"internal/alert":   "",                // groups and sends

	// Images: where they are kept, what is wrong with them, and whether they may run.
	"internal/registry": "internal/store",
	"internal/scan":     "",
	"internal/policy":   "", // pure

	// Who knocks.
	"internal/api":     "",
	"internal/daemon":  "*", // introduces all others to each other
	"internal/convert": "",
	"internal/cli":     "internal/api internal/compose internal/convert internal/daemon internal/edge",
	"cmd/tender":       "internal/cli",

	// Outside of the house.
	"e2e":          "*",
	"e2e/...":      "*",
	"bench":        "*",
	"bench/...":    "*",
	"examples/...": "",
	"release":      "internal/cli", // the manual is made of the commands themselves
}

// owners says which rooms may import a heavy dependency, by the longest path that
// fits. Whoever else needs it asks its owner.
var owners = map[string]string{
	"github.com/moby/moby":                        "internal/engine/docker",
	"github.com/moby/buildkit":                    "internal/engine/docker",
	"github.com/caddyserver/certmagic":            "internal/proxy",
	"go.uber.org/zap":                             "internal/proxy",
	"google.golang.org/grpc":                      "internal/engine/docker",
	"github.com/compose-spec/compose-go/v2":       "internal/compose",
	"github.com/compose-spec/compose-go/v2/types": "internal/compose internal/engine/docker", // the Spec of a service is read there
	"modernc.org/sqlite":                          "internal/store",
	"filippo.io/age":                              "internal/vault",
	"github.com/danielgtaylor/huma/v2":            "internal/api",
	"github.com/miekg/dns":                        "internal/dns",
	"github.com/elastic":                          "internal/forward",
	"github.com/minio/minio-go/v7":                "internal/forward internal/registry",
	"go.opentelemetry.io/proto/otlp":              "-", // in tests alone
	"go.opentelemetry.io/otel":                    "internal/metrics",
	"github.com/johannesboyne/gofakes3":           "-", // in tests alone
	"github.com/hashicorp/consul/api":             "-", // MPL: in tests alone, which are not listed
	"github.com/spf13/cobra":                      "internal/cli",
	"github.com/spf13/pflag":                      "internal/cli",
	"github.com/jackc/pgx/v5":                     "examples/shop/web",
	"github.com/klauspost/compress":               "internal/logs internal/forward internal/scan",
	"github.com/klauspost/compress/snappy":        "internal/logql internal/forward", // in which Loki is pushed to
	"github.com/pandatix/go-cvss":                 "internal/scan",
	"github.com/coder/websocket":                  "internal/logql",
	"github.com/prometheus/prometheus":            "internal/metrics",
	"github.com/prometheus/alertmanager":          "internal/alert",
	"github.com/distribution/distribution/v3":     "internal/registry",
	"github.com/google/go-containerregistry":      "internal/registry internal/scan",
	"github.com/CycloneDX/cyclonedx-go":           "internal/scan",
	"github.com/spdx/tools-golang":                "internal/scan",
	"cel.dev/cel-go":                              "internal/policy",
}

// Rooms that only decide must not reach the world, so that the same input always
// gives the same answer.
var (
	still = []string{"", "internal/plan", "internal/policy"}
	world = []string{"os", "net", "net/http", "os/exec", "database/sql"}
)

func TestRooms(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		room, imports := inside(f[0]), f[1:]
		allowed, known := lookup(room)
		if !known {
			t.Errorf("%s is not on the map of rooms", room)
			continue
		}
		seen++
		for _, path := range imports {
			if slices.Contains(still, room) && slices.Contains(world, path) {
				t.Errorf("%q imports %s, but it must only decide", room, path)
			}
			if ours := path == module || strings.HasPrefix(path, module+"/"); ours {
				if other := inside(path); other != "" && allowed != "*" && !slices.Contains(strings.Fields(allowed), other) {
					t.Errorf("%s imports %s, which the map does not allow", room, other)
				}
				continue
			}
			owner := owners[longest(owners, path)]
			outside := strings.HasPrefix(room, "e2e") || strings.HasPrefix(room, "bench")
			if owner != "" && !outside && !slices.Contains(strings.Fields(owner), room) {
				t.Errorf("%s imports %s, which belongs to %s", room, path, owner)
			}
		}
	}
	if seen < 3 {
		t.Errorf("go list named only %d packages:\n%s", seen, out)
	}
}

// inside turns an import path of ours into the name of a room.
func inside(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
}

// lookup finds a room on the map, by its name or by that of a folder above it.
func lookup(room string) (allowed string, known bool) {
	if allowed, known = rooms[room]; known {
		return allowed, true
	}
	for name, allowed := range rooms {
		if folder, all := strings.CutSuffix(name, "..."); all && strings.HasPrefix(room, folder) {
			return allowed, true
		}
	}
	return "", false
}

// longest returns the longest key of m that is path or a folder above it.
func longest(m map[string]string, path string) string {
	best := ""
	for key := range m {
		if (path == key || strings.HasPrefix(path, key+"/")) && len(key) > len(best) {
			best = key
		}
	}
	return best
}

// A direct dependency is a decision, and docs/dependencies.md says why it was made.
func TestDependencies(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	block := ""
	for line := range strings.Lines(string(mod)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
		case f[0] == "replace":
			t.Errorf("go.mod: %s: a replace breaks go install for users", strings.TrimSpace(line))
		case f[0] == ")":
			block = ""
		case len(f) == 2 && f[1] == "(":
			block = f[0]
			if block == "replace" {
				t.Error("go.mod: a replace breaks go install for users")
			}
		case (block == "require" || f[0] == "require") && !strings.Contains(line, "// indirect"):
			path := f[0]
			if path == "require" {
				path = f[1]
			}
			if !strings.Contains(string(doc), "`"+path+"`") {
				t.Errorf("docs/dependencies.md does not say why %s is there", path)
			}
		}
	}
}
