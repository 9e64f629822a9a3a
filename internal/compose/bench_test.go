package compose_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenderhq/tender/internal/compose"
)

// manyServices is a project of n small services.
func manyServices(b *testing.B, n int) compose.Document {
	b.Helper()
	var f strings.Builder
	f.WriteString("name: many\nservices:\n")
	for i := range n {
		fmt.Fprintf(&f, "  s%03d:\n    image: busybox\n    command: [sleep, \"100000\"]\n    environment: {A: \"%d\", B: two}\n    deploy: {replicas: 1}\n", i, i)
	}
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(f.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	d, err := compose.Load(b.Context(), compose.Source{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	return d
}

func BenchmarkParse200(b *testing.B) {
	d := manyServices(b, 200)
	for b.Loop() {
		if _, err := compose.Parse([]byte(d.YAML)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEssence200(b *testing.B) {
	p, err := compose.Parse([]byte(manyServices(b, 200).YAML))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for _, s := range p.Services {
			if _, err := compose.Essence(s.Spec); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkLoad200(b *testing.B) {
	for b.Loop() {
		manyServices(b, 200)
	}
}
