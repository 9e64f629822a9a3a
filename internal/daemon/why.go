package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/store"
)

// lastLines is how many lines of output an answer cites.
const lastLines = 5

// Why says why a service is as it is: rules over what is known, each with its
// evidence and what to type next.
func (b *backend) Why(ctx context.Context, project, service string) (api.Why, error) {
	p, err := b.loop.Project(ctx, project)
	if err != nil {
		return api.Why{}, err
	}
	at := slices.IndexFunc(p.Services, func(s deploy.ServiceState) bool { return s.Name == service })
	if at < 0 {
		return api.Why{}, tender.Errorf(tender.NotFound, "project %s has no service %s", project, service).Hint("tender ps -a -p %s", project)
	}
	s := p.Services[at]
	// The newest one that a person asked for: a way back that went well says nothing of why it was taken.
	rollouts, err := b.loop.Rollouts(ctx, project, service)
	if err != nil && tender.KindOf(err) != tender.NotFound {
		return api.Why{}, err
	}
	if at := slices.IndexFunc(rollouts, func(r store.Rollout) bool { return !r.Reverse || r.Who != "tender" }); at >= 0 {
		s.Last = &rollouts[at]
	}
	lately := b.keeper.lately()
	out := api.Why{Project: project, Service: service, Summary: summary(s), Findings: findings(p, s, certificates(lately.now.report, lately.now.heads[project], service))}
	if picture, _ := b.inventory.Picture(); !picture.Stale.IsZero() {
		out.Findings = append([]api.Finding{{
			What: "the engine does not answer: all of this is as it was at " + clock(picture.Stale), Next: "systemctl status docker; tender doctor",
		}}, out.Findings...)
	}
	if f, scales := scaleFinding(b.scaling.scaleOf(p, s)); scales {
		out.Findings = append(out.Findings, f)
	}
	// What an instance said last tells more than any rule.
	for _, i := range s.Instances {
		if i.Ready() || i.Started.IsZero() {
			continue
		}
		if said := b.lastWords(ctx, i); len(said) > 0 {
			f := api.Finding{What: "the last it wrote", Evidence: said, Next: fmt.Sprintf("tender logs -p %s %s", project, service)}
			if what, next := heard(said); what != "" {
				f.What, f.Next = what, next
			}
			out.Findings = append(out.Findings, f)
			break
		}
	}
	return out, nil
}

// scaleFinding says why there are as many instances as there are.
func scaleFinding(s *api.Scale) (f api.Finding, scales bool) {
	if s == nil {
		return f, false
	}
	f = api.Finding{What: "its count follows what is measured: " + s.Rule, Next: "x-tender.scale in the file says how: docs/autoscaling.md"}
	if s.Cause != "" {
		f.Evidence = append(f.Evidence, "now: "+s.Cause)
	}
	if !s.Changed.IsZero() {
		f.Evidence = append(f.Evidence, fmt.Sprintf("%s by %s, from %d: %s", clock(s.Changed), s.Who, s.From, s.Why))
	}
	return f, true
}

func summary(s deploy.ServiceState) string {
	text := fmt.Sprintf("%s is %s: %d of %d ready", s.Name, s.State, s.Ready, s.Wanted)
	if s.Detail != "" {
		text += ", " + s.Detail
	}
	return text
}

func (b *backend) lastWords(ctx context.Context, i tender.Instance) []string {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var said []string
	// An engine that does not tell its logs is no reason to be silent about the rest.
	_ = b.read(ctx, i, api.LogRequest{Tail: lastLines}, func(l api.LogLine) error {
		said = append(said, i.Name+": "+cut(l.Text, 300))
		return nil
	})
	return said
}

// heard reads the last lines of an instance for what it lacked.
func heard(lines []string) (what, next string) {
	low := strings.ToLower(strings.Join(lines, "\n"))
	switch {
	case strings.Contains(low, "no space left on device"):
		return "it had no room left where it writes", "give its tmpfs more (size), or make room on the disk of its volume: df -h"
	case strings.Contains(low, "can't fork"), strings.Contains(low, "cannot fork"), strings.Contains(low, "fork: resource temporarily unavailable"), strings.Contains(low, "pthread_create failed"):
		return "it may have no more processes", "raise pids_limit (deploy.resources.limits.pids), or find what starts so many: tender top"
	}
	return "", ""
}

func cut(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}

// findings are the rules. outside is what was found where its clients come from.
func findings(p deploy.ProjectState, s deploy.ServiceState, outside []api.Finding) []api.Finding {
	var out []api.Finding
	add := func(what, next string, evidence ...string) {
		out = append(out, api.Finding{What: what, Next: next, Evidence: evidence})
	}
	here := "-p " + p.Name
	if s.Stopped {
		add("it was stopped by a person", fmt.Sprintf("tender start %s %s", here, s.Name))
	}
	out = append(out, waits(p, s)...)
	for _, i := range s.Instances {
		switch {
		case i.OOM:
			add(i.Name+" was ended by the kernel: it used more memory than its limit",
				"raise deploy.resources.limits.memory, or find out what it keeps: tender stats "+here, exitEvidence(i))
		case i.State == tender.Running && i.Health == tender.Unhealthy:
			ev := []string{"health: unhealthy since " + clock(i.Since)}
			if i.HealthOutput != "" {
				ev = append(ev, "the check says: "+cut(strings.TrimSpace(i.HealthOutput), 500))
			}
			add(i.Name+" runs, but its healthcheck fails", fmt.Sprintf("tender exec %s %s sh, and run the check by hand", here, s.Name), ev...)
		case i.State == tender.Running && i.Health == tender.Starting:
			add(i.Name+" runs, and its healthcheck has not passed yet", fmt.Sprintf("tender events %s", here), "started "+clock(i.Started))
		case i.State == tender.Created && i.Error != "":
			out = append(out, cannotStart(i.Name, i.Error))
		case (i.State == tender.Exited || i.State == tender.Dead || i.State == tender.Restarting) && (i.ExitCode != 0 || !s.Job):
			out = append(out, exited(i, s))
		case i.State == tender.Paused:
			add(i.Name+" is paused", fmt.Sprintf("tender unpause %s %s", here, s.Name))
		}
		if i.Restarts > 0 {
			add(fmt.Sprintf("%s was restarted %d times by the engine", i.Name, i.Restarts), fmt.Sprintf("tender logs %s %s", here, s.Name), "started "+clock(i.Started))
		}
		if i.Drift != "" {
			add(i.Name+" was changed by somebody else", fmt.Sprintf("tender plan %s shows what Tender does about it", here), i.Drift)
		}
	}
	for _, e := range unique(s.Problems) {
		f := cannotStart(s.Name, e.Text)
		if at := slices.IndexFunc(s.Instances, func(i tender.Instance) bool { return strings.HasPrefix(e.Text, i.Name+" ") }); at >= 0 {
			if !s.Instances[at].Ready() {
				continue // what it does now tells the same
			}
			f.What, f.Next = "Tender has mended "+s.Instances[at].Name, fmt.Sprintf("tender logs %s %s", here, s.Name)
		}
		f.Evidence = []string{clock(e.Time) + " " + e.Text}
		if !slices.ContainsFunc(out, func(o api.Finding) bool { return o.What == f.What }) {
			out = append(out, f)
		}
	}
	if l := s.Last; l != nil && s.Rollout == nil && (l.State == store.RolledBack || l.State == store.RolloutFailed) {
		add(fmt.Sprintf("its last rollout, to %s by %s, ended %s", l.To, l.Who, l.State), fmt.Sprintf("tender show %d; mend the cause, then tender up again", l.ID), l.Reason)
	}
	if !s.GaveUp.IsZero() {
		add(fmt.Sprintf("Tender has given up after %d attempts, at %s", s.Tries, clock(s.GaveUp)), fmt.Sprintf("mend the cause, then: tender restart %s %s", here, s.Name))
	} else if !s.Next.IsZero() {
		add(fmt.Sprintf("attempt %d follows at %s", s.Tries+1, clock(s.Next)), "")
	}
	out = append(out, outside...)
	if len(out) == 0 {
		what := "nothing is wrong with it that Tender can see"
		if s.State != "healthy" && s.State != "done" {
			what = "nothing else is known of it"
		}
		add(what, fmt.Sprintf("tender logs %s %s", here, s.Name))
	}
	return out
}

// waits names the dependencies that have not come.
func waits(p deploy.ProjectState, s deploy.ServiceState) []api.Finding {
	var out []api.Finding
	for _, d := range s.DependsOn {
		at := slices.IndexFunc(p.Services, func(o deploy.ServiceState) bool { return o.Name == d.Service })
		if at < 0 {
			continue
		}
		on := p.Services[at]
		met := on.Ready > 0
		switch d.Condition {
		case tender.Completed:
			met = on.State == "done"
		case tender.Started:
			met = slices.ContainsFunc(on.Instances, func(i tender.Instance) bool { return !i.Started.IsZero() })
		}
		if !met && s.Ready < s.Wanted {
			out = append(out, api.Finding{
				What:     fmt.Sprintf("it waits for %s (%s), which has not come", d.Service, d.Condition),
				Evidence: []string{summary(on)}, Next: fmt.Sprintf("tender why -p %s %s", p.Name, d.Service),
			})
		}
	}
	return out
}

func exited(i tender.Instance, s deploy.ServiceState) api.Finding {
	f := api.Finding{Evidence: []string{exitEvidence(i)}}
	if s.Stopped && i.ExitCode == 137 {
		f.What = fmt.Sprintf("%s did not end within its grace of %s and was killed", i.Name, s.Grace)
		f.Next = "let it end on its stop signal (exec in its entrypoint, or init: true), or give it longer: stop_grace_period"
		return f
	}
	switch i.ExitCode {
	case 0:
		f.What, f.Next = i.Name+" ended by itself, with 0", "a service that is to run must not return; a job says so with depends_on: service_completed_successfully"
	case 125, 126:
		f.What, f.Next = i.Name+": its command cannot be executed", "check command and entrypoint, and that the file is executable and for this platform"
	case 127:
		f.What, f.Next = i.Name+": its command was not found in the image", "check command and entrypoint: tender config"
	case 137:
		f.What, f.Next = i.Name+" was killed (SIGKILL), not by its memory limit", "look for docker kill, or for the host's own memory: dmesg | grep -i oom"
	case 139:
		f.What, f.Next = i.Name+" crashed (segmentation fault)", "look into its output"
	case 255:
		f.What, f.Next = i.Name+" exited with 255", "so the engine says, too, of what it lost when it was killed; else look into its output"
	case 143:
		f.What, f.Next = i.Name+" was asked to end (SIGTERM)", "tender events shows who"
	default:
		f.What, f.Next = fmt.Sprintf("%s exited with %d", i.Name, i.ExitCode), "look into its output"
	}
	return f
}

func exitEvidence(i tender.Instance) string {
	text := fmt.Sprintf("%s %s, exit code %d", i.State, clock(i.Finished), i.ExitCode)
	if i.OOM {
		text += ", out of memory"
	}
	if !i.Started.IsZero() && i.Finished.After(i.Started) {
		text += fmt.Sprintf(", after %s", i.Finished.Sub(i.Started).Round(time.Millisecond))
	}
	return text
}

// cannotStart reads an engine's words.
func cannotStart(name, text string) api.Finding {
	f := api.Finding{What: name + " could not be started", Evidence: []string{text}}
	low := strings.ToLower(text)
	switch {
	case strings.Contains(low, "port is already allocated"), strings.Contains(low, "address already in use"), strings.Contains(low, "port") && strings.Contains(low, "in use"):
		f.What, f.Next = name+": a host port is taken", "free it (ss -ltnp shows who holds it), or change ports:"
	case strings.Contains(low, "image") && (strings.Contains(low, "not found") || strings.Contains(low, "no such image") || strings.Contains(low, "not here")):
		f.What, f.Next = name+": its image is missing", "tender pull, or tender build"
	case strings.Contains(low, "error during connect"), strings.Contains(low, "failed to connect to the docker api"), strings.Contains(low, "cannot connect to the docker daemon"):
		f.What, f.Next = "the engine did not answer", "systemctl status docker; tender doctor"
	case strings.Contains(low, "no space left"):
		f.What, f.Next = name+": the disk is full", "make room: docker system df shows what takes it"
	case strings.Contains(low, "bind source path does not exist"), strings.Contains(low, "no such file or directory") && strings.Contains(low, "mount"):
		f.What, f.Next = name+": a file or directory to mount is not there", "make it, or change volumes:"
	case strings.Contains(low, "executable file not found"):
		f.What, f.Next = name+": its command was not found in the image", "check command and entrypoint: tender config"
	case strings.Contains(low, "is already in use by container"):
		f.What, f.Next = name+": its name is taken by another container", "docker ps -a shows it"
	case strings.Contains(low, "secret"):
		f.What, f.Next = name+": a secret is missing", "tender secret ls, then tender secret set NAME"
	}
	return f
}

func unique(problems []deploy.Problem) []deploy.Problem {
	var out []deploy.Problem
	for _, p := range slices.Backward(problems) {
		if !slices.ContainsFunc(out, func(o deploy.Problem) bool { return o.Text == p.Text }) {
			out = append(out, p)
		}
	}
	return out
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05") }
