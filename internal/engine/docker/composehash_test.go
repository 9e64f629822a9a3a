package docker

import (
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

// The hashes are those that Docker Compose v5.6.0 wrote for these services.
func TestComposeConfigHashIsComposes(t *testing.T) {
	replicas, password := 2, "x"
	for name, c := range map[string]struct {
		service types.ServiceConfig
		hash    string
	}{
		"a plain one": {
			types.ServiceConfig{Restart: "unless-stopped", ContainerSpec: types.ContainerSpec{
				Image: "postgres:15", Environment: types.MappingWithEquals{"POSTGRES_PASSWORD": &password},
				Networks: map[string]*types.ServiceNetworkConfig{"default": nil},
				Volumes:  []types.ServiceVolumeConfig{{Type: "volume", Source: "data", Target: "/var/lib/postgresql/data", Volume: &types.ServiceVolumeVolume{}}},
			}, WorkloadSpec: types.WorkloadSpec{HealthCheck: &types.HealthCheckConfig{
				Test: []string{"CMD-SHELL", "pg_isready -U postgres"}, Interval: duration(2),
			}}},
			"1168e5882c52514261c8a5306eed6b89970df690fb510e99c26274fa4e3e99ee",
		},
		"one with limits, of which replicas are no part": {
			types.ServiceConfig{
				Deploy: &types.DeployConfig{Replicas: &replicas, Resources: types.Resources{Limits: &types.Resource{NanoCPUs: 0.5, MemoryBytes: 64 << 20}}},
				ContainerSpec: types.ContainerSpec{
					Image: "redis:alpine", Command: types.ShellCommand{"redis-server", "--save", ""},
					Networks: map[string]*types.ServiceNetworkConfig{"default": nil},
				},
			},
			"ea73d6afb7b2b5e8123c1f8525341d3ef45d207e964b2c848da5f42a6579cf8c",
		},
	} {
		if got := ConfigHash("shop", c.service); got != c.hash {
			t.Errorf("%s: %s, want %s", name, got, c.hash)
		}
	}
}

func duration(seconds int64) *types.Duration {
	d := types.Duration(seconds * 1e9)
	return &d
}
