package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
)

// upFlags are what up and plan share.
type upFlags struct {
	scale, images              []string
	strategy, pull             string
	supersede, recreate, renew bool
	hold                       bool
	orphans, noDeps            bool
	build, noBuild             bool
	detach, wait               bool
	waitTimeout                int
	token                      string
	grace                      *time.Duration
}

func (f *upFlags) common(c *cobra.Command) {
	s := c.Flags()
	s.StringArrayVar(&f.scale, "scale", nil, "number of instances: `SERVICE=N`")
	s.StringArrayVar(&f.images, "image", nil, "run another image: `SERVICE=REF`")
	s.StringVar(&f.strategy, "strategy", "", "`strategy` of this rollout: rolling, blue-green, canary or recreate")
	s.BoolVar(&f.hold, "hold", false, "blue-green and canary wait at each step for tender rollout resume")
	s.BoolVar(&f.recreate, "force-recreate", false, "replace instances although nothing changed")
	s.BoolVarP(&f.renew, "renew-anon-volumes", "V", false, "start with new anonymous volumes")
	s.BoolVar(&f.orphans, "remove-orphans", false, "remove instances of services that the file no longer has")
	s.BoolVar(&f.noDeps, "no-deps", false, "leave alone what the services named depend on")
	s.StringVar(&f.pull, "pull", "", "`when` to pull images: always, missing or never")
}

func (a *app) upCommand() *cobra.Command {
	var f upFlags
	c := &cobra.Command{
		Use:   "up [flags] [SERVICE...]",
		Short: "Start a project, or bring it up to date",
		Long: `Reads the Compose file, builds what has no image yet, and hands the project to the
daemon, which replaces what changed without a gap where it can and goes back by
itself when a new revision does not become healthy.

Waits until everything is healthy. Ctrl-C before the project is accepted cancels;
after that it only stops watching, and the rollout goes on in the daemon.`,
		Example: `  tender up                       what compose.yaml here describes
  tender up -f compose.yaml -f prod.yaml --scale web=3
  tender up --image web=shop/web:1.4.3 web
  tender plan --json | jq -r .token    then: tender up --plan TOKEN`,
		ValidArgsFunction: a.fileServices,
		RunE: func(c *cobra.Command, services []string) error {
			// docker compose up -d --wait returns when all is healthy.
			f.detach = f.detach && !c.Flags().Changed("wait") || !f.wait
			var err error
			if f.grace, err = grace(c); err != nil {
				return err
			}
			return a.up(c.Context(), f, services)
		},
	}
	f.common(c)
	s := c.Flags()
	s.BoolVarP(&f.detach, "detach", "d", false, "return once the daemon has accepted the project")
	s.BoolVar(&f.wait, "wait", true, "wait until the services are healthy, with -d, too")
	s.IntVar(&f.waitTimeout, "wait-timeout", 0, "`seconds` to watch at most; then exit code 5, and the rollout goes on")
	s.BoolVar(&f.build, "build", false, "build images although they are there")
	s.BoolVar(&f.noBuild, "no-build", false, "build nothing")
	s.IntP("timeout", "t", 0, "`seconds` until an instance that is replaced is killed (default: its stop_grace_period)")
	s.BoolVar(&f.supersede, "supersede", false, "take over from a rollout that is still going on")
	s.StringVar(&f.token, "plan", "", "do exactly what tender plan said, or nothing: its `token`")
	a.inFile(c)
	return c
}

func (a *app) planCommand() *cobra.Command {
	var f upFlags
	c := &cobra.Command{
		Use:   "plan [flags] [SERVICE...]",
		Short: "Say what up would do, and change nothing",
		Long: `Reads the Compose file as up does and prints what would happen to each service, why,
and for how long nobody would serve. Nothing is changed, built or pulled.

Exit code 3 says that there is something to do, 0 that there is nothing, 4 that the gate
would deny it.`,
		Example: `  tender plan
  tender plan --json | jq -r .token    up --plan TOKEN does this plan or nothing`,
		ValidArgsFunction: a.fileServices,
		RunE:              func(c *cobra.Command, services []string) error { return a.plan(c.Context(), f, services) },
	}
	f.common(c)
	a.inFile(c)
	return c
}

func (a *app) up(ctx context.Context, f upFlags, services []string) error {
	if f.build && f.noBuild {
		return misuse("say one of them", "--build and --no-build exclude each other")
	}
	doc, err := a.load(ctx, services)
	if err != nil {
		return err
	}
	sub, p, err := a.submission(doc, f, services)
	if err != nil {
		return err
	}
	d, err := a.client()
	if err != nil {
		return err
	}
	doing := "up " + doc.Name
	if !f.noBuild {
		if err := a.buildMissing(ctx, d, doc, p, f, services); err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
	}
	watched, done := ctx, func() {}
	if f.waitTimeout > 0 {
		watched, done = context.WithTimeout(ctx, time.Duration(f.waitTimeout)*time.Second)
	}
	defer done()
	err = a.change(watched, doing, func(ctx context.Context, report func(api.Event)) (api.Result, error) {
		result, err := d.Up(ctx, sub, report)
		return result, a.placed(ctx, d, services, err)
	})
	if err != nil && ctx.Err() == nil && watched.Err() != nil {
		a.complain(fmt.Sprintf("%s: not healthy after %d seconds", doing, f.waitTimeout), "tender status "+doc.Name)
		return exit(unhealthy)
	}
	return err
}

func (a *app) plan(ctx context.Context, f upFlags, services []string) error {
	doc, err := a.load(ctx, services)
	if err != nil {
		return err
	}
	sub, _, err := a.submission(doc, f, services)
	if err != nil {
		return err
	}
	d, err := a.client()
	if err != nil {
		return err
	}
	plan, err := d.Plan(ctx, sub)
	if err = a.placed(ctx, d, services, err); err != nil {
		return fmt.Errorf("plan %s: %w", doc.Name, err)
	}
	if err := a.printPlan(plan); err != nil {
		return err
	}
	if denies(plan.Gate) {
		return exit(denied)
	}
	if len(plan.Actions)+len(plan.Routes) > 0 {
		return exit(changes)
	}
	return nil
}

// submission is what up and plan send: the document with what the command line
// changes about it.
func (a *app) submission(doc compose.Document, f upFlags, services []string) (api.Submission, tender.Project, error) {
	fail := func(err error) (api.Submission, tender.Project, error) {
		return api.Submission{}, tender.Project{}, err
	}
	if all := []string{tender.Rolling, tender.BlueGreen, tender.Canary, tender.Recreate}; f.strategy != "" && !slices.Contains(all, f.strategy) {
		return fail(misuse("rolling, blue-green, canary or recreate", "--strategy %q is not known", f.strategy))
	}
	if !slices.Contains([]string{"", "always", "missing", "never"}, f.pull) {
		return fail(misuse("always, missing or never", "--pull %q is not known", f.pull))
	}
	scale, err := counts("--scale", f.scale)
	if err != nil {
		return fail(err)
	}
	images, err := pairs("--image", f.images)
	if err != nil {
		return fail(err)
	}
	if doc.YAML, err = withImages(doc.YAML, images); err != nil {
		return fail(err)
	}
	p, err := compose.Parse([]byte(doc.YAML))
	if err != nil {
		return fail(err)
	}
	if _, err := need(p, services, f.noDeps); err != nil {
		return fail(err)
	}
	if _, err := need(p, sortedKeys(scale), true); err != nil {
		return fail(err)
	}
	auths, warnings := a.auths(p)
	for _, w := range warnings {
		a.note("warning: %s", w)
	}
	return api.Submission{
		Project: doc.Name, YAML: doc.YAML, Files: doc.Files, Secrets: doc.Secrets, ComposeFiles: doc.ComposeFiles, WorkingDir: doc.WorkingDir,
		Services: services, NoDeps: f.noDeps, Scale: scale, Strategy: f.strategy, Grace: f.grace, Hold: f.hold, Supersede: f.supersede, Recreate: f.recreate,
		RenewAnon: f.renew, Orphans: f.orphans, Pull: f.pull, Auths: auths, Token: f.token, Detach: f.detach,
	}, p, nil
}

func (a *app) printPlan(p api.Plan) error {
	if a.json {
		return printJSON(a.Out, p)
	}
	for _, w := range p.Warnings {
		a.note("warning: %s", w)
	}
	if len(p.Gate) > 0 {
		if err := a.verdicts(p.Gate); err != nil {
			return err
		}
		fmt.Fprintln(a.Out)
	}
	var rows [][]string
	for _, s := range p.Services {
		revision := orDash(s.To)
		if s.From != "" && s.From != s.To {
			revision = s.From + " → " + orDash(s.To)
		}
		gap := "none"
		if s.Gap != "" {
			gap = s.Gap
		}
		rows = append(rows, []string{s.Service, s.Verdict, revision, gap, orDash(s.Why)})
	}
	if len(rows) > 0 {
		if err := table(a.Out, []string{"SERVICE", "VERDICT", "REVISION", "GAP", "WHY"}, rows); err != nil {
			return err
		}
	}
	for _, s := range p.Services {
		if s.Diff != "" {
			fmt.Fprintf(a.Out, "\n%s:\n%s\n", s.Service, indent(s.Diff))
		}
	}
	if len(p.Routes) > 0 {
		rows = rows[:0]
		for _, r := range p.Routes {
			rows = append(rows, []string{strings.TrimPrefix(r.Route, p.Project+"/"), r.Text})
		}
		fmt.Fprintln(a.Out)
		if err := table(a.Out, []string{"ROUTE", "CHANGE"}, rows); err != nil {
			return err
		}
	}
	if len(p.Actions) == 0 && len(p.Routes) > 0 {
		fmt.Fprintf(a.Out, "\nNo instance changes; the edge takes the routes as they are.\n")
		return nil
	}
	if len(p.Actions) == 0 {
		fmt.Fprintf(a.Out, "\nNothing to do: %s is as the file says.\n", p.Project)
		return nil
	}
	fmt.Fprintln(a.Out)
	rows = rows[:0]
	for n, x := range p.Actions {
		rows = append(rows, []string{fmt.Sprint(n + 1), x.Text, x.Cause})
	}
	if err := table(a.Out, []string{"#", "ACTION", "BECAUSE"}, rows); err != nil {
		return err
	}
	fmt.Fprintf(a.Out, "\n%s. To do exactly this: tender up --plan %s\n", countOf(len(p.Actions), "action"), p.Token)
	return nil
}
