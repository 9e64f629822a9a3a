package sample

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// realGroup makes a control group of the second version with one process in it, where
// this machine lets that be done. It returns its folder and the instance.
func realGroup(t *testing.T) (string, Instance) {
	t.Helper()
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	at := readHierarchies(string(mountinfo)).v2
	if at.point == "" || at.root != "/" {
		t.Skip("no hierarchy of the second version is mounted here")
	}
	raw := make([]byte, 32)
	rand.Read(raw)
	id := hex.EncodeToString(raw)
	dir := filepath.Join(at.point, "docker-"+id+".scope")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("control groups cannot be made here: %v", err)
	}
	sleep := exec.Command("sleep", "1000")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sleep.Process.Kill() // the test may have done so
		_ = sleep.Wait()
		_ = os.Remove(dir)
	})
	if err := os.WriteFile(filepath.Join(dir, procs), []byte(strconv.Itoa(sleep.Process.Pid)), 0o644); err != nil {
		t.Skipf("processes cannot be moved here: %v", err)
	}
	return dir, Instance{ID: id, Name: "shop-web-1", PID: sleep.Process.Pid, Running: true, Started: time.Now()}
}

// The kernel's own files of the second version, and what it says of a group that has
// gone while its files were open.
func TestRealGroup(t *testing.T) {
	dir, i := realGroup(t)
	s, err := New(Options{Node: "n1", NoHost: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.groups.v1 = nil // as on a host that has the second version alone
	r := s.Take(t.Context(), []Instance{i})
	if !has(r.Points, "container_cpu_usage_seconds_total") || !has(r.Points, "container_last_seen") {
		t.Fatalf("of a group that is there:\n%s", printed(r.Points))
	}
	if v := value(t, r.Points, "container_processes"); v != 1 {
		t.Errorf("%v processes", v)
	}
	if has(r.Points, "container_network_") {
		t.Error("the host's network is told of as the instance's")
	}
	if s.desk.open == 0 {
		t.Error("no file is open")
	}

	end, err := os.FindProcess(i.PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := end.Kill(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); os.Remove(dir) != nil; time.Sleep(10 * time.Millisecond) { // busy until it is reaped
		if time.Now().After(deadline) {
			t.Fatal("the group cannot be removed")
		}
	}
	r = s.Take(t.Context(), []Instance{i})
	if has(r.Points, "container_cpu_") || has(r.Points, "container_last_seen") {
		t.Errorf("of a group that has gone:\n%s", printed(r.Points))
	}
	if st := s.Status(); st.Errors != 0 || s.desk.open != 0 {
		t.Errorf("status %+v, %d files open", st, s.desk.open)
	}
}
