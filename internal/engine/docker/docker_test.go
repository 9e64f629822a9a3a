package docker_test

import (
	"context"
	"os"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/engine/docker"
	"github.com/tenderhq/tender/internal/engine/enginetest"
)

// parse reads what compose would have written.
func parse(spec []byte) (*types.Project, error) {
	return loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir:  "/",
		ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Content: spec}},
	}, func(o *loader.Options) {
		o.SkipInterpolation, o.SkipResolveEnvironment, o.SkipConsistencyCheck = true, true, true
		o.SetProjectName("given", false)
	})
}

// real is the engine of this host. With TENDER_E2E an engine that is missing fails the test.
func real(t testing.TB) *docker.Engine {
	t.Helper()
	if os.Getenv("TENDER_E2E") == "" {
		t.Skip("needs a Docker Engine: set TENDER_E2E=1")
	}
	e, err := docker.New(os.Getenv("DOCKER_HOST"), docker.Options{Parse: parse})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	if _, err := e.Info(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEngineKeepsThePromises(t *testing.T) {
	real(t)
	enginetest.Run(t, func(t testing.TB) engine.Engine { return real(t) })
}
