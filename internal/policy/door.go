// Package policy says whether something may run: it is asked by up, plan and promote,
// and answers the same to the same question. It reads no file, no clock, no network.
package policy

import (
	"time"

	"github.com/tenderhq/tender"
)

// Gate is what must hold, as in the configuration's gate and in each step of its pipeline.
type Gate struct {
	Deny       tender.Severity // this and worse; 0: no scan is asked for
	Fixable    bool            // only what has a fixed version
	Grace      time.Duration   // for so long after an advisory was published it only warns
	Sign       []string        // names of keys, each of which must have signed
	From       string          // the step that the digest must have been promoted to before
	Registries []string        // where images may come from: a host, or a host and a path; none: anywhere
	BaseAge    time.Duration   // how old the image may be; 0: any
	ScanAge    time.Duration   // how old a scan may be; 0: any
	Rules      []Rule          // CEL
}

// Rule is an expression that must be true of image and service.
type Rule struct {
	Name string
	Expr string // CEL: !service.privileged && image.user != "root"
	Why  string // said when it is false
	Fix  string
	Warn bool // it only warns
}
