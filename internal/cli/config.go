package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/compose"
	"github.com/tenderhq/tender/internal/daemon"
)

type configFlags struct {
	services, images, volumes, networks, profiles, quiet, schema bool
	hash, format, output                                         string
}

func (a *app) configCommand() *cobra.Command {
	var f configFlags
	c := &cobra.Command{
		Use:   "config [flags] [SERVICE...]",
		Short: "Check the Compose file and print what it comes to",
		Long: `Loads the Compose file as up does, with variables, includes and profiles resolved, and
prints the result as one Compose file. Values of secrets are not part of it. No daemon
is needed.`,
		Example: `  tender config -q && echo fine
  tender config --images
  tender config --schema > compose-tender.json      for your editor`,
		ValidArgsFunction: a.fileServices,
		RunE:              func(c *cobra.Command, services []string) error { return a.config(c.Context(), f, services) },
	}
	s := c.Flags()
	s.BoolVar(&f.services, "services", false, "print the names of services alone")
	s.BoolVar(&f.images, "images", false, "print image references alone")
	s.BoolVar(&f.volumes, "volumes", false, "print the names of volumes alone")
	s.BoolVar(&f.networks, "networks", false, "print the names of networks alone")
	s.BoolVar(&f.profiles, "profiles", false, "print the names of profiles alone")
	s.BoolVar(&f.schema, "schema", false, "print the JSON schema of Compose files with x-tender in it")
	s.StringVar(&f.hash, "hash", "", "print the hash that Docker Compose keeps on instances, of `services` a,b or '*'")
	s.StringVar(&f.format, "format", "yaml", "`format`: yaml or json")
	s.BoolVarP(&f.quiet, "quiet", "q", false, "print nothing: only check")
	s.StringVarP(&f.output, "output", "o", "", "write to this `file`")
	a.inFile(c)
	return c
}

func (a *app) config(ctx context.Context, f configFlags, services []string) error {
	if f.format != "yaml" && f.format != "json" {
		return misuse("yaml or json", "--format %q is not known", f.format)
	}
	if f.schema {
		b, err := compose.Schema()
		if err != nil {
			return err
		}
		_, err = a.Out.Write(b)
		return err
	}
	doc, err := a.load(ctx, services)
	if err != nil {
		return err
	}
	p, err := compose.Parse([]byte(doc.YAML))
	if err != nil {
		return err
	}
	if len(services) > 0 {
		in, err := need(p, services, false)
		if err != nil {
			return err
		}
		p.Services = slices.DeleteFunc(p.Services, func(s tender.Service) bool { return !in[s.Name] })
		if doc.YAML, err = onlyServices(doc.YAML, in); err != nil {
			return err
		}
	}
	shape, err := readForm(doc.YAML)
	if err != nil {
		return err
	}
	out := a.Out
	if f.output != "" {
		file, err := os.Create(a.abs(f.output))
		if err != nil {
			return fmt.Errorf("config: %w", err)
		}
		defer file.Close()
		out = file
	}
	var names []string
	switch {
	case f.quiet:
		return nil
	case f.hash != "":
		return hashes(out, p, f.hash)
	case f.services:
		for _, s := range p.Services {
			names = append(names, s.Name)
		}
	case f.images:
		for _, s := range p.Services {
			names = append(names, s.Image)
		}
	case f.volumes:
		names = sortedKeys(shape.Volumes)
	case f.networks:
		names = sortedKeys(shape.Networks)
	case f.profiles:
		names = doc.Profiles
	case f.format == "json" || a.json:
		var v any
		if doc.YAML, err = readable(doc.YAML, doc.Files); err != nil {
			return err
		}
		if err := yaml.Unmarshal([]byte(doc.YAML), &v); err != nil {
			return fmt.Errorf("read the normal form: %w", err)
		}
		return printJSON(out, v)
	default:
		text, err := readable(doc.YAML, doc.Files)
		if err != nil {
			return err
		}
		_, err = io.WriteString(out, text)
		return err
	}
	if a.json {
		return printJSON(out, names)
	}
	for _, n := range names {
		fmt.Fprintln(out, n)
	}
	return nil
}

// hashes prints, per service, what docker compose config --hash prints: that of
// the label com.docker.compose.config-hash.
func hashes(out io.Writer, p tender.Project, which string) error {
	asked := strings.Split(which, ",")
	if which != "*" {
		if _, err := need(p, asked, true); err != nil {
			return err
		}
	}
	for _, s := range p.Services {
		if which != "*" && !slices.Contains(asked, s.Name) {
			continue
		}
		sum, err := daemon.ConfigHash(s)
		if err != nil {
			return fmt.Errorf("hash of %s: %w", s.Name, err)
		}
		fmt.Fprintln(out, s.Name, sum)
	}
	return nil
}
