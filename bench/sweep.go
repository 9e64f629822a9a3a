package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// swept is one collection of garbage.
type swept struct {
	took time.Duration
	cpu  float64 // seconds, of all processes that took part
	peak int64   // bytes
	left map[string]bool
	// While images were pushed.
	pushed  int
	longest time.Duration
}

// sweepAll lays out n manifests as a registry keeps them, half of which have been deleted, and has each registry free what
// only those needed: Tender while it serves, once with nobody there and once while images are pushed, the others stopped, as
// they have to be. All must leave the same blobs.
func sweepAll(ctx context.Context, keepers []*keeper, n, runs int, dir string) error {
	fmt.Printf("\ngarbage of %d manifests, half of them deleted, in 10 repositories, each with a config and 2 layers of its own and 1 of its repository, load %s\n", n, load())
	fmt.Printf("%-38s %8s %8s %10s %10s\n", "", "s", "CPU s", "peak RSS", "blobs left")
	type way struct {
		name string
		do   func(own string) (swept, error)
	}
	var ways []way
	for _, k := range keepers {
		switch {
		case k.htpasswd:
		case k.name == tenderName:
			ways = append(ways,
				way{"tender, serving", func(own string) (swept, error) { return k.sweep(ctx, own, false) }},
				way{"tender, while images are pushed", func(own string) (swept, error) { return k.sweep(ctx, own, true) }})
		default:
			ways = append(ways, way{k.name + ", stopped", func(own string) (swept, error) { return k.collect(ctx, own) }})
		}
	}
	all := map[string][]swept{}
	for range runs {
		var left map[string]bool
		for _, w := range ways {
			own, err := os.MkdirTemp(dir, "g-")
			if err != nil {
				return err
			}
			s, err := func() (s swept, err error) {
				defer os.RemoveAll(own)
				live, err := layOut(filepath.Join(own, "blobs"), n)
				if err != nil {
					return s, err
				}
				if s, err = w.do(own); err != nil {
					return s, err
				}
				for b := range live {
					if !s.left[b] {
						return s, fmt.Errorf("the blob %s is needed, and gone", b)
					}
				}
				return s, nil
			}()
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			if left != nil && s.pushed == 0 && !maps.Equal(left, s.left) {
				return fmt.Errorf("%s leaves %d blobs, the one before it %d", w.name, len(s.left), len(left))
			}
			if s.pushed == 0 {
				left = s.left
			}
			all[w.name] = append(all[w.name], s)
		}
	}
	for _, w := range ways {
		list := all[w.name]
		slices.SortFunc(list, func(a, b swept) int { return cmp.Compare(a.cpu, b.cpu) })
		m := list[len(list)/2]
		note := ""
		if m.pushed > 0 {
			note = fmt.Sprintf("  %d images pushed, pulled again and whole; the longest push took %.0f ms", m.pushed, float64(m.longest.Microseconds())/1000)
		}
		fmt.Printf("%-38s %8.2f %8.2f %7d MB %10d%s\n", w.name, m.took.Seconds(), m.cpu, m.peak>>20, len(m.left), note)
	}
	return nil
}

// layOut writes the files that n pushes and n/2 deletions leave, two days ago. live are the
// blobs that are needed.
func layOut(root string, n int) (live map[string]bool, err error) {
	live = map[string]bool{}
	old := time.Now().Add(-48 * time.Hour)
	write := func(path, text string) {
		if err != nil {
			return
		}
		path = filepath.Join(root, "docker/registry/v2", path)
		if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
			if err = os.WriteFile(path, []byte(text), 0o600); err == nil {
				err = os.Chtimes(path, old, old)
			}
		}
	}
	for i := range n {
		repository := fmt.Sprintf("repositories/bench/r%d", i%10)
		blob := func(text string) described {
			sum := sha256.Sum256([]byte(text))
			hexed := hex.EncodeToString(sum[:])
			write("blobs/sha256/"+hexed[:2]+"/"+hexed+"/data", text)
			return described{"application/vnd.oci.image.layer.v1.tar", int64(len(text)), "sha256:" + hexed}
		}
		part := func(text string) described {
			d := blob(text)
			write(repository+"/_layers/sha256/"+d.Digest[7:]+"/link", d.Digest)
			return d
		}
		config := part(fmt.Sprintf(`{"architecture":"amd64","os":"linux","n":%d}`, i))
		config.MediaType = "application/vnd.oci.image.config.v1+json"
		layers := []described{part(fmt.Sprintf("base of %d", i%10)), part(fmt.Sprintf("first of %d", i)), part(fmt.Sprintf("second of %d", i))}
		text, merr := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": layers})
		if merr != nil {
			return nil, merr
		}
		m := blob(string(text))
		revision := repository + "/_manifests/revisions/sha256/" + m.Digest[7:] + "/link"
		if i/10%2 == 1 { // deleted
			continue
		}
		write(revision, m.Digest)
		tag := fmt.Sprintf("%s/_manifests/tags/v%d/", repository, i)
		write(tag+"current/link", m.Digest)
		write(tag+"index/sha256/"+m.Digest[7:]+"/link", m.Digest)
		for _, d := range append(layers, config, m) {
			live[d.Digest[7:]] = true
		}
	}
	return live, err
}

// leftIn lists the blobs whose data is there.
func leftIn(root string) (map[string]bool, error) {
	left := map[string]bool{}
	err := filepath.WalkDir(filepath.Join(root, "docker/registry/v2/blobs/sha256"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "data" {
			left[filepath.Base(filepath.Dir(path))] = true
		}
		return err
	})
	return left, err
}

// collect runs garbage-collect, with nobody served.
func (k *keeper) collect(ctx context.Context, own string) (s swept, err error) {
	config, err := k.config(own, "127.0.0.1:0")
	if err != nil {
		return s, err
	}
	c := exec.CommandContext(ctx, k.binary, "garbage-collect", config)
	c.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	if s.took, err = timed(func() error { return output(c) }); err != nil {
		return s, err
	}
	s.cpu = (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds()
	if u, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.peak = u.Maxrss << 10
	}
	s.left, err = leftIn(filepath.Join(own, "blobs"))
	return s, err
}

// sweep runs tender registry gc against a serve.
func (k *keeper) sweep(ctx context.Context, own string, pushing bool) (s swept, err error) {
	if err := k.start(ctx, own); err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, k.stop()) }()
	c := &mover{base: k.base, password: k.password}
	defer c.close()
	if err := k.settle(ctx, c); err != nil {
		return s, err
	}
	before, err := cpuOfPID(k.pid)
	if err != nil {
		return s, err
	}
	stop, ended := make(chan struct{}), make(chan error, 1)
	var images []*pushed
	go func() {
		if !pushing {
			ended <- nil
			return
		}
		for i := 0; ; i++ {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			p, err := makeImage(shape{fmt.Sprint("while sweeping ", i), 3, 8192 + int64(i)})
			if err == nil {
				var took time.Duration
				took, err = timed(func() error { return c.push(ctx, fmt.Sprintf("bench/r%d", i%10), fmt.Sprint("new", i), p) })
				s.longest = max(s.longest, took)
			}
			if err != nil {
				ended <- err
				return
			}
			images = append(images, p)
		}
	}()
	gc := k.ours.cmd(ctx, "registry", "gc")
	s.took, err = timed(func() error { return output(gc) })
	close(stop)
	if err := errors.Join(err, <-ended); err != nil {
		return s, err
	}
	after, err := cpuOfPID(k.pid)
	if err != nil {
		return s, err
	}
	s.cpu, s.pushed = after-before+(gc.ProcessState.UserTime()+gc.ProcessState.SystemTime()).Seconds(), len(images)
	if s.peak, err = peakOf(k.pid); err != nil {
		return s, err
	}
	for i, p := range images {
		if err := c.pull(ctx, fmt.Sprintf("bench/r%d", i%10), fmt.Sprint("new", i), p); err != nil {
			return s, fmt.Errorf("an image that was pushed meanwhile: %w", err)
		}
	}
	if s.left, err = leftIn(k.dir); err != nil {
		return s, err
	}
	first, err := makeImage(shape{"first", 1, 4096})
	if err != nil {
		return s, err
	}
	for _, d := range []string{digestOf(first.config), digestOf(first.manifest), first.layers[0].digest} { // of settle
		delete(s.left, strings.TrimPrefix(d, "sha256:"))
	}
	return s, nil
}
