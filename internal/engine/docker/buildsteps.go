package docker

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"

	bk "github.com/moby/buildkit/client"
	solveerrors "github.com/moby/buildkit/solver/errdefs"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// keepLines is how many of a step's last lines an error shows.
const keepLines = 15

// steps turns BuildKit's status into lines as its own plain output has them:
// "#5 [2/3] RUN make", "#5 text", "#5 DONE 1.2s".
type steps struct {
	report func(engine.Progress)
	byID   map[digest.Digest]*step
	failed *step
}

type step struct {
	number  int
	name    string
	started bool
	ended   bool
	err     string
	partial []byte   // of a line that has not ended
	last    []string // lines, the newest last
	parts   map[string]bool
}

func newSteps(report func(engine.Progress)) *steps {
	return &steps{report: report, byID: map[digest.Digest]*step{}}
}

func (s *steps) step(id digest.Digest) *step {
	one := s.byID[id]
	if one == nil {
		one = &step{parts: map[string]bool{}}
		s.byID[id] = one
	}
	return one
}

func (s *steps) say(one *step, format string, args ...any) {
	if one.number == 0 {
		n := 1
		for _, other := range s.byID {
			n = max(n, other.number+1)
		}
		one.number = n
	}
	s.report(engine.Progress{Text: fmt.Sprintf("#%d ", one.number) + fmt.Sprintf(format, args...)})
}

func (s *steps) take(status *bk.SolveStatus) {
	for _, v := range status.Vertexes {
		one := s.step(v.Digest)
		one.name = v.Name
		// Copies of a context that came as a tar are of no interest to anybody.
		if one.ended || v.Started == nil || strings.HasPrefix(v.Name, "copy /context") {
			continue
		}
		if !one.started {
			one.started = true
			s.say(one, "%s", oneLine(v.Name))
		}
	}
	for _, l := range status.Logs {
		s.log(s.step(l.Vertex), l.Data)
	}
	for _, p := range status.Statuses {
		one := s.step(p.Vertex)
		if p.Completed != nil && one.started && !one.parts[p.ID] {
			one.parts[p.ID] = true
			s.say(one, "%s done", cmp.Or(p.Name, p.ID))
		}
	}
	for _, w := range status.Warnings {
		s.say(s.step(w.Vertex), "WARN: %s", w.Short)
	}
	for _, v := range status.Vertexes {
		one := s.step(v.Digest)
		if one.ended || !one.started || v.Completed == nil {
			continue
		}
		one.ended = true
		if len(one.partial) > 0 {
			s.log(one, []byte("\n"))
		}
		switch {
		case v.Error != "" && strings.Contains(v.Error, context.Canceled.Error()):
			s.say(one, "CANCELED")
		case v.Error != "":
			// The step's name says already what was run.
			one.err = running.ReplaceAllString(v.Error, "")
			s.failed = one
			s.say(one, "ERROR: %s", one.err)
		case v.Cached:
			s.say(one, "CACHED")
		default:
			s.say(one, "DONE %.1fs", v.Completed.Sub(*v.Started).Round(100*time.Millisecond).Seconds())
		}
	}
}

// maxLine bounds what a step that never ends its line makes us keep.
const maxLine = 16 << 10

func (s *steps) log(one *step, data []byte) {
	for len(data) > 0 {
		line, rest, ended := strings.Cut(string(data), "\n")
		if room := maxLine - len(one.partial); len(line) > room {
			line = line[:max(room, 0)]
		}
		one.partial = append(one.partial, line...)
		data = []byte(rest)
		if !ended {
			return
		}
		text := string(one.partial)
		one.partial = one.partial[:0]
		text = strings.TrimRight(text, "\r")
		// Of a progress bar that draws over itself, only what one would see in the end.
		text = text[strings.LastIndexByte(text, '\r')+1:]
		one.last = append(one.last, text)
		if len(one.last) > keepLines {
			one.last = one.last[1:]
		}
		s.say(one, "%s", text)
	}
}

// oneLine shortens the name of a step that holds a whole script.
func oneLine(name string) string {
	first, _, more := strings.Cut(strings.TrimSpace(name), "\n")
	if more {
		return first + " …"
	}
	return first
}

// buildError says where in the Dockerfile a build failed, why, and what the
// failing step said last. own is the frontend's error, if it has one.
func buildError(ctx context.Context, name string, err, own error, s *steps) error {
	if ctx.Err() != nil {
		return fmt.Errorf("build %s: %w", name, ctx.Err())
	}
	kind := tender.Internal
	if own != nil { // the Dockerfile, or an image that it starts from
		err, kind = own, tender.Invalid
	}
	text := strings.TrimPrefix(err.Error(), "failed to solve: ")
	text = strings.TrimPrefix(text, "rpc error: code = Unknown desc = ")
	where := ""
	if sources := solveerrors.Sources(err); len(sources) > 0 {
		source := sources[len(sources)-1]
		if i := source.Info; i != nil && len(source.Ranges) > 0 {
			file := path.Base(i.Filename)
			if strings.HasPrefix(file, ".dockerfile.") { // the name that an inline one travels under
				file = "Dockerfile"
			}
			where = fmt.Sprintf("%s:%d: ", file, source.Ranges[0].Start.Line)
			text = parsing.ReplaceAllString(text, "")
			kind = tender.Invalid
		}
	}
	said := ""
	if s.failed != nil {
		kind = tender.Invalid
		text = oneLine(s.failed.name) + ": " + s.failed.err
		for _, line := range s.failed.last {
			said += "\n  " + line
		}
	}
	if i := strings.Index(text, "no such file or directory"); i >= 0 && strings.Contains(text[:i], "failed to read dockerfile") {
		text = strings.TrimSuffix(text[strings.LastIndexByte(text[:i], '/')+1:i], ": ") + " is not in the context"
	}
	if status.Code(err) == codes.Unavailable {
		kind = tender.Unavailable
	}
	hint := ""
	if noSecret.MatchString(text) {
		hint = "give it under services.NAME.build.secrets"
	}
	for _, k := range known {
		if strings.Contains(text, k.text) {
			kind, hint = k.kind, k.hint
			break
		}
	}
	out := tender.Errorf(kind, "build %s: %s%s%s", name, where, text, said)
	if hint != "" {
		return out.Hint("%s", hint)
	}
	return out
}

// running is how BuildKit names the command that failed, before and after its version 0.10.
var running = regexp.MustCompile(`(?s)^(executor failed running \[.*\]|process ".*" did not complete successfully): `)

var parsing = regexp.MustCompile(`^(dockerfile )?parse error on line \d+: `)

var noSecret = regexp.MustCompile(`secret \S+ not found`)

const noRegistry = "the registry cannot be reached from the engine's host: check its network, or load the image: docker load -i FILE"

// known are answers of BuildKit's that need a word of advice.
var known = []struct {
	text string
	kind tender.Kind
	hint string
}{
	{"no such host", tender.Unavailable, noRegistry},
	{"connection refused", tender.Unavailable, noRegistry},
	{"i/o timeout", tender.Unavailable, noRegistry},
	{"network is unreachable", tender.Unavailable, noRegistry},
	{"401 Unauthorized", tender.Denied, "check the image's name, or log in: docker login"},
	{"insufficient_scope", tender.Denied, "check the image's name, or log in: docker login"},
	{"pull access denied", tender.Denied, "check the image's name, or log in: docker login"},
	{"unknown cache exporter", tender.Invalid, "this engine writes caches of type=inline alone; the containerd image store can do more"},
	{"security.insecure is not allowed", tender.Invalid, "allow it in the engine's daemon.json: \"builder\": {\"entitlements\": {\"security-insecure\": true}}"},
	{"no space left on device", tender.Unavailable, "free space at the engine: docker builder prune, docker image prune"},
}
