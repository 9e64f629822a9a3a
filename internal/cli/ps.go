package cli

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

// psRow is one instance with Docker's field names.
type psRow struct {
	ID         string
	Name       string
	Names      string
	Project    string
	Service    string
	Revision   string
	Slot       int
	Image      string
	Command    string
	CreatedAt  string
	RunningFor string
	State      string
	Health     string
	Status     string
	ExitCode   int
	Restarts   int
	Ports      string
	Publishers []publisher
	Networks   string
	Drift      string
}

// publisher is a published port, as docker compose ps --format json has it.
type publisher struct {
	URL           string
	TargetPort    int
	PublishedPort int
	Protocol      string
}

var psHeadings = map[string]string{
	"ID": "CONTAINER ID", "Name": "NAME", "Names": "NAMES", "Project": "PROJECT", "Service": "SERVICE", "Revision": "REVISION", "Slot": "SLOT",
	"Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT", "RunningFor": "CREATED", "State": "STATE", "Health": "HEALTH",
	"Status": "STATUS", "ExitCode": "EXIT CODE", "Restarts": "RESTARTS", "Ports": "PORTS", "Publishers": "PUBLISHERS", "Networks": "NETWORKS", "Drift": "DRIFT",
}

// dockerTime is how docker prints a moment.
const dockerTime = "2006-01-02 15:04:05 -0700 MST"

const psTable = "{{.Name}}\t{{.Service}}\t{{.Revision}}\t{{.Image}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}"

func newPsRow(i api.Instance, now time.Time) psRow {
	status := i.Status
	if i.Drift != "" {
		status += ", drifted: " + i.Drift
	}
	if i.Foreign {
		status += ", by docker compose"
	}
	publishers := []publisher{}
	for _, p := range i.Ports {
		publishers = append(publishers, publisher{p.HostIP, p.Container, p.HostPort, p.Protocol})
	}
	return psRow{
		ID: shortID(i.ID), Name: i.Name, Names: i.Name, Project: i.Project, Service: i.Service, Revision: orDash(i.Revision), Slot: i.Slot,
		Image: i.Image, Command: fmt.Sprintf("%q", clip(i.Command, 20)), CreatedAt: i.Created.Local().Format(dockerTime), RunningFor: ago(i.Created, now),
		State: i.State, Health: i.Health, Status: status, ExitCode: i.ExitCode, Restarts: i.Restarts, Ports: portsOf(i.Ports), Publishers: publishers,
		Networks: strings.Join(sortedKeys(i.Addresses), ","), Drift: i.Drift,
	}
}

func (a *app) psCommand() *cobra.Command {
	var all, quiet, names, noTrunc bool
	var format string
	var filters, states []string
	c := &cobra.Command{
		Use:   "ps [flags] [SERVICE...]",
		Short: "List the instances of a project",
		Example: `  tender ps -a
  tender ps --format 'table {{.Name}}\t{{.Revision}}\t{{.Status}}'
  tender ps --status exited -q`,
		ValidArgsFunction: a.services,
		RunE: func(c *cobra.Command, services []string) error {
			states := slices.Clone(states)
			for _, f := range filters {
				k, v, ok := strings.Cut(f, "=")
				if !ok || k != "status" && k != "service" {
					return misuse("keep what `matches`: status=STATE or service=NAME", "--filter %q is not known", f)
				}
				if k == "service" {
					services = append(services, v)
				} else {
					states = append(states, v)
				}
			}
			known := []string{"created", "running", "paused", "restarting", "exited", "removing", "dead"}
			for _, s := range states {
				if !slices.Contains(known, s) {
					return misuse("one of "+strings.Join(known, ", "), "--status %q is not known", s)
				}
			}
			found, err := a.instances(c.Context(), services, all || len(states) > 0)
			if err != nil {
				return err
			}
			if len(states) > 0 {
				found = slices.DeleteFunc(found, func(i api.Instance) bool { return !slices.Contains(states, i.State) })
			}
			switch {
			case quiet:
				for _, i := range found {
					fmt.Fprintln(a.Out, i.ID)
				}
				return nil
			case names:
				var seen []string
				for _, i := range found {
					seen = append(seen, i.Service)
				}
				slices.Sort(seen)
				for _, s := range slices.Compact(seen) {
					fmt.Fprintln(a.Out, s)
				}
				return nil
			case a.json:
				return printJSON(a.Out, found)
			}
			now := time.Now()
			var rows []psRow
			for _, i := range found {
				r := newPsRow(i, now)
				if noTrunc {
					r.ID, r.Command = i.ID, fmt.Sprintf("%q", i.Command)
				}
				rows = append(rows, r)
			}
			if err := formatted(a.Out, format, psTable, psHeadings, rows); err != nil || format != "" {
				return err
			}
			return a.noteScales(c.Context(), services)
		},
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "stopped and one-off instances, too")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print ids alone")
	c.Flags().BoolVar(&names, "services", false, "print the names of services alone")
	c.Flags().BoolVar(&noTrunc, "no-trunc", false, "do not cut ids and commands")
	c.Flags().StringVar(&format, "format", "", "table, json, or a `template` as for docker")
	c.Flags().StringArrayVar(&filters, "filter", nil, "keep what `matches`: status=STATE or service=NAME")
	c.Flags().StringArrayVar(&states, "status", nil, "keep what is in this `state`: running, exited, paused, restarting, created, dead")
	a.inFile(c)
	return c
}

// noteScales says below a list of instances why there are as many as there are,
// where that follows what is measured.
func (a *app) noteScales(ctx context.Context, services []string) error {
	project, d, err := a.at(ctx)
	if err != nil {
		return err
	}
	p, err := d.Project(ctx, project)
	if tender.KindOf(err) == tender.NotFound {
		return nil // gone meanwhile
	}
	if err != nil {
		return fmt.Errorf("%s: %w", project, err)
	}
	for _, v := range p.Services {
		if v.Scale != nil && (len(services) == 0 || slices.Contains(services, v.Name)) {
			v.Detail = ""
			a.note("%s scales: %s", v.Name, scaledDetail(v))
		}
	}
	return nil
}

// instances asks for the instances of the project and services a command is about.
func (a *app) instances(ctx context.Context, services []string, all bool) ([]api.Instance, error) {
	project, err := a.name(ctx)
	if err != nil {
		return nil, err
	}
	d, err := a.client()
	if err != nil {
		return nil, err
	}
	found, err := d.Instances(ctx, project, true)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", project, err)
	}
	if found, err = pick(found, services); err != nil {
		return nil, err
	}
	if !all {
		found = slices.DeleteFunc(found, func(i api.Instance) bool {
			return i.Oneoff || i.State == "exited" || i.State == "created" || i.State == "dead"
		})
	}
	return found, nil
}

// portsOf prints ports as docker does.
func portsOf(ports []api.Port) string {
	var out []string
	for _, p := range ports {
		if p.HostPort == 0 {
			out = append(out, fmt.Sprintf("%d/%s", p.Container, p.Protocol))
			continue
		}
		out = append(out, fmt.Sprintf("%s->%d/%s", net.JoinHostPort(p.HostIP, fmt.Sprint(p.HostPort)), p.Container, p.Protocol))
	}
	return strings.Join(out, ", ")
}

func (a *app) portCommand() *cobra.Command {
	var index int
	var protocol string
	c := &cobra.Command{
		Use:               "port [flags] SERVICE PORT",
		Short:             "Print where a port of a service is published",
		Example:           "  tender port web 8080\n  tender port --index 2 web 8080",
		Args:              args(2, 2, "SERVICE and PORT"),
		ValidArgsFunction: a.services,
		RunE: func(c *cobra.Command, words []string) error {
			number, proto, ok := strings.Cut(words[1], "/")
			if !ok {
				proto = protocol
			}
			var port int
			if _, err := fmt.Sscanf(number, "%d", &port); err != nil || fmt.Sprint(port) != number {
				return misuse("tender port "+words[0]+" 8080", "%q is no port", words[1])
			}
			found, err := a.instances(c.Context(), words[:1], false)
			if err != nil {
				return err
			}
			for _, i := range found {
				if i.Oneoff || index > 0 && i.Slot != index {
					continue
				}
				hit := false
				for _, p := range i.Ports {
					if p.Container == port && p.Protocol == proto && p.HostPort != 0 {
						fmt.Fprintln(a.Out, net.JoinHostPort(p.HostIP, fmt.Sprint(p.HostPort)))
						hit = true
					}
				}
				if hit {
					return nil
				}
			}
			return errNoPort(words[0], port, proto, found)
		},
	}
	c.Flags().IntVar(&index, "index", 0, "`slot` of the instance (default: the first that publishes it)")
	c.Flags().StringVar(&protocol, "protocol", "tcp", "`protocol`: tcp or udp")
	a.inFile(c)
	return c
}

func (a *app) imagesCommand() *cobra.Command {
	var quiet bool
	var format string
	c := &cobra.Command{
		Use:               "images [flags] [SERVICE...]",
		Short:             "List the images that instances were made from",
		ValidArgsFunction: a.services,
		RunE: func(c *cobra.Command, services []string) error {
			found, err := a.instances(c.Context(), services, true)
			if err != nil {
				return err
			}
			about, err := a.describe(c.Context(), found)
			if err != nil {
				return err
			}
			now := time.Now()
			var rows []imageRow
			for _, i := range found {
				repository, tag := splitReference(i.Image)
				of := about[i.ImageID]
				size := ""
				if of.ID != "" {
					size = units.HumanSizeWithPrecision(float64(of.Size), 3)
				}
				rows = append(rows, imageRow{
					ID: shortID(i.ImageID), FullID: i.ImageID, ContainerName: i.Name, Service: i.Service, Revision: orDash(i.Revision),
					Repository: repository, Tag: tag, Platform: of.Platform, Size: size, Bytes: of.Size,
					Created: ago(of.Created, now), CreatedAt: of.Created,
				})
			}
			if quiet {
				var seen []string
				for _, r := range rows {
					if !slices.Contains(seen, r.FullID) {
						seen = append(seen, r.FullID)
						fmt.Fprintln(a.Out, strings.TrimPrefix(r.FullID, "sha256:"))
					}
				}
				return nil
			}
			if a.json {
				return printJSON(a.Out, rows)
			}
			return listed(a.Out, format, "{{.ContainerName}}\t{{.Repository}}\t{{.Tag}}\t{{.Platform}}\t{{.ID}}\t{{.Size}}\t{{.Created}}\t{{.Revision}}", imageHeadings, rows)
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print ids alone")
	c.Flags().StringVar(&format, "format", "", "table, json, or a `template` as for docker")
	a.inFile(c)
	return c
}

type imageRow struct {
	ID            string `json:"-"`
	FullID        string `json:"ID"`
	ContainerName string
	Service       string
	Revision      string
	Repository    string
	Tag           string
	Platform      string
	Size          string    `json:"-"`
	Bytes         int64     `json:"Size"`
	Created       string    `json:"-"`
	CreatedAt     time.Time `json:"Created,omitzero"`
}

var imageHeadings = map[string]string{
	"ID": "IMAGE ID", "FullID": "IMAGE ID", "ContainerName": "CONTAINER", "Service": "SERVICE", "Revision": "REVISION",
	"Repository": "REPOSITORY", "Tag": "TAG", "Platform": "PLATFORM", "Size": "SIZE", "Bytes": "SIZE", "Created": "CREATED", "CreatedAt": "CREATED AT",
}

// describe asks for the images of instances, by id. One that is not there any
// more is left out.
func (a *app) describe(ctx context.Context, of []api.Instance) (map[string]api.Image, error) {
	d, err := a.client()
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, i := range of {
		if !slices.Contains(ids, i.ImageID) {
			ids = append(ids, i.ImageID)
		}
	}
	about := map[string]api.Image{}
	if len(ids) == 0 {
		return about, nil
	}
	images, err := d.Images(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("describe images: %w", err)
	}
	for _, i := range images {
		about[i.Reference] = i
	}
	return about, nil
}

// splitReference parts a reference into repository and tag; a digest stands for a tag.
func splitReference(ref string) (repository, tag string) {
	if name, digest, ok := strings.Cut(ref, "@"); ok {
		return name, digest
	}
	// A colon before the last slash is that of a registry's port.
	if i := strings.LastIndex(ref, ":"); i > strings.LastIndex(ref, "/") {
		return ref[:i], ref[i+1:]
	}
	return ref, "latest"
}
