package daemon

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/store"
)

func TestWhatATokenMayInTheRegistry(t *testing.T) {
	for _, c := range []struct {
		scope    api.Scope
		projects []string
		want     map[string]string // repository: what may be done
	}{
		{api.Read, nil, map[string]string{"shop/web": "pull", "a": "pull"}},
		{api.Deploy, nil, map[string]string{"shop/web": "pull push"}},
		{api.Admin, nil, map[string]string{"shop/web": "pull push delete"}},
		{api.Deploy, []string{"shop"}, map[string]string{"shop/web": "pull push", "shop": "pull push", "shopping/web": "", "other": ""}},
		{api.Admin, []string{"shop", "blog"}, map[string]string{"blog/a/b": "pull push delete", "other/web": ""}},
		{"unheard-of", nil, map[string]string{"shop/web": ""}},
	} {
		a := accountOf(api.Person{Name: "token x", Scope: c.scope, Projects: c.projects})
		got := map[string]string{}
		for repository := range c.want {
			var may []string
			for _, action := range []string{registry.Pull, registry.Push, registry.Delete} {
				if a.May(repository, action) {
					may = append(may, action)
				}
			}
			got[repository] = strings.Join(may, " ")
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s of %v (-want +got):\n%s", c.scope, c.projects, diff)
		}
	}
}

// It is opened by the first who asks, as whom the token says, and then counts.
func TestTheRegistryUnderTheAPI(t *testing.T) {
	s, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	b := &backend{store: s, board: new(board), log: slog.New(slog.DiscardHandler), config: Config{RegistryDir: filepath.Join(t.TempDir(), "registry")}}
	b.images = openRegistryRoom(b, b.log)
	made, err := b.CreateToken(t.Context(), api.Person{Name: "root"}, "ci", api.Deploy, []string{"shop"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(api.Handler(b, api.Options{Alone: map[string]http.Handler{"/v2/": b.images}}))
	t.Cleanup(server.Close)
	if _, err := os.Stat(b.config.RegistryDir); err == nil || b.images.opened() != nil {
		t.Error("it was opened before somebody asked")
	}
	ask := func(method, path, password string) (int, http.Header) {
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if password != "" {
			req.SetBasicAuth("anybody", password)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header
	}
	for _, c := range []struct {
		method, path, password string
		want                   int
	}{
		{"GET", "/v2/", "", 401},
		{"GET", "/v2/", "wrong", 401},
		{"GET", "/v2/", made.Secret, 200},
		{"GET", "/v2/shop/web/manifests/1", made.Secret, 404},
		{"POST", "/v2/shop/web/blobs/uploads/", made.Secret, 202},
		{"POST", "/v2/blog/web/blobs/uploads/", made.Secret, 403},
		{"DELETE", "/v2/shop/web/manifests/1", made.Secret, 403},
	} {
		status, header := ask(c.method, c.path, c.password)
		if status != c.want {
			t.Errorf("%s %s: %d, not %d", c.method, c.path, status, c.want)
		}
		if status == 401 && !strings.HasPrefix(header.Get("WWW-Authenticate"), `Basic realm="tender"`) {
			t.Errorf("%s %s asks to log in with %q", c.method, c.path, header.Get("WWW-Authenticate"))
		}
	}
	var f figures
	f.registry(b.images.opened())
	for _, want := range []string{`tender_registry_requests_total{method="GET",status="401"} 2`, "tender_registry_sent_bytes_total "} {
		if !strings.Contains(f.String(), want) {
			t.Errorf("the figures have no %s:\n%s", want, f.String())
		}
	}
	if err := b.images.Close(); err != nil {
		t.Error(err)
	}
	if status, _ := ask("GET", "/v2/", made.Secret); status != 503 {
		t.Errorf("after its end: %d", status)
	}
}

func TestARegistryThatDoesNotOpenIsTriedAgain(t *testing.T) {
	s, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	dir := filepath.Join(t.TempDir(), "registry")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := &backend{store: s, board: new(board), log: slog.New(slog.DiscardHandler), config: Config{RegistryDir: dir}}
	b.images = openRegistryRoom(b, b.log)
	t.Cleanup(func() { b.images.Close() })
	problem := func() string {
		for _, p := range b.board.all() {
			if p.Name == "registry" {
				return p.Error
			}
		}
		return ""
	}
	w := httptest.NewRecorder()
	b.images.ServeHTTP(w, httptest.NewRequest("GET", "/v2/", http.NoBody))
	if w.Code != 503 || !strings.Contains(w.Body.String(), "UNAVAILABLE") || problem() == "" {
		t.Errorf("%d %s, status says %q", w.Code, w.Body, problem())
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	b.images.again = time.Time{} // ten seconds later
	w = httptest.NewRecorder()
	b.images.ServeHTTP(w, httptest.NewRequest("GET", "/v2/", http.NoBody))
	if w.Code != 401 || problem() != "" {
		t.Errorf("%d %s, status says %q", w.Code, w.Body, problem())
	}
}

func TestARenewedCertificateIsServed(t *testing.T) {
	dir := t.TempDir()
	c := &certificate{cert: filepath.Join(dir, "cert"), key: filepath.Join(dir, "key")}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	write := func(serial int64, only string) {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(serial)}, &x509.Certificate{}, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		at = at.Add(time.Hour)
		for file, block := range map[string]*pem.Block{c.cert: {Type: "CERTIFICATE", Bytes: der}, c.key: {Type: "PRIVATE KEY", Bytes: raw}} {
			if only != "" && only != file {
				continue
			}
			if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(file, at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	serves := func(serial int64, why string) {
		t.Helper()
		pair, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		if leaf.SerialNumber.Int64() != serial {
			t.Errorf("%s: certificate %s, not %d", why, leaf.SerialNumber, serial)
		}
	}
	if _, err := c.get(nil); err == nil {
		t.Error("there is none, and none is missed")
	}
	write(1, "")
	serves(1, "the first")
	write(2, c.cert)
	serves(1, "half of a new one")
	write(3, "")
	serves(3, "a new one")
	if err := os.Remove(c.key); err != nil {
		t.Fatal(err)
	}
	serves(3, "its key is gone")
}

// Its own port speaks TLS, and answers nothing but what a registry is asked.
func TestTheRegistrysOwnPort(t *testing.T) {
	s, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	trusted := httptest.NewUnstartedServer(nil)
	trusted.StartTLS() // for its certificate, which its client trusts
	defer trusted.Close()
	dir := t.TempDir()
	c := Config{RegistryDir: filepath.Join(dir, "registry"), ListenRegistry: "127.0.0.1:0", TLSCert: filepath.Join(dir, "cert"), TLSKey: filepath.Join(dir, "key")}
	raw, err := x509.MarshalPKCS8PrivateKey(trusted.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{c.TLSCert: {Type: "CERTIFICATE", Bytes: trusted.Certificate().Raw}, c.TLSKey: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b := &backend{store: s, board: new(board), log: slog.New(slog.DiscardHandler), config: c}
	b.images = openRegistryRoom(b, b.log)
	port, err := listenRegistry(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.images.run(ctx, []net.Listener{port}) }()
	for path, want := range map[string]int{"/v2/": 401, "/v2/_catalog": 401, "/healthz": 200, "/tender/v1/status": 404, "/": 404} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+port.Addr().String()+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := trusted.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, not %d", path, resp.StatusCode, want)
		}
	}
	cancel()
	if err := errors.Join(<-done, b.images.Close()); err != nil {
		t.Error(err)
	}
}

// mute is an S3 that never answers.
type mute struct{ asked chan struct{} }

func (s mute) RoundTrip(req *http.Request) (*http.Response, error) {
	s.asked <- struct{}{}
	<-req.Context().Done()
	return nil, req.Context().Err()
}

// A registry whose S3 does not answer keeps nobody waiting who only looks, nor for long who asks.
func TestARegistryWhoseS3IsSilent(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "access")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s3 := mute{make(chan struct{}, 100)}
		r := &registryRoom{
			o:    registry.Options{Dir: dir, Bucket: &registry.Bucket{Name: "images", Endpoint: "https://s3.example.com", Region: "eu", Path: true}, Transport: s3},
			log:  slog.New(slog.DiscardHandler),
			tell: func(string) {},
		}
		ended := make(chan error)
		go func() {
			_, err := r.get(t.Context())
			ended <- err
		}()
		synctest.Wait()
		if len(s3.asked) == 0 || r.opened() != nil {
			t.Errorf("asked %d times, it is %v", len(s3.asked), r.opened())
		}
		if err := <-ended; tender.KindOf(err) != tender.Unavailable {
			t.Errorf("%v", err)
		}
		before := len(s3.asked)
		if _, err := r.get(t.Context()); tender.KindOf(err) != tender.Unavailable || len(s3.asked) != before {
			t.Errorf("at once: asked %d times, then %d, %v", before, len(s3.asked), err)
		}
		time.Sleep(openAgain)
		if _, err := r.get(t.Context()); tender.KindOf(err) != tender.Unavailable || len(s3.asked) == before {
			t.Errorf("later: asked %d times, then %d, %v", before, len(s3.asked), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}
