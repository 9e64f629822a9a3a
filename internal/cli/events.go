package cli

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/api"
)

func (a *app) eventsCommand() *cobra.Command {
	var everything bool
	c := &cobra.Command{
		Use:   "events [flags] [SERVICE...]",
		Short: "Follow what happens, from now on",
		Long: `Prints one line for each change of an instance and each action of the daemon until
Ctrl-C. --json prints JSON lines.`,
		ValidArgsFunction: a.services,
		RunE: func(c *cobra.Command, services []string) error {
			project := ""
			if !everything {
				var err error
				if project, err = a.name(c.Context()); err != nil {
					return err
				}
			}
			d, err := a.client()
			if err != nil {
				return err
			}
			out := json.NewEncoder(a.Out)
			out.SetEscapeHTML(false)
			err = d.Events(c.Context(), project, func(e api.Event) {
				if len(services) > 0 && !slices.Contains(services, e.Service) {
					return
				}
				if a.json {
					out.Encode(e)
					return
				}
				who := e.Project
				if e.Instance != "" {
					who = e.Instance
				} else if e.Service != "" {
					who += "/" + e.Service
				}
				fmt.Fprintf(a.Out, "%s  %-8s  %s  %s\n", e.Time.Local().Format("2006-01-02 15:04:05.000"), e.Kind, orDash(who), e.Text)
			})
			if c.Context().Err() != nil {
				return exit(interrupted)
			}
			if err != nil {
				return fmt.Errorf("events: %w", err)
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&everything, "all", "a", false, "of every project")
	a.inFile(c)
	return c
}
