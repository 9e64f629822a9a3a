package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	foreign "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	tender "github.com/tenderhq/tender"
)

var signedAt = time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC)

func newKey(t *testing.T) SigningKey {
	t.Helper()
	k, err := NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func signed(t *testing.T, c *Remote, ref string, s Signing) Signed {
	t.Helper()
	s.At = signedAt
	out, err := c.Sign(t.Context(), parsed(t, c, ref), s)
	if err != nil {
		t.Fatalf("sign %s: %v", ref, err)
	}
	return out
}

// signatures prints what is found: by which key, in which form, of whom, with what.
func signatures(t *testing.T, c *Remote, ref string, keys ...SigningKey) string {
	t.Helper()
	found, err := c.Signatures(t.Context(), parsed(t, c, ref), keys)
	if err != nil {
		t.Fatalf("signatures of %s: %v", ref, err)
	}
	return found.text()
}

func (s Signatures) text() string {
	var lines []string
	for _, v := range s.Valid {
		form := "tag"
		if v.Bundle {
			form = "bundle"
		}
		line := fmt.Sprintf("key %d %s", v.Key, form)
		if v.By != "" {
			line += " by " + v.By
		}
		if v.At.Equal(signedAt) {
			line += " at nine"
		}
		for _, k := range slices.Sorted(maps.Keys(v.Annotations)) {
			line += " " + k + "=" + v.Annotations[k]
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	if s.Others > 0 {
		lines = append(lines, fmt.Sprintf("%d by others", s.Others))
	}
	for _, p := range s.Problems {
		for _, word := range strings.Fields(p) { // digests are the test's own
			if i := strings.Index(word, "sha256:"); i >= 0 {
				p = strings.ReplaceAll(p, word[i:], "sha256:…")
			}
		}
		lines = append(lines, "problem: "+p)
	}
	return strings.Join(lines, "\n")
}

func alike(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
	}
}

func TestASignatureIsFoundInBothPlaces(t *testing.T) {
	s := listening(t, Options{Immutable: []Immutable{{Tags: []string{"*"}}}})
	c := client(s)
	release, team, stranger := newKey(t), newKey(t), newKey(t)
	want := digestOf(t, s.push("shop/web:1"))
	got := signed(t, c, "shop/web:1", Signing{Key: release, By: "ann", Annotations: map[string]string{"build": "42"}})
	if got.Reference.Digest != want || got.Before {
		t.Errorf("signed %+v, want %s", got, want)
	}
	alike(t, "signed once", signatures(t, c, "shop/web:1", release), "key 0 bundle by ann at nine build=42\nkey 0 tag by ann at nine build=42")
	alike(t, "asked with two keys", signatures(t, c, "shop/web@"+want, team, release), "key 1 bundle by ann at nine build=42\nkey 1 tag by ann at nine build=42")
	alike(t, "asked with a wrong key", signatures(t, c, "shop/web:1", stranger), "2 by others")

	if again := signed(t, c, "shop/web:1", Signing{Key: release, By: "bob", Annotations: map[string]string{"build": "42"}}); !again.Before {
		t.Error("the same signature again was added")
	}
	signed(t, c, "shop/web:1", Signing{Key: team})
	alike(t, "two signatures", signatures(t, c, "shop/web:1", release, team),
		"key 0 bundle by ann at nine build=42\nkey 0 tag by ann at nine build=42\nkey 1 bundle at nine\nkey 1 tag at nine")

	if _, err := c.Sign(t.Context(), parsed(t, c, "shop/web:2"), Signing{Key: release}); tender.KindOf(err) != tender.NotFound {
		t.Errorf("sign what is not there: %v", err)
	}
	public, err := ReadSigningKey(release.Public(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Sign(t.Context(), parsed(t, c, "shop/web:1"), Signing{Key: public}); tender.KindOf(err) != tender.Conflict {
		t.Errorf("sign with a public key: %v", err)
	}
	alike(t, "verified by the public half", signatures(t, c, "shop/web:1", public)[:12], "key 0 bundle")
}

func TestAnIndexIsSignedItself(t *testing.T) {
	s := listening(t, Options{})
	c := client(s)
	key := newKey(t)
	index, err := random.Index(10, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(s.ref("shop/many:1"), index, as("ann")); err != nil {
		t.Fatal(err)
	}
	d, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got := signed(t, c, "shop/many:1", Signing{Key: key}); got.Reference.Digest != d.String() {
		t.Errorf("signed %s, want that of the index, %s", got.Reference.Digest, d)
	}
	alike(t, "the index", signatures(t, c, "shop/many:1", key), "key 0 bundle at nine\nkey 0 tag at nine")
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	alike(t, "a part of it", signatures(t, c, "shop/many@"+m.Manifests[0].Digest.String(), key), "")
}

// foreignRegistry is one of somebody else.
func foreignRegistry(t *testing.T, o ...foreign.Option) (host string) {
	t.Helper()
	other := httptest.NewServer(foreign.New(append(o, foreign.Logger(log.New(io.Discard, "", 0)))...))
	t.Cleanup(other.Close)
	return strings.TrimPrefix(other.URL, "http://")
}

// A registry without referrers keeps them under a tag, and signatures follow an image there.
func TestSignaturesInOtherRegistries(t *testing.T) {
	for name, o := range map[string][]foreign.Option{
		"with referrers":    {foreign.WithReferrersSupport(true)},
		"without referrers": nil,
	} {
		t.Run(name, func(t *testing.T) {
			s := listening(t, Options{})
			c := client(s)
			key, team := newKey(t), newKey(t)
			s.push("shop/web:1")
			away := foreignRegistry(t, o...) + "/team/web:1"
			signed(t, c, "shop/web:1", Signing{Key: key, By: "ann"})
			digest, err := c.Copy(t.Context(), parsed(t, c, "shop/web:1"), parsed(t, c, away))
			if err != nil {
				t.Fatal(err)
			}
			alike(t, "copied alone", signatures(t, c, away, key), "")
			signed(t, c, away, Signing{Key: team})
			from, to := parsed(t, c, "shop/web:1").At(digest), parsed(t, c, away)
			for range 2 {
				if err := c.CopySignatures(t.Context(), from, to); err != nil {
					t.Fatal(err)
				}
			}
			alike(t, "with its signatures", signatures(t, c, away, key, team),
				"key 0 bundle by ann at nine\nkey 0 tag by ann at nine\nkey 1 bundle at nine\nkey 1 tag at nine")
		})
	}
}

// put writes a manifest of signatures by hand.
func putLayers(t *testing.T, c *Remote, at Reference, subject string, media string, layers ...signatureLayer) {
	t.Helper()
	config, err := c.PutBlob(t.Context(), at, Blob{MediaType: emptyMedia, Data: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]any{
		"schemaVersion": 2, "mediaType": ociManifest, "layers": layers,
		"config": signatureLayer{emptyMedia, 2, config, nil},
	}
	if subject != "" {
		m["artifactType"], m["subject"] = media, signatureLayer{ociManifest, 100, subject, nil}
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if subject != "" {
		d, _, err := v1.SHA256(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		at = at.At(d.String())
	}
	if err := c.Put(t.Context(), at, raw, ociManifest); err != nil {
		t.Fatal(err)
	}
}

func blobOf(t *testing.T, c *Remote, at Reference, media string, data []byte, notes map[string]string) signatureLayer {
	t.Helper()
	d, err := c.PutBlob(t.Context(), at, Blob{MediaType: media, Data: data})
	if err != nil {
		t.Fatal(err)
	}
	return signatureLayer{media, int64(len(data)), d, notes}
}

// What somebody puts there who may push, and has no key, is no signature.
func TestWhatIsNoSignature(t *testing.T) {
	s := listening(t, Options{})
	c := client(s)
	key := newKey(t)
	good := digestOf(t, s.push("shop/web:1"))
	bad := digestOf(t, s.push("shop/web:2"))
	signed(t, c, "shop/web:1", Signing{Key: key})
	of := parsed(t, c, "shop/web:2").At(bad)
	tag := of.At(sigTag(bad))
	raw, _, err := c.Manifest(t.Context(), of.At(sigTag(good)))
	if err != nil {
		t.Fatal(err)
	}
	var moved struct{ Layers []signatureLayer }
	if err := json.Unmarshal(raw, &moved); err != nil {
		t.Fatal(err)
	}
	payload, err := c.Blob(t.Context(), of, moved.Layers[0].Digest, maxSimple)
	if err != nil {
		t.Fatal(err)
	}
	refer, err := c.Referrers(t.Context(), of.At(good), bundleMedia)
	if err != nil || len(refer) != 1 {
		t.Fatalf("referrers %v, %v", refer, err)
	}
	raw, _, err = c.Manifest(t.Context(), of.At(refer[0].Digest))
	if err != nil {
		t.Fatal(err)
	}
	var bundled struct{ Layers []signatureLayer }
	if err := json.Unmarshal(raw, &bundled); err != nil {
		t.Fatal(err)
	}
	whole, err := c.Blob(t.Context(), of, bundled.Layers[0].Digest, maxBundle)
	if err != nil {
		t.Fatal(err)
	}

	if err := c.Put(t.Context(), tag, mustMarshal(t, map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []descriptor{{MediaType: ociManifest, Digest: good, Size: 100}}}), ociIndex); err != nil {
		t.Fatal(err)
	}
	alike(t, "an index", signatures(t, c, "shop/web:2", key), "")
	if _, err := c.Sign(t.Context(), of, Signing{Key: key, At: signedAt}); tender.KindOf(err) != tender.Conflict {
		t.Errorf("sign where something else lies: %v", err)
	}
	bundles, err := c.Referrers(t.Context(), of, bundleMedia)
	if err != nil || len(bundles) != 1 {
		t.Fatalf("referrers %v, %v", bundles, err)
	}
	if _, err := s.Remove(t.Context(), RemoveOptions{Repository: "shop/web", Digest: bundles[0].Digest}); err != nil {
		t.Fatal(err)
	}

	putLayers(t, c, tag, "", "", moved.Layers[0])
	alike(t, "moved from another image", signatures(t, c, "shop/web:2", key), "problem: a signature is of another image, sha256:…")

	damaged := blobOf(t, c, tag, simpleSigning, bytes.Replace(payload, []byte(good), []byte(bad), 1), moved.Layers[0].Annotations)
	putLayers(t, c, tag, "", "", damaged)
	alike(t, "another payload", signatures(t, c, "shop/web:2", key), "1 by others")

	large := moved.Layers[0]
	large.Size = maxSimple + 1
	nonsense := moved.Layers[0]
	nonsense.Annotations = map[string]string{signatureNote: "%"}
	lying := blobOf(t, c, tag, simpleSigning, bytes.Repeat([]byte("x"), maxSimple+1), moved.Layers[0].Annotations)
	lying.Size = 10
	lines := []signatureLayer{large, nonsense, lying}
	for range maxSignatures {
		lines = append(lines, damaged)
	}
	putLayers(t, c, tag, "", "", lines...)
	found, err := c.Signatures(t.Context(), of, []SigningKey{key})
	if err != nil {
		t.Fatal(err)
	}
	if len(found.Valid) != 0 || found.Others != maxSignatures-3 || len(found.Problems) != 4 {
		t.Errorf("much that is none: %d valid, %d others, problems %q", len(found.Valid), found.Others, found.Problems)
	}

	tags := []Step{{Repository: "shop/web", Tag: sigTag(bad), Digest: bad}}
	if err := s.remove2(tags); err != nil {
		t.Fatal(err)
	}
	layer := blobOf(t, c, of, bundleMedia, whole, nil)
	putLayers(t, c, of, bad, bundleMedia, layer)                                                                      // of the other image
	putLayers(t, c, of, bad, bundleMedia, blobOf(t, c, of, bundleMedia, []byte("{"), nil))                            // no JSON
	putLayers(t, c, of, bad, bundleMedia, layer, layer)                                                               // two
	putLayers(t, c, of, bad, bundleMedia, signatureLayer{bundleMedia, maxBundle + 1, layer.Digest, nil})              // huge
	putLayers(t, c, of, bad, bundleMedia, blobOf(t, c, of, bundleMedia, bytes.Repeat([]byte(" "), maxBundle+1), nil)) // huge, too
	attest := attestation(t, key, bad)
	putLayers(t, c, of, bad, bundleMedia, blobOf(t, c, of, bundleMedia, attest, nil)) // it says something else of this image
	got := signatures(t, c, "shop/web:2", key)
	if strings.Contains(got, "key 0") || strings.Count(got, "problem: ") != 5 || !strings.Contains(got, "a signature is of another image") {
		t.Errorf("bundles that are none:\n%s", got)
	}
}

// remove2 removes a tag alone.
func (s *site) remove2(steps []Step) error {
	return s.Registry.remove(context.Background(), steps, "test")
}

// attestation is a bundle by the key that does not sign the image.
func attestation(t *testing.T, key SigningKey, digest string) []byte {
	t.Helper()
	e := envelope{PayloadType: inTotoMedia, Payload: mustMarshal(t, statement{
		"https://in-toto.io/Statement/v1",
		[]statementSubject{{Digest: map[string]string{"sha256": strings.TrimPrefix(digest, "sha256:")}}},
		"https://slsa.dev/provenance/v1", json.RawMessage("{}"),
	})}
	sig, err := key.sign(e.signed())
	if err != nil {
		t.Fatal(err)
	}
	e.Signatures = []envelopeSignature{{sig}}
	return mustMarshal(t, bundle{MediaType: bundleMedia, Envelope: &e})
}

func mustMarshal(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// breaking is a network that ends at the nth request that writes.
type breaking struct {
	http.RoundTripper
	left int
}

func (b *breaking) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		if b.left--; b.left < 0 {
			return nil, fmt.Errorf("cut off")
		}
	}
	return b.RoundTripper.RoundTrip(req)
}

// Wherever signing ends, what is there is valid, and signing again completes it.
func TestSigningIsCutOff(t *testing.T) {
	key := newKey(t)
	host := foreignRegistry(t, foreign.WithReferrersSupport(true))
	const whole = "key 0 bundle at nine\nkey 0 tag at nine"
	for n := range 40 {
		img, err := random.Image(10, 1)
		if err != nil {
			t.Fatal(err)
		}
		ref := fmt.Sprintf("%s/web:%d", host, n)
		c := NewRemote(RemoteOptions{})
		named, _, err := c.ready(t.Context(), parsed(t, c, ref))
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(named, img); err != nil {
			t.Fatal(err)
		}
		cut := NewRemote(RemoteOptions{Transport: &breaking{http.DefaultTransport, n}})
		_, err = cut.Sign(t.Context(), parsed(t, cut, ref), Signing{Key: key, At: signedAt})
		if err == nil {
			if n < 4 {
				t.Errorf("signing took %d requests alone", n)
			}
			return
		}
		if got := signatures(t, c, ref, key); got != "" && got != "key 0 bundle at nine" {
			t.Errorf("cut off after %d requests: %s", n, got)
		}
		signed(t, c, ref, Signing{Key: key})
		alike(t, "signed again", signatures(t, c, ref, key), whole)
	}
	t.Error("signing never ended")
}

// However many sign at once, each with a login of its own: no signature overwrites another.
func TestManySignAtOnce(t *testing.T) {
	s := listening(t, Options{})
	s.push("shop/web:1")
	away := foreignRegistry(t, foreign.WithReferrersSupport(true)) + "/shop/web:1"
	if _, err := client(s).Copy(t.Context(), parsed(t, client(s), "shop/web:1"), parsed(t, client(s), away)); err != nil {
		t.Fatal(err)
	}
	keys := make([]SigningKey, 6)
	for i := range keys {
		keys[i] = newKey(t)
	}
	for _, ref := range []string{"shop/web:1", away} {
		var all sync.WaitGroup
		for _, key := range keys {
			all.Go(func() {
				c := client(s)
				to, err := c.Parse(t.Context(), ref)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := c.Sign(t.Context(), to, Signing{Key: key, At: signedAt}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if got := signatures(t, client(s), ref, keys...); strings.Count(got, " tag ") != len(keys) || strings.Count(got, " bundle ") != len(keys) {
			t.Errorf("%s:\n%s", ref, got)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	release, err := signing.take(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	cancel(enough)
	if _, err := signing.take(ctx, "x"); !errors.Is(err, enough) {
		t.Errorf("whoever has gone waits on: %v", err)
	}
	release()
}

// What somebody else puts under the tag in our own registry is not overwritten, whenever it comes.
func TestASignatureThatComesMeanwhileStays(t *testing.T) {
	s := listening(t, Options{})
	other := client(s)
	ours, theirs := newKey(t), newKey(t)
	for n := 1; n < 100; n++ {
		ref := fmt.Sprintf("shop/web:%d", n)
		s.push(ref)
		subject := parsed(t, other, ref)
		subject = subject.At(must(other.Head(t.Context(), subject)).Digest)
		asked := 0
		c := NewRemote(RemoteOptions{Hosts: []string{s.host}, Store: s.o.Store, Own: func(ctx context.Context) (*Registry, error) {
			if asked++; asked == n {
				return s.Registry, other.signTag(ctx, subject, theirs, map[string]string{atNote: "later"})
			}
			return s.Registry, nil
		}})
		if _, err := c.Sign(t.Context(), subject, Signing{Key: ours, At: signedAt}); err != nil {
			t.Fatal(err)
		}
		if asked < n {
			return
		}
		alike(t, fmt.Sprintf("at request %d", n), signatures(t, other, ref, ours, theirs), "key 0 bundle at nine\nkey 0 tag at nine\nkey 1 tag")
	}
	t.Error("signing never ended")
}

// Signatures go with what they sign, and not before.
func TestRetentionKnowsSignatures(t *testing.T) {
	clock := newClock()
	s := listening(t, Options{Now: clock.now})
	c := client(s)
	key := newKey(t)
	s.push("shop/web:1")
	s.push("shop/web:2")
	signed(t, c, "shop/web:1", Signing{Key: key})
	signed(t, c, "shop/web:2", Signing{Key: key})
	clock.add(2 * leaseTime) // what was just pushed is leased
	retain := func(o RetainOptions) Retained {
		t.Helper()
		done, err := s.Retain(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	if done := retain(RetainOptions{Rules: []Rule{{Keep: 1, KeepSigned: true}}}); done.Tags+done.Manifests != 0 {
		t.Errorf("signed images go: %+v", done)
	}
	if done := retain(RetainOptions{Rules: []Rule{{Keep: 1}}}); done.Tags != 2 || done.Manifests != 3 {
		t.Errorf("%d tags and %d manifests go, want the image, its .sig and its bundle", done.Tags, done.Manifests)
	}
	alike(t, "the other image", signatures(t, c, "shop/web:2", key), "key 0 bundle at nine\nkey 0 tag at nine")
}

// An attestation does not make an image a signed one.
func TestAnAttestationIsNotKeptAsASignature(t *testing.T) {
	s := listening(t, Options{})
	c := client(s)
	s.push("shop/web:1")
	if _, err := c.Attach(t.Context(), parsed(t, c, "shop/web:1"), Artifact{
		Type: bundleMedia, Annotations: map[string]string{predicateNote: "https://slsa.dev/provenance/v1"},
	}); err != nil {
		t.Fatal(err)
	}
	for _, l := range must(s.List(t.Context(), "shop/web", nil)) {
		if l.Signed {
			t.Errorf("%+v is listed as signed", l)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// What real cosign made: see testdata/cosign/README.md.
func TestWhatCosignSigned(t *testing.T) {
	read := func(name string) []byte {
		t.Helper()
		b, err := os.ReadFile("testdata/cosign/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	key, err := ReadSigningKey(read("cosign.pub"), nil)
	if err != nil {
		t.Fatal(err)
	}
	private, err := ReadSigningKey(read("cosign.key"), []byte("a small password"))
	if err != nil {
		t.Fatal(err)
	}
	if private.Fingerprint() != key.Fingerprint() || !private.Signs() || key.Signs() {
		t.Errorf("cosign.key is %s, cosign.pub %s", private.Fingerprint(), key.Fingerprint())
	}
	s := listening(t, Options{})
	c := client(s)
	put := func(name string) (at string) {
		t.Helper()
		d, _, err := v1.SHA256(bytes.NewReader(read(name)))
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	of := Reference{Repository: "shop/web", Digest: put("image.json")}
	for _, blob := range []string{"config.json", "layer", "payload.json", "bundle.json", "sig-config.json", "empty.json"} {
		if _, err := c.PutBlob(t.Context(), of, Blob{MediaType: simpleSigning, Data: read(blob)}); err != nil {
			t.Fatal(err)
		}
	}
	for name, at := range map[string]string{"image.json": of.Digest, "sig.json": sigTag(of.Digest), "referrer.json": put("referrer.json")} {
		if err := c.Put(t.Context(), of.At(at), read(name), ociManifest); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	found, err := c.Signatures(t.Context(), of, []SigningKey{newKey(t), key})
	if err != nil {
		t.Fatal(err)
	}
	alike(t, "cosign's", found.text(), "key 1 bundle build=42\nkey 1 tag build=42")
}

func TestKeysAreCosigns(t *testing.T) {
	key := newKey(t)
	sealed, err := key.Sealed([]byte("open"))
	if err != nil {
		t.Fatal(err)
	}
	back, err := ReadSigningKey(sealed, []byte("open"))
	if err != nil || back.Fingerprint() != key.Fingerprint() || !back.Signs() {
		t.Errorf("sealed and opened: %v", err)
	}
	if _, err := ReadSigningKey(sealed, []byte("opens")); tender.KindOf(err) != tender.Denied {
		t.Errorf("a wrong password: %v", err)
	}
	plain, err := key.Plain()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := ReadSigningKey(plain, nil); err != nil || back.Fingerprint() != key.Fingerprint() {
		t.Errorf("plain: %v", err)
	}
	// The parameters in a file must not choose how much memory is taken.
	greedy := []byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n" +
		base64.StdEncoding.EncodeToString([]byte(`{"kdf":{"name":"scrypt","params":{"N":1073741824,"r":8,"p":1},"salt":""},"cipher":{"name":"nacl/secretbox","nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},"ciphertext":""}`)) +
		"\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
	for name, text := range map[string][]byte{"greedy": greedy, "empty": nil, "a certificate": []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")} {
		if _, err := ReadSigningKey(text, nil); tender.KindOf(err) != tender.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzReadSigningKey(f *testing.F) {
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"))
	f.Add([]byte("-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----\ne30=\n-----END ENCRYPTED COSIGN PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if k, err := ReadSigningKey(text, nil); err == nil && len(k.Public()) == 0 {
			t.Error("a key without a public half")
		}
	})
}
