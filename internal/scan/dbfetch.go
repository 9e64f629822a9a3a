package scan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// errAbsent is a 404.
var errAbsent = errors.New("is not there")

const (
	fetchTries = 4
	fetchIdle  = 60 * time.Second // without a byte
	csvMost    = 128 << 20
)

// got is a download: a file, or the word that nothing has changed.
type got struct {
	path string
	tag  string
	same bool
}

func (g *got) drop() {
	if g.path != "" {
		_ = os.Remove(g.path)
	}
}

func (u *update) url(name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.TrimSuffix(u.o.From, "/") + "/" + strings.Join(parts, "/")
}

// text fetches a small file.
func (u *update) text(ctx context.Context, name string) ([]byte, error) {
	g, err := u.get(ctx, name, "")
	if err != nil {
		return nil, err
	}
	defer g.drop()
	info, err := os.Stat(g.path)
	if err != nil {
		return nil, err
	}
	if info.Size() > jsonMost {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, jsonMost)
	}
	return os.ReadFile(g.path)
}

// get downloads into a file beside the index. A download that breaks off goes on where
// it was, as long as the server still has the same file.
func (u *update) get(ctx context.Context, name, tag string) (*got, error) {
	f, err := os.CreateTemp(u.db.dir, ".get-*")
	if err != nil {
		return nil, err
	}
	g := &got{path: f.Name()}
	most := int64(zipMost)
	if !strings.HasSuffix(name, ".zip") {
		most = csvMost
	}
	d := &download{u: u, name: name, file: f, most: most}
	for try := 1; ; try++ {
		g.same, err = d.run(ctx, tag)
		if err == nil || ctx.Err() != nil || !d.again || try == fetchTries {
			break
		}
	}
	g.tag = d.tag
	err = errors.Join(err, f.Close())
	if err != nil {
		g.drop()
		return nil, fmt.Errorf("get %s: %w", u.url(name), err)
	}
	return g, nil
}

// download is one file that may need several requests.
type download struct {
	u     *update
	name  string
	file  *os.File
	have  int64
	tag   string
	most  int64
	again bool // the last mistake may pass
}

func (d *download) run(ctx context.Context, tag string) (same bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(fetchIdle, func() { cancel(fmt.Errorf("nothing came for %s", fetchIdle)) })
	defer idle.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.u.url(d.name), nil)
	if err != nil {
		return false, err
	}
	req.Header.Set("Accept-Encoding", "identity") // so that sizes and ranges are those of the file
	switch {
	case d.have > 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.have))
		req.Header.Set("If-Range", d.tag)
	case tag != "":
		if when, ok := strings.CutPrefix(tag, "since "); ok {
			req.Header.Set("If-Modified-Since", when)
		} else {
			req.Header.Set("If-None-Match", tag)
		}
	}
	client := d.u.o.Client
	if client == nil {
		client = &http.Client{CheckRedirect: noDowngrade}
	}
	d.again = true
	res, err := client.Do(req)
	if err != nil {
		return false, err
	}
	defer func() { _ = res.Body.Close() }()
	switch res.StatusCode {
	case http.StatusNotModified:
		d.tag = tag
		return true, nil
	case http.StatusOK:
		d.have = 0
		if _, err := d.file.Seek(0, io.SeekStart); err != nil {
			return false, err
		}
		if err := d.file.Truncate(0); err != nil {
			return false, err
		}
	case http.StatusPartialContent:
		if d.have == 0 || !strings.HasPrefix(res.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", d.have)) {
			d.have = 0
			return false, errors.New("another part came than was asked for")
		}
	case http.StatusNotFound, http.StatusForbidden: // a bucket that may not be listed says 403
		d.again = false
		return false, errAbsent
	default:
		d.again = res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusRequestedRangeNotSatisfiable
		d.have = 0
		return false, errors.New(res.Status)
	}
	d.tag = res.Header.Get("ETag")
	strong := d.tag != "" && !strings.HasPrefix(d.tag, "W/")
	if when := res.Header.Get("Last-Modified"); d.tag == "" && when != "" {
		d.tag = "since " + when
	}
	total := int64(0)
	if res.ContentLength > 0 {
		total = d.have + res.ContentLength
	}
	if total > d.most {
		d.again = false
		return false, fmt.Errorf("is larger than %d bytes", d.most)
	}
	buf := make([]byte, 256<<10)
	for {
		n, err := res.Body.Read(buf)
		idle.Reset(fetchIdle)
		if d.have += int64(n); d.have > d.most {
			d.again = false
			return false, fmt.Errorf("is larger than %d bytes", d.most)
		}
		if _, err := d.file.Write(buf[:n]); err != nil {
			d.again = false
			return false, err
		}
		d.u.o.Report(Progress{path0(d.name), "download", d.have, total})
		if errors.Is(err, io.EOF) {
			return false, nil // net/http has compared the length
		}
		if err != nil {
			if !strong {
				d.have = 0 // nothing says that the rest is of the same file
			}
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return false, fmt.Errorf("after %d bytes: %w", d.have, err)
		}
	}
}

func path0(name string) string {
	first, _, _ := strings.Cut(name, "/")
	return first
}

func noDowngrade(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("too many redirects")
	}
	if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return errors.New("redirected away from https")
	}
	return nil
}
