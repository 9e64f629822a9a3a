package tender

import "time"

// Metrics is what x-tender.metrics, or the labels prometheus.io/…, say of one place
// at which the instances of a service tell figures. It is no part of a revision.
type Metrics struct {
	Port   int    // the container's
	Path   string // with query; "": /metrics
	Scheme string // "": http
	Job    string // the label job; "": the service's name
	// Interval and Timeout: 0: as the daemon's prometheus.yml says.
	Interval, Timeout time.Duration
	// Limit is how many samples one answer may have, else none of it is kept; 0: any number.
	Limit int
	// Labels are added to all series. Honor: those that the instance itself sends win.
	Labels map[string]string
	Honor  bool
}
