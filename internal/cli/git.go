package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
)

// origin is where what is built comes from, as git tells it. Its zero value says nothing.
type origin struct {
	version string // 1.4.2 where the tag v1.4.2 is at the commit, else what git describe says
	commit  string // whole
	dirty   bool   // the context has what the commit has not
	at      time.Time
	source  string // the address of the repository, without who asks there
}

// originOf asks the git command about a folder. Without git, or outside of a repository, it is
// empty; why says so where that is worth a word.
func (a *app) originOf(ctx context.Context, dir string) (o origin, why string) {
	git := func(words ...string) (string, error) {
		// What the repository configures is not run.
		c := exec.CommandContext(ctx, "git", append([]string{"-C", dir, "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"}, words...)...)
		c.Env = append(c.Environ(), a.Env...)
		c.Env = append(c.Env, "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
		var out, said bytes.Buffer
		c.Stdout, c.Stderr = &out, &said
		if err := c.Run(); err != nil {
			first, _, _ := strings.Cut(strings.TrimSpace(said.String()), "\n")
			return "", fmt.Errorf("%w: %s", err, first)
		}
		return strings.TrimSpace(out.String()), nil
	}
	head, err := git("log", "-1", "--format=%H %ct")
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return origin{}, "git is not installed"
	case err != nil && (strings.Contains(err.Error(), "not a git repository") || strings.Contains(err.Error(), "does not have any commits")):
		return origin{}, "no commit of git is here"
	case err != nil:
		return origin{}, "git: " + err.Error()
	}
	commit, seconds, _ := strings.Cut(head, " ")
	o.commit = commit
	if n, err := strconv.ParseInt(seconds, 10, 64); err == nil {
		o.at = time.Unix(n, 0).UTC()
	}
	if changed, err := git("status", "--porcelain", "--untracked-files=normal", "--", "."); err != nil || changed != "" {
		o.dirty = true
	}
	if tags, err := git("tag", "--points-at", "HEAD"); err == nil {
		o.version = highest(strings.Fields(tags))
	}
	if o.version == "" {
		if text, err := git("describe", "--tags", "--match", "v[0-9]*", "--match", "[0-9]*"); err == nil {
			o.version = strings.TrimPrefix(text, "v")
		}
	}
	if !imageTag.MatchString(o.version) {
		o.version = ""
	}
	if o.version != "" && o.dirty {
		o.version += "-dirty"
	}
	if remote, err := git("config", "--get", "remote.origin.url"); err == nil {
		o.source = publicURL(remote)
	}
	return o, ""
}

var imageTag = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}$`)

// highest is the newest full version among tags, without its v.
func highest(tags []string) string {
	best, name := tender.Version{}, ""
	for _, tag := range tags {
		v, is := tender.VersionOf(tag)
		if is && v.Given == 3 && (name == "" || v.Compare(best) > 0) {
			best, name = v, strings.TrimPrefix(tag, "v")
		}
	}
	return name
}

// publicURL is the address of a repository as others may read it: without users, passwords and
// tokens. Of a folder on this host it is "".
func publicURL(remote string) string {
	if !strings.Contains(remote, "://") {
		// git@example.com:shop/web.git
		at, path, ok := strings.Cut(remote, ":")
		_, host, user := strings.Cut(at, "@")
		if !user {
			host = at
		}
		if !ok || host == "" || strings.ContainsAny(host, `/\`) || len(host) == 1 {
			return ""
		}
		return "https://" + host + "/" + strings.TrimSuffix(strings.TrimPrefix(path, "/"), ".git")
	}
	u, err := url.Parse(remote)
	if err != nil || u.Host == "" || u.Scheme == "file" {
		return ""
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	u.Path = strings.TrimSuffix(u.Path, ".git")
	return u.String()
}

// names are the tags that tell where an image comes from.
func (o origin) names() (out []string) {
	if o.version != "" {
		out = append(out, o.version)
	}
	if o.commit != "" {
		name := "git-" + o.commit[:min(len(o.commit), 12)]
		if o.dirty {
			name += "-dirty"
		}
		out = append(out, name)
	}
	return out
}

// labels are OCI's annotations, which are the same for the same commit.
func (o origin) labels(epoch time.Time) map[string]string {
	out := map[string]string{}
	put := func(key, value string) {
		if value != "" {
			out["org.opencontainers.image."+key] = value
		}
	}
	put("source", o.source)
	put("version", o.version)
	revision, at := o.commit, o.at
	if o.dirty {
		// What is there was not there at the commit's time.
		revision, at = revision+"-dirty", time.Time{}
	}
	put("revision", revision)
	if !epoch.IsZero() {
		at = epoch
	}
	if !at.IsZero() {
		put("created", at.UTC().Format(time.RFC3339))
	}
	return out
}
