package alert

import "time"

// Alert is one that fires, or that has ended.
type Alert struct {
	Labels       map[string]string // alertname and what it is about: project, service…
	Annotations  map[string]string // summary, description, runbook_url…
	StartsAt     time.Time
	EndsAt       time.Time // when it ended, or when it counts as ended if nobody says it again
	GeneratorURL string    // where its expression can be looked at
}
