package api_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

// cat answers with its input and exits with 5.
func cat() func(context.Context) api.Stream {
	return process(true, func(in io.Reader, out io.Writer) (int, error) {
		_, err := io.Copy(out, in)
		return 5, err
	})
}

// wantCat runs cat in an instance and expects what it was given.
func wantCat(t *testing.T, c *api.Client) {
	t.Helper()
	s := exec(t, c)
	text := bytes.Repeat([]byte("hello "), 50_000)
	go func() {
		_, _ = s.Input.Write(text)
		_ = s.CloseWrite()
	}()
	got, err := io.ReadAll(s.Output)
	if err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	if code, err := s.Exit(t.Context()); code != 5 || err != nil {
		t.Errorf("exit %d, %v", code, err)
	}
}

func TestTLS(t *testing.T) {
	borrowed := httptest.NewTLSServer(nil)
	borrowed.Close()
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: borrowed.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", roots)
	f := &fake{tokens: people(), stream: cat()}
	l, host := listen(t, "tcp")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		secure := tls.NewListener(l, &tls.Config{Certificates: borrowed.TLS.Certificates})
		done <- api.Serve(ctx, api.Handler(f, api.Options{}), []net.Listener{secure}, api.Serving{})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	c := dial(t, strings.Replace(host, "http:", "https:", 1), "d")
	if _, err := c.Projects(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCat(t, c)
	if _, err := dial(t, strings.Replace(host, "http://127.0.0.1", "https://localhost", 1), "d").Projects(t.Context()); tender.KindOf(err) != tender.Unavailable {
		t.Errorf("a certificate of another name: %v", err)
	}
}

// TestMain is also the other end of ssh: the fake ssh below starts this program again.
func TestMain(m *testing.M) {
	if host := os.Getenv("STDIO_TO"); host != "" {
		c, err := api.New(host, api.ClientOptions{})
		if err == nil {
			err = c.Stdio(context.Background(), os.Stdin, os.Stdout)
		}
		if err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestSSH(t *testing.T) {
	f := &fake{stream: cat()}
	host, _ := serve(t, "unix", f, api.Options{})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	args := filepath.Join(bin, "args")
	script := "#!/bin/sh\necho \"$@\" > " + args + "\nSTDIO_TO=$TO exec " + self + "\n"
	if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("TO", host)
	c := dial(t, "ssh://me@example.com:2222", "")
	if _, err := c.Projects(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCat(t, c)
	got, err := os.ReadFile(args)
	if err != nil || string(got) != "-o BatchMode=yes -o ServerAliveInterval=15 -T -p 2222 -l me -- example.com tender dial-stdio\n" {
		t.Errorf("ssh %s, %v", got, err)
	}

	t.Setenv("TO", "unix://"+filepath.Join(bin, "none"))
	for name, do := range map[string]func(c *api.Client) error{
		"json": func(c *api.Client) error { _, err := c.Projects(t.Context()); return err },
		"exec": func(c *api.Client) error {
			_, err := c.Exec(t.Context(), web, api.ExecRequest{Cmd: []string{"sh"}})
			return err
		},
	} {
		err := do(dial(t, "ssh://example.com", ""))
		if tender.KindOf(err) != tender.Unavailable || !strings.Contains(err.Error(), "connect to example.com: no Tender daemon answers at unix://") {
			t.Errorf("%s: no daemon there: %v", name, err)
		}
	}
}
