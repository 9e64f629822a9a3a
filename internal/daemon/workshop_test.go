package daemon

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
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
	layout bool // only of layouts may layers be left out
	whole  bool
	came   [][]string
}

func (r *receiver) Shared(context.Context, []string) (api.Shared, error) {
	return api.Shared{Layers: r.shared, Layout: r.layout}, nil
}

func (r *receiver) Load(_ context.Context, tarball io.Reader, a api.Arrival, _ func(api.Event)) error {
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
		if digest, ok := strings.CutPrefix(h.Name, "blobs/sha256/"); ok && len(digest) == 64 {
			h.Name = "made" // the manifest and the configuration
		}
		names = append(names, h.Name)
	}
	if a.As != "" && (!strings.HasPrefix(a.As, engine.Arriving) || !slices.Equal(a.Names, []string{"shop/web"})) {
		return errors.New("it arrives as " + a.As)
	}
	slices.Sort(names)
	r.came = append(r.came, names)
	if r.whole && !slices.Contains(names, "0/layer.tar") {
		return tender.Errorf(tender.Invalid, "load images: a layer is missing")
	}
	return nil
}

func TestOnlyMissingLayersTravel(t *testing.T) {
	all := []string{"0/layer.tar", "1/layer.tar", "2/layer.tar", "3/layer.tar", "c.json", "manifest.json"}
	laid := []string{"blobs/sha256/app", "blobs/sha256/twice", "index.json", "made", "made", "oci-layout"}
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
		{"an engine that takes layouts gets one", receiver{shared: 1, layout: true}, [][]string{laid}, 1},
		{"with nothing there, it goes as it is", receiver{layout: true}, [][]string{all}, 0},
		{"if the layer has another form there, all of it goes", receiver{shared: 1, layout: true, whole: true}, [][]string{laid, all}, 0},
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

// laidOut reads a layout as an engine does: each blob lies under its digest, and all that the image consists of is
// listed, those that are left out with a question mark.
func laidOut(t *testing.T, tarball io.Reader) string {
	t.Helper()
	z, err := gzip.NewReader(tarball)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && files[h.Name] != nil {
			err = errors.New(h.Name + " comes twice")
		}
		if err == nil {
			files[h.Name], err = io.ReadAll(r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var out []string
	get := func(d descriptor) []byte {
		content, ok := files[blob(d.Digest)]
		delete(files, blob(d.Digest))
		switch {
		case !ok:
			out = append(out, "?")
		case described("", content).Digest != d.Digest || int64(len(content)) != d.Size:
			t.Errorf("%s, %d bytes, is %q", d.Digest, d.Size, content)
		default:
			out = append(out, string(content))
		}
		return content
	}
	var index struct{ Manifests []descriptor }
	if err := json.Unmarshal(files["index.json"], &index); err != nil || len(index.Manifests) != 1 || string(files["oci-layout"]) != `{"imageLayoutVersion":"1.0.0"}` {
		t.Fatalf("index.json %s, oci-layout %s, err %v", files["index.json"], files["oci-layout"], err)
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	raw := get(index.Manifests[0])
	if err := json.Unmarshal(raw, &manifest); err != nil {
		t.Fatal(err)
	}
	out = []string{index.Manifests[0].Annotations["io.containerd.image.name"]}
	get(manifest.Config)
	seen := map[string]bool{}
	for _, d := range manifest.Layers {
		if !seen[d.Digest] {
			get(d)
		}
		seen[d.Digest] = true
	}
	delete(files, "index.json")
	delete(files, "oci-layout")
	if len(files) > 0 {
		t.Errorf("nobody asked for %q", files)
	}
	return strings.Join(out, " ")
}

// tarOf is a tar of files, name and content in turn; a content that begins with -> is a link.
func tarOf(t *testing.T, files ...string) *bytes.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for n := 0; n < len(files); n += 2 {
		h := &tar.Header{Name: files[n], Typeflag: tar.TypeReg, Size: int64(len(files[n+1])), Mode: 0o644}
		to, link := strings.CutPrefix(files[n+1], "->")
		if link {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, to, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if link {
			continue
		}
		if _, err := io.WriteString(w, files[n+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(b.Bytes())
}

func TestASavedImageBecomesALayout(t *testing.T) {
	digest := func(s string) string { return described("", []byte(s)).Digest }
	layers := []string{digest("base"), digest("twice"), digest("app"), digest("twice")}
	old := func() io.ReadSeeker {
		return tarOf(t, "0/layer.tar", "base", "1/layer.tar", "twice", "1/json", "{}", "2/layer.tar", "app", "3/layer.tar", "->../1/layer.tar", "c.json", "{config}",
			"manifest.json", `[{"Config":"c.json","RepoTags":["shop/web:1"],"Layers":["0/layer.tar","1/layer.tar","2/layer.tar","3/layer.tar"]}]`, "repositories", "{}")
	}
	packed := fmt.Sprintf(`{"config":{"digest":%q,"size":8},"layers":[{"digest":%q,"size":11},{"digest":%q,"size":3}]}`, digest("{config}"), digest("base packed"), digest("app"))
	file := func(s string) string { return blob(digest(s)) }
	current := func(manifests string) io.ReadSeeker {
		return tarOf(t, file("base packed"), "base packed", file("app"), "app", file("{config}"), "{config}", file(packed), packed,
			"index.json", `{"manifests":[`+manifests+`]}`, "manifest.json", fmt.Sprintf(`[{"Config":%q,"Layers":[%q,%q]}]`, file("{config}"), file("base packed"), file("app")),
			"oci-layout", `{"imageLayoutVersion":"1.0.0"}`)
	}
	one := fmt.Sprintf(`{"digest":%q,"size":%d,"annotations":{"io.containerd.image.name":"docker.io/shop/web:1"}}`, digest(packed), len(packed))
	for _, k := range []struct {
		name   string
		file   io.ReadSeeker
		layers []string
		shared int
		want   string // "": it goes as it is
	}{
		{"of an older engine, nothing there", old(), layers, 0, "{config} base twice app"},
		{"the base there", old(), layers, 1, "{config} ? twice app"},
		{"a layer there that comes again further up", old(), layers, 2, "{config} ? ? app"},
		{"not the layers that were counted", old(), layers[:3], 1, ""},
		{"an image without its configuration", tarOf(t, "0/layer.tar", "base", "manifest.json", `[{"Config":"c.json","Layers":["0/layer.tar"]}]`), layers[:1], 1, ""},
		{"no image", tarOf(t, "file", "of somebody"), layers, 1, ""},
		{"of a current engine", current(one), []string{digest("base"), digest("app")}, 1, "{config} ? app"},
		{"under two names", current(strings.Replace(one, "web:1", "web:2", 1) + "," + one), []string{digest("base"), digest("app")}, 1, "{config} ? app"},
		{"beside another image", current(`{"digest":"sha256:other","size":1},` + one), []string{digest("base"), digest("app")}, 1, ""},
	} {
		t.Run(k.name, func(t *testing.T) {
			l, err := layoutOf(k.file, k.layers, k.shared, "tender-arriving:x")
			if err != nil {
				t.Fatal(err)
			}
			if l == nil {
				if k.want != "" {
					t.Fatal("it goes as it is")
				}
				return
			}
			var b bytes.Buffer
			if err := l.pack(&b, k.file); err != nil {
				t.Fatal(err)
			}
			if got := laidOut(t, &b); got != "docker.io/library/tender-arriving:x "+k.want {
				t.Errorf("got %s, want %s", got, k.want)
			}
		})
	}
}

// An engine gives what it is sent whole this manifest, whose digest is the image's id there: with
// another one, the same image sent in both ways would be two, and up would replace its instances.
func TestALayoutHasTheManifestThatEnginesWrite(t *testing.T) {
	digest := func(s string) string { return described("", []byte(s)).Digest }
	l, err := layoutOf(tarOf(t, "0/layer.tar", "base", "c.json", "{config}", "manifest.json", `[{"Config":"c.json","Layers":["0/layer.tar"]}]`), []string{digest("base")}, 1, "tender-arriving:x")
	if err != nil || l == nil {
		t.Fatalf("%v, err %v", l, err)
	}
	want := `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",` +
		`"config":{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"` + digest("{config}") + `","size":8},` +
		`"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar","digest":"` + digest("base") + `","size":4}]}`
	if got := string(l.made[blob(digest(want))]); got != want {
		t.Errorf("it makes %q, not %s", l.made, want)
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
