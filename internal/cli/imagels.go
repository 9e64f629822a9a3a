package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/api"
)

// listedRow is an image as --format and the tables have it.
type listedRow struct {
	Repository, Digest, FullDigest, Tags, Age, Size, Scan, SignedBy, Stands, RunningIn string
	Pushed                                                                             time.Time
	Bytes                                                                              int64
}

var listedHeadings = map[string]string{
	"Repository": "REPOSITORY", "Digest": "DIGEST", "FullDigest": "DIGEST", "Tags": "TAGS", "Age": "AGE", "Size": "SIZE", "Scan": "SCAN",
	"SignedBy": "SIGNED BY", "Stands": "STANDS", "RunningIn": "RUNNING IN", "Pushed": "PUSHED", "Bytes": "BYTES",
}

func (a *app) imageList() *cobra.Command {
	var format string
	var quiet bool
	c := &cobra.Command{
		Use:   "ls [flags] [REPOSITORY]",
		Short: "Say where each image stands, what is wrong with it, and where it runs",
		Long: `Lists what lies in our registry, and what services run that lies elsewhere: each digest with its
tags, its age since the push, what its scan found (C critical, H high, M medium, L low), who signed
it, the steps of the pipeline that it stands at and since when, and the services that run it.
--json has its promotions, too, with their evidence.`,
		Example: `  tender image ls
  tender image ls shop/web
  tender image ls --format '{{.Repository}} {{.Tags}} {{.Stands}}'`,
		Args: args(0, 1, "one REPOSITORY at most"),
		RunE: func(c *cobra.Command, words []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			repository := ""
			if len(words) > 0 {
				repository = words[0]
			}
			all, err := d.ListImages(c.Context(), repository)
			if err != nil {
				return fmt.Errorf("list images: %w", err)
			}
			if a.json {
				return printJSON(a.Out, all)
			}
			var rows []listedRow
			for _, i := range all {
				rows = append(rows, listedRowOf(i, time.Now()))
			}
			switch {
			case quiet:
				for _, r := range rows {
					fmt.Fprintln(a.Out, r.FullDigest)
				}
				return nil
			case format != "":
				return listed(a.Out, format, "{{.Repository}}\t{{.Digest}}\t{{.Tags}}\t{{.Age}}\t{{.Size}}\t{{.Scan}}\t{{.SignedBy}}\t{{.Stands}}\t{{.RunningIn}}", listedHeadings, rows)
			case len(rows) == 0:
				a.note("no images: docker push to our registry, or tender image build --push, brings some")
				return nil
			}
			width := 200
			if isTerminal(a.Out) {
				width, _ = size(a.Out)
			}
			return printImages(a.Out, rows, width)
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print digests alone")
	c.Flags().StringVar(&format, "format", "", "table, json, or a `template` as for docker")
	return c
}

func listedRowOf(i api.ListedImage, now time.Time) listedRow {
	r := listedRow{
		Repository: i.Repository, Digest: orDash(shortID(i.Digest)), FullDigest: i.Digest, Tags: orDash(strings.Join(i.Tags, ", ")), Age: orDash(lasted(i.Pushed, now)),
		Size: "-", Scan: "-", SignedBy: orDash(strings.Join(i.Signers, ", ")), RunningIn: orDash(strings.Join(i.Running, ", ")), Pushed: i.Pushed, Bytes: i.Size,
	}
	if i.Signed && len(i.Signers) == 0 {
		r.SignedBy = "yes"
	}
	if i.Size > 0 {
		r.Size = units.HumanSizeWithPrecision(float64(i.Size), 3)
	}
	if i.Scan != nil {
		r.Scan = scanLetters(*i.Scan)
	}
	var stands []string
	for _, s := range i.Stands {
		if s.Unfinished {
			stands = append(stands, s.Step+" (unfinished)")
		} else {
			stands = append(stands, s.Step+" "+lasted(s.Since, now))
		}
	}
	r.Stands = orDash(strings.Join(stands, ", "))
	return r
}

// scanLetters is a scan in few letters: 2C 5H, or ok.
func scanLetters(s api.ScanVerdict) string {
	var parts []string
	for _, word := range []string{"critical", "high", "medium", "low"} {
		if n := s.Found[word]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d%s", n, strings.ToUpper(word[:1])))
		}
	}
	if len(parts) == 0 {
		return "ok"
	}
	return strings.Join(parts, " ")
}

// lasted is a time in few letters: 3d, 5h, 12m.
func lasted(t, now time.Time) string {
	switch d := max(now.Sub(t), 0); {
	case t.IsZero() || t.Year() < 1980: // reproducible builds have no day
		return ""
	case d >= 365*24*time.Hour:
		return fmt.Sprintf("%dy", d/(365*24*time.Hour))
	case d >= 24*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
}

// printImages gives each repository its own lines; where there is little room, where an
// image stands and runs has one below it.
func printImages(w io.Writer, rows []listedRow, width int) error {
	wide := width >= 120
	heading := []string{"  DIGEST", "TAGS", "AGE", "SIZE", "SCAN", "SIGNED BY"}
	most := []int{14, 24, 4, 8, 12, 14}
	if wide {
		heading = append(heading, "STANDS", "RUNNING IN")
		left := max(width-14-4-8-12-14-7*3-24, 36)
		most = append(most, left/2, left-left/2)
	} else {
		most[1], most[4], most[5] = 16, 10, 12
	}
	var cells [][]string
	for _, r := range rows {
		c := []string{"  " + r.Digest, r.Tags, r.Age, r.Size, r.Scan, r.SignedBy}
		if wide {
			c = append(c, r.Stands, r.RunningIn)
		}
		for i := range c {
			c[i] = clip(c[i], most[i])
		}
		cells = append(cells, c)
	}
	lines, err := aligned(heading, cells)
	if err != nil {
		return err
	}
	fmt.Fprintln(w, lines[0])
	for i, r := range rows {
		if i == 0 || rows[i-1].Repository != r.Repository {
			fmt.Fprintln(w, clip(r.Repository, width))
		}
		fmt.Fprintln(w, lines[i+1])
		if wide {
			continue
		}
		var parts []string
		if r.Stands != "-" {
			parts = append(parts, "at "+r.Stands)
		}
		if r.RunningIn != "-" {
			parts = append(parts, "runs in "+r.RunningIn)
		}
		if len(parts) > 0 {
			fmt.Fprintln(w, clip("    → "+strings.Join(parts, "; "), width))
		}
	}
	return nil
}

// aligned are the lines of a table, the heading first.
func aligned(heading []string, rows [][]string) ([]string, error) {
	var b strings.Builder
	if err := table(&b, heading, rows); err != nil {
		return nil, err
	}
	lines := slices.Collect(strings.Lines(b.String()))
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " \n")
	}
	return lines, nil
}
