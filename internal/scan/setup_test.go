package scan

import (
	"archive/tar"
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender"
)

func TestHowAnImageIsMade(t *testing.T) {
	file := func(name string, mode int64) tar.Header {
		return tar.Header{Name: name, Mode: mode, Typeflag: tar.TypeReg}
	}
	image := saved(t, map[string]any{"ExposedPorts": map[string]any{"22/tcp": struct{}{}, "80/tcp": struct{}{}}},
		made{"ADD https://bob:secret1@example.com/x.tgz /x", tarOf(t,
			"etc/os-release", "ID=debian\nVERSION_ID=10\nPRETTY_NAME=\"Debian GNU/Linux 10 (buster)\"\n",
			"var/lib/dpkg/info/sudo.list", "/usr/bin/sudo\n",
			file("usr/bin/su", 0o4755), file("usr/bin/sudo", 0o4755), file("opt/tool", 0o4755), file("opt/group", 0o2755), file("usr/bin/calm", 0o4755),
			tar.Header{Name: "tmp/", Mode: 0o1777, Typeflag: tar.TypeDir}, tar.Header{Name: "usr/local/bin/", Mode: 0o777, Typeflag: tar.TypeDir},
		)},
		made{"RUN chmod u-s /usr/bin/calm", tarOf(t, file("usr/bin/calm", 0o755))})
	c, err := Read(t.Context(), Source{Stream: bytes.NewReader(image)}, Limits{Now: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	want := `high setup/end-of-life  -1: Debian GNU/Linux 10 (buster) has had no fixes since 2024-06-30. Build on a newer release.
medium setup/root-user  -1: It runs as root. Add USER with a number to the Dockerfile, or user: to the service.
medium setup/setuid opt/tool 0: It runs as root (setuid), and belongs to no package. Take that away with chmod a-s.
medium setup/ssh-port  -1: It exposes port 22. Leave the SSH server out: tender exec opens a shell.
medium setup/writable-path usr/local/bin 0: It is in the PATH, and anybody may change it. Take that away with chmod o-w.
low setup/add-url  0: ADD fetches https://example.com/x.tgz without comparing it. Use ADD --checksum=, or curl and sha256sum.
low setup/no-healthcheck  -1: It has no health check. Add HEALTHCHECK to the Dockerfile, or healthcheck: to the service.
low setup/setuid opt/group 0: It runs with its group (setgid), and belongs to no package. Take that away with chmod a-s.
low setup/setuid usr/bin/sudo 0: It runs as root (setuid), as its package wants it. chmod a-s takes that away if nobody needs it.
negligible setup/setuid usr/bin/su 0: It runs as root (setuid), as in every distribution. chmod a-s takes that away if nobody needs it.
`
	if diff := cmp.Diff(want, problemsOf(c, tender.Setup)); diff != "" {
		t.Error(diff)
	}
}

func TestEndsOfLife(t *testing.T) {
	for _, c := range []struct {
		d    Distro
		want string
	}{
		{Distro{ID: "alpine", Version: "3.18.4"}, "2025-05-09"},
		{Distro{ID: "rocky", Version: "9.3"}, "2032-05-31"},
		{Distro{ID: "ubuntu", Version: "22.04"}, "2027-06-30"},
		{Distro{ID: "debian", Version: "99"}, ""},
		{Distro{ID: "mine", Version: "1"}, ""},
	} {
		end, ok := c.d.End()
		if got := end.Format(time.DateOnly); ok != (c.want != "") || ok && got != c.want {
			t.Errorf("%v: %s", c.d, got)
		}
	}
	for id, day := range ends {
		if _, err := time.Parse(time.DateOnly, day); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}
