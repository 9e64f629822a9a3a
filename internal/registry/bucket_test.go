package registry

import (
	"crypto/rand"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/testsuites"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"
)

// fakeS3 is one in memory, with the bucket images.
func fakeS3(t *testing.T, o ...gofakes3.Option) (*Bucket, http.RoundTripper) {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("images"); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewTLSServer(gofakes3.New(backend, o...).Server())
	t.Cleanup(s.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "access")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	return &Bucket{Name: "images", Prefix: "registry", Endpoint: s.URL, Region: "us-east-1", Path: true}, s.Client().Transport
}

// The library's own tests of drivers, but for those that want 5 GiB of memory here.
func TestTheBucketIsADriver(t *testing.T) {
	short := flag.Lookup("test.short")
	was := short.Value.String()
	if err := short.Value.Set("true"); err != nil {
		t.Fatal(err)
	}
	defer short.Value.Set(was) //nolint:errcheck // it was that before
	b, under := fakeS3(t)
	testsuites.Driver(t, func() (storagedriver.StorageDriver, error) {
		d, err := openBucket(t.Context(), b, t.TempDir(), nil, under)
		if err != nil {
			return nil, err
		}
		return d.driver(), nil
	}, false)
}

// Images in a bucket are pushed, pulled, found again without their rows, removed and swept;
// nothing of them lies on the disk, nor does a push stay half in the bucket.
func TestABucketKeepsImages(t *testing.T) {
	b, under := fakeS3(t)
	c := newClock()
	dir := t.TempDir()
	s := listening(t, Options{Bucket: b, Transport: under, Dir: dir, Now: c.now})
	stays, goes := s.push("shop/web:1"), s.push("shop/web:2")
	check := func(s *site, ref string, want bool) {
		t.Helper()
		got, err := remote.Image(s.ref(ref), as("bob"))
		if err == nil {
			err = validate.Image(got)
		}
		if (err == nil) != want {
			t.Errorf("%s: %v", ref, err)
		}
	}
	check(s, "shop/web:1", true)
	if _, err := os.Stat(filepath.Join(dir, "docker/registry/v2/blobs")); err == nil {
		t.Error("blobs lie on the disk")
	}
	again := listening(t, Options{Bucket: b, Transport: under, Now: c.now})
	check(again, "shop/web@"+digestOf(t, goes), true)
	if got := strings.Count(again.index(), "\n"); got != 4 {
		t.Errorf("without rows it has %d of two manifests and two tags:\n%s", got, again.index())
	}

	core := s.bucket.client
	open := func() (n int) {
		for u := range core.ListIncompleteUploads(t.Context(), b.Name, b.Prefix, true) {
			if u.Err != nil {
				t.Fatal(u.Err)
			}
			n++
		}
		return n
	}
	if _, err := (&minio.Core{Client: core}).NewMultipartUpload(t.Context(), b.Name, b.Prefix+"/docker/registry/v2/blobs/sha256/aa/"+strings.Repeat("a", 64)+"/data", minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := open(); got != 1 {
		t.Errorf("%d uploads are under way, not the one of a process that was killed", got)
	}
	if got := s.sweep(SweepOptions{}); got.Blobs != 0 || open() != 1 {
		t.Errorf("%+v, and %d uploads", got, open())
	}
	s.remove(RemoveOptions{Repository: "shop/web", Tag: "2"})
	if got := s.sweep(SweepOptions{}); got.Blobs != 0 {
		t.Errorf("what was pushed a moment ago is swept: %+v", got)
	}
	c.add(48 * time.Hour)
	if got := s.sweep(SweepOptions{}); got.Blobs != 4 || got.Links != 3 || got.Bytes == 0 {
		t.Errorf("swept: %+v", got)
	}
	if got := open(); got != 0 {
		t.Errorf("%d uploads are under way after a sweep", got)
	}
	check(s, "shop/web@"+digestOf(t, stays), true)
	check(s, "shop/web@"+digestOf(t, goes), false)

	// A pull makes its blobs young, also after a restart.
	s.remove(RemoveOptions{Repository: "shop/web"})
	c.add(48 * time.Hour)
	blob := layerSums(t, stays)[0]
	if code, _, _ := s.do("ann", "HEAD", "/v2/shop/web/blobs/"+blob, ""); code != 200 {
		t.Fatalf("%d", code)
	}
	s = listening(t, Options{Bucket: b, Transport: under, Dir: dir, Now: c.now})
	c.add(2 * time.Hour)
	if got := s.sweep(SweepOptions{}); got.Young == 0 || got.Blobs != 3 {
		t.Errorf("swept: %+v", got)
	}
	if code, _, _ := s.do("ann", "HEAD", "/v2/shop/web/blobs/"+blob, ""); code != 200 {
		t.Errorf("what was asked for within a day: %d", code)
	}
}

// its is a clock of the S3.
type its struct{ *clock }

func (i its) Now() time.Time                   { return i.now() }
func (i its) Since(at time.Time) time.Duration { return i.now().Sub(at) }

// What others send into the bucket is theirs, and what is being sent goes on.
func TestASweepOfABucketEndsWhatWasCutAlone(t *testing.T) {
	c := newClock()
	b, under := fakeS3(t, gofakes3.WithTimeSource(its{c}), gofakes3.WithTimeSkewLimit(0))
	s := listening(t, Options{Bucket: b, Transport: under})
	core := minio.Core{Client: s.bucket.client}
	begin := func(key string) string {
		t.Helper()
		id, err := core.NewMultipartUpload(t.Context(), b.Name, key, minio.PutObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	blob := b.Prefix + "/docker/registry/v2/blobs/sha256/aa/" + strings.Repeat("a", 64) + "/data"
	others := begin(b.Prefix + "/backup")
	begin(blob)
	c.add(48 * time.Hour)
	goesOn := begin(blob)
	if n, err := s.bucket.sweep(t.Context(), c.now().Add(-sweepAge)); n != 1 || err != nil {
		t.Errorf("%d uploads are ended, %v", n, err)
	}
	left := map[string]bool{}
	for u := range core.ListIncompleteUploads(t.Context(), b.Name, "", true) {
		if u.Err != nil {
			t.Fatal(u.Err)
		}
		left[u.UploadID] = true
	}
	if len(left) != 2 || !left[others] || !left[goesOn] {
		t.Errorf("of %s, which is others', and %s, which goes on, there is left: %v", others, goesOn, left)
	}
}

// Uploads that nobody finished lie on the disk, and go without a sweep.
func TestUploadsBesideABucketArePurged(t *testing.T) {
	b, under := fakeS3(t)
	dir := t.TempDir()
	up := filepath.Join(dir, "docker/registry/v2/repositories/shop/web/_uploads/01234567-89ab-4def-8123-456789abcdef")
	if err := os.MkdirAll(up, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(up, "startedat"), []byte(time.Now().Add(-8*24*time.Hour).UTC().Format(time.RFC3339)), 0o600); err != nil {
		t.Fatal(err)
	}
	s := listening(t, Options{Bucket: b, Transport: under, Dir: dir})
	s.until("the upload is gone", func() bool { _, err := os.Stat(up); return os.IsNotExist(err) })
}

// A large blob is sent in parts, and is there whole or not at all.
func TestALargeBlobOfABucket(t *testing.T) {
	b, under := fakeS3(t)
	cuts := &failingParts{RoundTripper: under}
	s := listening(t, Options{Bucket: b, Transport: cuts})
	large := make([]byte, bucketPart*2+100)
	rand.Read(large) //nolint:errcheck // it never fails
	d := digest.FromBytes(large).String()
	cuts.fail.Store(true)
	if code, _, body := s.do("ann", "PUT", and(s.upload("shop/web"), "digest="+d), string(large)); code < 500 {
		t.Errorf("without its second part: %d %s", code, body)
	}
	if code, _, _ := s.do("ann", "HEAD", "/v2/shop/web/blobs/"+d, ""); code != 404 {
		t.Errorf("it is there: %d", code)
	}
	cuts.fail.Store(false)
	if code, _, body := s.do("ann", "PUT", and(s.upload("shop/web"), "digest="+d), string(large)); code != 201 {
		t.Errorf("%d %s", code, body)
	}
	if code, _, body := s.do("ann", "GET", "/v2/shop/web/blobs/"+d, ""); code != 200 || digest.FromString(body).String() != d {
		t.Errorf("%d, %d bytes", code, len(body))
	}
	if code, _, body := s.do("ann", "GET", "/v2/shop/web/blobs/"+d, "", "Range", "bytes=17000000-17000009"); code != 206 || body != string(large[17000000:17000010]) {
		t.Errorf("a part: %d, %d bytes", code, len(body))
	}
}

// failingParts refuses second parts.
type failingParts struct {
	http.RoundTripper
	fail atomic.Bool
}

func (f *failingParts) RoundTrip(req *http.Request) (*http.Response, error) {
	if f.fail.Load() && req.URL.Query().Get("partNumber") == "2" {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
	}
	return f.RoundTripper.RoundTrip(req)
}

// The cache of other registries lies in the bucket, too.
func TestPulledThroughIntoABucket(t *testing.T) {
	b, under := fakeS3(t)
	f := newFar(t)
	f.push("team/web:1")
	n := near(t, f, Options{Bucket: b, Transport: under})
	for range 2 {
		got, err := remote.Image(n.ref("far.example/team/web:1"), as("eve"))
		if err == nil {
			err = validate.Image(got)
		}
		if err != nil {
			t.Error(err)
		}
		n.settled()
		n.tidy()
		f.fail(status(503))
	}
}

func TestABucketAsWritten(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"s3://images", "s3://images at https://s3.amazonaws.com us-east-1 false "},
		{"s3://images/a/b?endpoint=http://127.0.0.1:9000&region=eu&style=path&key=s3", "s3://images/a/b at http://127.0.0.1:9000 eu true s3"},
		{"s3://images?endpoint=s3.example.com", "s3://images at https://s3.example.com us-east-1 false "},
		{"/var/lib/images", "the storage of the registry is no s3://BUCKET/PREFIX"},
		{"s3://me:secret@images", "the storage of the registry is no s3://BUCKET/PREFIX"},
		{"s3://images?secret=x", `the storage of the registry: "secret" is nothing that is known`},
		{"s3://images?endpoint=https://a/b", "the storage of the registry: its endpoint is no URL of a host"},
	} {
		b, err := ParseBucket(c.text)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = fmt.Sprintf("%s at %s %s %v %s", b, b.Endpoint, b.Region, b.Path, b.Key)
		}
		if got != c.want {
			t.Errorf("%s: %s, not %s", c.text, got, c.want)
		}
	}
}
