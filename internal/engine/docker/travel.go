package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"slices"
	"strings"

	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// hubAddress is what engines call the default registry when somebody logs in.
const hubAddress = "https://index.docker.io/v1/"

// Layers implements engine.Images.
func (e *Engine) Layers(ctx context.Context, ref string) ([]string, error) {
	got, err := e.c().ImageInspect(ctx, ref)
	if err != nil {
		return nil, wrap(err, "image %s", ref)
	}
	return got.RootFS.Layers, nil
}

// Shared implements engine.Images. Engines answer no question about layers, so
// the images are asked, side by side, which they consist of.
func (e *Engine) Shared(ctx context.Context, layers []string) (int, error) {
	images, err := e.c().ImageList(ctx, client.ImageListOptions{All: true})
	if err != nil {
		return 0, wrap(err, "list images")
	}
	counts := make([]int, len(images.Items))
	err = each(len(counts), func(n int) error {
		has, err := e.Layers(ctx, images.Items[n].ID)
		if tender.KindOf(err) == tender.NotFound {
			return nil // it went in between
		}
		for counts[n] < min(len(has), len(layers)) && has[counts[n]] == layers[counts[n]] {
			counts[n]++
		}
		return err
	})
	if err != nil || len(counts) == 0 {
		return 0, err
	}
	return slices.Max(counts), nil
}

// Save implements engine.Images.
func (e *Engine) Save(ctx context.Context, refs []string) (io.ReadCloser, error) {
	r, err := e.c().ImageSave(ctx, refs)
	if err != nil {
		return nil, wrap(err, "save %s", strings.Join(refs, ", "))
	}
	return r, nil
}

// Load implements engine.Images.
func (e *Engine) Load(ctx context.Context, tarball io.Reader, report func(engine.Progress)) error {
	got, err := e.c().ImageLoad(ctx, tarball)
	if err != nil {
		return wrap(err, "load images")
	}
	defer got.Close()
	said := func(err error) error {
		// The engine took the request and choked on the tar, so that is what is wrong.
		return tender.Errorf(tender.Invalid, "load images: %w", err)
	}
	d := json.NewDecoder(got)
	for {
		var m struct {
			Stream, Status, ID string
			Error              string
		}
		if err := d.Decode(&m); err != nil {
			if err == io.EOF { //nolint:errorlint // the decoder returns it bare
				return nil
			}
			return wrap(err, "load images")
		}
		switch text := strings.TrimSpace(m.Stream + m.Status); {
		case m.Error != "":
			return said(errorText(m.Error))
		case strings.HasPrefix(text, unpacking):
			// Said by the way, and the names stand: but of an image that nothing can be made from.
			return said(errorText(text))
		case text != "" && report != nil:
			report(engine.Progress{ID: m.ID, Text: text})
		}
	}
}

// unpacking begins what an engine says that keeps images in containerd and lacks one of their layers.
const unpacking = "Error unpacking image"

type errorText string

func (e errorText) Error() string { return string(e) }

// Login implements engine.Images.
func (e *Engine) Login(ctx context.Context, host, user, password string) (string, error) {
	address := host
	if host == "docker.io" {
		address = hubAddress
	}
	got, err := e.c().RegistryLogin(ctx, client.RegistryLoginOptions{Username: user, Password: password, ServerAddress: address})
	if err != nil {
		return "", registryError(err, host, "log in at "+host)
	}
	fields := map[string]string{"username": user, "password": password, "serveraddress": address}
	if t := got.Auth.IdentityToken; t != "" {
		fields = map[string]string{"username": user, "identitytoken": t, "serveraddress": address}
	}
	raw, err := json.Marshal(fields)
	if err != nil {
		return "", err
	}
	return base64.URLEncoding.EncodeToString(raw), nil
}
