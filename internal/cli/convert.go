package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	tender "github.com/tenderhq/tender"
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

func (a *app) routeImportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import haproxy.cfg|nginx.conf",
		Short: "Turn the configuration of HAProxy or nginx into routes, on stdout",
		Long: `Frontends, backends, servers and locations become x-tender routes for a Compose file.
What could not be turned, or means something slightly different, is listed on stderr with
its line. With - the configuration is read from stdin. Nothing is changed.`,
		Example: `  tender route import haproxy.cfg > routes.yaml
  tender up -f compose.yaml -f routes.yaml`,
		Args: args(1, 1, "a haproxy.cfg or nginx.conf"),
		RunE: func(_ *cobra.Command, words []string) error {
			raw, err := a.readConfig(words[0])
			if err != nil {
				return err
			}
			out, err := convert.Routes(words[0], raw)
			for _, n := range out.Notes {
				a.note("%s", n)
			}
			if err != nil {
				return err
			}
			fmt.Fprint(a.Out, out.YAML)
			return nil
		},
	}
}

func (a *app) readConfig(name string) ([]byte, error) {
	if name == "-" {
		raw, err := io.ReadAll(io.LimitReader(a.In, 8<<20))
		if err != nil {
			return nil, fmt.Errorf("import: %w", err)
		}
		return raw, nil
	}
	raw, err := os.ReadFile(a.abs(name))
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "import: %w", err)
	}
	return raw, nil
}
