// Package vault keeps secrets sealed. It hides keys, sealing and versions; the
// daemon and the API knock. Values lie in the store sealed with age to two keys:
// the one in the key file, and a recovery key that is shown once and not kept.
// The key file does not lie in the data directory, so that a backup of that
// holds nothing readable.
//
// It never writes a plain value anywhere but where Deliver is told to, never
// logs one, and never gives one version number to two values.
package vault

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"filippo.io/age"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

const (
	// MaxValue is how long a value may be, in bytes.
	MaxValue = 1 << 20
	// keepVersions is how many versions of a secret stay although nothing uses them.
	keepVersions = 10
)

// Options of Init.
type Options struct {
	// KeyFile is the path of the key, outside of the data directory. It is made
	// with mode 0600 when there is none and nothing is sealed yet.
	KeyFile string
	// InUse says who still needs a version: "PROJECT/SERVICE". Default: nobody.
	// It is called in the middle of changes: it may View the store, and must not
	// change it or call the vault.
	InUse func(project, name string, version int) []string
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Vault seals and opens secrets. It is safe for concurrent use.
type Vault struct {
	store   *store.Store
	keyFile string
	inUse   func(project, name string, version int) []string
	now     func() time.Time

	mu   sync.RWMutex
	keys keys
}

// Version is what may be known of one version of a secret.
type Version struct {
	Project string // empty: for all projects
	Name    string
	Version int
	Size    int // bytes
	Created time.Time
	Who     string
}

// Secret is what may be known of a secret: its newest version and those kept.
type Secret struct {
	Version
	Versions []Version // newest first
}

var nameRule = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,128}$`)

// Init opens the vault of s, and makes its key when it is new: then recovery is
// the recovery key, which must be shown to people now and is kept nowhere. A
// change of keys that was interrupted is brought to its end.
func Init(ctx context.Context, s *store.Store, o Options) (v *Vault, recovery string, err error) {
	if o.InUse == nil {
		o.InUse = func(string, string, int) []string { return nil }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	path, err := filepath.Abs(o.KeyFile)
	if err != nil || o.KeyFile == "" {
		return nil, "", tender.Errorf(tender.Invalid, "the vault has no key file")
	}
	if within(s.Dir(), path) {
		return nil, "", tender.Errorf(tender.Invalid, "the key %s lies beside what it seals, in %s", path, s.Dir()).
			Hint("choose another place for the key, so that a copy of the data directory opens nothing")
	}
	v = &Vault{store: s, keyFile: path, inUse: o.InUse, now: o.Now}
	v.keys, err = readKeys(path)
	switch {
	case errors.Is(err, errNoKey):
		recovery, err = v.begin(ctx)
	case err == nil && len(v.keys.identities) > 1:
		err = v.settle(ctx)
	case err == nil:
		recovery, err = v.prove(ctx)
	}
	if err != nil {
		return nil, "", err
	}
	return v, recovery, nil
}

func within(dir, path string) bool {
	if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(real, filepath.Base(path))
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// Put gives a secret a value. The newest value again changes nothing and returns
// that version with changed false.
func (v *Vault) Put(ctx context.Context, who, project, name string, value []byte) (ver Version, changed bool, err error) {
	if !nameRule.MatchString(name) {
		return ver, false, tender.Errorf(tender.Invalid, "%q is no name for a secret", name).
			Hint("use 1 to 128 letters, digits, dots, dashes and underscores")
	}
	if len(value) > MaxValue {
		return ver, false, tender.Errorf(tender.Invalid, "secret %q has %d bytes, more than %d", name, len(value), MaxValue)
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	err = v.store.Update(ctx, func(tx *store.Tx) error {
		ver, changed, err = v.put(tx, who, project, name, value)
		return err
	})
	if err != nil {
		return Version{}, false, fmt.Errorf("set secret %s: %w", name, err)
	}
	return ver, changed, nil
}

func (v *Vault) put(tx *store.Tx, who, project, name string, value []byte) (Version, bool, error) {
	newest, ok, err := tx.Secret(project, name, 0)
	if err != nil {
		return Version{}, false, err
	}
	if ok {
		had, err := v.keys.unseal(newest)
		if err != nil {
			return Version{}, false, err
		}
		if subtle.ConstantTimeCompare(had, value) == 1 {
			return version(newest), false, nil
		}
	}
	s := store.Secret{Project: project, Name: name, Size: len(value), Created: v.now().UTC(), Who: who}
	if s.Version, err = tx.NextSecret(project, name); err != nil {
		return Version{}, false, err
	}
	if s.Sealed, err = v.keys.seal(s, value); err != nil {
		return Version{}, false, err
	}
	if err := tx.PutSecret(s); err != nil {
		return Version{}, false, err
	}
	all, err := tx.Secrets(project, name)
	if err != nil {
		return Version{}, false, err
	}
	for _, old := range all[min(keepVersions, len(all)):] {
		if len(v.inUse(project, name, old.Version)) > 0 {
			continue
		}
		if err := tx.RemoveSecret(project, name, old.Version); err != nil {
			return Version{}, false, err
		}
	}
	return version(s), true, nil
}

// Open returns a value. NotFound: there is no such version.
func (v *Vault) Open(ctx context.Context, project, name string, ver int) ([]byte, error) {
	// The key must not change between reading what is sealed and opening it.
	v.mu.RLock()
	defer v.mu.RUnlock()
	var s store.Secret
	err := v.store.View(ctx, func(tx *store.Tx) (err error) {
		s, err = find(tx, project, name, ver)
		return err
	})
	if err != nil {
		return nil, err
	}
	return v.keys.unseal(s)
}

// Newest returns the newest version of a secret. NotFound: there is none.
func (v *Vault) Newest(ctx context.Context, project, name string) (Version, error) {
	s, err := v.Show(ctx, project, name)
	return s.Version, err
}

// List returns the secrets of a project, by name; project "": those for all.
func (v *Vault) List(ctx context.Context, project string) ([]Secret, error) {
	return v.list(ctx, project, "")
}

// Show returns one secret. NotFound: there is none.
func (v *Vault) Show(ctx context.Context, project, name string) (Secret, error) {
	if !nameRule.MatchString(name) {
		return Secret{}, missing(project, name)
	}
	l, err := v.list(ctx, project, name)
	if err != nil {
		return Secret{}, err
	}
	if len(l) == 0 {
		return Secret{}, missing(project, name)
	}
	return l[0], nil
}

func (v *Vault) list(ctx context.Context, project, name string) (out []Secret, err error) {
	var all []store.Secret
	err = v.store.View(ctx, func(tx *store.Tx) (err error) {
		all, err = tx.Secrets(project, name)
		return err
	})
	for _, s := range all {
		if len(out) == 0 || out[len(out)-1].Name != s.Name {
			out = append(out, Secret{Version: version(s)})
		}
		last := &out[len(out)-1]
		last.Versions = append(last.Versions, version(s))
	}
	return out, err
}

// Remove drops all versions of a secret. Conflict: something uses one of them.
func (v *Vault) Remove(ctx context.Context, project, name string) error {
	return v.store.Update(ctx, func(tx *store.Tx) error {
		if _, err := find(tx, project, name, 0); err != nil {
			return err
		}
		all, err := tx.Secrets(project, name)
		if err != nil {
			return err
		}
		var users []string
		for _, s := range all {
			users = append(users, v.inUse(project, name, s.Version)...)
		}
		if len(users) > 0 {
			slices.Sort(users)
			return tender.Errorf(tender.Conflict, "secret %q is used by %s", name, strings.Join(slices.Compact(users), ", ")).
				Hint("take it out of their Compose files and run tender up there first")
		}
		return tx.RemoveSecret(project, name, 0)
	})
}

func find(tx *store.Tx, project, name string, ver int) (store.Secret, error) {
	s, ok, err := tx.Secret(project, name, ver)
	if err != nil {
		return s, err
	}
	if !ok {
		if ver > 0 {
			return s, tender.Errorf(tender.NotFound, "secret %q has no version %d any more", name, ver).
				Hint("see what there is with: tender secret show %s%s", name, option(project))
		}
		return s, missing(project, name)
	}
	return s, nil
}

func missing(project, name string) error {
	where := "for all projects"
	if project != "" {
		where = fmt.Sprintf("of project %q", project)
	}
	return tender.Errorf(tender.NotFound, "there is no secret %q %s", name, where).
		Hint("set it with: tender secret set %s%s", name, option(project))
}

func option(project string) string {
	if project == "" {
		return ""
	}
	return " --project " + project
}

func version(s store.Secret) Version {
	return Version{Project: s.Project, Name: s.Name, Version: s.Version, Size: s.Size, Created: s.Created, Who: s.Who}
}

// keys open everything and seal to the first identity and the recovery key.
type keys struct {
	identities []*age.X25519Identity
	recovery   *age.X25519Recipient // nil: not known yet
}

// head stands before the value, under the seal: a sealed value that was moved
// to another name does not open.
func head(s store.Secret) []byte {
	return fmt.Appendf(nil, "tender secret %q %q %d\n", s.Project, s.Name, s.Version)
}

func (k keys) seal(s store.Secret, value []byte) ([]byte, error) {
	to := []age.Recipient{k.identities[0].Recipient()}
	if k.recovery != nil && k.recovery.String() != k.identities[0].Recipient().String() {
		to = append(to, k.recovery)
	}
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to...)
	if err != nil {
		return nil, fmt.Errorf("seal secret %s: %w", s.Name, err)
	}
	if _, err := w.Write(append(head(s), value...)); err != nil {
		return nil, fmt.Errorf("seal secret %s: %w", s.Name, err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("seal secret %s: %w", s.Name, err)
	}
	return b.Bytes(), nil
}

func (k keys) unseal(s store.Secret) ([]byte, error) {
	var ids []age.Identity
	for _, i := range k.identities {
		ids = append(ids, i)
	}
	r, err := age.Decrypt(bytes.NewReader(s.Sealed), ids...)
	if err != nil {
		return nil, fmt.Errorf("open secret %s: %w", s.Name, err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("open secret %s: %w", s.Name, err)
	}
	value, ok := bytes.CutPrefix(b, head(s))
	if !ok {
		return nil, tender.Errorf(tender.Internal, "secret %q version %d was sealed as another one", s.Name, s.Version).
			Hint("somebody has moved values in the store: put back a backup, or set the secret again")
	}
	return value, nil
}
