package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/convert"
)

func (a *app) convertCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "convert 'docker run ...'",
		Short: "Turn a docker run into a Compose file, on stdout",
		Long: `Every flag of docker run becomes its field of the Compose file, or is refused by its
name. Variables stay variables: Compose fills them in. With - the command is read from
stdin. Nothing is run.`,
		Example: `  tender convert 'docker run -d --name web -p 80:8080 -e COLOUR=$COLOUR shop/web:1.4' > compose.yaml
  tender convert - < start.sh`,
		// What follows are docker's flags, not ours.
		DisableFlagParsing: true,
		RunE: func(c *cobra.Command, words []string) error {
			switch {
			case len(words) == 0:
				return misuse("tender convert 'docker run -d -p 80:8080 --name web nginx'", "convert wants a docker run")
			case words[0] == "--help" || words[0] == "-h":
				return c.Help()
			case len(words) == 1 && words[0] == "-":
				raw, err := io.ReadAll(io.LimitReader(a.In, 1<<20))
				if err != nil {
					return fmt.Errorf("convert: %w", err)
				}
				// A script begins with lines that say how to run it.
				words = []string{strings.TrimSpace(string(raw))}
			}
			out, err := convert.Run(words)
			if err != nil {
				return err
			}
			for _, n := range out.Notes {
				a.note("note: %s", n)
			}
			fmt.Fprint(a.Out, out.YAML)
			return nil
		},
	}
}
