package sample

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const group = "cgroup/system.slice/docker-" + anID + ".scope/"

// One that went after the list was made is no error, and what is known without files stays.
func TestGoneBetweenListAndRead(t *testing.T) {
	files := recorded(t, "v2-systemd")
	s := in(t, tree(t, files))
	gone := web()
	gone.ID, gone.PID = strings.Repeat("e", 64), 999
	r := s.Take(t.Context(), []Instance{gone})
	if got, want := printed(r.Points, common...), "tender_instance_running{} 1\ntender_instance_health{} 1\ntender_instance_restarts_total{} 2\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if st := s.Status(); st.Errors != 0 || st.Problem != "" {
		t.Errorf("status %+v", st)
	}
}

// The number of a process that has ended may be another one's by now.
func TestReusedPID(t *testing.T) {
	files := recorded(t, "v2-systemd")
	files["proc/4242/cgroup"] = "0::/user.slice/user-0.slice/session-1.scope\n"
	for name, text := range maps.Clone(files) {
		if below, ok := strings.CutPrefix(name, group); ok {
			delete(files, name)
			files["cgroup/user.slice/user-0.slice/session-1.scope/"+below] = text
		}
	}
	s := in(t, tree(t, files))
	if r := s.Take(t.Context(), []Instance{web()}); has(r.Points, "container_") {
		t.Errorf("another one's figures:\n%s", printed(r.Points, common...))
	}
}

// After a restart counters begin anew under the same series. The kills of both lives
// count, and one that ended its life counts because the engine told of it.
func TestRestart(t *testing.T) {
	root := tree(t, recorded(t, "v2-systemd"))
	s := in(t, root)
	i := web()
	series := map[*Series]bool{}
	for _, p := range s.Take(t.Context(), []Instance{i}).Points {
		series[p.Series] = true
	}
	i.Running, i.PID, i.Ended, i.ExitCode, i.Health = false, 0, true, 137, ""
	r := s.Take(t.Context(), []Instance{i})
	if got, want := printed(r.Points, common...), "container_oom_events_total{} 2\ntender_instance_running{} 0\ntender_instance_restarts_total{} 2\ntender_instance_exit_code{} 137\n"; got != want {
		t.Errorf("between two lives\n%swant\n%s", got, want)
	}
	if s.desk.open != 0 {
		t.Errorf("%d files of an ended life are open", s.desk.open)
	}

	for _, name := range []string{"cgroup", "net/dev", "ns/net"} {
		text, err := os.ReadFile(filepath.Join(root, "proc/4242", name))
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(root, "proc/5000", name), string(text))
	}
	put(t, filepath.Join(root, group, "cpu.stat"), "usage_usec 1000000\nuser_usec 1\nsystem_usec 1\n")
	put(t, filepath.Join(root, group, "memory.events"), "low 0\nhigh 0\nmax 0\noom 1\noom_kill 1\n")
	i = web()
	i.PID, i.Started, i.Restarts = 5000, aStart.Add(time.Hour), 3
	r = s.Take(t.Context(), []Instance{i})
	if v := value(t, r.Points, "container_cpu_usage_seconds_total"); v != 1 {
		t.Errorf("cpu %v after the restart", v)
	}
	if v := value(t, r.Points, "container_oom_events_total"); v != 3 {
		t.Errorf("%v kills in two lives", v)
	}
	for _, p := range r.Points {
		if !series[p.Series] {
			t.Errorf("%s is another series after the restart", p.Series.Name)
		}
	}
	i.OOMs = 7
	if v := value(t, s.Take(t.Context(), []Instance{i}).Points, "container_oom_events_total"); v != 7 {
		t.Errorf("%v kills, the engine told of 7", v)
	}
}

// Files that cannot be read are counted and named; the others are read.
func TestUnreadableFiles(t *testing.T) {
	root := tree(t, recorded(t, "v2-systemd"))
	bad := filepath.Join(root, group, "memory.current")
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(bad, 0o755); err != nil { // to read it is an error, also for root
		t.Fatal(err)
	}
	s := in(t, root)
	r := s.Take(t.Context(), []Instance{web()})
	if has(r.Points, "container_memory_usage_bytes") || has(r.Points, "container_memory_working_set_bytes") {
		t.Error("memory in use out of nothing")
	}
	if v := value(t, r.Points, "container_memory_rss"); v != 92274688 {
		t.Errorf("rss %v", v)
	}
	if st := s.Status(); st.Errors != 1 || !strings.Contains(st.Problem, "memory.current: is a directory") {
		t.Errorf("status %+v", st)
	}
}

// Limits without end are 0, as with cAdvisor, and nothing is throttled without a quota.
func TestUnlimited(t *testing.T) {
	files := recorded(t, "v2-systemd")
	files[group+"memory.max"], files[group+"cpu.max"] = "max\n", "max 100000\n"
	r := in(t, tree(t, files)).Take(t.Context(), []Instance{web()})
	if v := value(t, r.Points, "container_spec_memory_limit_bytes"); v != 0 {
		t.Errorf("limit %v", v)
	}
	if has(r.Points, "container_spec_cpu_quota") || has(r.Points, "container_cpu_cfs_") {
		t.Errorf("a quota out of nothing:\n%s", printed(r.Points, common...))
	}

	files = recorded(t, "v1-cgroupfs")
	files["cgroup/memory/docker/"+anID+"/memory.limit_in_bytes"] = "9223372036854771712\n"
	files["cgroup/cpu/docker/"+anID+"/cpu.cfs_quota_us"] = "-1\n"
	r = in(t, tree(t, files)).Take(t.Context(), []Instance{web()})
	if v := value(t, r.Points, "container_spec_memory_limit_bytes"); v != 0 {
		t.Errorf("limit %v", v)
	}
	if has(r.Points, "container_spec_cpu_quota") || has(r.Points, "container_cpu_cfs_") {
		t.Errorf("a quota out of nothing:\n%s", printed(r.Points, common...))
	}
}

// A limit that was changed shows within a minute, not at once.
func TestLimitsAreLookedAtAgain(t *testing.T) {
	root := tree(t, recorded(t, "v2-systemd"))
	s := in(t, root)
	s.Take(t.Context(), []Instance{web()})
	put(t, filepath.Join(root, group, "memory.max"), "536870912\n")
	var v float64
	for range limitsEvery {
		v = value(t, s.Take(t.Context(), []Instance{web()}).Points, "container_spec_memory_limit_bytes")
	}
	if v != 536870912 {
		t.Errorf("limit %v after a minute", v)
	}
}

// With hidepid, or out of another pid namespace, groups are found by the engine's habits.
func TestHiddenProcesses(t *testing.T) {
	for _, name := range []string{"v1-cgroupfs", "v2-cgroupfs", "v2-systemd"} {
		files := recorded(t, name)
		for f := range maps.Clone(files) {
			if strings.HasPrefix(f, "proc/4242/") {
				delete(files, f)
			}
		}
		r := in(t, tree(t, files)).Take(t.Context(), []Instance{web()})
		if !has(r.Points, "container_cpu_usage_seconds_total") || has(r.Points, "container_network_") {
			t.Errorf("%s:\n%s", name, printed(r.Points, common...))
		}
	}
}

// A network that several share is told of once: by whom it was there first. That of
// the host is the host's.
func TestSharedNetworks(t *testing.T) {
	root := tree(t, recorded(t, "v2-systemd"))
	start := func(pid int, id, netOf string) Instance {
		for name, text := range recorded(t, "v2-systemd") {
			if below, ok := strings.CutPrefix(name, group); ok {
				put(t, filepath.Join(root, "cgroup/system.slice/docker-"+id+".scope", below), text)
			}
		}
		proc := filepath.Join(root, "proc", fmt.Sprint(pid))
		put(t, filepath.Join(proc, "cgroup"), "0::/system.slice/docker-"+id+".scope\n")
		text, err := os.ReadFile(filepath.Join(root, "proc/4242/net/dev"))
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(proc, "net/dev"), string(text))
		if err := os.MkdirAll(filepath.Join(proc, "ns"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(filepath.Join(root, "proc", netOf, "ns/net"), filepath.Join(proc, "ns/net")); err != nil {
			t.Fatal(err)
		}
		i := web()
		i.ID, i.PID, i.Name, i.Started = id, pid, fmt.Sprint("shop-", pid), aStart.Add(time.Duration(pid)*time.Millisecond)
		return i
	}
	all := []Instance{
		start(5001, strings.Repeat("a", 64), "4242"), // network_mode: service:web
		web(),
		start(5002, strings.Repeat("b", 64), "1"), // network_mode: host
	}
	s := in(t, root)
	who := func(points []Point) (names []string) {
		for _, p := range points {
			if p.Series.Name == "container_network_receive_bytes_total" {
				for _, l := range p.Series.Labels {
					if l.Name == "instance" {
						names = append(names, l.Value)
					}
				}
			}
		}
		return names
	}
	if got := fmt.Sprint(who(s.Take(t.Context(), all).Points)); got != "[shop-web-1 shop-web-1]" { // two interfaces
		t.Errorf("network of %s", got)
	}
	// Once who made it is gone, the other one has it alone.
	if got := fmt.Sprint(who(s.Take(t.Context(), []Instance{all[0], all[2]}).Points)); got != "[shop-5001 shop-5001]" {
		t.Errorf("network of %s", got)
	}
}

// Where fewer files may stay open than there are, the rest is opened each time.
func TestMoreInstancesThanFiles(t *testing.T) {
	root := t.TempDir()
	put(t, filepath.Join(root, "proc/self/mountinfo"), "30 24 0:26 / "+root+"/cgroup rw - cgroup2 cgroup2 rw\n")
	var all []Instance
	for n := range 300 {
		i := web()
		i.ID, i.PID, i.Name = fmt.Sprintf("%064x", n+1), n+2, fmt.Sprint("shop-web-", n)
		put(t, filepath.Join(root, "proc", fmt.Sprint(i.PID), "cgroup"), "0::/docker/"+i.ID+"\n")
		put(t, filepath.Join(root, "cgroup/docker", i.ID, "cpu.stat"), fmt.Sprintf("usage_usec %d\n", n*1000))
		all = append(all, i)
	}
	s := in(t, root)
	s.desk.most = 100
	for range 2 {
		n := 0
		for _, p := range s.Take(t.Context(), all).Points {
			if p.Series.Name == "container_cpu_usage_seconds_total" {
				if p.Value != float64(n)/1000 {
					t.Fatalf("instance %d: %v", n, p.Value)
				}
				n++
			}
		}
		if n != 300 || s.desk.open > 100 {
			t.Fatalf("%d instances, %d files open", n, s.desk.open)
		}
	}
	s.Take(t.Context(), all[:10])
	if len(s.tracked) != 10 || s.desk.open > 100 {
		t.Errorf("%d are tracked, %d files open", len(s.tracked), s.desk.open)
	}
}

// Nothing but the engine's word can be told where files cannot be read at all, and
// that it is so must be said.
func TestEngineInAnotherWorld(t *testing.T) {
	root := tree(t, map[string]string{"proc/self/mountinfo": "30 24 0:26 / ROOT/cgroup rw - cgroup2 cgroup2 rw\n"})
	s := in(t, root)
	for range 3 {
		s.Take(t.Context(), []Instance{web()})
	}
	if got := s.Status().Problem; got != "the control groups of no instance can be found: is the engine on this host?" {
		t.Errorf("problem %q", got)
	}
	s.Take(t.Context(), nil)
	if got := s.Status().Problem; got != "" {
		t.Errorf("problem %q", got)
	}
}

// Who reads a round must find it whole, or be told that it is not.
func TestNamesDoNotClash(t *testing.T) {
	files := recorded(t, "v2-systemd")
	s := in(t, tree(t, files))
	old := web()
	old.ID, old.PID, old.Running = strings.Repeat("c", 64), 0, false // still there beside its newcomer
	seen := map[string]bool{}
	for _, l := range strings.Split(strings.TrimSpace(printed(s.Take(t.Context(), []Instance{old, web()}).Points)), "\n") {
		name, _, _ := strings.Cut(l, "} ")
		if seen[name] {
			t.Errorf("twice: %s", name)
		}
		seen[name] = true
	}
}

// An engine inside of an instance makes interfaces with ever new names: those that are gone are forgotten.
func TestInterfacesThatComeAndGo(t *testing.T) {
	root := tree(t, recorded(t, "v2-systemd"))
	s := in(t, root)
	head, _, _ := strings.Cut(recorded(t, "v2-systemd")["proc/4242/net/dev"], "    lo:")
	for n := range 20 {
		put(t, filepath.Join(root, "proc/4242/net/dev"), fmt.Sprintf("%s  veth%d: %d 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n", head, n, 100+n))
		r := s.Take(t.Context(), []Instance{web()})
		if v := value(t, r.Points, "container_network_receive_bytes_total"); v != float64(100+n) {
			t.Errorf("round %d: %v", n, v)
		}
	}
	if n := len(s.tracked[anID].nics); n != 1 {
		t.Errorf("%d interfaces are remembered", n)
	}
}

// One that runs out of memory as soon as it has started is never met with its control
// group: nothing told of its end but a series that was not there.
func TestAnInstanceThatIsNeverMet(t *testing.T) {
	files := recorded(t, "v1-cgroupfs")
	s := in(t, tree(t, files))
	i := web()
	i.Running, i.PID, i.OOMs = false, 0, 3
	if got := value(t, s.Take(t.Context(), []Instance{i}).Points, "container_oom_events_total"); got != 3 {
		t.Errorf("the first round says %v", got)
	}
	// Met at last, it goes on by the name of its own group, once.
	i = web()
	i.OOMs = 4
	for range 2 {
		if got := value(t, s.Take(t.Context(), []Instance{i}).Points, "container_oom_events_total"); got != 4 {
			t.Errorf("met, it says %v", got)
		}
	}
}

// The process before knew of kills in earlier lives. A count that fell behind that would be
// taken for a new beginning, and all of it for kills of now: an alert of what was long over.
func TestAnotherProcessHadCountedKills(t *testing.T) {
	root := tree(t, recorded(t, "v2-systemd"))
	asked := 0
	s := in(t, root)
	s.o.Last = func(p *Series) (float64, bool) {
		asked++
		return 5, p.Name == "container_oom_events_total"
	}
	i := web()
	kills := func() float64 {
		t.Helper()
		return value(t, s.Take(t.Context(), []Instance{i}).Points, "container_oom_events_total")
	}
	if got := kills(); got != 5 {
		t.Errorf("%v kills after the restart of who counts, 5 before", got)
	}
	put(t, filepath.Join(root, group, "memory.events"), "low 0\nhigh 0\nmax 0\noom 1\noom_kill 3\n")
	if got := kills(); got != 6 {
		t.Errorf("%v kills after one more", got)
	}
	// What the engine says of the end of a life holds until the next one.
	i.Running, i.PID, i.OOMs = false, 0, 4
	if got := kills(); got != 7 {
		t.Errorf("%v kills, the engine told of one more", got)
	}
	i.OOMs = 0
	if got := kills(); got != 7 {
		t.Errorf("%v kills, though nothing takes one back", got)
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

// More than was kept before has happened meanwhile, and is told.
func TestKillsWhileNobodyCounted(t *testing.T) {
	s := in(t, tree(t, recorded(t, "v2-systemd")))
	s.o.Last = func(*Series) (float64, bool) { return 1, true }
	if got := value(t, s.Take(t.Context(), []Instance{web()}).Points, "container_oom_events_total"); got != 2 {
		t.Errorf("%v kills", got)
	}
}
