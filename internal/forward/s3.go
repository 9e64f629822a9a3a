package forward

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	tender "github.com/tenderhq/tender"
)

// bucket writes objects of compressed JSON lines into folders that Athena, Spark,
// DuckDB and Hive know as partitions.
type bucket struct {
	transport *http.Transport
	endpoint  string
	secure    bool
	region    string
	path      bool // the bucket stands in the path, not in the host's name
	bucket    string
	prefix    string
	host      string
	key       string // name of the secret
	zstd      bool
	secret    func(context.Context, string) ([]byte, error)
	out       object
}

func s3Config(s *section, c *Config) {
	t := s.security()
	b := bucket{
		bucket: s.must("bucket", "my-logs"), region: s.text("region", "us-east-1"), key: s.secret("key"),
		prefix: strings.Trim(s.text("prefix", "logs"), "/"),
	}
	endpoint := s.text("endpoint", "s3.amazonaws.com")
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	u := s.address("endpoint", endpoint, "s3.example.com", t, []string{"http"}, []string{"https"})
	if strings.Trim(u.Path, "/") != "" {
		s.fail(s.value("endpoint"), "folders go into prefix:", "%s.endpoint: %q has a path", s.path, endpoint)
	}
	if b.key == "" {
		s.fail(s.node, "keep ACCESS:SECRET in the vault (tender secret set s3) and add: key: {secret: s3}", "%s has no key", s.path)
	}
	b.endpoint, b.secure = u.Host, u.Scheme == "https"
	b.zstd = s.word("compress", "gzip", "zstd") == "zstd"
	b.path = s.word("style", "auto", "path") == "path"
	c.Where = b.endpoint + "/" + path.Join(b.bucket, b.prefix)
	c.Size, c.Wait, c.Request = 16*mB, 5*time.Minute, 0
	c.make = func(_ Config, o Options) wire {
		own := b
		own.transport, own.secret, own.host = t.transport(), o.Secret, o.Host
		return &own
	}
}

func (w *bucket) close() { w.transport.CloseIdleConnections() }

func (w *bucket) encode(dst []byte, r *row) []byte {
	w.out.dst = dst
	plainJSON(&w.out, r)
	return append(w.out.dst, '\n')
}

func (w *bucket) text(body []byte) string { return strings.TrimSpace(string(body)) }

// folder is that of a row.
func (w *bucket) folder(it item) string {
	part := func(label string) string {
		if v := it.stream.labels.Get(label); v != "" {
			return url.PathEscape(v)
		}
		return "__HIVE_DEFAULT_PARTITION__" // Hive's own word for nothing
	}
	t := time.Unix(0, it.time).UTC()
	return path.Join(w.prefix, "project="+part("project"), "service="+part("service"), t.Format("date=2006-01-02/hour=15"))
}

func (w *bucket) send(ctx context.Context, id string, items []item) (verdict, error) {
	key, err := open(ctx, w.secret, w.key)
	if err != nil {
		return verdict{}, err
	}
	access, secret, ok := strings.Cut(key, ":")
	if !ok {
		return verdict{}, tender.Errorf(tender.Invalid, "secret %q is not ACCESS:SECRET", w.key).Hint("set it anew: printf '%%s' ACCESS:SECRET | tender secret set %s", w.key)
	}
	lookup := minio.BucketLookupAuto
	if w.path {
		lookup = minio.BucketLookupPath
	}
	client, err := minio.New(w.endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(access, secret, ""), Secure: w.secure, Region: w.region, BucketLookup: lookup,
		Transport: w.transport, MaxRetries: 1,
	})
	if err != nil {
		return verdict{}, err
	}
	var order []string
	lines := map[string][][]byte{}
	for _, it := range items {
		f := w.folder(it)
		if lines[f] == nil {
			order = append(order, f)
		}
		lines[f] = append(lines[f], it.body)
	}
	for _, f := range order {
		body, ending, encoding := w.press(lines[f])
		// Named by where in the store it begins: sent again, it takes its own place. Another
		// host's store counts for itself.
		name := fmt.Sprintf("%s/%020s", f, id)
		if w.host != "" {
			name += "-" + url.PathEscape(w.host)
		}
		name += ".ndjson." + ending
		in, cancel := context.WithTimeout(ctx, 5*requestTime)
		_, err := client.PutObject(in, w.bucket, name, bytes.NewReader(body), int64(len(body)), minio.PutObjectOptions{
			ContentType: "application/x-ndjson", UserMetadata: map[string]string{"compression": encoding},
			DisableMultipart: true, SendContentMd5: true,
		})
		cancel()
		if err != nil {
			return verdict{}, s3Error(w, err)
		}
	}
	return verdict{}, nil
}

// press compresses lines.
func (w *bucket) press(lines [][]byte) (body []byte, ending, encoding string) {
	var out bytes.Buffer
	if w.zstd {
		z, _ := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1)) // the options are known
		for _, l := range lines {
			_, _ = z.Write(l) // memory does not fail
		}
		_ = z.Close()
		return out.Bytes(), "zst", "zstd"
	}
	z := gzip.NewWriter(&out)
	for _, l := range lines {
		_, _ = z.Write(l)
	}
	_ = z.Close()
	return out.Bytes(), "gz", "gzip"
}

// s3Error says what of an error people can mend.
func s3Error(w *bucket, err error) error {
	r, ok := errors.AsType[minio.ErrorResponse](err)
	if !ok {
		return err
	}
	switch r.Code {
	case minio.NoSuchBucket:
		return tender.Errorf(tender.NotFound, "there is no bucket %q at %s", w.bucket, w.endpoint).Hint("make it there; Tender makes none")
	case "SlowDown", "ServiceUnavailable", "TooManyRequests":
		return &busyError{r.Error(), 0}
	}
	return fmt.Errorf("%d %s: %w", r.StatusCode, r.Code, err)
}
