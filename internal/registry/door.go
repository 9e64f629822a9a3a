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
	Repository string   // a pattern as of path.Match for each level: team/*; ** is any number of levels
	Actions    []string // Pull, Push, Delete
}

// May says whether the account may do this in the repository.
func (a Account) May(repository, action string) bool {
	return a.Admin || slices.ContainsFunc(a.Grants, func(g Grant) bool {
		return slices.Contains(g.Actions, action) && matches(strings.Split(g.Repository, "/"), strings.Split(repository, "/"))
	})
}

// matches compares level by level; ** is any number of them.
func matches(pattern, name []string) bool {
	if len(pattern) == 0 {
		return len(name) == 0
	}
	if pattern[0] == "**" {
		return matches(pattern[1:], name) || len(name) > 0 && matches(pattern, name[1:])
	}
	if len(name) == 0 {
		return false
	}
	ok, err := path.Match(pattern[0], name[0])
	return ok && err == nil && matches(pattern[1:], name[1:])
}

// Enter finds out who asks, from the request's Authorization; tender.Denied if nobody may
// be told apart. Without an Authorization it answers with what anybody may do.
type Enter func(*http.Request) (Account, error)
