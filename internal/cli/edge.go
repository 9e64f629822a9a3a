package cli

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/edge"
)

func (a *app) edgeCommand() *cobra.Command {
	var said edge.Config
	var trusted []string
	var roots, logFile string
	c := &cobra.Command{
		Use:   "edge [flags]",
		Short: "Run the data plane: proxy and DNS",
		Long: `Runs the edge: it serves the routes and ports of all projects, and the names of their
services. tender serve starts it, or systemd does (tender-edge.service), and tells it
what to serve over a unix socket; it keeps the last table on disk and goes on by that
when serve is away.

Settings come from ` + edge.SettingsFile + ` in --dir, which tender serve writes; flags win over it.

An edge that starts while another one serves takes its sockets over: that one drains
and ends, and no connection is lost. SIGHUP starts the binary that is installed now in
this way. SIGTERM ends it: what is under way has ` + (30 * time.Second).String() + `.`,
		Example: `  tender edge --http :80 --https :443
  systemctl reload tender-edge      hand over to the installed version`,
		Args: args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := edge.Load(said.Dir)
			if err != nil {
				return fmt.Errorf("edge: %w", err)
			}
			cfg.Socket, cfg.Version = said.Socket, a.Version
			for flag, take := range map[string]func(){
				"http":           func() { cfg.HTTP = addresses(said.HTTP) },
				"https":          func() { cfg.HTTPS = addresses(said.HTTPS) },
				"dns":            func() { cfg.DNS = addresses(said.DNS) },
				"drain":          func() { cfg.Drain = said.Drain },
				"acme-email":     func() { cfg.ACME.Email = said.ACME.Email },
				"acme-directory": func() { cfg.ACME.Directory = said.ACME.Directory },
			} {
				if c.Flags().Changed(flag) {
					take()
				}
			}
			if roots != "" {
				if cfg.ACME.Roots, err = os.ReadFile(roots); err != nil {
					return misuse("name a file with certificates in PEM", "--acme-roots: %v", err)
				}
			}
			if c.Flags().Changed("trusted") {
				if cfg.Trusted, err = prefixes(trusted); err != nil {
					return err
				}
			}
			var out io.Writer = a.Err
			if logFile != "" {
				if out, err = edge.OpenLog(logFile); err != nil {
					return fmt.Errorf("edge: %w", err)
				}
			}
			cfg.Log = slog.New(slog.NewTextHandler(out, nil))
			defer a.succeed(cfg.Log)()
			defer resting(c.Context())()
			if err := edge.Run(c.Context(), cfg); err != nil {
				return fmt.Errorf("edge: %w", err)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&said.Dir, "dir", edge.DefaultDir, "`directory` of the table, certificates and the own authority (ca.pem)")
	f.StringVar(&said.Socket, "socket", edge.DefaultSocket, "`path` of the socket that serve speaks to")
	f.StringSliceVar(&said.HTTP, "http", nil, "`address` to serve HTTP on, such as :80; several with commas, \"\" for none")
	f.StringSliceVar(&said.HTTPS, "https", nil, "`address` to serve HTTPS on, such as :443")
	f.StringSliceVar(&said.DNS, "dns", nil, "`address` to answer DNS on, such as 127.0.0.1:5353")
	f.DurationVar(&said.Drain, "drain", edge.DefaultDrain, "how long what is under way may go on after a hand-over")
	f.StringVar(&said.ACME.Email, "acme-email", "", "`address` that the certificate authority writes to")
	f.StringVar(&said.ACME.Directory, "acme-directory", "", "`URL` of the authority's ACME directory (default Let's Encrypt)")
	f.StringVar(&roots, "acme-roots", "", "`file` with the roots of that directory, where they are its own")
	f.StringSliceVar(&trusted, "trusted", nil, "`networks` of proxies in front whose X-Forwarded-For and PROXY headers are believed")
	f.StringVar(&logFile, "log", "", "write the log to a `file` of bounded size instead of stderr")
	return c
}

// addresses leaves out empty ones, so that "" is none.
func addresses(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(a string) bool { return strings.TrimSpace(a) == "" })
}

func prefixes(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range addresses(list) {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			one, errOne := netip.ParseAddr(text)
			if errOne != nil {
				return nil, misuse("give networks such as 10.0.0.0/8", "--trusted %s: %v", text, err)
			}
			p = netip.PrefixFrom(one, one.BitLen())
		}
		out = append(out, p)
	}
	return out, nil
}

// succeed hands over to the installed binary at each SIGHUP, until what it
// returns is called.
func (a *app) succeed(log *slog.Logger) (stop func()) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var next <-chan error
		for {
			select {
			case <-done:
				return
			case err := <-next:
				next = nil
				if err != nil {
					log.Error("the next edge did not take over", "err", err)
				}
			case <-hup:
				if next != nil {
					continue
				}
				var err error
				if next, err = edge.Succeed(os.Args[1:]); err != nil {
					log.Error("hand over", "err", err, "hint", tender.AdviceOf(err))
				}
			}
		}
	}()
	return func() {
		signal.Stop(hup)
		close(done)
		<-ended
	}
}
