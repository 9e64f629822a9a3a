// Package registry keeps images: an OCI registry on disk or in S3, who may do what
// in it, what is kept of it and what goes.
//
// It hides the distribution library, the index of manifests, tags and referrers, the
// leases that keep a sweep from what is being pushed, and signatures. Knocked on by
// docker and every other OCI client over Handler, and by the daemon. It never
// deletes what a manifest, a lease, or the daemon's own list of what is needed names.
package registry

import (
	"net/http"
	"path"
	"slices"
	"strings"
)

// What may be done in a repository.
const (
	Pull   = "pull"
	Push   = "push"
	Delete = "delete"
)

// Account is who knocks, after its password or token was found to be right.
type Account struct {
	Name  string
	Admin bool // may do everything everywhere
	// Grants of an account add up.
	Grants []Grant
}

// Grant allows actions in the repositories whose names match.
type Grant struct {
	Repository string   // level by level as path.Match has it; a level ** stands for any number of levels, none too: team/**
	Actions    []string // Pull, Push, Delete
}

// May says whether the account may do this in the repository.
func (a Account) May(repository, action string) bool {
	return a.Admin || slices.ContainsFunc(a.Grants, func(g Grant) bool {
		return slices.Contains(g.Actions, action) && matches(g.Repository, repository)
	})
}

// matches says whether a name fits a pattern. team/** is team itself and all below.
func matches(pattern, name string) bool {
	return matchLevels(strings.Split(pattern, "/"), strings.Split(name, "/"))
}

// matchLevels goes back to the last ** alone, so that it ends soon for every pattern.
func matchLevels(pattern, name []string) bool {
	p, n, star, from := 0, 0, -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == "**":
			star, from = p, n
			p++
		case p < len(pattern) && matchLevel(pattern[p], name[n]):
			p++
			n++
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == "**" {
		p++
	}
	return p == len(pattern)
}

func matchLevel(pattern, level string) bool {
	ok, err := path.Match(pattern, level)
	return ok && err == nil
}

// Enter finds out who asks, from the request's Authorization; tender.Denied if nobody may
// be told apart. Without an Authorization it answers with what anybody may do.
type Enter func(*http.Request) (Account, error)
