package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	tender "github.com/tenderhq/tender"
)

// What cosign calls things. A signature lies twice beside its image, so that each cosign finds
// it: in the manifest under the tag sha256-….sig, as all of them have it, and as a bundle that
// refers to the image, as cosign 3 has it.
const (
	simpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json" // of a layer under the tag
	signatureNote = "dev.cosignproject.cosign/signature"               // on such a layer
	simpleKind    = "cosign container image signature"
	bundleMedia   = bundles + ".v0.3+json"
	bundles       = "application/vnd.dev.sigstore.bundle"             // of any version
	tiedMedia     = "application/vnd.dev.cosign.artifact.sig.v1+json" // layers as under the tag, that refer to the image
	predicateNote = "dev.sigstore.bundle.predicateType"
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
	inTotoMedia   = "application/vnd.in-toto+json"
	createdNote   = "org.opencontainers.image.created"
)

// Annotations of ours, which are signed.
const (
	byNote = "tender.signed.by"
	atNote = "tender.signed.at" // RFC 3339
)

// Signing says how to sign.
type Signing struct {
	Key         SigningKey
	By          string            // who asked for it; it is signed, too
	At          time.Time         // it is signed, too
	Annotations map[string]string // signed, too; cosign verify -a compares them
}

// Signed is what was signed.
type Signed struct {
	Reference Reference // with the digest
	// Before: the key had signed it before, with the same annotations, and nothing was added.
	Before bool
}

// sigTag is where cosign looks for the signatures of a digest.
func sigTag(digest string) string { return strings.Replace(digest, ":", "-", 1) + ".sig" }

// Sign adds a signature to the digest that a reference names now; that of an index is its own. NotFound: it is not in
// its registry. Killed in between, some of it is there, and the next Sign adds what is missing.
func (r *Remote) Sign(ctx context.Context, ref Reference, s Signing) (Signed, error) {
	if !s.Key.Signs() {
		return Signed{}, tender.Errorf(tender.Conflict, "only the public half of the key is here, which verifies and does not sign").
			Hint("tender image key ls shows which keys sign")
	}
	for k := range s.Annotations {
		if k == "" || strings.HasPrefix(k, "tender.") {
			return Signed{}, tender.Errorf(tender.Invalid, "annotation %q: names that begin with tender. are its own", k).Hint("--annotation build=42")
		}
	}
	d, err := r.Head(ctx, ref)
	if err != nil {
		return Signed{}, err
	}
	if !strings.HasPrefix(d.Digest, "sha256:") {
		return Signed{}, tender.Errorf(tender.Invalid, "%s has the digest %s; cosign signs those of sha256", ref, d.Digest)
	}
	ref.Digest = d.Digest
	subject := ref.At(d.Digest)
	release, err := signing.take(ctx, subject.String())
	if err != nil {
		return Signed{}, err
	}
	defer release()
	have, err := r.Signatures(ctx, subject, []SigningKey{s.Key})
	if err != nil {
		return Signed{}, err
	}
	is := map[bool]bool{}
	for _, h := range have.Valid {
		if maps.Equal(h.Annotations, s.Annotations) || len(h.Annotations)+len(s.Annotations) == 0 {
			is[h.Bundle] = true
		}
	}
	notes := maps.Clone(s.Annotations)
	if notes == nil {
		notes = map[string]string{}
	}
	notes[atNote] = s.At.UTC().Format(time.RFC3339)
	if s.By != "" {
		notes[byNote] = s.By
	}
	if !is[true] {
		if err := r.signBundle(ctx, subject, s.Key, notes); err != nil {
			return Signed{}, fmt.Errorf("sign %s: %w", ref, err)
		}
	}
	if !is[false] {
		if err := r.signTag(ctx, subject, s.Key, notes); err != nil {
			return Signed{}, fmt.Errorf("sign %s: %w", ref, err)
		}
	}
	return Signed{Reference: ref, Before: is[true] && is[false]}, nil
}

// simple is what is signed under the tag.
// Source: https://github.com/containers/image/blob/main/docs/containers-signature.5.md
type simple struct {
	Critical struct {
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
	Optional map[string]any `json:"optional"`
}

func (r *Remote) signTag(ctx context.Context, subject Reference, key SigningKey, notes map[string]string) error {
	var p simple
	p.Critical.Identity.Reference = strings.TrimSuffix(subject.String(), "@"+subject.Digest)
	p.Critical.Image.Digest, p.Critical.Type = subject.Digest, simpleKind
	p.Optional = map[string]any{}
	for k, v := range notes {
		p.Optional[k] = v
	}
	payload, err := json.Marshal(p)
	if err != nil {
		return err
	}
	signature, err := key.sign(payload)
	if err != nil {
		return err
	}
	return r.addLayers(ctx, subject, []simpleLayer{{payload: payload, notes: map[string]string{signatureNote: base64.StdEncoding.EncodeToString(signature)}}})
}

// simpleLayer is one signature under the tag.
type simpleLayer struct {
	payload []byte
	notes   map[string]string
}

type signatureLayer struct {
	MediaType   string            `json:"mediaType"`
	Size        int64             `json:"size"`
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// addLayers adds to what lies under the tag. Registries other than ours cannot change a tag only
// if nobody else has meanwhile, so it looks again.
func (r *Remote) addLayers(ctx context.Context, subject Reference, add []simpleLayer) error {
	at := subject.At(sigTag(subject.Digest))
	var fresh []signatureLayer
	for _, l := range add {
		d, err := r.PutBlob(ctx, at, Blob{MediaType: simpleSigning, Data: l.payload})
		if err != nil {
			return err
		}
		fresh = append(fresh, signatureLayer{simpleSigning, int64(len(l.payload)), d, l.notes})
	}
	var lost error
	for range 4 {
		missing, m, err := r.missing(ctx, at, fresh)
		if err != nil || len(missing) == 0 {
			return err
		}
		for _, l := range missing {
			raw, err := json.Marshal(l)
			if err != nil {
				return err
			}
			m.layers = append(m.layers, raw)
			m.digests = append(m.digests, l.Digest)
		}
		config, err := m.config()
		if err != nil {
			return err
		}
		d, err := r.PutBlob(ctx, at, Blob{MediaType: imageConfig, Data: config})
		if err != nil {
			return err
		}
		raw, err := m.with(d, len(config))
		if err != nil {
			return err
		}
		put := ctx
		if at.Host == "" {
			put = Expect(ctx, m.is)
		}
		if lost = r.Put(put, at, raw, ociManifest); lost != nil && (at.Host != "" || tender.KindOf(lost) != tender.Conflict) {
			return lost
		}
	}
	missing, _, err := r.missing(ctx, at, fresh)
	if err == nil && len(missing) > 0 && lost != nil {
		return lost
	}
	if err == nil && len(missing) > 0 {
		err = tender.Errorf(tender.Conflict, "somebody else signs %s at the same time", subject).Hint("again in a moment")
	}
	return err
}

const imageConfig = "application/vnd.oci.image.config.v1+json"

// signatures is the manifest under the tag, with all that is not known here.
type signatureManifest struct {
	is      string // its digest; "": there is none
	fields  map[string]json.RawMessage
	layers  []json.RawMessage
	digests []string
}

// missing says which layers are not there yet, and what is.
func (r *Remote) missing(ctx context.Context, at Reference, want []signatureLayer) (out []signatureLayer, m signatureManifest, err error) {
	m.fields = map[string]json.RawMessage{"schemaVersion": json.RawMessage("2"), "mediaType": json.RawMessage(`"` + ociManifest + `"`)}
	raw, d, err := r.Manifest(ctx, at)
	if tender.KindOf(err) == tender.NotFound {
		return want, m, nil
	}
	if err != nil {
		return nil, m, err
	}
	m.is = d.Digest
	var have []signatureLayer
	err = json.Unmarshal(raw, &m.fields)
	if err == nil {
		err = json.Unmarshal(m.fields["layers"], &m.layers)
	}
	if err == nil {
		err = json.Unmarshal(m.fields["layers"], &have)
	}
	if err != nil || d.MediaType != ociManifest && d.MediaType != dockerManifest {
		return nil, m, tender.Errorf(tender.Conflict, "%s holds no signatures, but %s", at, d.MediaType).Hint("remove it: tender registry rm %s", at)
	}
	m.fields["mediaType"] = json.RawMessage(`"` + ociManifest + `"`)
	for _, l := range have {
		m.digests = append(m.digests, l.Digest)
	}
	if len(have)+len(want) > maxSignatures {
		return nil, m, tender.Errorf(tender.Conflict, "%s holds %d signatures, and nobody looks at more than %d", at, len(have), maxSignatures).
			Hint("remove them and sign again: tender registry rm %s", at)
	}
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h signatureLayer) bool {
			return h.Digest == w.Digest && h.Annotations[signatureNote] == w.Annotations[signatureNote]
		}) {
			out = append(out, w)
		}
	}
	return out, m, nil
}

// config is that of an image without a platform, as cosign writes it.
func (m signatureManifest) config() ([]byte, error) {
	type history struct {
		Created time.Time `json:"created"`
	}
	var c struct {
		Architecture string    `json:"architecture"`
		Created      time.Time `json:"created"`
		History      []history `json:"history"`
		OS           string    `json:"os"`
		RootFS       struct {
			Type string   `json:"type"`
			IDs  []string `json:"diff_ids"`
		} `json:"rootfs"`
		Config struct{} `json:"config"`
	}
	c.RootFS.Type, c.RootFS.IDs, c.History = "layers", m.digests, make([]history, len(m.digests))
	return json.Marshal(c)
}

func (m signatureManifest) with(config string, size int) ([]byte, error) {
	var err error
	if m.fields["config"], err = json.Marshal(signatureLayer{imageConfig, int64(size), config, nil}); err != nil {
		return nil, err
	}
	if m.fields["layers"], err = json.Marshal(m.layers); err != nil {
		return nil, err
	}
	return json.Marshal(m.fields)
}

// statement is what is signed in a bundle: in-toto's.
type statement struct {
	Type          string             `json:"_type"`
	Subject       []statementSubject `json:"subject"`
	PredicateType string             `json:"predicateType"`
	Predicate     json.RawMessage    `json:"predicate"`
}

type statementSubject struct {
	Digest      map[string]string `json:"digest"`
	Annotations map[string]any    `json:"annotations,omitempty"`
}

// bundle is Sigstore's, as much as is used of it here.
// Source: https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_bundle.proto
type bundle struct {
	MediaType string `json:"mediaType"`
	Material  struct {
		Key *bundleKey `json:"publicKey,omitempty"`
	} `json:"verificationMaterial"`
	Envelope *envelope         `json:"dsseEnvelope,omitempty"`
	Message  *messageSignature `json:"messageSignature,omitempty"`
}

type bundleKey struct {
	Hint string `json:"hint"`
}

// envelope is DSSE's.
type envelope struct {
	Payload     []byte              `json:"payload"`
	PayloadType string              `json:"payloadType"`
	Signatures  []envelopeSignature `json:"signatures"`
}

type envelopeSignature struct {
	Sig []byte `json:"sig"`
}

// signed is what a signature of an envelope is made of, length before content.
func (e envelope) signed() []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(e.PayloadType), e.PayloadType, len(e.Payload), e.Payload)
}

type messageSignature struct {
	Digest struct {
		Algorithm string `json:"algorithm"`
		Digest    []byte `json:"digest"`
	} `json:"messageDigest"`
	Signature []byte `json:"signature"`
}

func (r *Remote) signBundle(ctx context.Context, subject Reference, key SigningKey, notes map[string]string) error {
	of := statementSubject{Digest: map[string]string{"sha256": digest.Digest(subject.Digest).Encoded()}, Annotations: map[string]any{}}
	for k, v := range notes {
		of.Annotations[k] = v
	}
	payload, err := json.Marshal(statement{"https://in-toto.io/Statement/v1", []statementSubject{of}, signPredicate, json.RawMessage("{}")})
	if err != nil {
		return err
	}
	e := &envelope{Payload: payload, PayloadType: inTotoMedia}
	signature, err := key.sign(e.signed())
	if err != nil {
		return err
	}
	e.Signatures = []envelopeSignature{{signature}}
	b := bundle{MediaType: bundleMedia, Envelope: e}
	b.Material.Key = &bundleKey{key.Fingerprint()}
	raw, err := json.Marshal(b)
	if err != nil {
		return err
	}
	_, err = r.Attach(ctx, subject, Artifact{
		Type: bundleMedia, Blobs: []Blob{{MediaType: bundleMedia, Data: raw}},
		Annotations: map[string]string{createdNote: notes[atNote], "dev.sigstore.bundle.content": "dsse-envelope", predicateNote: signPredicate},
	})
	return err
}

// CopySignatures brings the signatures of a digest, which from has, to the repository that the
// image was copied to. What is there already stays.
func (r *Remote) CopySignatures(ctx context.Context, from, to Reference) error {
	if from.Digest == "" {
		return tender.Errorf(tender.Invalid, "copy the signatures of %s: it has no digest", from)
	}
	if from.Host == to.Host && from.Repository == to.Repository {
		return nil
	}
	from, to = from.At(from.Digest), to.At(from.Digest)
	release, err := signing.take(ctx, to.String())
	if err != nil {
		return err
	}
	defer release()
	s := &search{Remote: r, subject: from}
	all, _, err := s.manifest(ctx, from.At(sigTag(from.Digest)))
	if err != nil {
		return fmt.Errorf("copy signatures: %w", err)
	}
	layers, err := s.simpleLayers(ctx, all)
	if err != nil {
		return fmt.Errorf("copy signatures: %w", err)
	}
	if len(layers) > 0 {
		if err := r.addLayers(ctx, to, layers); err != nil {
			return fmt.Errorf("copy signatures: %w", err)
		}
	}
	list, err := r.signers(ctx, from)
	if err != nil {
		return fmt.Errorf("copy signatures: %w", err)
	}
	have, err := r.signers(ctx, to)
	if err != nil {
		return fmt.Errorf("copy signatures: %w", err)
	}
	for _, d := range list[:min(len(list), maxSignatures)] {
		if slices.ContainsFunc(have, func(h Descriptor) bool { return h.Digest == d.Digest }) {
			continue
		}
		if _, err := r.Copy(ctx, from.At(d.Digest), to.At(d.Digest)); err != nil {
			return fmt.Errorf("copy signatures: %w", err)
		}
	}
	return nil
}
