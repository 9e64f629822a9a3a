package registry

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	foreign "github.com/google/go-containerregistry/pkg/registry"
)

// The real cosign is the other side. e2e/cosign.sh builds it, which takes minutes, so this
// test runs where TENDER_COSIGN names one: make peers.
func TestCosign(t *testing.T) {
	tool := os.Getenv("TENDER_COSIGN")
	if tool == "" {
		t.Skip("TENDER_COSIGN names no cosign; make peers builds one and runs this")
	}
	dir := t.TempDir()
	cosign := func(want bool, args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), tool, args...)
		c.Dir, c.Env = dir, append(os.Environ(), "COSIGN_PASSWORD=open", "HOME="+dir, "COSIGN_YES=true")
		out, err := c.CombinedOutput()
		if (err == nil) != want {
			t.Fatalf("cosign %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	write := func(name string, text []byte) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	cosign(true, "generate-key-pair")
	text, err := os.ReadFile(filepath.Join(dir, "cosign.key"))
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := ReadSigningKey(text, []byte("open"))
	if err != nil {
		t.Fatal(err)
	}
	ours := newKey(t)
	sealed, err := ours.Sealed([]byte("open"))
	if err != nil {
		t.Fatal(err)
	}
	write("ours.key", sealed)
	write("ours.pub", ours.Public())

	s := listening(t, Options{})
	c := client(s)
	away, before := foreignRegistry(t, foreign.WithReferrersSupport(true)), foreignRegistry(t)
	in := []string{"--registry-username", "ann", "--registry-password", "secret", "--allow-http-registry"}
	verify := func(want bool, key, ref string, more ...string) string {
		t.Helper()
		return cosign(want, append(append([]string{"verify", "--key", key, "--insecure-ignore-tlog"}, append(in, more...)...), ref)...)
	}
	sign := func(key, ref string, more ...string) {
		t.Helper()
		cosign(true, append(append([]string{"sign", "--key", key, "--tlog-upload=false", "--use-signing-config=false", "-a", "build=42"}, append(in, more...)...), ref)...)
	}
	s.push("shop/web:1")
	for _, to := range []string{away + "/team/web:1", before + "/team/web:1", s.host + "/theirs/web:1", s.host + "/old/web:1", s.host + "/exported/web:1"} {
		if _, err := c.Copy(t.Context(), parsed(t, c, "shop/web:1"), parsed(t, c, to)); err != nil {
			t.Fatal(err)
		}
	}

	t.Run("what Tender signs, cosign verifies", func(t *testing.T) {
		for _, ref := range []string{s.host + "/shop/web:1", away + "/team/web:1", before + "/team/web:1"} {
			signed(t, c, ref, Signing{Key: ours, By: "ann", Annotations: map[string]string{"build": "42"}})
			for _, form := range []string{"--new-bundle-format=true", "--new-bundle-format=false"} {
				if out := verify(true, "ours.pub", ref, form, "-a", "build=42"); !strings.Contains(out, `"build":"42"`) {
					t.Errorf("%s %s: %s", ref, form, out)
				}
				verify(false, "cosign.pub", ref, form)
				verify(false, "ours.pub", ref, form, "-a", "build=43")
			}
		}
	})
	t.Run("what cosign signs, Tender verifies", func(t *testing.T) {
		sign("cosign.key", s.host+"/theirs/web:1", "--new-bundle-format=true")
		alike(t, "a bundle", signatures(t, c, "theirs/web:1", ours, theirs), "key 1 bundle build=42")
		sign("cosign.key", s.host+"/old/web:1", "--new-bundle-format=false")
		alike(t, "under the tag", signatures(t, c, "old/web:1", ours, theirs), "key 1 tag build=42")
		signed(t, c, "old/web:1", Signing{Key: ours})
		alike(t, "both", signatures(t, c, "old/web:1", ours, theirs), "key 0 bundle at nine\nkey 0 tag at nine\nkey 1 tag build=42")
		verify(true, "cosign.pub", s.host+"/old/web:1", "--new-bundle-format=false")
		verify(true, "ours.pub", s.host+"/old/web:1")
		sign("cosign.key", away+"/team/web:1", "--new-bundle-format=true")
		sign("cosign.key", before+"/team/web:1", "--new-bundle-format=false")
		const both = "key 0 bundle by ann at nine build=42\nkey 0 tag by ann at nine build=42\n"
		alike(t, "in another registry", signatures(t, c, away+"/team/web:1", ours, theirs), both+"key 1 bundle build=42")
		alike(t, "in a registry without referrers", signatures(t, c, before+"/team/web:1", ours, theirs), both+"key 1 tag build=42")
	})
	t.Run("a key of Tender in cosign", func(t *testing.T) {
		sign("ours.key", s.host+"/exported/web:1", "--new-bundle-format=true")
		alike(t, "signed by cosign", signatures(t, c, "exported/web:1", ours), "key 0 bundle build=42")
	})
}
