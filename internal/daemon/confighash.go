package daemon

import (
	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/compose"
	"github.com/tenderhq/tender/internal/engine/docker"
)

// ConfigHash is what docker compose config --hash prints for a service, and
// what its instances carry for Docker Compose to read.
func ConfigHash(s tender.Service) (string, error) {
	p, err := compose.Spec(s.Spec)
	if err != nil {
		return "", err
	}
	return docker.ConfigHash(p.Name, p.Services[s.Name]), nil
}
