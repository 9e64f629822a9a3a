package scan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tenderhq/tender"
)

// Change is what differs between the findings of two images, each the worst first.
type Change struct {
	New, Gone, Stayed []tender.Finding
}

// sameThing is what makes two findings one: a flaw stays when the package is updated
// and still has it.
type sameThing struct{ kind, id, pkg, path string }

func thing(f tender.Finding) sameThing {
	s := sameThing{kind: f.Kind, id: f.ID, pkg: f.Package}
	if f.Kind != tender.Vulnerability {
		s.path = f.Path
	}
	return s
}

// Compare holds the findings of a new image against those of the old one.
func Compare(old, now []tender.Finding) Change {
	had, has := map[sameThing]bool{}, map[sameThing]bool{}
	for _, f := range old {
		had[thing(f)] = true
	}
	var c Change
	for _, f := range now {
		if has[thing(f)] {
			continue
		}
		has[thing(f)] = true
		if had[thing(f)] {
			c.Stayed = append(c.Stayed, f)
		} else {
			c.New = append(c.New, f)
		}
	}
	told := map[sameThing]bool{}
	for _, f := range old {
		if !has[thing(f)] && !told[thing(f)] {
			told[thing(f)] = true
			c.Gone = append(c.Gone, f)
		}
	}
	for _, list := range [][]tender.Finding{c.New, c.Gone, c.Stayed} {
		slices.SortStableFunc(list, worstFirst)
	}
	return c
}

// String is the sentence: "2 new criticals, both fixable; 5 gone".
func (c Change) String() string {
	var parts []string
	for s := tender.Critical; s >= tender.UnknownSeverity; s-- {
		n, fixable := 0, 0
		for _, f := range c.New {
			if f.Kind == tender.Vulnerability && f.Severity == s {
				n++
				if f.Fixable() {
					fixable++
				}
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d new %s, %s", n, ofSeverity(s, n), fixables(n, fixable)))
		}
	}
	for _, k := range []struct{ kind, one, many string }{
		{tender.SecretLeft, "secret", "secrets"}, {tender.Setup, "setup problem", "setup problems"},
	} {
		n := 0
		for _, f := range c.New {
			if f.Kind == k.kind {
				n++
			}
		}
		if n == 1 {
			parts = append(parts, "1 new "+k.one)
		} else if n > 1 {
			parts = append(parts, fmt.Sprintf("%d new %s", n, k.many))
		}
	}
	if len(parts) == 0 {
		parts = append(parts, "nothing new")
	}
	if n := len(c.Gone); n > 0 {
		parts = append(parts, fmt.Sprintf("%d gone", n))
	}
	return strings.Join(parts, "; ")
}

func ofSeverity(s tender.Severity, n int) string {
	switch {
	case s == tender.UnknownSeverity:
		return "of unknown severity"
	case s == tender.Negligible || n == 1:
		return s.String()
	}
	return s.String() + "s"
}

func fixables(n, fixable int) string {
	switch {
	case n == 1 && fixable == 1:
		return "fixable"
	case n == 1:
		return "not fixable"
	case n == 2 && fixable == 2:
		return "both fixable"
	case fixable == n:
		return "all fixable"
	case fixable == 0 && n == 2:
		return "neither fixable"
	case fixable == 0:
		return "none fixable"
	}
	return fmt.Sprintf("%d fixable", fixable)
}

// Count says how many findings there are of each severity.
func Count(findings []tender.Finding) map[tender.Severity]int {
	n := map[tender.Severity]int{}
	for _, f := range findings {
		n[f.Severity]++
	}
	return n
}
