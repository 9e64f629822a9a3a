package daemon

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/policy"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/store"
)

// keysProject is whose secrets the keys that sign images are: no project can have this
// name, so no Compose file reaches them.
const keysProject = "@signing"

// imageKey is a key of the vault.
type imageKey struct {
	name    string
	created time.Time
	who     string
	registry.SigningKey
}

// imageKeys opens all keys, by name.
func (b *backend) imageKeys(ctx context.Context) (out []imageKey, err error) {
	kept, err := b.vault.List(ctx, keysProject)
	if err != nil {
		return nil, err
	}
	for _, s := range kept {
		text, err := b.vault.Open(ctx, keysProject, s.Name, s.Version.Version)
		if tender.KindOf(err) == tender.NotFound {
			continue // it was removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		k, err := registry.ReadSigningKey(text, nil)
		if err != nil {
			return nil, fmt.Errorf("read the key %s of the vault: %w", s.Name, err)
		}
		out = append(out, imageKey{s.Name, s.Created, s.Who, k})
	}
	return out, nil
}

// keyNamed is one of them. NotFound: there is none.
func keyNamed(keys []imageKey, name string) (imageKey, error) {
	var names []string
	for _, k := range keys {
		if k.name == name {
			return k, nil
		}
		names = append(names, k.name)
	}
	e := tender.Errorf(tender.NotFound, "there is no key %q", name)
	if near := tender.Nearest(name, names); near != "" {
		return imageKey{}, e.Hint("did you mean: %s", near)
	}
	return imageKey{}, e.Hint("tender image key create %s makes it, tender image key ls lists all", name)
}

// gatesThatAsk names the gates of the configuration that ask for a key's signature.
func (c Config) gatesThatAsk(key string) (out []string) {
	if slices.Contains(c.Gate.Sign, key) {
		out = append(out, "gate")
	}
	for _, s := range c.Pipeline {
		if slices.Contains(s.Gate.Sign, key) {
			out = append(out, "pipeline "+s.Name)
		}
	}
	return out
}

func (b *backend) wireKey(k imageKey) api.ImageKey {
	return api.ImageKey{
		Name: k.name, Kind: k.Kind(), Signs: k.Signs(), Public: string(k.Public()), Fingerprint: k.Fingerprint(), Created: k.created, Who: k.who, Gates: b.config.gatesThatAsk(k.name),
	}
}

// ImageKeys lists them by name, without private halves.
func (b *backend) ImageKeys(ctx context.Context) ([]api.ImageKey, error) {
	keys, err := b.imageKeys(ctx)
	var out []api.ImageKey
	for _, k := range keys {
		out = append(out, b.wireKey(k))
	}
	return out, err
}

// AddImageKey makes a key, or takes one over. Conflict: there is one of that name, or the same
// one under another, which would count as two signers.
func (b *backend) AddImageKey(ctx context.Context, who api.Person, n api.ImageKeyNew) (out api.ImageKey, err error) {
	what := "image key create"
	if n.Key != "" {
		what = "image key import"
	}
	defer func() { b.auditEnd(ctx, who, what, "", n.Name, err) }()
	b.signers.adding.Lock()
	defer b.signers.adding.Unlock()
	if _, err := b.vault.Newest(ctx, keysProject, n.Name); err == nil {
		return out, tender.Errorf(tender.Conflict, "there is a key %q", n.Name).
			Hint("choose another name, or remove that one, whose signatures then count no more: tender image key rm %s", n.Name)
	} else if tender.KindOf(err) != tender.NotFound {
		return out, err
	}
	var k registry.SigningKey
	if n.Key == "" {
		k, err = registry.NewSigningKey()
	} else {
		k, err = registry.ReadSigningKey([]byte(n.Key), []byte(n.Password))
	}
	if err != nil {
		return out, err
	}
	there, err := b.imageKeys(ctx)
	if err != nil {
		return out, err
	}
	for _, other := range there {
		if other.Fingerprint() == k.Fingerprint() {
			return out, tender.Errorf(tender.Conflict, "this key is in the vault already, as %q", other.name).
				Hint("a gate that asks for two keys wants two signers; to give it another name, remove it first: tender image key rm %s", other.name)
		}
	}
	text, err := k.Plain()
	if err != nil {
		return out, err
	}
	v, _, err := b.vault.Put(ctx, who.Name, keysProject, n.Name, text)
	if err != nil {
		return out, err
	}
	return b.wireKey(imageKey{n.Name, v.Created, v.Who, k}), nil
}

// ExportImageKey is the private half, sealed with a password as cosign seals it.
func (b *backend) ExportImageKey(ctx context.Context, who api.Person, name, password string) (text string, err error) {
	defer func() { b.auditEnd(ctx, who, "image key export", "", name, err) }()
	keys, err := b.imageKeys(ctx)
	if err != nil {
		return "", err
	}
	k, err := keyNamed(keys, name)
	if err != nil {
		return "", err
	}
	if password == "" {
		return "", tender.Errorf(tender.Invalid, "a private key is not exported without a password").Hint("COSIGN_PASSWORD, or --password-stdin")
	}
	sealed, err := k.Sealed([]byte(password))
	return string(sealed), err
}

// RemoveImageKey removes a key. Conflict: a gate asks for it, and force is not said.
func (b *backend) RemoveImageKey(ctx context.Context, who api.Person, name string, force bool) (err error) {
	defer func() { b.auditEnd(ctx, who, "image key rm", "", name, err) }()
	if asked := b.config.gatesThatAsk(name); len(asked) > 0 && !force {
		return tender.Errorf(tender.Conflict, "%s of tender.yaml asks for signatures of the key %s, and would let nothing through", strings.Join(asked, ", "), name).
			Hint("take it out of sign: there first, or say --force")
	}
	err = b.vault.Remove(ctx, keysProject, name)
	if tender.KindOf(err) == tender.NotFound {
		return tender.Errorf(tender.NotFound, "there is no key %q", name).Hint("tender image key ls lists them")
	}
	return err
}

// imageNamed reads a reference, and says whether who asks may do that where it lies. Registries
// are reached with the login that came with the request, else with the daemon's.
func (b *backend) imageNamed(ctx context.Context, who api.Person, text, auth, do string) (*registry.Remote, registry.Reference, error) {
	to := b.remote
	if auth != "" {
		to = b.registries(map[string]string{registryOf(text): auth})
	}
	ref, err := to.Parse(ctx, text)
	if err != nil {
		return nil, ref, err
	}
	if ref.Host == "" && !accountOf(who).May(ref.Repository, do) {
		return nil, ref, tender.Errorf(tender.Denied, "%s may not %s in the repository %s", cmp.Or(who.Name, "this token"), do, ref.Repository).
			Hint("use a token that may: tender token create NAME --scope deploy")
	}
	return to, ref, nil
}

// SignImage signs the digest that a reference names in its registry.
func (b *backend) SignImage(ctx context.Context, who api.Person, r api.ImageSign) (out api.ImageSignatures, err error) {
	detail := r.Reference + " with " + r.Key
	defer func() { b.auditEnd(ctx, who, "image sign", "", detail, err) }()
	keys, err := b.imageKeys(ctx)
	if err != nil {
		return out, err
	}
	key, err := keyNamed(keys, r.Key)
	if err != nil {
		return out, err
	}
	if !key.Signs() {
		return out, tender.Errorf(tender.Conflict, "only the public half of the key %s is in the vault, which verifies and does not sign", r.Key).
			Hint("sign where its private half is: cosign sign --key cosign.key %s", r.Reference)
	}
	to, ref, err := b.imageNamed(ctx, who, r.Reference, r.Auth, registry.Push)
	if err != nil {
		return out, err
	}
	done, err := to.Sign(ctx, ref, registry.Signing{Key: key.SigningKey, By: who.Name, At: time.Now(), Annotations: r.Annotations})
	if tender.KindOf(err) == tender.NotFound {
		if id, here := b.engine.Resolve(ctx, r.Reference); here == nil && id.ID != "" {
			return out, tender.Errorf(tender.NotFound, "%s is on this host alone, and a signature lies beside the image in its registry", r.Reference).
				Hint("push it first: docker push %s", r.Reference)
		}
	}
	if err != nil {
		return out, err
	}
	b.signers.forget(done.Reference.Digest)
	detail = done.Reference.String() + " with " + r.Key
	out, err = b.signatures(ctx, to, done.Reference, []imageKey{key})
	out.Before = done.Before
	return out, err
}

// VerifyImage says who signed; which of the keys asked about did not is in the answer, too.
func (b *backend) VerifyImage(ctx context.Context, who api.Person, r api.ImageVerify) (out api.ImageSignatures, err error) {
	keys, err := b.imageKeys(ctx)
	if err != nil {
		return out, err
	}
	if len(r.Keys) > 0 {
		var asked []imageKey
		for _, name := range r.Keys {
			k, err := keyNamed(keys, name)
			if err != nil {
				return out, err
			}
			asked = append(asked, k)
		}
		keys = asked
	}
	to, ref, err := b.imageNamed(ctx, who, r.Reference, r.Auth, registry.Pull)
	if err != nil {
		return out, err
	}
	if out, err = b.signatures(ctx, to, ref, keys); err != nil || len(r.Keys) == 0 {
		return out, err
	}
	for _, name := range r.Keys {
		if !slices.ContainsFunc(out.Signatures, func(s api.ImageSignature) bool { return s.Key == name }) && !slices.Contains(out.Missing, name) {
			out.Missing = append(out.Missing, name)
		}
	}
	out.Verified = len(out.Missing) == 0
	return out, nil
}

func (b *backend) signatures(ctx context.Context, from *registry.Remote, ref registry.Reference, keys []imageKey) (api.ImageSignatures, error) {
	plain := make([]registry.SigningKey, len(keys))
	for i, k := range keys {
		plain[i] = k.SigningKey
	}
	found, err := from.Signatures(ctx, ref, plain)
	if err != nil {
		return api.ImageSignatures{}, err
	}
	out := api.ImageSignatures{
		Reference: ref.String(), Digest: found.Reference.Digest, Signatures: []api.ImageSignature{},
		Others: found.Others, Problems: found.Problems, Verified: len(found.Valid) > 0,
	}
	for _, v := range found.Valid {
		form := "tag"
		if v.Bundle {
			form = "bundle"
		}
		out.Signatures = append(out.Signatures, api.ImageSignature{Key: keys[v.Key].name, By: v.By, At: v.At, Form: form, Annotations: v.Annotations})
	}
	slices.SortStableFunc(out.Signatures, func(x, y api.ImageSignature) int { return strings.Compare(x.Key, y.Key) })
	return out, nil
}

const (
	// absentFor is how long nobody asks again who signed a digest: a signature stays, one that is missing may come.
	absentFor = 10 * time.Second
	// maxSigned is how many digests are remembered.
	maxSigned = 1000
	// askSigners is how long a gate waits for a registry.
	askSigners = 30 * time.Second
)

// signers tells the gate who signed an image. What was found stays true, whatever becomes of
// the registry; it is remembered by digest and key.
type signers struct {
	adding sync.Mutex // of keys

	mu   sync.Mutex
	seen map[string]*signedBy // by digest
}

// signedBy are fingerprints of keys.
type signedBy struct {
	asked  time.Time
	tried  []string // at that time
	signed []string
}

func (s *signers) forget(digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if of := s.seen[digest]; of != nil {
		of.asked = time.Time{}
	}
}

// remembered says which of the keys signed, and whether that is all that is to be known now.
func (s *signers) remembered(digest string, keys []imageKey, now time.Time) (signed []string, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.seen[digest]
	if of == nil {
		return nil, false
	}
	all = true
	for _, k := range keys {
		print := k.Fingerprint()
		if slices.Contains(of.signed, print) {
			signed = append(signed, k.name)
		} else if now.Sub(of.asked) >= absentFor || !slices.Contains(of.tried, print) {
			all = false
		}
	}
	return signed, all
}

func (s *signers) remember(digest string, keys []imageKey, found registry.Signatures, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.seen[digest]
	if of == nil {
		of = &signedBy{}
		if s.seen == nil {
			s.seen = map[string]*signedBy{}
		}
		if len(s.seen) >= maxSigned {
			oldest := ""
			for d, o := range s.seen {
				if oldest == "" || o.asked.Before(s.seen[oldest].asked) {
					oldest = d
				}
			}
			delete(s.seen, oldest)
		}
		s.seen[digest] = of
	}
	of.asked, of.tried = now, nil
	for i, k := range keys {
		print := k.Fingerprint()
		of.tried = append(of.tried, print)
		if found.By(i) && !slices.Contains(of.signed, print) {
			of.signed = append(of.signed, print)
		}
	}
}

// signersOf names the keys that signed an image; nobody where it has no digest. Unavailable: its registry does not say.
// Where no gate wants to know, no registry is asked.
func (b *backend) signersOf(ctx context.Context, id tender.ImageID) ([]string, error) {
	if !b.config.asksForSigners() {
		return nil, nil
	}
	out := []string{}
	if id.Digest == "" {
		return out, nil
	}
	keys, err := b.imageKeys(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	known, all := b.signers.remembered(id.Digest, keys, now)
	// Without rules that read all names, those that gates ask for are enough.
	if all = all || b.config.signersAreEnough(known); all || byID(id) {
		return append(out, known...), nil
	}
	ref, err := b.remote.Parse(ctx, id.Reference)
	if err != nil {
		return nil, err
	}
	plain := make([]registry.SigningKey, len(keys))
	for i, k := range keys {
		plain[i] = k.SigningKey
	}
	ctx, cancel := context.WithTimeoutCause(ctx, askSigners, tender.Errorf(tender.Unavailable, "the registry of %s did not answer within %s", ref, askSigners).
		Hint("see that it answers: tender image verify %s", ref))
	defer cancel()
	found, err := b.remote.Signatures(ctx, ref.At(id.Digest), plain)
	if err != nil {
		return nil, err
	}
	b.signers.remember(id.Digest, keys, found, now)
	known, _ = b.signers.remembered(id.Digest, keys, now)
	return append(out, known...), nil
}

// byID says whether an image is named by the engine's ID, which says of no registry.
func byID(id tender.ImageID) bool {
	hex, said := strings.CutPrefix(id.Reference, "sha256:")
	return said || hex != "" && strings.HasPrefix(strings.TrimPrefix(id.ID, "sha256:"), hex)
}

// allGates are the general one and those of all steps.
func (c Config) allGates() []policy.Gate {
	out := []policy.Gate{c.Gate}
	for _, s := range c.Pipeline {
		out = append(out, s.Gate)
	}
	return out
}

func (c Config) asksForSigners() bool {
	return slices.ContainsFunc(c.allGates(), func(g policy.Gate) bool { _, signers, _ := g.Needs(); return signers })
}

// signersAreEnough says whether every gate that asks for signatures is content with these.
func (c Config) signersAreEnough(known []string) bool {
	return !slices.ContainsFunc(c.allGates(), func(g policy.Gate) bool {
		return slices.ContainsFunc(g.Rules, func(r policy.Rule) bool { return r.Uses("signers") }) ||
			slices.ContainsFunc(g.Sign, func(name string) bool { return !slices.Contains(known, name) })
	})
}

// keysThere are the names of all keys, for the gate to say which one it asks for is missing.
func (b *backend) keysThere(ctx context.Context) ([]string, error) {
	out := []string{}
	err := b.store.View(ctx, func(tx *store.Tx) error {
		all, err := tx.Secrets(keysProject, "")
		for _, s := range all {
			if !slices.Contains(out, s.Name) {
				out = append(out, s.Name)
			}
		}
		return err
	})
	return out, err
}

// warnOfKeys says at the start which keys gates ask for and the vault does not have: they can
// only be made while the daemon runs.
func (b *backend) warnOfKeys(ctx context.Context, log *slog.Logger) error {
	var asked []string
	for _, g := range b.config.allGates() {
		asked = append(asked, g.Sign...)
	}
	if len(asked) == 0 {
		return nil
	}
	there, err := b.keysThere(ctx)
	if err != nil {
		return err
	}
	slices.Sort(asked)
	for _, name := range slices.Compact(asked) {
		if !slices.Contains(there, name) {
			log.Warn("a gate asks for signatures of a key that is not in the vault, and lets nothing through", "key", name, "hint", "tender image key create "+name)
		}
	}
	return nil
}
