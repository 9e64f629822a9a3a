// Package policy says whether something may run: it is asked by up, plan and promote,
// and answers the same to the same question.
//
// It hides how references of images are compared, how waivers apply, and CEL, in which
// rules are written. The daemon knocks, with everything that there is to know. It reads
// no file, no clock and no network, and never lets something pass because nothing is
// known of it: what a gate asks for and nobody can say is a reason to deny.
package policy

import (
	"slices"
	"time"

	"github.com/tenderhq/tender"
)

// Gate is what must hold, as in the configuration's gate and in each step of its pipeline.
// Its zero value lets everything through.
type Gate struct {
	Deny       tender.Severity // this and worse; 0: no scan is asked for
	Fixable    bool            // only what has a fixed version
	Grace      time.Duration   // for so long after an advisory was published it only warns
	ScanAge    time.Duration   // how old a scan may be; 0: any
	Sign       []string        // names of keys, each of which must have signed
	From       string          // the step that the digest must have been promoted to before
	Promoted   bool            // what is to run in a step must have been promoted to it; From asks for that, too
	Registries []string        // where images may come from: a host, or a host and a path; none: anywhere
	BaseAge    time.Duration   // how old the image may be; 0: any
	Rules      []Rule          // CEL
}

// Empty says whether the gate lets everything through.
func (g Gate) Empty() bool {
	return g.Deny == 0 && g.ScanAge == 0 && g.From == "" && !g.Promoted && g.BaseAge == 0 && len(g.Sign)+len(g.Registries)+len(g.Rules) == 0
}

// Needs says what has to be known of an image beside its configuration.
func (g Gate) Needs() (scan, signers, promoted bool) {
	scan, signers, promoted = g.Deny != 0 || g.ScanAge != 0, len(g.Sign) > 0, g.From != "" || g.Promoted
	for _, r := range g.Rules {
		scan, signers, promoted = scan || r.Uses("findings"), signers || r.Uses("signers"), promoted || r.Uses("promoted")
	}
	return scan, signers, promoted
}

// Input is one question.
type Input struct {
	Now         time.Time // UTC
	Project     string
	Environment string // the step of the pipeline; "": none
	// Promote: the image is to be promoted to Environment; else it is to run there.
	Promote bool
	// Gates are the general one and that of the step. Each of them must hold, so that the stricter wins.
	Gates    []Gate
	Services []Service // with Promote one without a name
	Waivers  []tender.Waiver
	// Keys are the names of those that may have signed; nil: nobody said which there are.
	Keys []string
}

// Image is what is known of an image.
type Image struct {
	Reference string // as written
	// Place is Reference for rules, scopes and registries to read, where what is written means
	// something else to Docker; "": Reference. What is said of the image says Reference.
	Place   string
	ID      string // the engine's; "": it is not here
	Digest  string // of the manifest; "": it has none, for it was built here and never pushed
	Created time.Time
	User    string
	Labels  map[string]string
	Scan    *Scan    // nil: it was not scanned
	Signers []string // names of keys that signed it; nil: nobody can say
	// Unsure says why Signers is nil, Ask what helps; "" if nobody said.
	Unsure, Ask string
	Promoted    []string // the steps that its digest was promoted to; nil: nobody can say
	// Absent: it is not here yet, so that nothing but Reference is known. A plan meets that.
	Absent bool
}

// Scan is what was found in an image.
type Scan struct {
	Findings []tender.Finding
	Taken    time.Time // UTC
	// Steps are the layers' lines of the Dockerfile, the lowest first.
	Steps []string
	// Gaps say what could not be looked for, such as "there are no advisories of npm".
	Gaps []string
}

// Check lists every reason for and against, the worst first: what denies, what warns,
// what was waived. Nothing: it may run.
func Check(in Input) []tender.Verdict {
	var out []tender.Verdict
	for _, s := range in.Services {
		c := check{Input: in, service: s}
		c.all()
		for _, i := range s.Mounts {
			c.service.Image, c.mounted = i, true
			c.all()
		}
		for _, v := range c.verdicts {
			// The same of the same image is said once.
			at := slices.IndexFunc(out, func(o tender.Verdict) bool {
				return o.Rule == v.Rule && o.Image == v.Image && o.Why == v.Why && o.Fix == v.Fix && o.Deny == v.Deny && (o.Waiver == nil) == (v.Waiver == nil)
			})
			if at < 0 {
				out = append(out, v)
				continue
			}
			for _, name := range v.Services {
				if !slices.Contains(out[at].Services, name) {
					out[at].Services = append(out[at].Services, name)
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b tender.Verdict) int {
		if x, y := rank(a), rank(b); x != y {
			return x - y
		}
		return int(b.Severity) - int(a.Severity)
	})
	return out
}

func rank(v tender.Verdict) int {
	switch {
	case v.Deny && v.Severity == 0:
		return 0 // nothing in the image has to be rebuilt for it
	case v.Deny:
		return 1
	case v.Waiver == nil:
		return 2
	}
	return 3
}

// Denied counts the verdicts that deny.
func Denied(all []tender.Verdict) (n int) {
	for _, v := range all {
		if v.Deny {
			n++
		}
	}
	return n
}
