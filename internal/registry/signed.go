package registry

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	tender "github.com/tenderhq/tender"
)

// Whoever may push may put anything where signatures lie.
const (
	maxSignatures = 100      // that are looked at, in each of the places
	maxSimple     = 64 << 10 // bytes of what is signed under the tag
	maxBundle     = 1 << 20  // bytes
	maxProblems   = 10
)

// Signature is one that a key made of the digest that was asked about.
type Signature struct {
	Key    int  // which of those given
	Bundle bool // cosign 3's form; else that under the tag
	// By and At are part of what was signed where we signed it. Of others By is "", and At when
	// the bundle says that it was made, which nobody signed, or zero.
	By          string
	At          time.Time
	Annotations map[string]string
}

// Signatures is what was found beside an image.
type Signatures struct {
	Reference Reference // with the digest
	Valid     []Signature
	Others    int      // that none of the keys made
	Problems  []string // what is damaged, of another image, or too large; at most ten
}

// By says whether one of the keys signed.
func (s Signatures) By(key int) bool {
	return slices.ContainsFunc(s.Valid, func(v Signature) bool { return v.Key == key })
}

// Signatures finds which of the keys signed a digest. NotFound: a tag that is not there;
// a digest that nobody signed is no error.
func (r *Remote) Signatures(ctx context.Context, ref Reference, keys []SigningKey) (Signatures, error) {
	if ref.Digest == "" {
		d, err := r.Head(ctx, ref)
		if err != nil {
			return Signatures{}, err
		}
		ref.Digest = d.Digest
	}
	s := &search{Remote: r, subject: ref.At(ref.Digest), keys: keys, found: Signatures{Reference: ref}}
	layers, _, err := s.manifest(ctx, s.subject.At(sigTag(ref.Digest)))
	if err == nil {
		err = s.simple(ctx, layers, time.Time{})
	}
	if err != nil {
		return s.found, err
	}
	list, err := r.signers(ctx, s.subject)
	if err != nil {
		return s.found, err
	}
	if len(list) > maxSignatures {
		s.problem("there are %d signatures, and only %d are looked at", len(list), maxSignatures)
	}
	for _, d := range list[:min(len(list), maxSignatures)] {
		if err := s.referrer(ctx, d); err != nil {
			return s.found, err
		}
	}
	return s.found, nil
}

// signers are what refers to an image and may sign it. Our own registry tells kinds apart, and
// answers in pages; of others not all do.
func (r *Remote) signers(ctx context.Context, subject Reference) (out []Descriptor, err error) {
	kinds := []string{""}
	if subject.Host == "" {
		kinds = []string{bundleMedia, tiedMedia}
	}
	for _, kind := range kinds {
		list, err := r.Referrers(ctx, subject, kind)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return slices.DeleteFunc(out, func(d Descriptor) bool {
		said := d.Annotations[predicateNote]
		return !slices.Contains([]string{bundleMedia, tiedMedia, emptyMedia, ""}, d.Artifact) || said != "" && said != signPredicate // an attestation
	}), nil
}

func (s *search) referrer(ctx context.Context, d Descriptor) error {
	if d.Size > maxManifest {
		s.problem("a signature's manifest of %d bytes is not looked at", d.Size)
		return nil
	}
	layers, ok, err := s.manifest(ctx, s.subject.At(d.Digest))
	if err != nil || !ok {
		return err
	}
	made, _ := time.Parse(time.RFC3339, d.Annotations[createdNote])
	switch {
	case slices.ContainsFunc(layers, func(l signatureLayer) bool { return l.MediaType == simpleSigning }):
		return s.simple(ctx, layers, made)
	case d.Artifact == bundleMedia || len(layers) > 0 && strings.HasPrefix(layers[0].MediaType, bundles):
		return s.bundle(ctx, d, layers, made)
	}
	return nil
}

// search is one look for signatures.
type search struct {
	*Remote
	subject Reference
	keys    []SigningKey
	found   Signatures
}

func (s *search) problem(format string, args ...any) {
	if len(s.found.Problems) < maxProblems {
		s.found.Problems = append(s.found.Problems, fmt.Sprintf(format, args...))
	}
}

// broken says whether an error is of what lies there; else it is of the way to it.
func broken(err error) bool {
	k := tender.KindOf(err)
	return k == tender.NotFound || k == tender.Invalid
}

// manifest reads one that holds signatures; ok is false where there is none that can be read.
func (s *search) manifest(ctx context.Context, at Reference) (layers []signatureLayer, ok bool, err error) {
	raw, _, err := s.Manifest(ctx, at)
	if tender.KindOf(err) == tender.NotFound {
		return nil, false, nil
	}
	if err != nil {
		if broken(err) {
			s.problem("%s: %v", at, err)
			return nil, false, nil
		}
		return nil, false, err
	}
	var m struct {
		Layers []signatureLayer `json:"layers"`
	}
	if len(raw) > maxManifest || json.Unmarshal(raw, &m) != nil {
		s.problem("%s is no manifest of signatures", at)
		return nil, false, nil
	}
	return m.Layers, true, nil
}

// simpleLayers reads what is signed in the form of the tag.
func (s *search) simpleLayers(ctx context.Context, layers []signatureLayer) (out []simpleLayer, err error) {
	if len(layers) > maxSignatures {
		s.problem("a manifest holds %d signatures, and only %d are looked at", len(layers), maxSignatures)
	}
	for _, l := range layers[:min(len(layers), maxSignatures)] {
		if l.MediaType != simpleSigning || l.Annotations[signatureNote] == "" {
			continue
		}
		if l.Size > maxSimple {
			s.problem("a signature of %d bytes is not looked at, %d is the limit", l.Size, maxSimple)
			continue
		}
		payload, err := s.Blob(ctx, s.subject, l.Digest, maxSimple)
		if err != nil && broken(err) {
			s.problem("a signature is damaged: %v", err)
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, simpleLayer{payload, l.Annotations})
	}
	return out, nil
}

func (s *search) simple(ctx context.Context, all []signatureLayer, made time.Time) error {
	layers, err := s.simpleLayers(ctx, all)
	if err != nil {
		return err
	}
	for _, l := range layers {
		signature, err := base64.StdEncoding.DecodeString(l.notes[signatureNote])
		if err != nil {
			s.problem("a signature is damaged: it is no base64")
			continue
		}
		key := s.maker(func(k SigningKey) bool { return k.verifies(l.payload, signature) })
		if key < 0 {
			continue
		}
		var p simple
		if err := json.Unmarshal(l.payload, &p); err != nil || p.Critical.Type != simpleKind {
			s.problem("what is signed is no cosign signature, but %q", clipped(p.Critical.Type))
			continue
		}
		if p.Critical.Image.Digest != s.subject.Digest {
			s.problem("a signature is of another image, %s", clipped(p.Critical.Image.Digest))
			continue
		}
		s.valid(key, false, made, p.Optional)
	}
	return nil
}

// maker finds the key that made a signature; -1: none of them.
func (s *search) maker(verifies func(SigningKey) bool) int {
	key := slices.IndexFunc(s.keys, verifies)
	if key < 0 {
		s.found.Others++
	}
	return key
}

func (s *search) valid(key int, bundle bool, made time.Time, notes map[string]any) {
	v := Signature{Key: key, Bundle: bundle, At: made}
	for k, value := range notes {
		text, ok := value.(string)
		if !ok {
			raw, _ := json.Marshal(value)
			text = string(raw)
		}
		switch k {
		case byNote:
			v.By = text
		case atNote:
			if at, err := time.Parse(time.RFC3339, text); err == nil {
				v.At = at
			}
		default:
			if v.Annotations == nil {
				v.Annotations = map[string]string{}
			}
			v.Annotations[k] = text
		}
	}
	s.found.Valid = append(s.found.Valid, v)
}

func (s *search) bundle(ctx context.Context, d Descriptor, layers []signatureLayer, made time.Time) error {
	if len(layers) != 1 || layers[0].Size > maxBundle {
		s.problem("%s is no bundle: it wants one layer of at most %d bytes", short(d.Digest), maxBundle)
		return nil
	}
	raw, err := s.Blob(ctx, s.subject, layers[0].Digest, maxBundle)
	if err != nil && broken(err) {
		s.problem("the bundle %s is damaged: %v", short(d.Digest), err)
		return nil
	}
	if err != nil {
		return err
	}
	var b bundle
	if err := json.Unmarshal(raw, &b); err != nil || !strings.HasPrefix(b.MediaType, bundles) {
		s.problem("%s is no bundle", short(d.Digest))
		return nil
	}
	switch {
	case b.Envelope != nil:
		s.envelope(*b.Envelope, made)
	case b.Message != nil:
		s.message(*b.Message, made)
	default:
		s.problem("the bundle %s holds no signature", short(d.Digest))
	}
	return nil
}

func (s *search) envelope(e envelope, made time.Time) {
	if len(e.Signatures) != 1 { // a bundle has one, although DSSE allows more
		s.problem("a bundle holds %d signatures instead of one", len(e.Signatures))
		return
	}
	key := s.maker(func(k SigningKey) bool { return k.verifies(e.signed(), e.Signatures[0].Sig) })
	if key < 0 {
		return
	}
	var st statement
	if err := json.Unmarshal(e.Payload, &st); err != nil || e.PayloadType != inTotoMedia {
		s.problem("what is signed in a bundle is no statement about an image")
		return
	}
	if st.PredicateType != signPredicate {
		return // an attestation by the key says something else
	}
	want := digest.Digest(s.subject.Digest)
	for _, of := range st.Subject {
		if of.Digest[string(want.Algorithm())] == want.Encoded() {
			s.valid(key, true, made, of.Annotations)
			return
		}
	}
	other := "nothing"
	if len(st.Subject) > 0 {
		other = "sha256:" + st.Subject[0].Digest["sha256"]
	}
	s.problem("a signature is of another image, %s", clipped(other))
}

// message is a signature of the manifest itself, as cosign sign-blob makes it.
func (s *search) message(m messageSignature, made time.Time) {
	sum := hex.EncodeToString(m.Digest.Digest)
	if m.Digest.Algorithm != "SHA2_256" || "sha256:"+sum != s.subject.Digest {
		s.problem("a signature is of something else, %s", clipped(sum))
		return
	}
	if key := s.maker(func(k SigningKey) bool { return k.verifiesSum(m.Digest.Digest, m.Signature) }); key >= 0 {
		s.valid(key, true, made, nil)
	}
}

// clipped bounds what others wrote and a problem quotes.
func clipped(text string) string { return text[:min(len(text), 80)] }
