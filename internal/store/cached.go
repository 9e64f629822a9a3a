package store

import (
	"fmt"
	"time"
)

const cachedTable = `
CREATE TABLE cached (
	repository TEXT NOT NULL,
	digest     TEXT NOT NULL,
	pulled     INTEGER NOT NULL, -- the last time, to the hour
	PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;
`

// Cached is a manifest of another registry that is kept for those who ask again.
type Cached struct {
	Repository, Digest string
	Pulled             time.Time
}

// PullCached writes that one was pulled.
func (tx *Tx) PullCached(repository, digest string, at time.Time) error {
	if _, err := tx.exec(`INSERT OR REPLACE INTO cached (repository, digest, pulled) VALUES (?, ?, ?)`, repository, digest, stamp(at)); err != nil {
		return fmt.Errorf("write the pull of %s@%s: %w", repository, digest, err)
	}
	return nil
}

// Cached returns what was pulled, and when.
func (tx *Tx) Cached() ([]Cached, error) {
	list, err := collect(tx, func(scan func(...any) error) (c Cached, err error) {
		var pulled int64
		err = scan(&c.Repository, &c.Digest, &pulled)
		c.Pulled = moment(pulled)
		return c, err
	}, `SELECT repository, digest, pulled FROM cached ORDER BY repository, digest`)
	if err != nil {
		return nil, fmt.Errorf("read pulls: %w", err)
	}
	return list, nil
}

// ForgetCached drops pulls of manifests that are not there any more.
func (tx *Tx) ForgetCached() error {
	if _, err := tx.exec(`DELETE FROM cached WHERE NOT EXISTS (SELECT 1 FROM manifests m WHERE m.repository = cached.repository AND m.digest = cached.digest)`); err != nil {
		return fmt.Errorf("forget pulls: %w", err)
	}
	return nil
}

// BlobSize is how large the manifests of a repository say that a blob is; -1: none names it.
func (tx *Tx) BlobSize(repository, digest string) (int64, error) {
	sizes, err := collect(tx, func(scan func(...any) error) (n int64, err error) { return n, scan(&n) },
		`SELECT json_extract(r.value, '$.s') FROM manifests m, json_each(m.refs) r WHERE m.repository = ? AND json_extract(r.value, '$.d') = ? LIMIT 1`, repository, digest)
	if err != nil {
		return -1, fmt.Errorf("read the size of %s in %s: %w", digest, repository, err)
	}
	if len(sizes) == 0 {
		return -1, nil
	}
	return sizes[0], nil
}
