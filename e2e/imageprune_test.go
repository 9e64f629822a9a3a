package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/store"
)

// A clean-up of the engine's images takes what nobody needs, and never what runs, what a way back
// needs, what is pinned, what has just come, or what somebody else brought.
func TestACleanUpMustNotTakeWhatIsNeeded(t *testing.T) {
	t.Parallel()
	own := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	h := newHost(t, "--listen-registry="+own)
	docked, secret := h.dockerConfig("ci", "{}"), h.token("ci", "deploy")
	if r := dockerLogin(docked, own, secret); r.code != 0 {
		t.Fatal(r.all())
	}
	h.login(own, secret)
	h.setenv("DOCKER_CONFIG", h.dockerConfig("empty", "{}"))
	repository := own + "/" + h.project + "/web"
	t.Cleanup(func() {
		for _, ref := range strings.Fields(docker("images", "--format", "{{.Repository}}:{{.Tag}}", repository).out) {
			docker("rmi", "-f", ref)
		}
	})
	// Each goes to the registry and comes back from there, as on a host that did not build it.
	h.file("src/Dockerfile", "FROM busybox\nCOPY version /\nCMD [\"sleep\", \"600\"]\nSTOPSIGNAL SIGKILL\n")
	for _, version := range []string{"1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0", "1.5.0"} {
		h.file("src/version", version+"\n")
		label := "a=b"
		if version == "1.3.0" {
			label = "tender.pin="
		}
		name := repository + ":" + version
		if version == "1.4.0" { // somebody else's
			for _, words := range [][]string{{"build", "-t", name, filepath.Join(h.dir, "src")}, {"push", name}} {
				if r := docker(append([]string{"--config", docked}, words...)...); r.code != 0 {
					t.Fatal(r.all())
				}
			}
		} else {
			h.must("image", "build", "--push", "--auto=false", "--moving=false", "--label", label, "-t", name, "src")
		}
		if r := docker("rmi", name); r.code != 0 {
			t.Fatal(r.all())
		}
	}
	services := "services:\n"
	for _, version := range []string{"1.2.0", "1.3.0", "1.5.0"} {
		services += "  v" + strings.ReplaceAll(version, ".", "") + ":\n    image: " + repository + ":" + version + "\n"
	}
	h.file("others.yaml", services)
	h.must("-f", "others.yaml", "pull")
	if r := docker("--config", docked, "pull", repository+":1.4.0"); r.code != 0 {
		t.Fatal(r.all())
	}
	for _, version := range []string{"1.0.0", "1.1.0"} {
		h.file("compose.yaml", "services:\n  web:\n    image: "+repository+":"+version+"\n")
		h.must("up")
	}

	there := func() []string {
		return strings.Fields(docker("images", "--format", "{{.Tag}}", repository).out)
	}
	all := len(there())
	prune := func(flags ...string) (goes string, why map[string]string) {
		t.Helper()
		var done struct {
			Steps []struct {
				Names []string
				Goes  bool
				Why   string
			}
		}
		out := h.must(append([]string{"image", "prune", "--json", "--repository", repository, "--keep", "1", "--older-than", "1d"}, flags...)...)
		if err := json.Unmarshal([]byte(out), &done); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		why = map[string]string{}
		var gone []string
		for _, s := range done.Steps {
			for _, n := range s.Names {
				if tag, ours := strings.CutPrefix(n, repository+":"); ours {
					why[tag] = s.Why
					if s.Goes {
						gone = append(gone, tag)
					}
				}
			}
		}
		return strings.Join(gone, " "), why
	}
	goes, why := prune()
	if goes != "" || why["1.2.0"] != "it came within the hour" || len(there()) != all {
		t.Errorf("what has just come: %q goes, %v; there are %v of %d", goes, why, there(), all)
	}

	if when := docker("inspect", "--format", "{{.Metadata.LastTagTime}}", repository+":1.2.0").out; !strings.HasPrefix(when, "0001-") {
		t.Skipf("this engine says of what was pulled when it got its name (%s), and nobody can set that back", strings.TrimSpace(when))
	}
	h.stop()
	older(t, filepath.Join(h.dir, "data"), 48*time.Hour)
	h.flags = nil // without the registry
	h.start()
	goes, why = prune("--dry-run")
	if goes != "1.2.0" || len(there()) != all {
		t.Errorf("two days later, dry: %q goes, %v; there are %v of %d", goes, why, there(), all)
	}
	for tag, want := range map[string]string{"1.0.0": "", "1.1.0": "container ", "1.3.0": "its label tender.pin", "1.4.0": "Tender did not bring it", "1.5.0": ""} {
		if !strings.HasPrefix(why[tag], want) || why[tag] == "" {
			t.Errorf("%s stays because %q, not %q", tag, why[tag], want)
		}
	}
	if goes, why = prune(); goes != "1.2.0" || slices.Contains(there(), "1.2.0") || len(there()) != all-1 {
		t.Errorf("two days later: %q goes, %v; there are %v of %d", goes, why, there(), all)
	}

	// The way back is open, although there is no registry to pull from.
	h.must("rollback")
	if out := h.must("exec", "-T", "web", "cat", "/version"); out != "1.0.0\n" {
		t.Errorf("after the rollback web is %q", out)
	}
}

// older lets what came to the engine have come earlier, in the store of a serve that has ended.
func older(t *testing.T, data string, by time.Duration) {
	t.Helper()
	st, err := store.Open(data, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	err = st.Update(t.Context(), func(tx *store.Tx) error {
		all, err := tx.HostImages()
		for _, i := range all {
			i.Came = i.Came.Add(-by)
			if err == nil {
				err = tx.PutHostImage(i)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
