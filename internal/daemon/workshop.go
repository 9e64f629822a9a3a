package daemon

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/engine/docker"
)

// Workshop is the engine beside the command line, where images are built for a
// daemon on another host. It runs nothing.
type Workshop struct {
	engine engine.Engine
	info   engine.Info
	// Lowest layers of which the other side has only another form, so that images on them go whole.
	other map[string]bool
}

// OpenWorkshop finds the engine at host, "" being the usual place. Unavailable: none answers.
func OpenWorkshop(ctx context.Context, host string) (*Workshop, error) {
	e, err := docker.New(host, docker.Options{Parse: compose.Spec})
	if err != nil {
		return nil, err
	}
	i, err := e.Info(ctx)
	if err != nil {
		return nil, err
	}
	return &Workshop{engine: e, info: i}, nil
}

// Platform is what this engine builds for: linux/amd64.
func (w *Workshop) Platform() string { return w.info.OS + "/" + w.info.Arch }

// Images looks references up among the images here; those that are not are left out.
func (w *Workshop) Images(ctx context.Context, refs []string) ([]api.Image, error) {
	return (&backend{engine: w.engine}).Images(ctx, refs)
}

// Build builds an image here.
func (w *Workshop) Build(ctx context.Context, r api.BuildRequest, contexts []api.BuildContext, report func(api.Event)) (string, error) {
	report = stamped(report, "")
	o := buildOptions(r, r.Secrets, r.Auths)
	var main io.Reader
	for _, c := range contexts {
		if c.Name == "" {
			main = c.Tar
		} else {
			o.Contexts[c.Name] = c.Tar
		}
	}
	return w.engine.Build(ctx, main, o, func(p engine.Progress) {
		report(api.Event{Kind: api.KindBuild, Service: r.Service, Text: p.Text, Current: p.Current, Total: p.Total})
	})
}

// Receiver is where images travel to; api.Client is one.
type Receiver interface {
	Shared(ctx context.Context, layers []string) (api.Shared, error)
	Load(ctx context.Context, tarball io.Reader, a api.Arrival, report func(api.Event)) error
}

// Sent says what a Send came to.
type Sent struct {
	Bytes  int64 // over the wire
	Size   int64 // of the whole image, unpacked
	Layers int   // of the image
	Shared int   // of them, those that did not travel
}

// Send brings one image, under all the names given, to another host without a
// registry. Layers that are there already stay here, if the engine there can do without them.
func (w *Workshop) Send(ctx context.Context, to Receiver, refs []string, report func(api.Event)) (Sent, error) {
	doing := "send " + refs[0]
	layers, err := w.engine.Layers(ctx, refs[0])
	if err != nil {
		return Sent{}, fmt.Errorf("%s: %w", doing, err)
	}
	out := Sent{Layers: len(layers)}
	there, err := to.Shared(ctx, layers)
	if err != nil {
		return out, fmt.Errorf("%s: %w", doing, err)
	}
	out.Shared = there.Layers
	file, err := w.spool(ctx, refs)
	if err != nil {
		return out, fmt.Errorf("%s: %w", doing, err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if st, err := file.Stat(); err == nil {
		out.Size = st.Size()
	}
	if there.Layout {
		done, err := w.sendLayout(ctx, to, file, layers, refs, &out, report)
		if err != nil {
			return out, fmt.Errorf("%s: %w", doing, err)
		}
		if done {
			return out, nil
		}
		out.Shared = 0
	}
	for {
		skip, err := leaveOut(file, layers, out.Shared)
		if err != nil {
			return out, fmt.Errorf("%s: %w", doing, err)
		}
		n, err := deliver(ctx, to, api.Arrival{}, func(w io.Writer) error { return packTar(w, file, skip) }, report)
		out.Bytes += n
		switch {
		case err == nil:
			return out, nil
		case out.Shared == 0 || tender.KindOf(err) != tender.Invalid:
			return out, fmt.Errorf("%s: %w", doing, err)
		}
		// This engine wants every layer, or one has gone since it was counted.
		out.Shared = 0
	}
}

// sendLayout sends the image without the layers that are there, under a name that nobody else has until it is
// proved whole. It is not where the other side's engine has these layers in another form, as a registry packed them.
func (w *Workshop) sendLayout(ctx context.Context, to Receiver, file io.ReadSeeker, layers, refs []string, out *Sent, report func(api.Event)) (done bool, err error) {
	if out.Shared == 0 || w.other[layers[0]] {
		return false, nil
	}
	a := api.Arrival{As: engine.Arriving + strings.ToLower(rand.Text()), Names: refs}
	l, err := layoutOf(file, layers, out.Shared, a.As)
	if err != nil || l == nil {
		return false, err
	}
	n, err := deliver(ctx, to, a, func(w io.Writer) error { return l.pack(w, file) }, report)
	out.Bytes += n
	if tender.KindOf(err) != tender.Invalid {
		return err == nil, err
	}
	if w.other == nil {
		w.other = map[string]bool{}
	}
	w.other[layers[0]] = true
	return false, nil
}

// spool saves an image to a file: which of its layers is which stands at the end of the tar.
func (w *Workshop) spool(ctx context.Context, refs []string) (_ *os.File, err error) {
	r, err := w.engine.Save(ctx, refs)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	f, err := os.CreateTemp("", "tender-image-")
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(f, r); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

// leaveOut names the files of the tar that hold the lowest shared layers, but
// for those whose content is needed again further up.
func leaveOut(file io.ReadSeeker, layers []string, shared int) (map[string]bool, error) {
	skip := map[string]bool{}
	if shared == 0 {
		return skip, nil
	}
	var manifest []struct{ Layers []string }
	if err := readTar(file, func(h *tar.Header, r io.Reader) error {
		if path.Clean(h.Name) != "manifest.json" {
			return nil
		}
		return json.NewDecoder(r).Decode(&manifest)
	}); err != nil {
		return nil, err
	}
	for _, m := range manifest {
		if len(m.Layers) != len(layers) {
			return map[string]bool{}, nil // not what was counted: all of it goes
		}
		for n, name := range m.Layers[:shared] {
			if !slices.Contains(layers[shared:], layers[n]) {
				skip[path.Clean(name)] = true
			}
		}
	}
	return skip, nil
}

func readTar(file io.ReadSeeker, see func(h *tar.Header, r io.Reader) error) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	for t := tar.NewReader(file); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := see(h, t); err != nil {
			return err
		}
	}
}

// deliver sends what pack writes, and counts the bytes.
func deliver(ctx context.Context, to Receiver, a api.Arrival, pack func(io.Writer) error, report func(api.Event)) (int64, error) {
	r, w := io.Pipe()
	count := &counted{w: w}
	packed := make(chan error, 1)
	go func() {
		err := pack(count)
		w.CloseWithError(err)
		packed <- err
	}()
	err := to.Load(ctx, r, a, report)
	r.Close() // ends the packing where the other side took only a part
	if e := <-packed; e != nil && err == nil && !errors.Is(e, io.ErrClosedPipe) {
		err = e
	}
	return count.n, err
}

func packTar(w io.Writer, file io.ReadSeeker, skip map[string]bool) error {
	// Fast rather than small: most lines outrun the best compression.
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	err = readTar(file, func(h *tar.Header, r io.Reader) error {
		if skip[path.Clean(h.Name)] && h.Typeflag == tar.TypeReg {
			return nil
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.Copy(t, r)
		return err
	})
	return cmp.Or(err, t.Close(), z.Close())
}

type counted struct {
	w io.Writer
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
