package scan

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"runtime"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/tenderhq/tender"
)

// Remote finds an image in its registry; its layers come when they are read, and none of
// them is kept. auth is as in X-Registry-Auth, or ""; guard stands before requests with a
// login. NotFound: the registry does not have it.
func Remote(ctx context.Context, ref, auth, platform string, guard func(http.RoundTripper) http.RoundTripper) (v1.Image, error) {
	named, err := name.ParseReference(ref)
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "%q is no reference of an image: %v", ref, err).Hint("tender image scan registry.company.com/shop/web:1.4, or a file: ./image.tar")
	}
	if platform == "" {
		platform = "linux/" + runtime.GOARCH
	}
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "platform %q: %v", platform, err)
	}
	who := authn.Anonymous
	if auth != "" {
		var is struct{ Username, Password, IdentityToken string }
		raw, err := base64.URLEncoding.DecodeString(auth)
		if err == nil {
			err = json.Unmarshal(raw, &is)
		}
		if err != nil {
			return nil, tender.Errorf(tender.Invalid, "the login at %s is damaged", named.Context().RegistryStr()).Hint("tender registry login %s", named.Context().RegistryStr())
		}
		who = authn.FromConfig(authn.AuthConfig{Username: is.Username, Password: is.Password, IdentityToken: is.IdentityToken})
	}
	carrier := remote.DefaultTransport
	if auth != "" {
		carrier = guard(carrier)
	}
	img, err := remote.Image(named, remote.WithContext(ctx), remote.WithAuth(who), remote.WithPlatform(*p), remote.WithTransport(carrier))
	if err == nil {
		return img, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if known := new(tender.Error); errors.As(err, &known) {
		return nil, known
	}
	host := named.Context().RegistryStr()
	var t *transport.Error
	if errors.As(err, &t) {
		switch t.StatusCode {
		case http.StatusNotFound:
			return nil, tender.Errorf(tender.NotFound, "image %s is neither among the engine's images nor at %s", ref, host).Hint("is the name right? tender image scan ./image.tar reads a file")
		case http.StatusUnauthorized, http.StatusForbidden:
			return nil, tender.Errorf(tender.Denied, "image %s is not among the engine's images, and %s does not let us in", ref, host).Hint("tender registry login %s", host)
		}
	}
	return nil, tender.Errorf(tender.Unavailable, "image %s is not among the engine's images, and %s does not answer: %v", ref, host, err).
		Hint("is the name right? docker load -i FILE, or tender image scan ./FILE.tar")
}
