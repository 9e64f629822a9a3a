package enginetest

import (
	"testing"

	"github.com/tenderhq/tender/internal/engine"
)

func TestFakeKeepsThePromises(t *testing.T) {
	Run(t, func(testing.TB) engine.Engine {
		f := &Fake{}
		f.Behave("web", Behaviour{Output: "hello\n"})
		f.Behave("job", Behaviour{Ends: true, Code: 3})
		return f
	})
}
