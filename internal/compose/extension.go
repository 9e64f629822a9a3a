package compose

import (
	"fmt"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// extension is what x-tender.rollout says of a service.
type extension struct {
	Strategy string
	Hold     *time.Duration
	Before   string
}

// extensionOf reads x-tender of a service. Unknown keys and wrong values were
// refused before, where they have a line.
func extensionOf(s types.ServiceConfig) (extension, error) {
	var x extension
	m, ok := s.Extensions[extensionKey].(map[string]any)
	if !ok {
		return x, nil
	}
	r, ok := m["rollout"].(map[string]any)
	if !ok {
		return x, nil
	}
	x.Strategy, _ = r["strategy"].(string)
	x.Before, _ = r["before"].(string)
	if h, ok := r["hold"]; ok {
		d, err := time.ParseDuration(fmt.Sprint(h))
		if err != nil {
			return x, fmt.Errorf("x-tender.rollout.hold: %w", err)
		}
		x.Hold = &d
	}
	return x, nil
}
