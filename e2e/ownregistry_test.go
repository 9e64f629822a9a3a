package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Docker's own client pushes and pulls, on the API's port and on the registry's own; what was
// pushed outlives a kill, and a project comes up from it.
func TestImagesMustBeKeptHere(t *testing.T) {
	t.Parallel()
	api, own := fmt.Sprintf("127.0.0.1:%d", freePort(t)), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	front, name := fmt.Sprintf("127.0.0.1:%d", freePort(t)), "registry.lan"
	h := newHost(t, "--listen="+api, "--listen-registry="+own, "--https="+front, "--registry-host="+name)
	deploy, read := h.token("ci", "deploy"), h.token("reader", "read")
	pusher, reader := h.dockerConfig("pusher", "{}"), h.dockerConfig("reader", "{}")
	if r := dockerLogin(pusher, own, "wrong"); r.code == 0 {
		t.Errorf("a wrong password opens: %s", r.all())
	}
	for _, address := range []string{api, own} {
		if r := dockerLogin(pusher, address, deploy); r.code != 0 {
			t.Fatal(r.all())
		}
	}
	if r := dockerLogin(reader, own, read); r.code != 0 {
		t.Fatal(r.all())
	}
	image, twin := own+"/"+h.project+"/base:1", api+"/"+h.project+"/base:1"
	t.Cleanup(func() { docker("rmi", "-f", image, twin) })
	for _, name := range []string{image, twin} {
		if r := docker("tag", "busybox", name); r.code != 0 {
			t.Fatal(r.all())
		}
	}
	if r := docker("--config", reader, "push", image); r.code == 0 || !strings.Contains(r.all(), "denied") {
		t.Errorf("who may read alone pushes: %s", r.all())
	}
	if r := docker("--config", pusher, "push", image); r.code != 0 {
		t.Fatal(r.all())
	}
	if r := docker("--config", pusher, "push", twin); r.code != 0 || !strings.Contains(r.all(), "Layer already exists") {
		t.Errorf("the other door leads elsewhere: %s", r.all())
	}

	h.kill()
	h.start()
	ask := func(method, path, body, media string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, "http://"+own+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("ci", deploy)
		req.Header.Set("Content-Type", media)
		req.Header.Set("Accept", "application/vnd.docker.distribution.manifest.v2+json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(text)
	}
	path := "/v2/" + h.project + "/base"
	resp, manifest := ask("GET", path+"/manifests/1", "", "")
	digest := resp.Header.Get("Docker-Content-Digest")
	if resp.StatusCode != 200 || digest == "" {
		t.Fatalf("after a kill: %s %s", resp.Status, manifest)
	}
	docker("rmi", image, twin)
	byDigest := own + "/" + h.project + "/base@" + digest
	t.Cleanup(func() { docker("rmi", "-f", byDigest) })
	if r := docker("--config", reader, "pull", byDigest); r.code != 0 {
		t.Errorf("pull by digest: %s", r.all())
	}

	// The edge serves it under its name, with a certificate of its own authority.
	h.until("the registry answers at the edge", func() error {
		root, err := os.ReadFile(filepath.Join(h.dir, "data", "edge", "ca.pem"))
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(root)
		c := http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, front)
			},
		}}
		req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), "HEAD", "https://"+name+path+"/manifests/1", nil)
		if err != nil {
			return err
		}
		req.SetBasicAuth("ci", deploy)
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if got := resp.Header.Get("Docker-Content-Digest"); got != digest {
			return fmt.Errorf("%s, digest %q, want %s", resp.Status, got, digest)
		}
		return nil
	})

	// Something that refers to it, as a signature does.
	const kind, oci = "application/vnd.example.note", "application/vnd.oci.image.manifest.v1+json"
	empty := `{"mediaType":"application/vnd.oci.empty.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}`
	resp, text := ask("POST", path+"/blobs/uploads/", "", "")
	location := resp.Header.Get("Location")
	if at := strings.Index(location, "/v2/"); resp.StatusCode != 202 || at < 0 {
		t.Fatalf("begin an upload: %s %s %s", resp.Status, location, text)
	} else {
		location = location[at:]
	}
	if resp, text = ask("PUT", location+"&digest=sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", "{}", "application/octet-stream"); resp.StatusCode != 201 {
		t.Fatalf("upload: %s %s", resp.Status, text)
	}
	note := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":%s,"layers":[%s],"subject":{"mediaType":%q,"size":%d,"digest":%q}}`,
		oci, kind, empty, empty, "application/vnd.docker.distribution.manifest.v2+json", len(manifest), digest)
	if resp, text = ask("PUT", path+"/manifests/note", note, oci); resp.StatusCode != 201 || resp.Header.Get("OCI-Subject") != digest {
		t.Fatalf("push a note: %s %s", resp.Status, text)
	}
	if resp, text = ask("GET", path+"/referrers/"+digest+"?artifactType="+kind, "", ""); resp.Header.Get("OCI-Filters-Applied") != "artifactType" || !strings.Contains(text, kind) {
		t.Errorf("referrers: %s %s", resp.Status, text)
	}

	// A project comes up from here, with the daemon's own login.
	cmd := h.command("registry", "login", own, "-u", "ci", "--password-stdin")
	cmd.Stdin = strings.NewReader(deploy + "\n")
	if r := run(cmd); r.code != 0 {
		t.Fatal(r.all())
	}
	docker("rmi", "-f", byDigest)
	h.file("compose.yaml", "services:\n  app:\n    image: "+image+"\n    command: [sleep, \"600\"]\n    stop_signal: SIGKILL\n")
	h.exits(0, "up")
	if len(h.running("app")) != 1 {
		t.Error("app does not run")
	}
}
