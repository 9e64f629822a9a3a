package forward

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"
)

// webhook posts JSON: {"sink": NAME, "entries": [...]}.
type webhook struct {
	*poster
	name   string
	url    string
	sign   string // name of the secret
	out    object
	buffer []byte
}

func webhookConfig(s *section, c *Config) {
	t := s.security()
	l := s.login("Bearer")
	u := s.address("url", s.must("url", "https://example.com/logs"), "https://example.com/logs", t, []string{"http"}, []string{"https"})
	sign := s.secret("sign")
	c.Where = u.Host + u.Path // a query may carry a token
	c.Size, c.Request, c.Rows = 1*mB, 512*kB, 1000
	c.make = func(c Config, o Options) wire {
		l.secret = o.Secret
		return &webhook{poster: newPoster(t, l), name: c.Name, url: u.String(), sign: sign}
	}
}

func (w *webhook) encode(dst []byte, r *row) []byte {
	w.out.dst = dst
	plainJSON(&w.out, r)
	return w.out.dst
}

func (w *webhook) text(body []byte) string { return string(body) }

func (w *webhook) send(ctx context.Context, _ string, items []item) (verdict, error) {
	b := append(w.buffer[:0], `{"sink":`...)
	b = append(quoteJSON(b, w.name), `,"entries":[`...)
	for i, it := range items {
		if i > 0 {
			b = append(b, ',', '\n')
		}
		b = append(b, it.body...)
	}
	b = append(b, "]}\n"...)
	w.buffer = b
	sum := sha256.Sum256(b)
	header := map[string]string{
		"Content-Type": "application/json",
		// The same batch sent again has the same id.
		"X-Tender-Batch": hex.EncodeToString(sum[:16]),
	}
	if w.sign != "" {
		key, err := open(ctx, w.login.secret, w.sign)
		if err != nil {
			return verdict{}, err
		}
		stamp := strconv.FormatInt(time.Now().Unix(), 10)
		header["X-Tender-Timestamp"] = stamp
		header["X-Tender-Signature"] = "sha256=" + Sign(key, stamp, b)
	}
	r, err := w.post(ctx, w.url, header, b)
	if err != nil {
		return verdict{}, err
	}
	return verdict{}, r.trouble()
}

// Sign is what stands in X-Tender-Signature behind "sha256=": HMAC-SHA256, in hex,
// of the timestamp, a dot and the body. Whoever checks it compares the timestamp
// with its clock too, so that an old request cannot be played again.
func Sign(key, stamp string, body []byte) string {
	h := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(h, "%s.", stamp)
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}
