package tender

import (
	"fmt"
	"strings"
	"time"
)

// Scale is x-tender.scale: how many instances a service has follows what is
// measured of them.
type Scale struct {
	Min int `json:"min"` // at least 1
	Max int `json:"max"`

	// CPU and Memory are shares of what an instance may use, 0.7 is 70 %: of its limit, or, where it has none, of
	// one core and of the host's memory. 0: not said.
	CPU    float64 `json:"cpu,omitempty"`
	Memory float64 `json:"memory,omitempty"`
	// Requests are those that the edge brings to one instance in a second. 0: not said.
	Requests float64 `json:"requests,omitempty"`
	// Query is PromQL, and Target what its one value should be. "": not said.
	Query  string  `json:"query,omitempty"`
	Target float64 `json:"target,omitempty"`

	// Cooldown is between two changes. Window: only what was asked for all through it takes instances away.
	Cooldown time.Duration `json:"cooldown"`
	Window   time.Duration `json:"window"`
}

// What x-tender.scale is where it does not say otherwise.
const (
	DefaultCooldown = time.Minute
	DefaultWindow   = 5 * time.Minute
)

// Clamp brings n between Min and Max.
func (s *Scale) Clamp(n int) int { return min(max(n, s.Min), s.Max) }

// String says the rule in a few words: "2..10, cpu 70 %, requests 200/s".
func (s *Scale) String() string {
	words := []string{fmt.Sprintf("%d..%d", s.Min, s.Max)}
	if s.CPU > 0 {
		words = append(words, fmt.Sprintf("cpu %g %%", s.CPU*100))
	}
	if s.Memory > 0 {
		words = append(words, fmt.Sprintf("memory %g %%", s.Memory*100))
	}
	if s.Requests > 0 {
		words = append(words, fmt.Sprintf("requests %g/s", s.Requests))
	}
	if s.Query != "" {
		words = append(words, fmt.Sprintf("query %g", s.Target))
	}
	return strings.Join(words, ", ")
}
