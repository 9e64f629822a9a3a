package daemon

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"testing"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/engine"
)

// saved is an engine with one image of four layers, the second of which comes
// again at the top, as docker save writes it.
type saved struct{ engine.Engine }

var fourLayers = []string{"sha256:base", "sha256:twice", "sha256:app", "sha256:twice"}

func (saved) Layers(context.Context, string) ([]string, error) { return fourLayers, nil }

func (saved) Save(context.Context, []string) (io.ReadCloser, error) {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	manifest, err := json.Marshal([]map[string]any{{"Config": "c.json", "Layers": []string{"0/layer.tar", "1/layer.tar", "2/layer.tar", "3/layer.tar"}}})
	if err != nil {
		return nil, err
	}
	for name, content := range map[string]string{"0/layer.tar": "base", "1/layer.tar": "twice", "2/layer.tar": "app", "c.json": "{}", "manifest.json": string(manifest)} {
		err = errors.Join(err, t.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(content)), Mode: 0o644}))
		_, e := io.WriteString(t, content)
		err = errors.Join(err, e)
	}
	err = errors.Join(err, t.WriteHeader(&tar.Header{Name: "3/layer.tar", Typeflag: tar.TypeSymlink, Linkname: "../1/layer.tar"}), t.Close())
	return io.NopCloser(&b), err
}

// receiver notes what came; whole refuses what is not all of it.
type receiver struct {
	shared int
	whole  bool
	came   [][]string
}

func (r *receiver) Shared(context.Context, []string) (int, error) { return r.shared, nil }

func (r *receiver) Load(_ context.Context, tarball io.Reader, _ func(api.Event)) error {
	z, err := gzip.NewReader(tarball)
	if err != nil {
		return err
	}
	var names []string
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		names = append(names, h.Name)
	}
	slices.Sort(names)
	r.came = append(r.came, names)
	if r.whole && len(names) < 6 {
		return tender.Errorf(tender.Invalid, "load images: a layer is missing")
	}
	return nil
}

func TestOnlyMissingLayersTravel(t *testing.T) {
	all := []string{"0/layer.tar", "1/layer.tar", "2/layer.tar", "3/layer.tar", "c.json", "manifest.json"}
	for _, k := range []struct {
		name string
		to   receiver
		want [][]string
		left int
	}{
		{"nothing is there", receiver{}, [][]string{all}, 0},
		{"the base is there", receiver{shared: 1}, [][]string{all[1:]}, 1},
		{"a layer that comes again further up travels", receiver{shared: 2}, [][]string{all[1:]}, 2},
		{"all of it is there, without the name", receiver{shared: 4}, [][]string{all[3:]}, 4},
		{"an engine that wants every layer gets them", receiver{shared: 1, whole: true}, [][]string{all[1:], all}, 0},
	} {
		t.Run(k.name, func(t *testing.T) {
			sent, err := (&Workshop{engine: saved{}}).Send(t.Context(), &k.to, []string{"shop/web"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(k.to.came, k.want, slices.Equal) {
				t.Errorf("came %v, want %v", k.to.came, k.want)
			}
			if sent.Shared != k.left || sent.Layers != 4 || sent.Bytes == 0 {
				t.Errorf("it says %+v", sent)
			}
		})
	}
}

func TestHostsOfRegistriesHaveNames(t *testing.T) {
	for said, want := range map[string]string{
		"registry.example.com": "registry.example.com", "https://Registry.example.com:5000/v2/": "registry.example.com:5000",
		"https://index.docker.io/v1/": "docker.io", "localhost:5000": "localhost:5000", "[::1]:5000": "[::1]:5000", "a_b.example": "a_b.example",
	} {
		host, err := registryHost(said)
		if err != nil || host != want || hostOf(loginName(host)) != want {
			t.Errorf("%q is %q, back %q, err %v", said, host, hostOf(loginName(host)), err)
		}
	}
	if _, err := registryHost(""); err == nil {
		t.Error("an empty host is no registry")
	}
}
