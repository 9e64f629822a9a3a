package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tenderhq/tender/internal/alert"
	"github.com/tenderhq/tender/internal/logql"
	"github.com/tenderhq/tender/internal/logs"
	"github.com/tenderhq/tender/internal/store"
)

const (
	wokenLines  = 5              // of a service's log that an alert carries
	wokenLine   = 200            // bytes of each
	wokenWithin = 24 * time.Hour // in which a rollout counts as what changed
	wokenLogs   = time.Hour      // how far back lines are looked for
)

// annotate says of an alert what whoever is woken would look up first: which
// revision, the last lines, what changed, and what to type. Each of them may be
// missing; none of them may be waited for.
func (b *backend) annotate(ctx context.Context, a alert.Alert) map[string]string {
	out := map[string]string{"since": a.StartsAt.UTC().Format(time.RFC3339)}
	project, service := a.Labels["project"], a.Labels["service"]
	if project == "" {
		out["look"] = "tender status"
		return out
	}
	if service == "" {
		out["look"] = "tender ps -p " + project
		return out
	}
	out["look"] = fmt.Sprintf("tender why %s -p %s", service, project)
	var lines, changed, revision string
	var work sync.WaitGroup
	work.Go(func() { lines = b.lastLogged(ctx, project, service, a.Labels["instance"]) })
	revision, changed = b.changed(ctx, project, service, a.StartsAt)
	work.Wait()
	for name, value := range map[string]string{"logs": lines, "changed": changed, "revision": revision} {
		if value != "" {
			out[name] = value
		}
	}
	return out
}

// lastLogged are the newest lines of a service, of one instance where that is known.
func (b *backend) lastLogged(ctx context.Context, project, service, instance string) string {
	if b.logs == nil {
		return ""
	}
	of := []logs.Condition{{Name: "project", Op: logs.Equal, Value: project}, {Name: "service", Op: logs.Equal, Value: service}}
	if instance != "" {
		of = append(of, logs.Condition{Name: "instance", Op: logs.Equal, Value: instance})
	}
	x, err := logql.Within("", of)
	if err != nil {
		return ""
	}
	found, err := b.logs.query().Lines(ctx, x, logql.Lines{From: time.Now().Add(-wokenLogs), Backward: true, Limit: wokenLines, Plain: true})
	if err != nil { // the alert goes without
		return ""
	}
	if len(found) == 0 && instance != "" { // it is called otherwise there, or has written nothing
		return b.lastLogged(ctx, project, service, "")
	}
	slices.Reverse(found)
	out := make([]string, 0, len(found))
	for _, l := range found {
		out = append(out, cut(strings.TrimSpace(l.Text), wokenLine))
	}
	return strings.Join(out, "\n")
}

// changed are the revision of a service and its newest rollout, if that began not
// long before t.
func (b *backend) changed(ctx context.Context, project, service string, t time.Time) (revision, what string) {
	var list []store.Rollout
	if b.store.View(ctx, func(tx *store.Tx) (err error) {
		list, err = tx.Rollouts(project, service)
		return err
	}) != nil {
		return "", "" // the alert goes without
	}
	newest := -1
	for i, r := range list {
		if !r.Started.After(t) && (newest < 0 || r.Started.After(list[newest].Started)) {
			newest = i
		}
	}
	if newest < 0 {
		return "", ""
	}
	return rolled(list[newest], t)
}

// rolled says what a rollout changed, as seen at t.
func rolled(r store.Rollout, t time.Time) (revision, what string) {
	revision = r.To
	if ago := t.Sub(r.Started); ago <= wokenWithin {
		what = fmt.Sprintf("revision %s -> %s, %s before, by %s", orNone(r.From), r.To, span(ago), r.Who)
		if r.Reason != "" {
			what += ": " + cut(r.Reason, wokenLine)
		}
	}
	return revision, what
}

func orNone(revision string) string {
	if revision == "" {
		return "none"
	}
	return revision
}

// span is a duration as people say it.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}
