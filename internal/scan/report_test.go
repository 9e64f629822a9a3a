package scan_test

import (
	"encoding/base64"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/scan"
)

func TestASecondOpinionKnowsFlawsByAnyOfTheirNames(t *testing.T) {
	ours := []tender.Finding{
		{Kind: tender.Vulnerability, ID: "CVE-1", Aliases: []string{"GHSA-1"}, Package: "libssl3", Source: "openssl"},
		{Kind: tender.Vulnerability, ID: "CVE-2", Package: "curl"},
		{Kind: tender.Setup, ID: "setup/root-user"},
	}
	theirs := []tender.Finding{
		{Kind: tender.Vulnerability, ID: "GHSA-1", Package: "openssl"},
		{Kind: tender.Vulnerability, ID: "CVE-2", Package: "libcurl"},
	}
	o := scan.Second(ours, theirs)
	if o.Both != 1 || o.Ours != 1 || len(o.Others) != 1 || o.Others[0].Package != "libcurl" {
		t.Errorf("%+v", o)
	}
}

func TestAnImageIsReadFromItsRegistry(t *testing.T) {
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(srv.Close)
	ref := strings.TrimPrefix(srv.URL, "http://") + "/shop/web:1"
	image, err := random.Image(1024, 2)
	if err != nil {
		t.Fatal(err)
	}
	named, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(named, image); err != nil {
		t.Fatal(err)
	}
	img, err := scan.Remote(t.Context(), ref, "", "", asItIs)
	if err != nil {
		t.Fatal(err)
	}
	c, err := scan.Read(t.Context(), scan.Source{Image: img, Reference: ref}, scan.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if want, err := image.Digest(); err != nil || c.Digest != want.String() || c.Reference != ref || len(c.Layers) != 2 {
		t.Errorf("read %s %s, %d layers; %v", c.Reference, c.Digest, len(c.Layers), err)
	}
	if _, err := scan.Remote(t.Context(), ref+"0", "", "", asItIs); tender.KindOf(err) != tender.NotFound {
		t.Errorf("an image that is not there: %v", err)
	}
	if _, err := scan.Remote(t.Context(), "Not A Name", "", "", asItIs); tender.KindOf(err) != tender.Invalid {
		t.Errorf("no reference: %v", err)
	}
	if _, err := scan.Remote(t.Context(), ref, "!", "", asItIs); tender.KindOf(err) != tender.Invalid {
		t.Errorf("a damaged login: %v", err)
	}
	// A login goes through the guard, which may refuse.
	login := base64.URLEncoding.EncodeToString([]byte(`{"Username":"ann","Password":"secret"}`))
	refuse := func(http.RoundTripper) http.RoundTripper { return refusing{} }
	if _, err := scan.Remote(t.Context(), ref, login, "", refuse); tender.KindOf(err) != tender.Denied || !strings.Contains(err.Error(), "no login goes there") {
		t.Errorf("past the guard: %v", err)
	}
	if _, err := scan.Remote(t.Context(), ref, "", "", refuse); err != nil {
		t.Errorf("without a login: %v", err)
	}
}

func asItIs(carrier http.RoundTripper) http.RoundTripper { return carrier }

type refusing struct{}

func (refusing) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, tender.Errorf(tender.Denied, "no login goes there")
}
