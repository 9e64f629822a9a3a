package registry

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/minio/minio-go/v7"
)

// files are the registry's own hands in what the library lays out: the clean-up reads in
// parts what may be large, and removes single files. Paths are the library's. What is not
// there is fs.ErrNotExist to read and stat, and nothing to remove.
type files interface {
	entries(ctx context.Context, folder string) iter.Seq[entry]
	read(ctx context.Context, file string) ([]byte, error)
	stat(ctx context.Context, file string) (size int64, young time.Time, err error)
	remove(ctx context.Context, file string) error
	removeAll(ctx context.Context, folder string) error
	// touch makes a file young, once in a quarter of an hour: the sweep looks at days.
	touch(ctx context.Context, file string, now time.Time) (there bool)
}

// entry is one of a folder.
type entry struct {
	name string
	dir  bool
	err  error // the folder could not be read on
}

// disk is a folder.
type disk struct{ dir string }

func (d disk) at(p string) string { return filepath.Join(d.dir, filepath.FromSlash(p)) }

// entries reads a folder in parts, so that its size costs no memory. One that is not there has none.
func (d disk) entries(_ context.Context, folder string) iter.Seq[entry] {
	return func(yield func(entry) bool) {
		f, err := os.Open(d.at(folder))
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			yield(entry{err: err})
			return
		}
		defer f.Close()
		for {
			part, err := f.ReadDir(512)
			for _, e := range part {
				if !yield(entry{name: e.Name(), dir: e.IsDir()}) {
					return
				}
			}
			if len(part) == 0 {
				if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, fs.ErrNotExist) {
					yield(entry{err: err})
				}
				return
			}
		}
	}
}

func (d disk) read(_ context.Context, file string) ([]byte, error) { return os.ReadFile(d.at(file)) }

func (d disk) stat(_ context.Context, file string) (int64, time.Time, error) {
	info, err := os.Stat(d.at(file))
	if err != nil {
		return 0, time.Time{}, err
	}
	return info.Size(), info.ModTime(), nil
}

func (d disk) remove(_ context.Context, file string) error {
	if err := os.Remove(d.at(file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (d disk) removeAll(_ context.Context, folder string) error { return os.RemoveAll(d.at(folder)) }

func (d disk) touch(_ context.Context, file string, now time.Time) (there bool) {
	info, err := os.Stat(d.at(file))
	if err != nil {
		return false
	}
	if now.Sub(info.ModTime()) > leaseTime/4 {
		// The lease in memory holds where this fails.
		_ = os.Chtimes(d.at(file), now, now)
	}
	return true
}

var (
	_ files = disk{}
	_ files = (*bucket)(nil)
)

func (b *bucket) missing(err error) error {
	if code := minio.ToErrorResponse(err).Code; code == minio.NoSuchKey || code == "NotFound" {
		return fs.ErrNotExist
	}
	return err
}

func (b *bucket) entries(ctx context.Context, folder string) iter.Seq[entry] {
	return func(yield func(entry) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		under := b.folder(folder)
		for o := range b.client.ListObjects(ctx, b.name, minio.ListObjectsOptions{Prefix: under}) {
			name, dir := strings.CutSuffix(strings.TrimPrefix(o.Key, under), "/")
			if name == "" && o.Err == nil {
				continue
			}
			if !yield(entry{name: name, dir: dir, err: o.Err}) || o.Err != nil {
				return
			}
		}
	}
}

func (b *bucket) read(ctx context.Context, file string) ([]byte, error) {
	text, err := b.GetContent(ctx, file)
	if notThere(err) {
		return nil, fs.ErrNotExist
	}
	return text, err
}

// mark is a file here whose time says when an object was touched: objects have none that can be set.
func (b *bucket) mark(file string) string {
	return filepath.Join(b.dir, touchedFolder, path.Base(path.Dir(file)))
}

const (
	touchedFolder = "touched"
	uploadAge     = 7 * 24 * time.Hour // until an upload that nobody finished goes
	purgeEvery    = 24 * time.Hour     // that is looked for
)

func (b *bucket) stat(ctx context.Context, file string) (int64, time.Time, error) {
	info, err := b.client.StatObject(ctx, b.name, b.key(file), minio.StatObjectOptions{})
	if err != nil {
		return 0, time.Time{}, b.missing(err)
	}
	young := info.LastModified
	if path.Base(file) == "data" {
		if m, err := os.Stat(b.mark(file)); err == nil && m.ModTime().After(young) {
			young = m.ModTime()
		}
	}
	return info.Size, young, nil
}

func (b *bucket) remove(ctx context.Context, file string) error {
	err := b.missing(b.client.RemoveObject(ctx, b.name, b.key(file), minio.RemoveObjectOptions{}))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil && path.Base(file) == "data" {
		_ = os.Remove(b.mark(file))
	}
	return err
}

func (b *bucket) removeAll(ctx context.Context, folder string) error {
	if err := b.Delete(ctx, folder); err != nil && !notThere(err) {
		return err
	}
	return nil
}

func (b *bucket) touch(ctx context.Context, file string, now time.Time) (there bool) {
	mark := b.mark(file)
	m, err := os.Stat(mark)
	if err == nil && now.Sub(m.ModTime()) <= leaseTime/4 {
		return true
	}
	if _, _, err := b.stat(ctx, file); err != nil {
		return false
	}
	// The lease in memory holds where this fails.
	if os.Chtimes(mark, now, now) != nil && os.MkdirAll(filepath.Dir(mark), 0o700) == nil && os.WriteFile(mark, nil, 0o600) == nil {
		_ = os.Chtimes(mark, now, now)
	}
	return true
}

// sweep drops what is left of what was cut long ago: parts of uploads into the bucket, of ours
// alone and not those that go on, and marks of what nobody touches any more.
func (b *bucket) sweep(ctx context.Context, before time.Time) (n int, err error) {
	core := minio.Core{Client: b.client}
	for u := range b.client.ListIncompleteUploads(ctx, b.name, b.key("/docker/registry/v2/"), true) {
		if u.Err != nil {
			return n, u.Err
		}
		if !u.Initiated.Before(before) {
			continue
		}
		if err := core.AbortMultipartUpload(ctx, b.name, u.Key, u.UploadID); err != nil && minio.ToErrorResponse(err).Code != minio.NoSuchUpload {
			return n, err
		}
		n++
	}
	marks := disk{b.dir}
	for e := range marks.entries(ctx, touchedFolder) {
		if e.err != nil {
			return n, e.err
		}
		mark := path.Join(touchedFolder, e.name)
		if _, at, err := marks.stat(ctx, mark); err == nil && at.Before(before) {
			if err := marks.remove(ctx, mark); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// purge removes uploads here that nobody finished, each day until ctx ends: whether or not
// anything is swept, they take the disk's room.
func (b *bucket) purge(ctx context.Context, now func() time.Time, log *slog.Logger) {
	for {
		if _, errs := storage.PurgeUploads(ctx, b.here, now().Add(-uploadAge), true); len(errs) > 0 && !notThere(errs[0]) && ctx.Err() == nil {
			log.Warn("uploads that nobody finished are not removed", "error", errs[0])
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(purgeEvery):
		}
	}
}
