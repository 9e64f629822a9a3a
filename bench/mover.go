package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"golang.org/x/sync/errgroup"
)

// pushed is an image of layers that nothing compresses. Their bytes are made while they
// are sent: no disk is read, and none is kept.
type pushed struct {
	layers   []madeBlob
	config   []byte
	manifest []byte
}

type madeBlob struct {
	number int
	size   int64
	digest string
}

const (
	manifestType                     = "application/vnd.oci.image.manifest.v1+json"
	uploadsAtATime, downloadsAtATime = 5, 3 // as docker has it
)

// open gives the bytes of a layer: AES over zeros, its number being the key.
func (m madeBlob) open() io.Reader {
	var key, iv [16]byte
	binary.LittleEndian.PutUint64(key[:], uint64(m.number)+1)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the length of the key is right
	}
	return io.LimitReader(cipher.StreamReader{S: cipher.NewCTR(block, iv[:]), R: zeros{}}, m.size)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func makeImage(s shape) (*pushed, error) {
	p := &pushed{layers: make([]madeBlob, s.layers)}
	for i := range p.layers {
		m := madeBlob{number: i, size: s.size}
		h := sha256.New()
		if _, err := io.Copy(h, m.open()); err != nil {
			return nil, err
		}
		m.digest = "sha256:" + hex.EncodeToString(h.Sum(nil))
		p.layers[i] = m
	}
	p.config = fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"bench":%q}`, s.name)
	p.manifest = manifestOf(p.config, p.layers)
	return p, nil
}

type described struct {
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
	Digest    string `json:"digest"`
}

func manifestOf(config []byte, layers []madeBlob) []byte {
	list := make([]described, len(layers))
	for i, l := range layers {
		list[i] = described{"application/vnd.oci.image.layer.v1.tar", l.size, l.digest}
	}
	b, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType,
		"config": described{"application/vnd.oci.image.config.v1+json", int64(len(config)), digestOf(config)}, "layers": list,
	})
	if err != nil {
		panic(err) // nothing in it cannot be written
	}
	return b
}

// mover pushes and pulls as docker does, with as many requests at a time.
type mover struct {
	base, password string
	client         *http.Client
}

func (m *mover) do(ctx context.Context, method, address string, body io.Reader, media string, want ...int) (*http.Response, error) {
	if m.client == nil {
		m.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true, WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10}}
	}
	r, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, err
	}
	if media != "" {
		r.Header.Set("Content-Type", media)
	}
	r.Header.Set("Accept", manifestType)
	if m.password != "" {
		r.SetBasicAuth("bench", m.password)
	}
	resp, err := m.client.Do(r)
	if err != nil {
		return nil, err
	}
	for _, status := range want {
		if resp.StatusCode == status {
			return resp, nil
		}
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	return nil, fmt.Errorf("%s %s: %s: %s", method, r.URL.Path, resp.Status, text)
}

// short is a request whose answer's body says nothing.
func (m *mover) short(ctx context.Context, method, address string, body io.Reader, media string, want ...int) (*http.Response, error) {
	resp, err := m.do(ctx, method, address, body, media, want...)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, errors.Join(err, resp.Body.Close())
}

func (m *mover) close() {
	if m.client != nil {
		m.client.CloseIdleConnections()
	}
}

func (m *mover) answers(ctx context.Context) error {
	_, err := m.short(ctx, http.MethodGet, m.base+"/v2/", nil, "", http.StatusOK)
	return err
}

func (m *mover) push(ctx context.Context, repository, tag string, p *pushed) error {
	work, inner := errgroup.WithContext(ctx)
	work.SetLimit(uploadsAtATime)
	for _, l := range p.layers {
		work.Go(func() error { return m.upload(inner, repository, l.digest, l.open()) })
	}
	if err := work.Wait(); err != nil {
		return err
	}
	if err := m.upload(ctx, repository, digestOf(p.config), bytes.NewReader(p.config)); err != nil {
		return err
	}
	_, err := m.short(ctx, http.MethodPut, m.base+"/v2/"+repository+"/manifests/"+tag, bytes.NewReader(p.manifest), manifestType, http.StatusCreated)
	return err
}

// upload asks for a blob and sends it if it is not there, without telling its length
// before, as who compresses on the way cannot.
func (m *mover) upload(ctx context.Context, repository, digest string, content io.Reader) error {
	blob := m.base + "/v2/" + repository + "/blobs/"
	resp, err := m.short(ctx, http.MethodHead, blob+digest, nil, "", http.StatusOK, http.StatusNotFound)
	if err != nil || resp.StatusCode == http.StatusOK {
		return err
	}
	if resp, err = m.short(ctx, http.MethodPost, blob+"uploads/", nil, "", http.StatusAccepted); err != nil {
		return err
	}
	next, err := resp.Location()
	if err != nil {
		return err
	}
	if resp, err = m.short(ctx, http.MethodPatch, next.String(), io.NopCloser(content), "application/octet-stream", http.StatusAccepted); err != nil {
		return err
	}
	if next, err = resp.Location(); err != nil {
		return err
	}
	q := next.Query()
	q.Set("digest", digest)
	next.RawQuery = q.Encode()
	_, err = m.short(ctx, http.MethodPut, next.String(), nil, "", http.StatusCreated)
	return err
}

// pull fetches the manifest and all that it names, and compares digests.
func (m *mover) pull(ctx context.Context, repository, tag string, p *pushed) error {
	at := m.base + "/v2/" + repository
	resp, err := m.do(ctx, http.MethodGet, at+"/manifests/"+url.PathEscape(tag), nil, "", http.StatusOK)
	if err != nil {
		return err
	}
	manifest, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if !bytes.Equal(manifest, p.manifest) {
		return errors.New("the manifest is not the one that was pushed")
	}
	if err := m.download(ctx, at, digestOf(p.config)); err != nil {
		return err
	}
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(downloadsAtATime)
	for _, l := range p.layers {
		work.Go(func() error { return m.download(ctx, at, l.digest) })
	}
	return work.Wait()
}

func (m *mover) download(ctx context.Context, at, digest string) error {
	resp, err := m.do(ctx, http.MethodGet, at+"/blobs/"+digest, nil, "", http.StatusOK)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(h, resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); got != digest {
		return fmt.Errorf("the bytes of %s are those of %s", digest, got)
	}
	return nil
}
