package proxy

import (
	"bytes"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
)

// What is wrong with a certificate in files is said, however long it is shown.
func TestCertificatesInFilesAreReported(t *testing.T) {
	a, err := newAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	day := 24 * time.Hour
	start := time.Now().Truncate(time.Minute)
	for name, c := range map[string]struct {
		life   time.Duration // of the certificate
		at     time.Duration // when it is looked at, from its beginning
		host   string
		change func(cert, key string) error // before that
		want   string
	}{
		"well":          {life: 90 * day, at: day, host: "shop.test"},
		"for wildcards": {life: 90 * day, at: day, host: "*.shop.test"},
		"any host":      {life: 90 * day, at: day},
		"soon":          {life: 90 * day, at: 80 * day, host: "shop.test", want: "ends on END: put a new one in its place"},
		"a short life":  {life: 6 * day, at: 2 * day, host: "shop.test"},
		"expired":       {life: 90 * day, at: 91 * day, host: "shop.test", want: "expired on END"},
		"not yet":       {life: 90 * day, at: -day, host: "shop.test", want: "is good from BEGIN on"},
		"another host":  {life: 90 * day, at: day, host: "other.test", want: "is not for other.test but for shop.test, *.shop.test"},
		"unreadable later": {
			life: 90 * day, at: day, host: "shop.test", want: "cannot be read: open KEY: no such file or directory",
			change: func(_, key string) error { return os.Remove(key) },
		},
		"unreadable and expired": {
			life: 90 * day, at: 91 * day, host: "shop.test", want: "cannot be read: tls: failed to find any PEM data in certificate input; the one shown expired on END",
			change: func(cert, _ string) error { return os.WriteFile(cert, []byte("half"), 0o600) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			cert, key := writeLeaf(t, a, t.TempDir(), x509.Certificate{DNSNames: []string{"shop.test", "*.shop.test"}, NotBefore: start, NotAfter: start.Add(c.life)})
			f := newCerts(Options{}).fileFor(nil, Route{RouteOptions: tender.RouteOptions{CertFile: cert, KeyFile: key}}).file
			if c.change != nil {
				if err := c.change(cert, key); err != nil {
					t.Fatal(err)
				}
				f.checked = time.Time{}
			}
			got := f.report(c.host, start.Add(c.at))
			want := strings.NewReplacer("END", moment(start.Add(c.life)), "BEGIN", moment(start), "KEY", key).Replace(c.want)
			if got.Problem != want || got.From != "file" || got.Ends != start.Add(c.life).UnixMilli() {
				t.Errorf("got %+v, want %q", got, want)
			}
		})
	}
	f := newCerts(Options{}).fileFor(nil, Route{RouteOptions: tender.RouteOptions{CertFile: "/nowhere.crt", KeyFile: "/nowhere.key"}}).file
	if got := f.report("shop.test", start); got.Problem != "cannot be read: open /nowhere.crt: no such file or directory" || got.Ends != 0 {
		t.Errorf("one that never was: %+v", got)
	}
}

func certificateOf(r *tlsRig, host string) (found CertReport) {
	for _, route := range r.Report().Routes {
		for _, c := range route.Certificates {
			if c.Host == host {
				found = c
			}
		}
	}
	return found
}

// An authority that refuses is told of, in its words, in report and metrics.
func TestARefusedCertificateIsReported(t *testing.T) {
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusForbidden)
		w.Write([]byte(`{"type":"urn:ietf:params:acme:error:unauthorized","detail":"not today","status":403}`))
	}))
	t.Cleanup(refuses.Close)
	r := serveTLSBy(t, Options{Dir: t.TempDir(), ACME: ACME{Directory: refuses.URL}}, internalRoute("fine.test"))
	auto := internalRoute("shop.test")
	auto.TLS = "auto"
	r.table(t, 2, internalRoute("fine.test"), auto)
	until(t, "it is reported", func() bool { return certificateOf(r, "shop.test").Problem != "" })
	if got := certificateOf(r, "shop.test"); got.From != "auto" || got.Ends != 0 || !strings.HasPrefix(got.Problem, "there is none: ") || !strings.Contains(got.Problem, "403") {
		t.Errorf("got %+v", got)
	}
	fine := certificateOf(r, "fine.test")
	if left := time.Until(time.UnixMilli(fine.Ends)); fine.From != "internal" || fine.Problem != "" || left > leafLife || left < leafLife-time.Hour {
		t.Errorf("the one beside it: %+v", fine)
	}
	var b bytes.Buffer
	r.Metrics(&b)
	for _, want := range []string{
		`tender_edge_certificate_problem{project="shop",host="shop.test",from="auto"} 1`,
		`tender_edge_certificate_end_seconds{project="shop",host="shop.test",from="auto"} 0`,
		`tender_edge_certificate_problem{project="shop",host="fine.test",from="internal"} 0`,
	} {
		if !strings.Contains(b.String(), want+"\n") {
			t.Errorf("no %s in the metrics", want)
		}
	}
	// What is gone from the table is forgotten.
	r.table(t, 3, internalRoute("fine.test"))
	if _, known := r.certs.trouble.of("shop.test"); known {
		t.Error("a host that has left is remembered")
	}
}
