package scan

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/tenderhq/tender"
)

// End of life of distributions: the last day on which fixes of security are made for
// everybody, so with Debian's LTS and without what is paid for. As of 2026-11.
//
// https://wiki.debian.org/LTS, https://wiki.ubuntu.com/Releases, https://alpinelinux.org/releases/,
// https://access.redhat.com/support/policy/updates/errata, https://www.centos.org/centos-linux-eol/,
// https://wiki.rockylinux.org/rocky/version/, https://docs.fedoraproject.org/en-US/releases/eol/,
// https://aws.amazon.com/amazon-linux-2/faqs/
var ends = map[string]string{
	"debian:7": "2018-05-31", "debian:8": "2020-06-30", "debian:9": "2022-06-30", "debian:10": "2024-06-30",
	"debian:11": "2026-08-31", "debian:12": "2028-06-30", "debian:13": "2030-06-30",

	"ubuntu:14.04": "2019-04-30", "ubuntu:16.04": "2021-04-30", "ubuntu:18.04": "2023-06-30", "ubuntu:20.04": "2025-05-31",
	"ubuntu:22.04": "2027-06-30", "ubuntu:24.04": "2029-06-30",
	"ubuntu:22.10": "2023-07-20", "ubuntu:23.04": "2024-01-25", "ubuntu:23.10": "2024-07-11", "ubuntu:24.10": "2025-07-10", "ubuntu:25.04": "2026-01-31",

	"alpine:3.5": "2018-11-01", "alpine:3.6": "2019-05-01", "alpine:3.7": "2019-11-01", "alpine:3.8": "2020-05-01", "alpine:3.9": "2020-11-01",
	"alpine:3.10": "2021-05-01", "alpine:3.11": "2021-11-01", "alpine:3.12": "2022-05-01", "alpine:3.13": "2022-11-01", "alpine:3.14": "2023-05-01",
	"alpine:3.15": "2023-11-01", "alpine:3.16": "2024-05-23", "alpine:3.17": "2024-11-22", "alpine:3.18": "2025-05-09", "alpine:3.19": "2025-11-01",
	"alpine:3.20": "2026-04-01", "alpine:3.21": "2026-11-01", "alpine:3.22": "2027-05-01", "alpine:3.23": "2027-11-01",

	"rhel:6": "2020-11-30", "rhel:7": "2024-06-30", "rhel:8": "2029-05-31", "rhel:9": "2032-05-31", "rhel:10": "2035-05-31",
	"centos:6": "2020-11-30", "centos:7": "2024-06-30", "centos:8": "2024-05-31", "centos:9": "2027-05-31",
	"rocky:8": "2029-05-31", "rocky:9": "2032-05-31", "rocky:10": "2035-05-31",
	"almalinux:8": "2029-05-31", "almalinux:9": "2032-05-31", "almalinux:10": "2035-05-31",
	"fedora:37": "2023-12-05", "fedora:38": "2024-05-21", "fedora:39": "2024-11-26", "fedora:40": "2025-05-13",
	"amzn:2018.03": "2023-12-31", "amzn:2": "2026-06-30",
}

// End is the last day of support of a distribution; false: it is not known.
func (d Distro) End() (time.Time, bool) {
	v := d.Version
	switch d.ID {
	case "ubuntu", "amzn":
	case "alpine":
		if f := strings.SplitN(v, ".", 3); len(f) == 3 {
			v = f[0] + "." + f[1]
		}
	default:
		v, _, _ = strings.Cut(v, ".")
	}
	day, err := time.Parse(time.DateOnly, ends[d.ID+":"+v])
	return day, err == nil
}

const maxListed = 50 // files of one rule

// setup looks at how an image is made.
func (r *reading) setup(img image, seen map[string]alive, d Distro) []tender.Finding {
	var out []tender.Finding
	add := func(rule string, s tender.Severity, title string) {
		out = append(out, tender.Finding{Kind: tender.Setup, ID: "setup/" + rule, Severity: s, Title: title, Layer: -1})
	}
	c := img.config.Config
	if user, _, _ := strings.Cut(c.User, ":"); user == "" || user == "root" || user == "0" {
		add("root-user", tender.Medium, "It runs as root. Add USER with a number to the Dockerfile, or user: to the service.")
	}
	if h := c.Healthcheck; h == nil || len(h.Test) == 0 || h.Test[0] == "NONE" {
		add("no-healthcheck", tender.Low, "It has no health check. Add HEALTHCHECK to the Dockerfile, or healthcheck: to the service.")
	}
	for _, port := range sortedNames(c.ExposedPorts) {
		if port == "22" || port == "22/tcp" {
			add("ssh-port", tender.Medium, "It exposes port 22. Leave the SSH server out: tender exec opens a shell.")
		}
	}
	if end, ok := d.End(); ok {
		name := d.Name
		if name == "" {
			name = d.ID + " " + d.Version
		}
		switch left := end.Sub(r.limits.Now); {
		case left < -24*time.Hour:
			add("end-of-life", tender.High, fmt.Sprintf("%s has had no fixes since %s. Build on a newer release.", name, end.Format(time.DateOnly)))
		case left < 90*24*time.Hour:
			add("end-of-life", tender.Low, fmt.Sprintf("%s gets its last fixes on %s. Plan to build on a newer release.", name, end.Format(time.DateOnly)))
		}
	}
	for i, by := range layerSteps(&img.config) {
		if fetched := addOfURL(by); fetched != "" {
			f := tender.Finding{
				Kind: tender.Setup, ID: "setup/add-url", Severity: tender.Low, Layer: i,
				Title: fmt.Sprintf("ADD fetches %s without comparing it. Use ADD --checksum=, or curl and sha256sum.", short(fetched)),
			}
			out = append(out, f)
		}
	}
	return append(out, modes(img, seen)...)
}

// layerSteps are the steps that made a layer, as they stand in the history.
func layerSteps(c *config) (out []string) {
	for _, h := range c.History {
		if !h.EmptyLayer {
			out = append(out, step(h.CreatedBy))
		}
	}
	return out
}

func addOfURL(step string) string {
	args, ok := strings.CutPrefix(step, "ADD ")
	if !ok || strings.Contains(args, "--checksum=") {
		return ""
	}
	for _, a := range strings.Fields(args) {
		if strings.HasPrefix(a, "http://") || strings.HasPrefix(a, "https://") {
			return withoutUser(a)
		}
	}
	return ""
}

// modes lists files that run as another than who starts them, and those in the PATH
// that anybody may change.
func modes(img image, seen map[string]alive) []tender.Finding {
	search := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, e := range img.config.Config.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	dirs := map[string]bool{}
	for _, d := range strings.Split(search, ":") {
		dirs[usr(inside(d))] = true
	}
	var out []tender.Finding
	listed := map[string]int{}
	add := func(rule string, s tender.Severity, p string, layer int, title string) {
		if listed[rule]++; listed[rule] <= maxListed {
			out = append(out, tender.Finding{Kind: tender.Setup, ID: "setup/" + rule, Severity: s, Path: p, Layer: layer, Title: title})
		}
	}
	for _, p := range sortedNames(seen) {
		a := seen[p]
		if a.mode == 0 {
			continue
		}
		own := slices.ContainsFunc(img.layers, func(l *layer) bool { return has(l.owned, hashOf(usr(p))) })
		switch {
		case a.mode&0o6000 != 0 && !a.dir && basic[path.Base(p)] && dirs[usr(path.Dir(p))]:
			add("setuid", tender.Negligible, p, a.layer, fmt.Sprintf("It runs %s, as in every distribution. chmod a-s takes that away if nobody needs it.", whose(a)))
		case a.mode&0o6000 != 0 && !a.dir && own:
			add("setuid", tender.Low, p, a.layer, fmt.Sprintf("It runs %s, as its package wants it. chmod a-s takes that away if nobody needs it.", whose(a)))
		case a.mode&0o4000 != 0 && !a.dir:
			s := tender.Low
			if a.uid == 0 {
				s = tender.Medium
			}
			add("setuid", s, p, a.layer, fmt.Sprintf("It runs %s, and belongs to no package. Take that away with chmod a-s.", whose(a)))
		case a.mode&0o2000 != 0 && !a.dir && a.mode&0o010 != 0:
			add("setuid", tender.Low, p, a.layer, fmt.Sprintf("It runs %s, and belongs to no package. Take that away with chmod a-s.", whose(a)))
		}
		if a.mode&0o002 != 0 && (a.dir && dirs[usr(p)] || !a.dir && dirs[usr(path.Dir(p))]) {
			add("writable-path", tender.Medium, p, a.layer, "It is in the PATH, and anybody may change it. Take that away with chmod o-w.")
		}
	}
	for _, rule := range sortedNames(listed) {
		if n := listed[rule] - maxListed; n > 0 {
			out = append(out, tender.Finding{Kind: tender.Setup, ID: "setup/" + rule, Severity: tender.Low, Layer: -1, Title: fmt.Sprintf("And %d more such files.", n)})
		}
	}
	return out
}

// basic are the programs of that kind that a distribution brings without being asked.
var basic = map[string]bool{
	"su": true, "mount": true, "umount": true, "passwd": true, "gpasswd": true, "chsh": true, "chfn": true, "newgrp": true, "chage": true, "expiry": true,
	"unix_chkpwd": true, "unix_update": true, "pam_timestamp_check": true, "wall": true, "write": true, "write.ul": true, "bbsuid": true,
	"ping": true, "ping6": true, "utempter": true, "newuidmap": true, "newgidmap": true, "ssh-agent": true, "crontab": true,
}

func whose(a alive) string {
	switch {
	case a.mode&0o4000 != 0 && a.uid == 0:
		return "as root (setuid)"
	case a.mode&0o4000 != 0:
		return fmt.Sprintf("as user %d (setuid)", a.uid)
	}
	return "with its group (setgid)"
}
