package registry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// ownHost stands for our own registry where the library wants a host. It is never dialled.
const ownHost = "own.invalid"

const (
	// maxTags is how many tags of one repository are listed.
	maxTags = 20_000
	// maxPages is how many pages of them are read: they may be empty.
	maxPages = 1_000
	// maxReferrers is how many referrers of one manifest are read.
	maxReferrers = 1_000
)

// Descriptor says what a manifest or blob is, as in the image specification.
type Descriptor struct {
	MediaType   string
	Digest      string
	Size        int64 // bytes
	Artifact    string
	Annotations map[string]string
}

// Artifact is what can be attached to a manifest.
type Artifact struct {
	Type        string // its media type
	Annotations map[string]string
	Blobs       []Blob
}

// Blob is a small one, held in memory.
type Blob struct {
	MediaType   string
	Data        []byte
	Annotations map[string]string
}

// RemoteOptions says how registries are reached. Its zero value reaches those that ask
// nobody who they are.
type RemoteOptions struct {
	// Own opens our own registry, which is reached without a network; nil: there is none.
	Own func(context.Context) (*Registry, error)
	// Hosts are names of our own registry, each with its port.
	Hosts []string
	// Store has the repositories of our own registry. Needed with Own.
	Store *store.Store
	// Login answers with X-Registry-Auth for a host, or "".
	Login     func(ctx context.Context, host string) (string, error)
	Transport http.RoundTripper // nil: the library's
	UserAgent string
}

// Remote is a client of registries: our own, in this process and as an administrator,
// and all others. It is safe for concurrent use.
type Remote struct{ o RemoteOptions }

// NewRemote makes one. Nothing is dialled.
func NewRemote(o RemoteOptions) *Remote {
	if o.Transport == nil {
		o.Transport = remote.DefaultTransport
	}
	o.Transport = bounded{o.Transport}
	return &Remote{o: o}
}

// Parse reads a reference. Without a host it is our own registry's, if that has the
// repository, else Docker's. Without a tag and a digest it is latest.
func (r *Remote) Parse(ctx context.Context, text string) (Reference, error) {
	named, err := name.ParseReference(text)
	if err != nil {
		return Reference{}, tender.Errorf(tender.Invalid, "%q is no reference of an image: %v", text, err).Hint("shop/web:1.4.2, or registry.company.com/shop/web:1.4.2")
	}
	out := Reference{Host: named.Context().RegistryStr(), Repository: named.Context().RepositoryStr()}
	if out.Host == name.DefaultRegistry {
		out.Host = "docker.io"
	}
	rest, digest, pinned := strings.Cut(text, "@")
	if pinned {
		out.Digest = digest
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		out.Tag = rest[i+1:]
	} else if !pinned {
		out.Tag = "latest"
	}
	if r.o.Own == nil {
		return out, nil
	}
	if slices.Contains(r.o.Hosts, out.Host) {
		out.Host = ""
		return out, nil
	}
	first, _, slash := strings.Cut(text, "/")
	if out.Host != "docker.io" || slash && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return out, nil
	}
	plain := rest
	if out.Tag != "" {
		plain = strings.TrimSuffix(rest, ":"+out.Tag)
	}
	own := false
	if err := r.o.Store.View(ctx, func(tx *store.Tx) (err error) { own, err = tx.HasRepository(plain); return err }); err != nil {
		return out, err
	}
	if own {
		out.Host, out.Repository = "", plain
	}
	return out, nil
}

// Head asks for a manifest's digest. NotFound: it is not there.
func (r *Remote) Head(ctx context.Context, ref Reference) (Descriptor, error) {
	named, opts, err := r.ready(ctx, ref)
	if err != nil {
		return Descriptor{}, err
	}
	d, err := remote.Head(named, opts...)
	if err != nil {
		return Descriptor{}, r.wrong(ctx, "find", ref, err)
	}
	return described(*d), nil
}

// Manifest reads one, at most 4 MiB. NotFound: it is not there.
func (r *Remote) Manifest(ctx context.Context, ref Reference) ([]byte, Descriptor, error) {
	named, opts, err := r.ready(ctx, ref)
	if err != nil {
		return nil, Descriptor{}, err
	}
	d, err := remote.Get(named, opts...)
	if err != nil {
		return nil, Descriptor{}, r.wrong(ctx, "read", ref, err)
	}
	return d.Manifest, described(d.Descriptor), nil
}

// Blob reads one of at most limit bytes; it is what its digest says. Invalid: it is larger.
func (r *Remote) Blob(ctx context.Context, ref Reference, digest string, limit int64) ([]byte, error) {
	named, opts, err := r.ready(ctx, ref)
	if err != nil {
		return nil, err
	}
	layer, err := remote.Layer(named.Context().Digest(digest), opts...)
	if err != nil {
		return nil, r.wrong(ctx, "read a blob of", ref, err)
	}
	in, err := layer.Compressed()
	if err != nil {
		return nil, r.wrong(ctx, "read a blob of", ref, err)
	}
	defer in.Close() //nolint:errcheck // it was read
	data, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return nil, r.wrong(ctx, "read a blob of", ref, err)
	}
	if int64(len(data)) > limit {
		return nil, tender.Errorf(tender.Invalid, "blob %s of %s is larger than %d bytes", digest, ref, limit)
	}
	return data, nil
}

// maxConfig is how large the configuration of an image may be, in bytes: the library reads it whole.
const maxConfig = 4 << 20

// Image opens an image, or of an index the one for a platform such as linux/arm64, "" being linux
// on this machine's processor; its layers come when they are read. Invalid: its configuration is
// larger than 4 MiB.
func (r *Remote) Image(ctx context.Context, ref Reference, platform string) (v1.Image, error) {
	p, err := v1.ParsePlatform(cmp.Or(platform, "linux/"+runtime.GOARCH))
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "platform %q: %v", platform, err)
	}
	named, opts, err := r.ready(ctx, ref)
	if err != nil {
		return nil, err
	}
	img, err := remote.Image(named, append(opts, remote.WithPlatform(*p))...)
	if err != nil {
		return nil, r.wrong(ctx, "read", ref, err)
	}
	m, err := img.Manifest()
	if err != nil {
		return nil, r.wrong(ctx, "read", ref, err)
	}
	if m.Config.Size < 0 || m.Config.Size > maxConfig {
		return nil, tender.Errorf(tender.Invalid, "the configuration of %s has %d bytes, more than %d", ref, m.Config.Size, maxConfig)
	}
	return img, nil
}

// Tags lists a repository's tags, at most 20,000 on 1,000 pages. NotFound: there is no such repository.
func (r *Remote) Tags(ctx context.Context, ref Reference) ([]string, error) {
	ctx = allBounded(ctx)
	named, opts, err := r.ready(ctx, ref)
	if err != nil {
		return nil, err
	}
	puller, err := remote.NewPuller(opts...)
	if err != nil {
		return nil, r.wrong(ctx, "list the tags of", ref, err)
	}
	pages, err := puller.Lister(ctx, named.Context())
	if err != nil {
		return nil, r.wrong(ctx, "list the tags of", ref, err)
	}
	var out []string
	for n := 0; n < maxPages && pages.HasNext() && len(out) < maxTags; n++ {
		page, err := pages.Next(ctx)
		if err != nil {
			return nil, r.wrong(ctx, "list the tags of", ref, err)
		}
		out = append(out, page.Tags...)
	}
	return out[:min(len(out), maxTags)], nil
}

// Copy brings a manifest, and what it names, to another name, and says its digest. Inside
// one registry no blob moves. Conflict: what arrived is something else.
func (r *Remote) Copy(ctx context.Context, from, to Reference) (string, error) {
	source, in, err := r.ready(ctx, from)
	if err != nil {
		return "", err
	}
	target, out, err := r.ready(ctx, to)
	if err != nil {
		return "", err
	}
	d, err := remote.Get(source, in...)
	if err != nil {
		return "", r.wrong(ctx, "read", from, err)
	}
	digest := d.Digest.String()
	pusher, err := remote.NewPusher(out...)
	if err != nil {
		return "", r.wrong(ctx, "write", to, err)
	}
	if from.Host == to.Host && from.Repository == to.Repository {
		err = pusher.Push(ctx, target, plainManifest{d.Manifest, d.MediaType})
	} else {
		err = pusher.Push(ctx, target, d)
	}
	if err != nil {
		return "", r.wrong(ctx, "write", to, err)
	}
	arrived, err := remote.Head(target, out...)
	if err != nil {
		return "", r.wrong(ctx, "find", to, err)
	}
	if arrived.Digest.String() != digest {
		return "", tender.Errorf(tender.Conflict, "%s is %s after %s was copied to it: somebody pushed there meanwhile", to, arrived.Digest, digest).Hint("again")
	}
	return digest, nil
}

// Untag removes a tag, and nothing of what it names. NotFound: there is none.
func (r *Remote) Untag(ctx context.Context, ref Reference) error {
	if ref.Tag == "" || ref.Digest != "" {
		return tender.Errorf(tender.Invalid, "%s is no tag", ref)
	}
	named, opts, err := r.ready(ctx, ref)
	if err != nil {
		return err
	}
	if err := remote.Delete(named, opts...); err != nil {
		return r.wrong(ctx, "remove the tag", ref, err)
	}
	return nil
}

// Attach adds an artifact that refers to the manifest, and says its digest. A registry
// without referrers gets the index of them under the tag that the specification names.
func (r *Remote) Attach(ctx context.Context, subject Reference, a Artifact) (string, error) {
	of, err := r.Head(ctx, subject)
	if err != nil {
		return "", err
	}
	type piece struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int64             `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	empty := []byte("{}")
	named, opts, err := r.ready(ctx, subject)
	if err != nil {
		return "", err
	}
	pusher, err := remote.NewPusher(opts...)
	if err != nil {
		return "", r.wrong(ctx, "write", subject, err)
	}
	var layers []piece
	blobs := a.Blobs
	if len(blobs) == 0 {
		blobs = []Blob{{MediaType: emptyMedia, Data: empty}}
	}
	put := func(b Blob) (piece, error) {
		l := static.NewLayer(b.Data, types.MediaType(b.MediaType))
		digest, err := l.Digest()
		if err != nil {
			return piece{}, err
		}
		return piece{b.MediaType, digest.String(), int64(len(b.Data)), b.Annotations}, pusher.Upload(ctx, named.Context(), l)
	}
	config, err := put(Blob{MediaType: emptyMedia, Data: empty})
	if err != nil {
		return "", r.wrong(ctx, "write", subject, err)
	}
	for _, b := range blobs {
		p, err := put(b)
		if err != nil {
			return "", r.wrong(ctx, "write", subject, err)
		}
		layers = append(layers, p)
	}
	raw, err := json.Marshal(struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		ArtifactType  string            `json:"artifactType"`
		Config        piece             `json:"config"`
		Layers        []piece           `json:"layers"`
		Subject       piece             `json:"subject"`
		Annotations   map[string]string `json:"annotations,omitempty"`
	}{2, string(types.OCIManifestSchema1), a.Type, config, layers, piece{of.MediaType, of.Digest, of.Size, nil}, a.Annotations})
	if err != nil {
		return "", err
	}
	digest, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return "", err
	}
	if err := pusher.Push(ctx, named.Context().Digest(digest.String()), plainManifest{raw, types.OCIManifestSchema1}); err != nil {
		return "", r.wrong(ctx, "attach to", subject, err)
	}
	return digest.String(), nil
}

// Put writes a manifest whose blobs are there.
func (r *Remote) Put(ctx context.Context, to Reference, manifest []byte, mediaType string) error {
	named, opts, err := r.ready(ctx, to)
	if err != nil {
		return err
	}
	pusher, err := remote.NewPusher(opts...)
	if err == nil {
		err = pusher.Push(ctx, named, plainManifest{manifest, types.MediaType(mediaType)})
	}
	if err != nil {
		return r.wrong(ctx, "write", to, err)
	}
	return nil
}

// PutBlob writes a small blob, and says its digest.
func (r *Remote) PutBlob(ctx context.Context, to Reference, b Blob) (string, error) {
	named, opts, err := r.ready(ctx, to)
	if err != nil {
		return "", err
	}
	l := static.NewLayer(b.Data, types.MediaType(b.MediaType))
	digest, err := l.Digest()
	if err != nil {
		return "", err
	}
	pusher, err := remote.NewPusher(opts...)
	if err == nil {
		err = pusher.Upload(ctx, named.Context(), l)
	}
	if err != nil {
		return "", r.wrong(ctx, "write", to, err)
	}
	return digest.String(), nil
}

// Referrers lists what refers to a manifest, at most 1,000. artifact narrows it; "" is any.
func (r *Remote) Referrers(ctx context.Context, subject Reference, artifact string) ([]Descriptor, error) {
	if subject.Digest == "" {
		d, err := r.Head(ctx, subject)
		if err != nil {
			return nil, err
		}
		subject.Digest = d.Digest
	}
	named, opts, err := r.ready(ctx, subject.At(subject.Digest))
	if err != nil {
		return nil, err
	}
	if artifact != "" {
		opts = append(opts, remote.WithFilter("artifactType", artifact))
	}
	index, err := remote.Referrers(named.Context().Digest(subject.Digest), opts...)
	if err != nil {
		return nil, r.wrong(ctx, "list what refers to", subject, err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, r.wrong(ctx, "list what refers to", subject, err)
	}
	var out []Descriptor
	for _, d := range m.Manifests[:min(len(m.Manifests), maxReferrers)] {
		if artifact == "" || d.ArtifactType == artifact {
			out = append(out, described(d))
		}
	}
	return out, nil
}

const emptyMedia = "application/vnd.oci.empty.v1+json"

// plainManifest is pushed as it is; what it names is there already.
type plainManifest struct {
	raw   []byte
	media types.MediaType
}

func (m plainManifest) RawManifest() ([]byte, error)        { return m.raw, nil }
func (m plainManifest) MediaType() (types.MediaType, error) { return m.media, nil }

func described(d v1.Descriptor) Descriptor {
	return Descriptor{MediaType: string(d.MediaType), Digest: d.Digest.String(), Size: d.Size, Artifact: d.ArtifactType, Annotations: d.Annotations}
}

// ready says how the library reaches what is named.
func (r *Remote) ready(ctx context.Context, ref Reference) (name.Reference, []remote.Option, error) {
	opts := []remote.Option{remote.WithContext(ctx), remote.WithJobs(4), remote.WithRetryStatusCodes(http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout)}
	if r.o.UserAgent != "" {
		opts = append(opts, remote.WithUserAgent(r.o.UserAgent))
	}
	host := ref.Host
	if host == "" {
		if r.o.Own == nil {
			return nil, nil, tender.Errorf(tender.Conflict, "this daemon has no registry of its own").Hint("name the registry: registry.company.com/%s", ref.Repository)
		}
		own, err := r.o.Own(ctx)
		if err != nil {
			return nil, nil, err
		}
		host = ownHost
		opts = append(opts, remote.WithTransport(inside{own}))
	} else {
		who, err := r.login(ctx, host)
		if err != nil {
			return nil, nil, err
		}
		carrier := r.o.Transport
		if who != authn.Anonymous {
			carrier = Guard(carrier)
		}
		opts = append(opts, remote.WithTransport(carrier), remote.WithAuth(who))
	}
	text := host + "/" + ref.Repository
	switch {
	case ref.Digest != "":
		text += "@" + ref.Digest
	case ref.Tag != "":
		text += ":" + ref.Tag
	}
	named, err := name.ParseReference(text)
	if err != nil {
		return nil, nil, tender.Errorf(tender.Invalid, "%q is no reference of an image: %v", ref, err).Hint("shop/web:1.4.2, or registry.company.com/shop/web:1.4.2")
	}
	return named, opts, nil
}

func (r *Remote) login(ctx context.Context, host string) (authn.Authenticator, error) {
	if r.o.Login == nil {
		return authn.Anonymous, nil
	}
	auth, err := r.o.Login(ctx, host)
	if err != nil || auth == "" {
		return authn.Anonymous, err
	}
	var is struct{ Username, Password, IdentityToken string }
	raw, err := base64.URLEncoding.DecodeString(auth)
	if err == nil {
		err = json.Unmarshal(raw, &is)
	}
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "the login at %s is damaged", host).Hint("tender registry login %s", host)
	}
	return authn.FromConfig(authn.AuthConfig{Username: is.Username, Password: is.Password, IdentityToken: is.IdentityToken}), nil
}

// wrong says what a registry's answer means.
func (r *Remote) wrong(ctx context.Context, what string, ref Reference, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if tender.KindOf(err) != tender.Internal {
		return err
	}
	where := cmp.Or(ref.Host, "our own registry")
	var t *transport.Error
	if !errors.As(err, &t) {
		return tender.Errorf(tender.Unavailable, "%s %s: %s does not answer: %v", what, ref, where, err).Hint("is the name right, and can this host reach %s?", where)
	}
	said := ""
	for i, d := range t.Errors {
		if i == 0 {
			said = ": "
		} else {
			said += ", "
		}
		said += cmp.Or(d.Message, string(d.Code))
	}
	switch t.StatusCode {
	case http.StatusNotFound:
		return tender.Errorf(tender.NotFound, "%s %s: %s does not have it", what, ref, where).Hint("is the name right? tender registry ls lists what is in our own registry")
	case http.StatusForbidden:
		if ref.Host == "" { // we may do all there: it is a rule that refuses
			return tender.Errorf(tender.Conflict, "%s %s%s", what, ref, said)
		}
		fallthrough
	case http.StatusUnauthorized:
		return tender.Errorf(tender.Denied, "%s %s: %s does not let us%s", what, ref, where, said).Hint("tender registry login %s", where)
	case http.StatusBadRequest, http.StatusConflict, http.StatusPreconditionFailed:
		return tender.Errorf(tender.Conflict, "%s %s: %s refuses it%s", what, ref, where, said).Hint("is the tag immutable there?")
	case http.StatusTooManyRequests:
		return tender.Errorf(tender.Unavailable, "%s %s: %s asks us to wait: too many requests%s", what, ref, where, said).Hint("again later; a login is often allowed more: tender registry login %s", where)
	}
	return tender.Errorf(tender.Unavailable, "%s %s: %s answers %d%s", what, ref, where, t.StatusCode, said).Hint("again in a moment")
}
