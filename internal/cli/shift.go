package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/api"
)

// shiftFlags are what route shift is told.
type shiftFlags struct {
	to     []string
	auto   bool
	steps  []int
	every  time.Duration
	abort  string
	reset  bool
	detach bool
}

func (a *app) routeShiftCommand() *cobra.Command {
	var f shiftFlags
	c := &cobra.Command{
		Use:   "shift [flags] ROUTE --to TARGET=PERCENT",
		Short: "Move traffic of a route from one target to another",
		Long: `Gives a target of the route a share of its requests, in percent; the others share the
rest as they did. It holds over restarts and upgrades, until it is said again or the file
gives the route other targets or weights. Clients that a route with sticky: true has bound
to a target stay there while it has any share.

With --auto the share grows in steps. Each is watched for a while; where more than --abort
of the target's requests fail, all goes back to as it was. The daemon walks the steps:
Ctrl-C leaves it walking, and another shift ends it.`,
		Example: `  tender route shift shop.example.com/orders --to orders=10
  tender route shift shop.example.com/orders --to orders=100 --auto --every 10m
  tender route shift shop.example.com/orders --reset     as the file says`,
		Args:              args(1, 1, "ROUTE"),
		ValidArgsFunction: a.routeNames,
		RunE:              func(c *cobra.Command, words []string) error { return a.shift(c.Context(), f, words[0]) },
	}
	s := c.Flags()
	s.StringArrayVar(&f.to, "to", nil, "`TARGET=PERCENT`: a service or a URL, as route show prints it; repeat it for several")
	s.BoolVar(&f.auto, "auto", false, "go there in steps while it goes well, and back by itself when it does not")
	s.IntSliceVar(&f.steps, "steps", nil, "the steps of --auto, in `percent` (default 5,25,50,100, as far as --to goes)")
	s.DurationVar(&f.every, "every", 0, "how long --auto watches each step (default 1m)")
	s.StringVar(&f.abort, "abort", "", "`share` of failed requests above which --auto goes back (default 1%)")
	s.BoolVar(&f.reset, "reset", false, "back to the weights in the file")
	s.BoolVarP(&f.detach, "detach", "d", false, "do not wait for the end of --auto")
	a.inFile(c)
	return c
}

func (a *app) shift(ctx context.Context, f shiftFlags, word string) error {
	s, err := f.read()
	if err != nil {
		return err
	}
	d, r, err := a.routeNamed(ctx, word)
	if err != nil {
		return err
	}
	s.Route = r.ID
	if r, err = d.ShiftRoute(ctx, r.Project, s); err != nil {
		return fmt.Errorf("shift %s: %w", word, err)
	}
	if !f.auto {
		return a.steered(r, "%s: %s", r.ID, leads(r))
	}
	if f.detach {
		return a.steered(r, "%s: %s", r.ID, walkText(*r.Walk, time.Now()))
	}
	return a.follow(ctx, d, r)
}

// read turns the flags into what the daemon is asked.
func (f shiftFlags) read() (api.RouteShift, error) {
	s := api.RouteShift{Auto: f.auto, Steps: f.steps, Every: f.every}
	if f.reset == (len(f.to) > 0) {
		return s, misuse("tender route shift ROUTE --to orders=10, or --reset", "say where the traffic goes")
	}
	for _, pair := range f.to {
		// A URL may hold an equals sign; a share does not.
		i := strings.LastIndexByte(pair, '=')
		if i < 1 {
			return s, misuse("--to orders=10", "--to %s names no share", pair)
		}
		n, err := strconv.Atoi(strings.TrimSuffix(pair[i+1:], "%"))
		if err != nil || n < 0 || n > 100 {
			return s, misuse("--to orders=10", "--to %s: want percent, from 0 to 100", pair)
		}
		if s.To == nil {
			s.To = map[string]int{}
		}
		s.To[pair[:i]] = n
	}
	if f.abort != "" {
		n, err := strconv.ParseFloat(strings.TrimSuffix(f.abort, "%"), 64)
		if err != nil || n <= 0 || n > 100 {
			return s, misuse("--abort 1%", "--abort %s: want a share such as 1%%", f.abort)
		}
		s.Errors = n / 100
	}
	return s, nil
}

// follow shows a walk until it has ended.
func (a *app) follow(ctx context.Context, d *api.Client, r api.Route) error {
	said := -1
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	started := r.Walk.Started
	for {
		w := r.Walk
		if w == nil || !w.Started.Equal(started) {
			a.note("%s: another shift has taken its place", r.ID)
			return exit(failed)
		}
		if w.Step != said {
			said = w.Step
			a.note("%s gets %d%% of %s", w.Aim, w.Steps[w.Step], plainRoute(r))
		}
		if w.State != "walking" {
			if a.json {
				if err := printJSON(a.Out, r); err != nil {
					return err
				}
			}
			a.note("%s", walkText(*w, time.Now()))
			if w.State != "done" {
				return exit(unhealthy)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			a.note("it goes on; tender route show %s shows where it is", plainRoute(r))
			return ctx.Err()
		case <-tick.C:
		}
		found, err := d.Routes(ctx, r.Project, r.ID)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("follow %s: %w", r.ID, err)
		}
		if i := slices.IndexFunc(found, func(x api.Route) bool { return x.ID == r.ID }); i >= 0 {
			r = found[i]
		}
	}
}
