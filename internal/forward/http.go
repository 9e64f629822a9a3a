package forward

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
)

// answerBytes of an answer are read at most.
const answerBytes = 64 * mB

// requestTime bounds one request, with its answer.
const requestTime = time.Minute

// security is how the other side proves who it is.
type security struct {
	roots    *x509.CertPool // nil: the system's
	insecure bool           // no proof is asked for, and none may be possible
}

func (t *security) trust(pem []byte) error {
	t.roots = x509.NewCertPool()
	if !t.roots.AppendCertsFromPEM(pem) {
		return errors.New("no certificate is in it")
	}
	return nil
}

func (t security) config() *tls.Config {
	return &tls.Config{RootCAs: t.roots, InsecureSkipVerify: t.insecure, MinVersion: tls.VersionTLS12} //nolint:gosec // only where the file says insecure: true
}

func (t security) transport() *http.Transport {
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: t.config(), ForceAttemptHTTP2: true,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: 90 * time.Second, MaxIdleConnsPerHost: 2,
	}
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// login is what is sent along so that the other side knows who we are.
type login struct {
	scheme   string // of key: ApiKey, Bearer
	key      string // names of secrets
	user     string
	password string
	secret   func(context.Context, string) ([]byte, error)
}

// login reads key, user and password.
func (s *section) login(scheme string) login {
	l := login{scheme: scheme, key: s.secret("key"), user: s.text("user", ""), password: s.secret("password")}
	if (l.user == "") != (l.password == "") {
		s.fail(s.node, "give user: NAME and password: {secret: NAME}", "%s: user and password go together", s.path)
	}
	if l.key != "" && l.user != "" {
		s.fail(s.node, "keep one of them", "%s has both a key and a user", s.path)
	}
	return l
}

// header is the value of Authorization; "" where nobody logs in.
func (l login) header(ctx context.Context) (string, error) {
	name := l.key + l.password // one of them is empty
	if name == "" {
		return "", nil
	}
	v, err := open(ctx, l.secret, name)
	if err != nil {
		return "", err
	}
	if l.key != "" {
		return l.scheme + " " + v, nil
	}
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(l.user, v)
	return r.Header.Get("Authorization"), nil
}

// open reads a secret, without the newline that an editor leaves at its end.
func open(ctx context.Context, secret func(context.Context, string) ([]byte, error), name string) (string, error) {
	if secret == nil {
		return "", tender.Errorf(tender.NotFound, "there is no secret %q", name).Hint("set it: tender secret set %s", name)
	}
	v, err := secret(ctx, name)
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(v), "\r\n"), nil
}

// poster sends bodies to one address.
type poster struct {
	client http.Client
	login  login
}

func newPoster(t security, l login) *poster {
	return &poster{login: l, client: http.Client{
		Transport: t.transport(), Timeout: requestTime,
		// A redirected POST may arrive as a GET without its body, and be answered with 200.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (p *poster) close() { p.client.CloseIdleConnections() }

// post returns the status and the body of the answer.
func (p *poster) post(ctx context.Context, url string, header map[string]string, body []byte) (reply, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	auth, err := p.login.header(ctx)
	if err != nil {
		return reply{}, err
	}
	if auth != "" {
		r.Header.Set("Authorization", auth)
	}
	r.Header.Set("User-Agent", "tender")
	for k, v := range header {
		r.Header.Set(k, v)
	}
	a, err := p.client.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer a.Body.Close()
	return readReply(a.StatusCode, a.Header, a.Body)
}

// reply is what the other side answered.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func readReply(status int, h http.Header, body io.Reader) (reply, error) {
	b, err := io.ReadAll(io.LimitReader(body, answerBytes))
	if err != nil {
		return reply{}, fmt.Errorf("read the answer: %w", err)
	}
	return reply{status, h, b}, nil
}

// trouble turns a status into an error: nil if the request was taken. What looks
// like a wrong address, login or permission is tried again until someone mends it:
// no row is to blame.
func (r reply) trouble() error {
	text := r.text()
	switch {
	case r.status >= 200 && r.status < 300:
		return nil
	case r.status == http.StatusRequestEntityTooLarge, r.status == http.StatusBadRequest, r.status == http.StatusUnprocessableEntity:
		return refused("%s", text)
	case r.status == http.StatusTooManyRequests, r.status == http.StatusServiceUnavailable:
		return &busyError{text, retryAfter(r.header.Get("Retry-After"))}
	case r.status >= 300 && r.status < 400:
		return fmt.Errorf("%s; it leads to %s: write that address", text, r.header.Get("Location"))
	}
	return errors.New(text)
}

// text is status and body on one line.
func (r reply) text() string {
	text := strings.Join(strings.Fields(string(r.body[:min(len(r.body), 2*kB)])), " ")
	out := fmt.Sprintf("%d %s", r.status, http.StatusText(r.status))
	if text == "" {
		return out
	}
	return out + ": " + text
}

// retryAfter reads seconds or a date.
func retryAfter(v string) time.Duration {
	if n, err := strconv.Atoi(v); err == nil {
		return time.Duration(max(n, 0)) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(t))
	}
	return 0
}

// squeeze compresses with gzip, for speed.
func squeeze(b []byte) []byte {
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed) // the level is known
	_, _ = z.Write(b)                                 // memory does not fail
	_ = z.Close()
	return out.Bytes()
}
