package store

import (
	"encoding/json"
	"fmt"
	"time"
)

const imagesTables = `
CREATE TABLE manifests (
	repository TEXT NOT NULL,
	digest     TEXT NOT NULL,
	media      TEXT NOT NULL,
	size       INTEGER NOT NULL, -- of the manifest itself
	artifact   TEXT NOT NULL,
	subject    TEXT NOT NULL,    -- the digest it refers to; '': none
	notes      TEXT NOT NULL,    -- its annotations, JSON
	refs       TEXT NOT NULL,    -- what it is made of, JSON
	pushed     INTEGER NOT NULL,
	who        TEXT NOT NULL,
	PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX manifests_by_subject ON manifests (repository, subject) WHERE subject <> '';
CREATE TABLE tags (
	repository TEXT NOT NULL,
	tag        TEXT NOT NULL,
	digest     TEXT NOT NULL,
	pushed     INTEGER NOT NULL,
	who        TEXT NOT NULL,
	PRIMARY KEY (repository, tag)
) STRICT, WITHOUT ROWID;
`

// Manifest is what is known of one in a repository. The blobs are the truth, rows are
// made of them again where they are lost: all but Pushed and Who.
type Manifest struct {
	Repository string
	Digest     string
	MediaType  string
	Size       int64
	Artifact   string            // its artifactType, else its configuration's media type
	Subject    string            // a digest; "": none
	Notes      map[string]string // annotations
	Refs       []ManifestRef
	Pushed     time.Time
	Who        string
}

// ManifestRef is a part of a manifest.
type ManifestRef struct {
	Kind   string `json:"k"` // config, layer, child
	Digest string `json:"d"`
	Size   int64  `json:"s"`
}

// Tag is a name of a manifest.
type Tag struct {
	Repository, Tag, Digest string
	Pushed                  time.Time
	Who                     string
}

// PutManifest writes one; an older row of the same digest is replaced.
func (tx *Tx) PutManifest(m Manifest) error {
	notes, err := json.Marshal(m.Notes)
	if err != nil {
		return fmt.Errorf("write manifest %s@%s: %w", m.Repository, m.Digest, err)
	}
	refs, err := json.Marshal(m.Refs)
	if err != nil {
		return fmt.Errorf("write manifest %s@%s: %w", m.Repository, m.Digest, err)
	}
	if _, err := tx.exec(`INSERT OR REPLACE INTO manifests (repository, digest, media, size, artifact, subject, notes, refs, pushed, who) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		m.Repository, m.Digest, m.MediaType, m.Size, m.Artifact, m.Subject, string(notes), string(refs), stamp(m.Pushed), m.Who); err != nil {
		return fmt.Errorf("write manifest %s@%s: %w", m.Repository, m.Digest, err)
	}
	return nil
}

// PutTag writes one, in the place of that with its name.
func (tx *Tx) PutTag(t Tag) error {
	if _, err := tx.exec(`INSERT OR REPLACE INTO tags (repository, tag, digest, pushed, who) VALUES (?, ?, ?, ?, ?)`,
		t.Repository, t.Tag, t.Digest, stamp(t.Pushed), t.Who); err != nil {
		return fmt.Errorf("write tag %s:%s: %w", t.Repository, t.Tag, err)
	}
	return nil
}

// RemoveManifest removes a manifest's row and those of its tags; none is no error.
func (tx *Tx) RemoveManifest(repository, digest string) error {
	for _, q := range []string{`DELETE FROM tags WHERE repository = ? AND digest = ?`, `DELETE FROM manifests WHERE repository = ? AND digest = ?`} {
		if _, err := tx.exec(q, repository, digest); err != nil {
			return fmt.Errorf("remove manifest %s@%s: %w", repository, digest, err)
		}
	}
	return nil
}

// RemoveTag removes a tag's row; none is no error.
func (tx *Tx) RemoveTag(repository, tag string) error {
	if _, err := tx.exec(`DELETE FROM tags WHERE repository = ? AND tag = ?`, repository, tag); err != nil {
		return fmt.Errorf("remove tag %s:%s: %w", repository, tag, err)
	}
	return nil
}

const selectManifests = `SELECT repository, digest, media, size, artifact, subject, notes, refs, pushed, who FROM manifests`

func scanManifest(scan func(...any) error) (m Manifest, err error) {
	var notes, refs string
	var pushed int64
	if err := scan(&m.Repository, &m.Digest, &m.MediaType, &m.Size, &m.Artifact, &m.Subject, &notes, &refs, &pushed, &m.Who); err != nil {
		return m, err
	}
	m.Pushed = moment(pushed)
	if err := json.Unmarshal([]byte(notes), &m.Notes); err != nil {
		return m, err
	}
	return m, json.Unmarshal([]byte(refs), &m.Refs)
}

// Manifests returns those of a repository by digest; "": of all.
func (tx *Tx) Manifests(repository string) ([]Manifest, error) {
	list, err := collect(tx, scanManifest, selectManifests+` WHERE ?1 = '' OR repository = ?1 ORDER BY repository, digest`, repository)
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	return list, nil
}

// Referrers returns the manifests of a repository whose subject this is, by digest, and
// after the one named, at most n.
func (tx *Tx) Referrers(repository, subject, artifact, after string, n int) ([]Manifest, error) {
	list, err := collect(tx, scanManifest, selectManifests+
		` WHERE repository = ? AND subject = ? AND subject <> '' AND (?3 = '' OR artifact = ?3) AND digest > ? ORDER BY digest LIMIT ?`, repository, subject, artifact, after, n)
	if err != nil {
		return nil, fmt.Errorf("read referrers of %s@%s: %w", repository, subject, err)
	}
	return list, nil
}

// Tags returns those of a repository by name; "": of all.
func (tx *Tx) Tags(repository string) ([]Tag, error) {
	list, err := collect(tx, func(scan func(...any) error) (t Tag, err error) {
		var pushed int64
		err = scan(&t.Repository, &t.Tag, &t.Digest, &pushed, &t.Who)
		t.Pushed = moment(pushed)
		return t, err
	}, `SELECT repository, tag, digest, pushed, who FROM tags WHERE ?1 = '' OR repository = ?1 ORDER BY repository, tag`, repository)
	if err != nil {
		return nil, fmt.Errorf("read tags: %w", err)
	}
	return list, nil
}

// HasRepository says whether anything lies in a repository.
func (tx *Tx) HasRepository(repository string) (has bool, err error) {
	first, err := collect(tx, func(scan func(...any) error) (one int, err error) { return one, scan(&one) },
		`SELECT 1 FROM manifests WHERE repository = ? LIMIT 1`, repository)
	if err != nil {
		return false, fmt.Errorf("look for repository %s: %w", repository, err)
	}
	return len(first) > 0, nil
}

// Repositories returns the names of those that hold a manifest, after the one named, at most n.
func (tx *Tx) Repositories(after string, n int) ([]string, error) {
	list, err := collect(tx, func(scan func(...any) error) (name string, err error) { return name, scan(&name) },
		`SELECT DISTINCT repository FROM manifests WHERE repository > ? ORDER BY repository LIMIT ?`, after, n)
	if err != nil {
		return nil, fmt.Errorf("read repositories: %w", err)
	}
	return list, nil
}
