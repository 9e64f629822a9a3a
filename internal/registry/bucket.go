package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/base"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/opencontainers/go-digest"

	tender "github.com/tenderhq/tender"
)

const (
	bucketName    = "bucket" // of the driver, in errors
	bucketPart    = 16 << 20 // of an upload in parts: 10,000 are 160 GB
	bucketThreads = 2        // parts of a blob at a time
	bucketTries   = 5        // of a request
	bucketWithin  = 30 * time.Second
)

// Bucket is where blobs lie in an S3, with the names that they would have on a disk.
type Bucket struct {
	Name, Prefix string
	Endpoint     string // https://s3.amazonaws.com, http://127.0.0.1:9000
	Region       string
	Path         bool   // the bucket stands in the path, not in the host's name
	Key          string // name of the secret with ACCESS:SECRET; "": the variables of AWS
}

// ParseBucket reads s3://BUCKET/PREFIX?endpoint=…&region=…&style=path&key=SECRET.
func ParseBucket(text string) (*Bucket, error) {
	example := func(format string, args ...any) error {
		return tender.Errorf(tender.Invalid, format, args...).Hint("such as s3://images/registry?endpoint=https://s3.example.com&region=eu-1&key=s3")
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.User != nil {
		return nil, example("the storage of the registry is no s3://BUCKET/PREFIX")
	}
	b := &Bucket{Name: u.Host, Prefix: strings.Trim(u.Path, "/"), Endpoint: "https://s3.amazonaws.com", Region: "us-east-1"}
	for k, v := range u.Query() {
		switch k {
		case "endpoint":
			b.Endpoint = v[0]
		case "region":
			b.Region = v[0]
		case "key":
			b.Key = v[0]
		case "style":
			if v[0] != "path" && v[0] != "auto" {
				return nil, example("the storage of the registry: style is %q, neither auto nor path", v[0])
			}
			b.Path = v[0] == "path"
		default:
			return nil, example("the storage of the registry: %q is nothing that is known", k)
		}
	}
	if !strings.Contains(b.Endpoint, "://") {
		b.Endpoint = "https://" + b.Endpoint
	}
	at, err := url.Parse(b.Endpoint)
	if err != nil || at.Scheme != "https" && at.Scheme != "http" || at.Host == "" || strings.Trim(at.Path, "/") != "" || at.User != nil {
		return nil, example("the storage of the registry: its endpoint is no URL of a host")
	}
	return b, nil
}

// String is where it is, without what opens it.
func (b *Bucket) String() string { return "s3://" + path.Join(b.Name, b.Prefix) }

// bucket keeps in an S3 what is finished, and on the disk what is on its way: uploads, and
// fills of the cache. An object is there whole or not at all.
type bucket struct {
	client *minio.Client
	name   string
	prefix string // "" or with a slash at its end
	here   storagedriver.StorageDriver
	dir    string // of here
}

// openBucket reaches it, and finds out whether it is there.
func openBucket(ctx context.Context, b *Bucket, dir string, secret func(context.Context, string) ([]byte, error), under http.RoundTripper) (*bucket, error) {
	at, err := url.Parse(b.Endpoint)
	if err != nil {
		return nil, err
	}
	creds := credentials.NewEnvAWS()
	if b.Key != "" {
		if secret == nil {
			return nil, errors.New("nobody knows secrets here")
		}
		text, err := secret(ctx, b.Key)
		if err != nil {
			return nil, err
		}
		access, key, ok := strings.Cut(strings.TrimSpace(string(text)), ":")
		if !ok {
			return nil, tender.Errorf(tender.Invalid, "secret %q is not ACCESS:SECRET", b.Key).Hint("set it anew: printf '%%s' ACCESS:SECRET | tender secret set %s", b.Key)
		}
		creds = credentials.NewStaticV4(access, key, "")
	}
	lookup := minio.BucketLookupAuto
	if b.Path {
		lookup = minio.BucketLookupPath
	}
	client, err := minio.New(at.Host, &minio.Options{Creds: creds, Secure: at.Scheme == "https", Region: b.Region, BucketLookup: lookup, MaxRetries: bucketTries, Transport: under})
	if err != nil {
		return nil, err
	}
	own := &bucket{client: client, name: b.Name, dir: dir, here: filesystem.New(filesystem.DriverParameters{RootDirectory: dir, MaxThreads: 100})}
	if b.Prefix != "" {
		own.prefix = b.Prefix + "/"
	}
	ok, err := client.BucketExists(ctx, b.Name)
	if err == nil && !ok {
		err = tender.Errorf(tender.Unavailable, "there is no bucket %s at %s", b.Name, at.Host).Hint("make it there, with keys that may read, write, list and delete in it")
	}
	return own, err
}

// driver checks paths on the way, as those of the library do.
func (b *bucket) driver() storagedriver.StorageDriver { return &base.Base{StorageDriver: b} }

// onItsWay says whether a path lies on the disk.
func onItsWay(p string) bool {
	return strings.Contains(p+"/", "/_uploads/") || strings.HasPrefix(p, "/"+fillFolder+"/") || strings.HasPrefix(p, "/"+stageFolder+"/")
}

// stageFolder has what is written in parts elsewhere than into _uploads.
const stageFolder = "staged"

func (b *bucket) key(p string) string { return b.prefix + strings.TrimPrefix(p, "/") }

func (b *bucket) folder(p string) string {
	if p == "/" {
		return b.prefix
	}
	return b.key(p) + "/"
}

func (b *bucket) wrong(p string, err error) error {
	switch minio.ToErrorResponse(err).Code {
	case minio.NoSuchKey, "NotFound":
		return storagedriver.PathNotFoundError{Path: p, DriverName: bucketName}
	case "InvalidRange":
		return storagedriver.InvalidOffsetError{Path: p, DriverName: bucketName}
	}
	return err
}

// Name is StorageDriver's.
func (b *bucket) Name() string { return bucketName }

// GetContent is StorageDriver's.
func (b *bucket) GetContent(ctx context.Context, p string) ([]byte, error) {
	if onItsWay(p) {
		return b.here.GetContent(ctx, p)
	}
	in, err := b.Reader(ctx, p, 0)
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // it was read
	return io.ReadAll(in)
}

// PutContent is StorageDriver's.
func (b *bucket) PutContent(ctx context.Context, p string, content []byte) error {
	if onItsWay(p) {
		return b.here.PutContent(ctx, p, content)
	}
	return b.put(ctx, p, bytes.NewReader(content), int64(len(content)))
}

func (b *bucket) put(ctx context.Context, p string, from io.Reader, size int64) error {
	_, err := b.client.PutObject(ctx, b.name, b.key(p), from, size, minio.PutObjectOptions{
		ContentType: "application/octet-stream", PartSize: bucketPart, NumThreads: bucketThreads, SendContentMd5: true,
		DisableContentSha256: size == 0, // nothing is not sent in chunks that are signed one by one
	})
	return b.wrong(p, err)
}

// Reader is StorageDriver's.
func (b *bucket) Reader(ctx context.Context, p string, offset int64) (io.ReadCloser, error) {
	if onItsWay(p) {
		return b.here.Reader(ctx, p, offset)
	}
	core := minio.Core{Client: b.client}
	var o minio.GetObjectOptions
	if offset > 0 {
		info, err := b.client.StatObject(ctx, b.name, b.key(p), minio.StatObjectOptions{})
		if err != nil {
			return nil, b.wrong(p, err)
		}
		if offset >= info.Size {
			return io.NopCloser(bytes.NewReader(nil)), nil
		}
		if err := o.SetRange(offset, 0); err != nil {
			return nil, err
		}
	}
	in, _, _, err := core.GetObject(ctx, b.name, b.key(p), o)
	return in, b.wrong(p, err)
}

// Stat is StorageDriver's.
func (b *bucket) Stat(ctx context.Context, p string) (storagedriver.FileInfo, error) {
	if onItsWay(p) {
		return b.here.Stat(ctx, p)
	}
	if p != "/" {
		info, err := b.client.StatObject(ctx, b.name, b.key(p), minio.StatObjectOptions{})
		if err == nil {
			return storagedriver.FileInfoInternal{FileInfoFields: storagedriver.FileInfoFields{Path: p, Size: info.Size, ModTime: info.LastModified}}, nil
		}
		if err := b.wrong(p, err); !notThere(err) {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o, some := <-b.client.ListObjects(ctx, b.name, minio.ListObjectsOptions{Prefix: b.folder(p), MaxKeys: 1}); some {
		if o.Err != nil {
			return nil, o.Err
		}
		return storagedriver.FileInfoInternal{FileInfoFields: storagedriver.FileInfoFields{Path: p, IsDir: true}}, nil
	}
	// A folder may have nothing yet but what is on its way.
	if info, err := b.here.Stat(ctx, p); err == nil && info.IsDir() {
		return info, nil
	}
	return nil, storagedriver.PathNotFoundError{Path: p, DriverName: bucketName}
}

// List is StorageDriver's.
func (b *bucket) List(ctx context.Context, p string) ([]string, error) {
	if onItsWay(p) {
		return b.here.List(ctx, p)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	folder := b.folder(p)
	var out []string
	for o := range b.client.ListObjects(ctx, b.name, minio.ListObjectsOptions{Prefix: folder}) {
		if o.Err != nil {
			return nil, b.wrong(p, o.Err)
		}
		if name := strings.TrimSuffix(strings.TrimPrefix(o.Key, folder), "/"); name != "" {
			out = append(out, path.Join(p, name))
		}
	}
	if found, err := b.here.List(ctx, p); err == nil {
		for _, f := range found {
			info, err := b.here.Stat(ctx, f)
			if err == nil && info.IsDir() && p != "/" && !slices.Contains(out, f) {
				out = append(out, f)
			}
		}
	}
	if len(out) == 0 && p != "/" {
		return nil, storagedriver.PathNotFoundError{Path: p, DriverName: bucketName}
	}
	return out, nil
}

// Move is StorageDriver's. From the disk it is the one time that a blob is sent.
func (b *bucket) Move(ctx context.Context, from, to string) error {
	switch {
	case onItsWay(from) && onItsWay(to):
		return b.here.Move(ctx, from, to)
	case onItsWay(from):
		return b.send(ctx, filepath.Join(b.dir, filepath.FromSlash(from)), from, to)
	case onItsWay(to):
		return fmt.Errorf("move %s to %s: what is finished stays so", from, to)
	}
	if _, err := b.client.CopyObject(ctx, minio.CopyDestOptions{Bucket: b.name, Object: b.key(to)}, minio.CopySrcOptions{Bucket: b.name, Object: b.key(from)}); err != nil {
		return b.wrong(from, err)
	}
	return b.client.RemoveObject(ctx, b.name, b.key(from), minio.RemoveObjectOptions{})
}

// send puts a file into the bucket, then removes it here.
func (b *bucket) send(ctx context.Context, file, from, to string) error {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return storagedriver.PathNotFoundError{Path: from, DriverName: bucketName}
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := b.put(ctx, to, f, info.Size()); err != nil {
		return err
	}
	return os.Remove(file)
}

// Delete is StorageDriver's.
func (b *bucket) Delete(ctx context.Context, p string) error {
	if onItsWay(p) {
		return b.here.Delete(ctx, p)
	}
	there := b.here.Delete(ctx, p) == nil
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	for o := range b.client.ListObjects(within, b.name, minio.ListObjectsOptions{Prefix: b.folder(p), Recursive: true}) {
		if o.Err != nil {
			return o.Err
		}
		there = true
		if err := b.client.RemoveObject(ctx, b.name, o.Key, minio.RemoveObjectOptions{}); err != nil {
			return err
		}
	}
	if _, err := b.client.StatObject(ctx, b.name, b.key(p), minio.StatObjectOptions{}); err == nil {
		return b.client.RemoveObject(ctx, b.name, b.key(p), minio.RemoveObjectOptions{})
	} else if err := b.wrong(p, err); !notThere(err) {
		return err
	}
	if !there {
		return storagedriver.PathNotFoundError{Path: p, DriverName: bucketName}
	}
	return nil
}

// RedirectURL is StorageDriver's: clients never see the bucket.
func (b *bucket) RedirectURL(*http.Request, string) (string, error) { return "", nil }

// Walk is StorageDriver's.
func (b *bucket) Walk(ctx context.Context, p string, f storagedriver.WalkFn, options ...func(*storagedriver.WalkOptions)) error {
	return storagedriver.WalkFallback(ctx, b, p, f, options...)
}

// Writer is StorageDriver's. What is written lies on the disk until it is whole.
func (b *bucket) Writer(ctx context.Context, p string, appends bool) (storagedriver.FileWriter, error) {
	if onItsWay(p) {
		return b.here.Writer(ctx, p, appends)
	}
	file := path.Join("/", stageFolder, strings.TrimPrefix(digest.FromString(p).String(), "sha256:"))
	if _, err := b.here.Stat(ctx, file); appends && notThere(err) {
		if err := b.fetch(ctx, p, file); err != nil {
			return nil, err
		}
	}
	w, err := b.here.Writer(ctx, file, appends)
	return &staged{w, b, file, p}, err
}

// fetch brings what is appended to back to the disk.
func (b *bucket) fetch(ctx context.Context, p, file string) error {
	in, err := b.Reader(ctx, p, 0)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was read
	w, err := b.here.Writer(ctx, file, false)
	if err != nil {
		return err
	}
	if _, err = io.Copy(w, in); err == nil {
		err = w.Commit(ctx)
	}
	return errors.Join(err, w.Close())
}

// staged is a file on its way into the bucket.
type staged struct {
	storagedriver.FileWriter
	b       *bucket
	file, p string
}

// Commit is FileWriter's.
func (s *staged) Commit(ctx context.Context) error {
	if err := s.FileWriter.Commit(ctx); err != nil {
		return err
	}
	return s.b.Move(ctx, s.file, s.p)
}
