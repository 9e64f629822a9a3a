package store

import (
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// last outlives the versions: a number that was given is never given again,
// because a revision knows its secrets by number.
const secretsTables = `
CREATE TABLE secret_names (
	project TEXT NOT NULL, -- '' for all projects
	name    TEXT NOT NULL,
	last    INTEGER NOT NULL,
	PRIMARY KEY (project, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE secrets (
	project TEXT NOT NULL,
	name    TEXT NOT NULL,
	version INTEGER NOT NULL,
	sealed  BLOB NOT NULL,
	size    INTEGER NOT NULL, -- of the plain value, bytes
	created INTEGER NOT NULL,
	who     TEXT NOT NULL,
	PRIMARY KEY (project, name, version)
) STRICT;
CREATE TABLE vault (
	key   TEXT PRIMARY KEY,
	value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
`

// Secret is one version of a secret, sealed. Only vault can open it.
type Secret struct {
	Project string // empty: for all projects
	Name    string
	Version int
	Sealed  []byte // nil where a list does not carry it
	Size    int    // of the plain value, bytes
	Created time.Time
	Who     string
}

// NextSecret takes the next version number of a secret: 1, 2, and so on.
func (tx *Tx) NextSecret(project, name string) (int, error) {
	var n int
	err := tx.row(`INSERT INTO secret_names (project, name, last) VALUES (?, ?, 1)
		ON CONFLICT DO UPDATE SET last = last + 1 RETURNING last`, project, name).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("number secret %s: %w", name, err)
	}
	return n, nil
}

// PutSecret writes a version, also over the same one (when it is sealed anew).
func (tx *Tx) PutSecret(s Secret) error {
	_, err := tx.exec(`INSERT INTO secrets (project, name, version, sealed, size, created, who) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET sealed = excluded.sealed`,
		s.Project, s.Name, s.Version, s.Sealed, s.Size, stamp(s.Created), s.Who)
	if err != nil {
		return fmt.Errorf("write secret %s: %w", s.Name, err)
	}
	return nil
}

// Secret returns one version, version 0: the newest. ok is false if there is none.
func (tx *Tx) Secret(project, name string, version int) (s Secret, ok bool, err error) {
	s, err = scanSecret(tx.row(`SELECT project, name, version, sealed, size, created, who FROM secrets
		WHERE project = ? AND name = ? AND (version = ?3 OR ?3 = 0) ORDER BY version DESC LIMIT 1`, project, name, version).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return Secret{}, false, nil
	}
	if err != nil {
		return Secret{}, false, fmt.Errorf("read secret %s: %w", name, err)
	}
	return s, true, nil
}

// Secrets lists the versions of a project's secrets without what is sealed, by
// name, newest first. name "": all names.
func (tx *Tx) Secrets(project, name string) ([]Secret, error) {
	list, err := collect(tx, scanSecret, `SELECT project, name, version, NULL, size, created, who FROM secrets
		WHERE project = ?1 AND (name = ?2 OR ?2 = '') ORDER BY name, version DESC`, project, name)
	if err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	return list, nil
}

// SealedSecrets returns each version of each project: for a change of the key.
func (tx *Tx) SealedSecrets() ([]Secret, error) {
	list, err := collect(tx, scanSecret, `SELECT project, name, version, sealed, size, created, who FROM secrets ORDER BY project, name, version`)
	if err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	return list, nil
}

// RemoveSecret drops one version; version 0: all of them.
func (tx *Tx) RemoveSecret(project, name string, version int) error {
	_, err := tx.exec(`DELETE FROM secrets WHERE project = ? AND name = ? AND (version = ?3 OR ?3 = 0)`, project, name, version)
	if err != nil {
		return fmt.Errorf("remove secret %s: %w", name, err)
	}
	return nil
}

// VaultValue and PutVaultValue keep what the vault must know beside the secrets
// (the public half of its recovery key); "" if there is none.
func (tx *Tx) VaultValue(key string) (string, error) {
	var v string
	err := tx.row(`SELECT value FROM vault WHERE key = ?`, key).Scan(&v)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("read %s of the vault: %w", key, err)
	}
	return v, nil
}

// PutVaultValue sets what VaultValue returns.
func (tx *Tx) PutVaultValue(key, value string) error {
	if _, err := tx.exec(`INSERT INTO vault (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value`, key, value); err != nil {
		return fmt.Errorf("write %s of the vault: %w", key, err)
	}
	return nil
}

func scanSecret(scan func(...any) error) (s Secret, err error) {
	var created int64
	err = scan(&s.Project, &s.Name, &s.Version, &s.Sealed, &s.Size, &created, &s.Who)
	s.Created = moment(created)
	return s, err
}
