package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/engine"
)

const (
	okay    = "ok"
	warning = "warning"
	failed  = "failed"
)

// Disk thresholds: share of free space under which doctor warns, and fails.
const (
	fewFree    = 0.10
	hardlyFree = 0.03
)

// doctor looks at the host and says how to mend what it finds.
type doctor struct {
	config Config
	engine engine.Reader
	now    func() time.Time
}

func (d doctor) checks(ctx context.Context) []api.Check {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	info, err := d.engine.Info(ctx)
	out := []api.Check{engineCheck(d.config.Engine, info, err)}
	if err == nil {
		out = append(out, apiCheck(info), cgroupCheck(info), logCheck(info), diskCheck("engine disk", info.Root))
		for _, w := range info.Warnings {
			out = append(out, api.Check{Name: "engine warning", Result: warning, Text: strings.TrimPrefix(w, "WARNING: ")})
		}
	}
	out = append(
		out,
		diskCheck("data disk", d.config.DataDir),
		tmpfsCheck(d.config.RunDir),
		keyCheck(d.config.Key),
		recoveryCheck(recoveryFile(d.config)),
		clockCheck(d.now(), d.config.DataDir),
		kernelCheck("bridge networks", "/proc/sys/net/bridge", "modprobe br_netfilter"),
		forwardCheck(),
		portCheck(d.config.Listen),
	)
	return out
}

func engineCheck(host string, info engine.Info, err error) api.Check {
	if err != nil {
		return api.Check{
			Name: "engine", Result: failed, Text: fmt.Sprintf("%s does not answer: %v", host, err),
			Fix: "start it (systemctl start docker), or name another: tender serve --engine unix:///path/docker.sock",
		}
	}
	return api.Check{Name: "engine", Result: okay, Text: fmt.Sprintf("%s %s at %s, kernel %s", info.Name, info.Version, info.Host, info.Kernel)}
}

func apiCheck(info engine.Info) api.Check {
	major, minor, _ := strings.Cut(info.API, ".")
	m, err := strconv.Atoi(minor)
	if err != nil || major != "1" || m < 41 {
		return api.Check{
			Name: "engine API", Result: failed, Text: fmt.Sprintf("%s, and Tender needs 1.41", info.API),
			Fix: "install Docker Engine 20.10 or later",
		}
	}
	return api.Check{Name: "engine API", Result: okay, Text: info.API}
}

func cgroupCheck(info engine.Info) api.Check {
	c := api.Check{Name: "cgroups", Result: okay, Text: "version " + info.CgroupVersion}
	raw, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		return api.Check{Name: "cgroups", Result: warning, Text: err.Error()}
	}
	have := string(raw)
	for _, need := range []string{"memory", "cpu", "pids"} {
		if info.CgroupVersion == "1" && !strings.Contains(have, need+"\t") {
			return api.Check{
				Name: "cgroups", Result: warning, Text: "no " + need + " controller: limits on it will not hold",
				Fix: "boot with cgroup_enable=" + need,
			}
		}
	}
	return c
}

func logCheck(info engine.Info) api.Check {
	switch info.LoggingDriver {
	case "json-file":
		return api.Check{Name: "container logs", Result: okay, Text: "json-file, bounded by Tender to 3 files of 10 MB unless the Compose file says otherwise"}
	case "local", "journald":
		return api.Check{Name: "container logs", Result: okay, Text: info.LoggingDriver}
	}
	return api.Check{
		Name: "container logs", Result: warning, Text: info.LoggingDriver + ": tender logs cannot read these",
		Fix: `set "log-driver": "json-file" in /etc/docker/daemon.json`,
	}
}

func diskCheck(name, dir string) api.Check {
	var s unix.Statfs_t
	at := dir
	err := unix.Statfs(at, &s)
	for errors.Is(err, fs.ErrNotExist) && at != "/" { // not made yet: its parent's disk
		at = filepath.Dir(at)
		err = unix.Statfs(at, &s)
	}
	if err != nil {
		return api.Check{Name: name, Result: warning, Text: fmt.Sprintf("%s: %v", dir, err)}
	}
	free, files := float64(s.Bavail)/float64(max(s.Blocks, 1)), 1.0
	if s.Files > 0 {
		files = float64(s.Ffree) / float64(s.Files)
	}
	c := api.Check{Name: name, Result: okay, Text: fmt.Sprintf("%s: %.0f GiB free (%.0f %%)", dir, float64(s.Bavail)*float64(s.Bsize)/(1<<30), 100*free)}
	if least := min(free, files); least < fewFree {
		c.Result, c.Fix = warning, "make room: docker system df shows what takes it"
		if least < hardlyFree {
			c.Result = failed
		}
		if files < free {
			c.Text = fmt.Sprintf("%s: %.0f %% of its inodes are free", dir, 100*files)
		}
	}
	return c
}

func tmpfsCheck(dir string) api.Check {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return api.Check{Name: "run directory", Result: failed, Text: fmt.Sprintf("%s: %v", dir, err), Fix: "mkdir -p " + dir}
	}
	if s.Type != unix.TMPFS_MAGIC && s.Type != unix.RAMFS_MAGIC {
		return api.Check{
			Name: "run directory", Result: warning, Text: dir + " is on a disk: unsealed secrets would outlive a power cut there",
			Fix: "choose one on a tmpfs: tender serve --run-dir /run/tender",
		}
	}
	return api.Check{Name: "run directory", Result: okay, Text: dir + " is on a tmpfs"}
}

func keyCheck(file string) api.Check {
	st, err := os.Stat(file)
	switch {
	case err != nil:
		return api.Check{Name: "vault key", Result: failed, Text: err.Error(), Fix: "put it back from where you keep its copy, or name it: tender serve --vault-key FILE"}
	case st.Mode().Perm()&0o077 != 0:
		return api.Check{Name: "vault key", Result: warning, Text: file + " can be read by others", Fix: "chmod 600 " + file}
	}
	return api.Check{Name: "vault key", Result: okay, Text: file}
}

func recoveryCheck(file string) api.Check {
	if _, err := os.Stat(file); err != nil {
		return api.Check{Name: "recovery key", Result: okay, Text: "is not on this host"}
	}
	return api.Check{
		Name: "recovery key", Result: warning, Text: file + " lies beside the key that it is to replace one day",
		Fix: "move it to where you keep such things, off this host",
	}
}

// clockCheck finds a clock that was set back: files of ours must not lie in the future.
func clockCheck(now time.Time, dir string) api.Check {
	if now.Year() < 2025 {
		return api.Check{Name: "clock", Result: failed, Text: "it says " + now.UTC().Format(time.DateTime), Fix: "set it: timedatectl set-ntp true"}
	}
	if st, err := os.Stat(filepath.Join(dir, storeFile)); err == nil && st.ModTime().After(now.Add(time.Minute)) {
		return api.Check{
			Name: "clock", Result: warning, Text: fmt.Sprintf("it was set back: the store was written %s from now", st.ModTime().Sub(now).Round(time.Second)),
			Fix: "set it: timedatectl set-ntp true",
		}
	}
	return api.Check{Name: "clock", Result: okay, Text: now.UTC().Format(time.DateTime) + " UTC"}
}

func kernelCheck(name, path, fix string) api.Check {
	if _, err := os.Stat(path); err != nil {
		return api.Check{Name: name, Result: warning, Text: path + " is not there", Fix: fix}
	}
	return api.Check{Name: name, Result: okay, Text: "the kernel has them"}
}

func forwardCheck() api.Check {
	raw, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err != nil || strings.TrimSpace(string(raw)) != "1" {
		return api.Check{Name: "forwarding", Result: failed, Text: "net.ipv4.ip_forward is off: containers cannot reach out", Fix: "sysctl -w net.ipv4.ip_forward=1"}
	}
	return api.Check{Name: "forwarding", Result: okay, Text: "net.ipv4.ip_forward is on"}
}

// portCheck says whether the API's own port is there for us. It runs inside
// the daemon, so somebody must be listening there, and that is us.
func portCheck(listen string) api.Check {
	if listen == "" {
		return api.Check{Name: "API port", Result: okay, Text: "socket only"}
	}
	c, err := net.DialTimeout("tcp", listen, time.Second)
	if err != nil {
		return api.Check{Name: "API port", Result: failed, Text: fmt.Sprintf("%s: %v", listen, err), Fix: "choose another: tender serve --listen 127.0.0.1:7071"}
	}
	defer c.Close()
	return api.Check{Name: "API port", Result: okay, Text: listen}
}
