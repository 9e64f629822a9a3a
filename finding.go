package tender

import (
	"strings"
	"time"
)

// Severity orders findings: the higher, the worse. Its zero value is unknown.
type Severity int

const (
	UnknownSeverity Severity = iota
	Negligible               // a distribution's own word: it will not be fixed
	Low
	Medium
	High
	Critical
)

var severities = [...]string{"unknown", "negligible", "low", "medium", "high", "critical"}

func (s Severity) String() string {
	if s < 0 || int(s) >= len(severities) {
		return severities[0]
	}
	return severities[s]
}

// ParseSeverity reads one of the words that String writes, in any case.
func ParseSeverity(word string) (Severity, error) {
	for i, w := range severities {
		if strings.EqualFold(w, word) {
			return Severity(i), nil
		}
	}
	return 0, Errorf(Invalid, "severity %q is none of unknown, negligible, low, medium, high, critical", word)
}

// What a finding is about.
const (
	Vulnerability = "vulnerability" // an advisory holds for a package
	SecretLeft    = "secret"        // something secret lies in a layer
	Setup         = "setup"         // how the image is made: root, setuid, no healthcheck, a base at its end of life
)

// Finding is one thing that a scan saw in an image.
type Finding struct {
	Kind     string // Vulnerability, SecretLeft or Setup
	ID       string // CVE-2024-1234, GHSA-…; of the others a rule's name: setup/root-user
	Aliases  []string
	Severity Severity
	Score    float64 // CVSS base score, 0 to 10; 0: none is known
	Vector   string  // CVSS:3.1/AV:N/…
	Title    string
	URL      string

	Package   string // as installed: libssl3
	Source    string // the source package that the advisory names, if another: openssl
	Version   string
	Fixed     string // the first version without it; "": there is none
	Ecosystem string // OSV's word: Debian:12, npm, Go
	PURL      string
	Path      string // file in the image, without a leading slash
	Layer     int    // the layer that brought it, from 0; -1: none in particular
	// Published and Modified are the advisory's, UTC; zero: unknown.
	Published, Modified time.Time
}

// Fixable says whether there is a version without it.
func (f Finding) Fixable() bool { return f.Fixed != "" }

// Waiver is a dated exception: until then a finding denies nothing, and is shown as waived.
type Waiver struct {
	ID      int64
	Finding string // an ID or an alias of findings, or the name of a rule
	// Scope narrows it; "" is any: a project, a service ("shop/web") or a repository, whole as Docker reads it
	// ("registry.company.com/web", "docker.io/library/nginx").
	Scope       string
	Reason      string
	By          string
	Made, Until time.Time // UTC
}

// Verdict is what policy says of one thing.
type Verdict struct {
	Rule     string   // gate/severity, gate/scan, gate/signature, gate/promotion, gate/registry, gate/age, or a rule's own name
	Services []string // those that it holds for
	Image    string   // the reference that they run
	Severity Severity // of the finding that it is about; unknown: it is about none
	Why      string   // one sentence
	Fix      string   // what to type or change
	Deny     bool     // false: a warning, or waived
	Waiver   *Waiver  // by which it does not deny
}
