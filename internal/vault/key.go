package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// recoveryValue is where the store keeps the public half of the recovery key.
const recoveryValue = "recovery recipient"

var errNoKey = errors.New("no key file")

// readKeys reads age's own format: one identity a line, the first one seals.
func readKeys(path string) (keys, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return keys{}, errNoKey
	}
	if err != nil {
		return keys{}, fmt.Errorf("read the key of the vault: %w", err)
	}
	bad := func(why error) error {
		return tender.Errorf(tender.Invalid, "%s is no key of the vault: %w", path, why).
			Hint("put the right key file back; a line with the recovery key (AGE-SECRET-KEY-1...) will do")
	}
	found, err := age.ParseIdentities(bytes.NewReader(b))
	if err != nil {
		return keys{}, bad(errors.New("it is not in the format of age"))
	}
	var k keys
	for _, i := range found {
		x, ok := i.(*age.X25519Identity)
		if !ok {
			return keys{}, bad(fmt.Errorf("a %T cannot seal", i))
		}
		k.identities = append(k.identities, x)
	}
	return k, nil
}

func writeKeys(path string, ids ...*age.X25519Identity) error {
	var b bytes.Buffer
	fmt.Fprintln(&b, "# Opens the secrets of Tender. Keep it out of backups of the data directory.")
	for _, i := range ids {
		fmt.Fprintln(&b, i)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write the key of the vault: %w", err)
	}
	if err := writeFile(path, b.Bytes(), 0o600, nil); err != nil {
		return fmt.Errorf("write the key of the vault: %w", err)
	}
	return nil
}

// begin makes the keys of a new vault.
func (v *Vault) begin(ctx context.Context) (string, error) {
	var sealed int
	if err := v.store.View(ctx, func(tx *store.Tx) error {
		all, err := tx.SealedSecrets()
		sealed = len(all)
		return err
	}); err != nil {
		return "", err
	}
	if sealed > 0 {
		return "", tender.Errorf(tender.Unavailable, "the key of the vault, %s, is missing, and %d values are sealed with it", v.keyFile, sealed).
			Hint("put the file back (mode 0600); a line with the recovery key (AGE-SECRET-KEY-1...) will do")
	}
	return v.renew(ctx)
}

// Rotate makes a new key and a new recovery key, which it returns, and seals all
// values anew. Killed at any moment, the old keys or the new ones open everything.
func (v *Vault) Rotate(ctx context.Context) (recovery string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.renew(ctx)
}

// renew writes the new key beside the old ones first, then seals, then drops
// the old ones: Init goes on from any of these steps.
func (v *Vault) renew(ctx context.Context) (recovery string, err error) {
	fresh, err := age.GenerateX25519Identity()
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	spare, err := age.GenerateX25519Identity()
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	next := keys{identities: append([]*age.X25519Identity{fresh}, v.keys.identities...), recovery: spare.Recipient()}
	if err := writeKeys(v.keyFile, next.identities...); err != nil {
		return "", err
	}
	v.keys.identities = next.identities
	if err := v.sealAll(ctx, next); err != nil {
		return "", err
	}
	return spare.String(), nil
}

// settle ends a change of keys that was interrupted: which of the steps it had
// reached does not matter.
func (v *Vault) settle(ctx context.Context) error {
	if err := v.learnRecovery(ctx); err != nil {
		return err
	}
	return v.sealAll(ctx, v.keys)
}

// sealAll seals every value to next in one transaction, and drops old keys.
func (v *Vault) sealAll(ctx context.Context, next keys) error {
	err := v.store.Update(ctx, func(tx *store.Tx) error {
		all, err := tx.SealedSecrets()
		if err != nil {
			return err
		}
		for _, s := range all {
			value, err := next.unseal(s)
			if err != nil {
				return err
			}
			if s.Sealed, err = next.seal(s, value); err != nil {
				return err
			}
			if err := tx.PutSecret(s); err != nil {
				return err
			}
		}
		if next.recovery == nil {
			return nil
		}
		return tx.PutVaultValue(recoveryValue, next.recovery.String())
	})
	if err != nil {
		return fmt.Errorf("seal with a new key: %w", err)
	}
	next.identities = next.identities[:1]
	v.keys = next
	return writeKeys(v.keyFile, next.identities...)
}

// prove opens one value, so that a wrong key file is found now. Where no
// recovery key was ever noted (the first start was cut short, or the store is
// new and the key is not) it makes one; the key itself stays.
func (v *Vault) prove(ctx context.Context) (recovery string, err error) {
	if err := v.learnRecovery(ctx); err != nil {
		return "", err
	}
	if v.keys.recovery == nil {
		spare, err := age.GenerateX25519Identity()
		if err != nil {
			return "", fmt.Errorf("make a key: %w", err)
		}
		return spare.String(), v.sealAll(ctx, keys{identities: v.keys.identities, recovery: spare.Recipient()})
	}
	return "", v.store.View(ctx, func(tx *store.Tx) error {
		all, err := tx.SealedSecrets()
		if err != nil || len(all) == 0 {
			return err
		}
		if _, err := v.keys.unseal(all[0]); err != nil {
			return tender.Errorf(tender.Unavailable, "the key %s does not open what is sealed: %w", v.keyFile, err).
				Hint("put the right key file back (mode 0600); a line with the recovery key (AGE-SECRET-KEY-1...) will do")
		}
		return nil
	})
}

func (v *Vault) learnRecovery(ctx context.Context) error {
	return v.store.View(ctx, func(tx *store.Tx) error {
		text, err := tx.VaultValue(recoveryValue)
		if err != nil || text == "" {
			return err
		}
		v.keys.recovery, err = age.ParseX25519Recipient(text)
		return err
	})
}
