package alert_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/alert"
)

// roomProcess says to the test's own program: be a room of alerts in this folder.
const roomProcess = "TENDER_TEST_ALERTS"

func TestMain(m *testing.M) {
	if dir := os.Getenv(roomProcess); dir != "" {
		fmt.Println(beRoom(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// beRoom makes a silence, has an alert sent, says so and waits to be killed. The
// configuration is that of the folder.
func beRoom(dir string) error {
	r, err := alert.Open(alert.Options{Dir: filepath.Join(dir, "state")})
	if err != nil {
		return err
	}
	if err := r.Load(filepath.Join(dir, "alertmanager.yml")); err != nil {
		return err
	}
	go func() { _ = r.Run(context.Background()) }()
	m, err := alert.Matchers([]string{"Muted"})
	if err != nil {
		return err
	}
	id, err := r.AddSilence(context.Background(), alert.Silence{Matchers: m, EndsAt: time.Now().Add(time.Hour), CreatedBy: "ann", Comment: "is known"})
	if err != nil {
		return err
	}
	fmt.Println(id) // whoever reads it kills us at once
	if err := r.Put(context.Background(), fires("Down"), fires("Muted")); err != nil {
		return err
	}
	select {}
}

// Killed right after a silence was made, and right after somebody was told: the
// silence holds, nobody is told again, and what has ended meanwhile is said.
func TestAKilledRoomForgetsNothing(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "alertmanager.yml")
	hooked := func() chan message { // what is on its way when a process is killed reaches nobody who waits here
		url, got := hook(t)
		if err := os.WriteFile(config, fmt.Appendf(nil, "route: {receiver: hook, group_by: [...], %s}\nreceivers: [{name: hook, webhook_configs: [{url: %q}]}]\n", quick, url), 0o600); err != nil {
			t.Fatal(err)
		}
		return got
	}
	hooked()
	start := func() (string, func()) {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), roomProcess+"="+dir)
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		var id string
		if _, err := fmt.Fscanln(out, &id); err != nil {
			t.Fatal(err)
		}
		return id, func() {
			_ = c.Process.Kill()
			_ = c.Wait() // it was killed
		}
	}
	first, kill := start()
	kill() // perhaps before its alerts are in
	second, kill := start()
	told := func() bool { // who was told what is on the disk, and the alert is
		log, err := os.ReadFile(filepath.Join(dir, "state", "nflog"))
		alerts, aerr := os.ReadFile(filepath.Join(dir, "state", "alerts.json"))
		return err == nil && aerr == nil && strings.Contains(string(log), "webhook") && strings.Contains(string(alerts), "Down")
	}
	for deadline := time.Now().Add(patience); !told(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody was told")
		}
	}
	kill()

	got := hooked()
	r := room(t, alert.Options{Dir: filepath.Join(dir, "state")})
	if s := r.Status(); s.Problem != "" {
		t.Error(s.Problem)
	}
	for _, id := range []string{first, second} {
		if s, err := r.Silence(t.Context(), id); err != nil || s.State != "active" || s.CreatedBy != "ann" || s.Comment != "is known" {
			t.Errorf("%s: %+v, %v", id, s, err)
		}
	}
	if err := r.Load(config); err != nil {
		t.Fatal(err)
	}
	put(t, r, fires("Muted"), fires("Down"), fires("Other"))
	if m := next(t, got); m.names()[0] != "Other firing" {
		t.Errorf("told again of %v", m.names())
	}
	if m := over(t, r, got, fires("Down")); m.names()[0] != "Down resolved" {
		t.Errorf("told of %v", m.names())
	}
	if len(got) > 0 {
		t.Errorf("told of %v", (<-got).names())
	}
}
