package sample

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const hostMountinfo = `30 24 0:26 / ROOT/cgroup rw - cgroup2 cgroup2 rw
31 1 254:0 / ROOT rw,relatime shared:1 - ext4 /dev/vda rw
32 1 0:44 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
33 1 0:45 / /mnt/far rw - nfs4 nas:/export rw
34 1 254:1 / ROOT/with\040space rw - xfs /dev/vdb rw
`

func hostTree() map[string]string {
	return map[string]string{
		"proc/self/mountinfo": hostMountinfo, "proc/1/mountinfo": hostMountinfo, "with space/x": "",
		"proc/stat": `cpu  300 0 120 9000 24 0 4 2 0 0
cpu0 200 0 60 4500 12 0 2 1 5 0
cpu1 100 0 60 4500 12 0 2 1 0 0
intr 180738829 0 0 9
ctxt 5056
btime 1795968702
processes 4594
procs_running 3
procs_blocked 1
softirq 1 2 3
`,
		"proc/loadavg":   "0.42 1.03 1.80 13/149 1478\n",
		"proc/meminfo":   "MemTotal:       24683652 kB\nMemAvailable:   23785108 kB\nActive(anon):      11228 kB\nHugePages_Total:       7\n",
		"proc/vmstat":    "nr_free_pages 1\npswpin 3\noom_kill 33\n",
		"proc/diskstats": "   7       0 loop0 1 0 0 0 0 0 0 0 0 0 0\n 254       0 vda 100 5 2048 30 200 7 4096 60 1 90 95 0 0 0 0 12 3\n 254       1 vda1 1 2 3 4 5 6 7 8 9 10 11\n",
		"proc/1/net/dev": `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
  eth0: 1752579523  108603    1    2    3     4          5         6  8974471   76576    7    8    9     10       11          12
veth01ae79f:       0       0    0    0    0     0          0         0      606       5    0    0    0     0       0          0
`,
		"proc/sys/fs/file-nr": "804\t0\t2466165\n",
	}
}

func TestHost(t *testing.T) {
	root := tree(t, hostTree())
	s, err := New(Options{Node: "n1", Proc: filepath.Join(root, "proc"), Sys: filepath.Join(root, "sys")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Root(root)
	s.Take(t.Context(), nil)
	r := s.Take(t.Context(), nil)
	var now []Point // what this machine adds: its time, its clock, its kernel and its disk
	var rest []Point
	for _, p := range r.Points {
		switch n := p.Series.Name; {
		case strings.HasPrefix(n, "node_filesystem_"), strings.HasPrefix(n, "tender_engine_filesystem_"), strings.HasPrefix(n, "node_timex_"), n == "node_time_seconds", n == "node_uname_info":
			now = append(now, p)
		default:
			rest = append(rest, p)
		}
	}
	want, err := os.ReadFile("testdata/host.want")
	got := printed(rest, "instance", "job", "node")
	if *update {
		want, err = []byte(got), os.WriteFile("testdata/host.want", []byte(got), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if st := s.Status(); st.Errors != 0 || st.Problem != "" {
		t.Errorf("status %+v", st)
	}
	for _, m := range []struct{ device, point, kind string }{{"/dev/vda", root, "ext4"}, {"/dev/vdb", root + "/with space", "xfs"}} {
		if v := value(t, now, "node_filesystem_size_bytes", Label{"device", m.device}, Label{"mountpoint", m.point}, Label{"fstype", m.kind}); v <= 0 {
			t.Errorf("%s has %v bytes", m.point, v)
		}
	}
	if text := printed(now); strings.Contains(text, "nfs") || strings.Contains(text, "overlay") {
		t.Errorf("what may hang, or is an instance's:\n%s", text)
	}
	if free, avail := value(t, now, "tender_engine_filesystem_free_bytes"), value(t, now, "tender_engine_filesystem_avail_bytes"); avail <= 0 || avail > free {
		t.Errorf("%v bytes are free, %v for users", free, avail)
	}
	value(t, now, "node_timex_sync_status")
	value(t, now, "node_uname_info", Label{"sysname", "Linux"})
}

// A disk and an interface that are gone take their series along.
func TestHostForgets(t *testing.T) {
	root := tree(t, hostTree())
	s, err := New(Options{Node: "n1", Proc: filepath.Join(root, "proc")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Take(t.Context(), nil)
	if err := os.WriteFile(filepath.Join(root, "proc/diskstats"), []byte(" 254 0 vda 1 2 3 4 5 6 7 8 9 10 11\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "proc/1/net/dev"), []byte(" lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := s.Take(t.Context(), nil)
	if len(s.host.disk) != 1 || len(s.host.nic) != 1 {
		t.Errorf("%d disks, %d interfaces are remembered", len(s.host.disk), len(s.host.nic))
	}
	if v := value(t, r.Points, "node_network_receive_bytes_total", Label{"device", "lo"}); v != 1 {
		t.Errorf("lo received %v", v)
	}
}

// Names and units of this machine's own files, without knowing their values.
func TestThisHost(t *testing.T) {
	s, err := New(Options{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := s.Take(t.Context(), nil)
	for _, name := range []string{
		"node_cpu_seconds_total", "node_load1", "node_memory_MemAvailable_bytes", "node_network_receive_bytes_total", "node_boot_time_seconds",
		"node_filefd_allocated", "node_uname_info", "machine_cpu_cores", "node_time_seconds",
	} {
		if !has(r.Points, name) {
			t.Errorf("no %s", name)
		}
	}
	total, available := value(t, r.Points, "node_memory_MemTotal_bytes"), value(t, r.Points, "node_memory_MemAvailable_bytes")
	if total < 1<<24 || available <= 0 || available > total {
		t.Errorf("%v bytes of memory, %v available", total, available)
	}
}
