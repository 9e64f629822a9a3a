package daemon

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/store"
	"github.com/tenderhq/tender/internal/vault"
)

func TestWhichRegistriesAreCached(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"[docker.io, {name: company, upstream: 'https://registry.example.com/team', fresh: 1m, listen: '127.0.0.1:5001'}]", ""},
		{"[{upstream: https://a.example}]", `1:2: "" is no name for an upstream: repositories begin with it`},
		{"[docker.io, docker.io]", "1:13: the upstream docker.io is there twice"},
		{"[{name: a.example, listen: 5001}]", `1:28: listen on "5001": address 5001: missing port in address`},
		{"[{name: a.example, listen: ':5001'}]", "listen on :5001 as a mirror of a.example: passwords would cross the network in the clear"},
		{"docker.io", "1:1: registry.cache is not a list"},
	} {
		got, err := Configure(noFile(t), func(string) string { return "" }, map[string]string{"registry-cache": c.yaml, "registry-cache-size": "5GiB"})
		said := ""
		if err != nil {
			said = err.Error()
		}
		if !strings.HasSuffix(said, c.want) || c.want == "" && err != nil {
			t.Errorf("%s: %s, not %s", c.yaml, said, c.want)
		}
		if c.want != "" {
			continue
		}
		want := []Upstream{
			{Upstream: registry.Upstream{Name: "docker.io", URL: "https://registry-1.docker.io", Fresh: 5 * time.Minute}},
			{registry.Upstream{Name: "company", URL: "https://registry.example.com/team", Fresh: time.Minute}, "127.0.0.1:5001"},
		}
		if diff := cmp.Diff(want, got.RegistryCache); diff != "" || got.RegistryCacheSize != 5<<30 {
			t.Errorf("%d bytes, and (-want +got):\n%s", got.RegistryCacheSize, diff)
		}
	}
}

func noFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tender.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A mirror asks its upstream with the vault's login, and tells how often what it keeps was enough.
func TestAMirrorOfAnotherRegistry(t *testing.T) {
	manifest := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}`
	sum := digest.FromString(manifest).String()
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, password, _ := r.BasicAuth(); name != "robot" || password != "far secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="far"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch r.URL.Path {
		case "/v2/":
		case "/v2/team/web/manifests/1", "/v2/team/web/manifests/" + sum:
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Header().Set("Docker-Content-Digest", sum)
			_, _ = io.WriteString(w, manifest)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer far.Close()
	dir := t.TempDir()
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	v, _, err := vault.Init(t.Context(), s, vault.Options{KeyFile: filepath.Join(t.TempDir(), "key")})
	if err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(far.URL, "http://")
	auth := base64.URLEncoding.EncodeToString([]byte(`{"username":"robot","password":"far secret"}`))
	if _, _, err := v.Put(t.Context(), "ann", loginsProject, loginName(host), []byte(auth)); err != nil {
		t.Fatal(err)
	}
	c := Config{
		RegistryDir: filepath.Join(dir, "registry"), RegistryAnonymous: []string{"far.example/**"},
		RegistryCache: []Upstream{{registry.Upstream{Name: "far.example", URL: far.URL}, "127.0.0.1:0"}},
	}
	b := &backend{store: s, vault: v, board: new(board), log: slog.New(slog.DiscardHandler), config: c}
	b.images = openRegistryRoom(b, b.log)
	mirrors, err := listenMirrors(c)
	if err != nil || len(mirrors) != 1 {
		t.Fatalf("%v, %v", mirrors, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.images.serveMirror(ctx, mirrors[0]) }()
	for _, want := range []string{"tender; fwd=uri-miss; stored", "tender; hit"} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+mirrors[0].Addr().String()+"/v2/team/web/manifests/1", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || string(body) != manifest || resp.Header.Get("Cache-Status") != want {
			t.Errorf("%d %v %s, %v", resp.StatusCode, resp.Header, body, err)
		}
	}
	var f figures
	f.registry(b.images.opened())
	for _, want := range []string{
		`tender_registry_cache_requests_total{upstream="far.example",result="hit"} 1`,
		`tender_registry_cache_requests_total{upstream="far.example",result="miss"} 1`,
		`tender_registry_cache_upstream_errors_total{upstream="far.example"} 0`,
		`tender_registry_cache_resting{upstream="far.example"} 0`,
		"tender_registry_cache_fetched_bytes_total", "tender_registry_cache_served_bytes_total",
	} {
		if !strings.Contains(f.String(), want) {
			t.Errorf("the figures have no %s:\n%s", want, f.String())
		}
	}
	if err := b.evict(t.Context()); err != nil {
		t.Error(err)
	}
	stop()
	if err := errors.Join(<-done, b.images.Close()); err != nil {
		t.Error(err)
	}
}
