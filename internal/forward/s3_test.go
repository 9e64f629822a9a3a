package forward

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

// objects is an S3 as its reference describes PutObject: signed, with the digest of
// the body, whole or not at all.
type objects struct {
	t       *testing.T
	mu      sync.Mutex
	stored  map[string][]byte
	puts    int
	trouble []string // codes, one for each put
}

func (o *objects) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // cut: nothing is stored
	}
	if strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		if body = unchunk(body); fmt.Sprint(len(body)) != r.Header.Get("X-Amz-Decoded-Content-Length") {
			o.t.Errorf("%d bytes in chunks, %s were announced", len(body), r.Header.Get("X-Amz-Decoded-Content-Length"))
		}
	}
	no := func(status int, code string) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>because</Message></Error>`, code)
	}
	switch {
	case r.Method != http.MethodPut:
		no(405, "MethodNotAllowed")
	case !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=AKID/") || !strings.Contains(r.Header.Get("Authorization"), "/eu-central-1/s3/aws4_request"):
		no(403, "InvalidAccessKeyId")
	case !strings.HasPrefix(r.URL.Path, "/bucket/"):
		no(404, "NoSuchBucket")
	case len(o.trouble) > 0:
		no(503, o.trouble[0])
		o.trouble = o.trouble[1:]
	default:
		sum := md5.Sum(body)
		if r.Header.Get("Content-Md5") != base64.StdEncoding.EncodeToString(sum[:]) {
			no(400, "BadDigest")
			return
		}
		o.puts++
		o.stored[strings.TrimPrefix(r.URL.Path, "/bucket/")] = body
		w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sum))
	}
}

// unchunk reads aws-chunked: SIZE;chunk-signature=..., the bytes, and so on to size 0.
func unchunk(b []byte) (out []byte) {
	for {
		head, rest, ok := bytes.Cut(b, []byte("\r\n"))
		size, _, _ := bytes.Cut(head, []byte(";"))
		n, err := strconv.ParseInt(string(size), 16, 64)
		if !ok || err != nil || n == 0 || n+2 > int64(len(rest)) {
			return out
		}
		out, b = append(out, rest[:n]...), rest[n+2:]
	}
}

func (o *objects) names() (out []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for n := range o.stored {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

func TestS3GetsObjectsInFolders(t *testing.T) {
	for _, how := range []string{"gzip", "zstd"} {
		t.Run(how, func(t *testing.T) {
			o := &objects{t: t, stored: map[string][]byte{}, trouble: []string{"SlowDown", "InternalError"}}
			srv := httptest.NewServer(o)
			t.Cleanup(srv.Close)
			src := newShelf()
			src.put(web, plain(0, "one"), plain(500, "two"), plain(1500, "three")) // over a full hour
			src.put(labelsOf("project", "shop", "service", "a/b"), plain(1, "four"))
			config := `{s: {s3: {endpoint: "` + srv.URL + `", bucket: bucket, region: eu-central-1, style: path, key: {secret: s3}, compress: ` + how + `}, batch: {wait: 20ms}}}`
			for range 2 { // the second time with a cursor that was lost
				k := &memory{}
				_, stop := start(t, config, src, k)
				soon(t, "all is taken", func() bool { return k.state("s").Cursor == "2" })
				stop()
			}
			ending := map[string]string{"gzip": "gz", "zstd": "zst"}[how]
			want := []string{
				"logs/project=shop/service=a%2Fb/date=2026-11-29/hour=12/00000000000000000000-host1.ndjson." + ending,
				"logs/project=shop/service=web/date=2026-11-29/hour=12/00000000000000000000-host1.ndjson." + ending,
				"logs/project=shop/service=web/date=2026-11-29/hour=13/00000000000000000000-host1.ndjson." + ending,
			}
			if diff := cmp.Diff(want, o.names()); diff != "" {
				t.Fatalf("objects (-want +got):\n%s", diff)
			}
			var in io.Reader
			var err error
			if how == "zstd" {
				in, err = zstd.NewReader(bytes.NewReader(o.stored[want[1]]))
			} else {
				in, err = gzip.NewReader(bytes.NewReader(o.stored[want[1]]))
			}
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(in)
			if err != nil {
				t.Fatal(err)
			}
			var messages []any
			for line := range bytes.Lines(text) {
				v := decode(t, line)
				messages = append(messages, v["message"], v["instance"])
			}
			if diff := cmp.Diff([]any{"one", "shop-web-1", "two", "shop-web-1"}, messages); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
		})
	}
}

func TestABucketThatIsNotThereIsSaid(t *testing.T) {
	srv := httptest.NewServer(&objects{t: t})
	t.Cleanup(srv.Close)
	src := newShelf()
	src.put(web, lines(0, 1)...)
	s, _ := start(t, `{s: {s3: {endpoint: "`+srv.URL+`", bucket: other, region: eu-central-1, style: path, key: {secret: s3}}, batch: {wait: 10ms}}}`, src, &memory{})
	soon(t, "the trouble is shown", func() bool { return strings.HasPrefix(only(s).Error, `there is no bucket "other" at 127.0.0.1:`) })
}
