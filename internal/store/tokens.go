package store

import (
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tenderhq/tender"
)

const tokensTables = `
CREATE TABLE tokens (
	id       TEXT PRIMARY KEY,
	name     TEXT NOT NULL UNIQUE,
	hash     BLOB NOT NULL UNIQUE, -- SHA-256 of the token
	scope    TEXT NOT NULL,
	projects TEXT NOT NULL,        -- JSON list; []: all
	created  INTEGER NOT NULL,
	expires  INTEGER NOT NULL      -- 0: never
) STRICT;
`

// tokenPrefix lets people and secret scanners see what a string is.
const tokenPrefix = "tender_"

// Token is what is known of an API token. The token itself is not kept: it has
// 256 random bits, so its plain SHA-256 is as good as a slow hash.
type Token struct {
	ID       string
	Name     string
	Scope    string   // read, deploy, admin
	Projects []string // empty: all
	Created  time.Time
	Expires  time.Time // zero: never
}

// IssueToken makes a token of t's name, scope, projects and times. secret is
// what its holder sends; nobody can read it again. Conflict: the name is taken.
func (tx *Tx) IssueToken(t Token) (made Token, secret string, err error) {
	var taken bool
	if err := tx.row(`SELECT count(*) > 0 FROM tokens WHERE name = ?`, t.Name).Scan(&taken); err != nil {
		return Token{}, "", fmt.Errorf("issue token %s: %w", t.Name, err)
	}
	if taken {
		return Token{}, "", tender.Errorf(tender.Conflict, "there is a token %q already", t.Name).
			Hint("choose another name, or remove that one first: tender token rm %s", t.Name)
	}
	random := make([]byte, 32+5)
	rand.Read(random) //nolint:errcheck // it never fails: the program ends when there is no randomness
	secret = tokenPrefix + base64.RawURLEncoding.EncodeToString(random[:32])
	t.ID = hex.EncodeToString(random[32:])
	if t.Projects == nil {
		t.Projects = []string{}
	}
	projects, err := json.Marshal(t.Projects)
	if err != nil {
		return Token{}, "", fmt.Errorf("issue token %s: %w", t.Name, err)
	}
	hash := sha256.Sum256([]byte(secret))
	if _, err := tx.exec(`INSERT INTO tokens (id, name, hash, scope, projects, created, expires) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		t.ID, t.Name, hash[:], t.Scope, string(projects), stamp(t.Created), stamp(t.Expires)); err != nil {
		return Token{}, "", fmt.Errorf("issue token %s: %w", t.Name, err)
	}
	return t, secret, nil
}

// TokenOf returns the token whose secret this is. Denied: there is none, or it
// has expired.
func (tx *Tx) TokenOf(secret string, now time.Time) (Token, error) {
	hash := sha256.Sum256([]byte(secret))
	t, err := scanToken(tx.row(selectTokens+` WHERE hash = ?`, hash[:]).Scan)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Token{}, tender.Errorf(tender.Denied, "this token is not known").
			Hint("make one on the host: tender token create NAME, and put it into TENDER_TOKEN")
	case err != nil:
		return Token{}, fmt.Errorf("read tokens: %w", err)
	case !t.Expires.IsZero() && !now.Before(t.Expires):
		return Token{}, tender.Errorf(tender.Denied, "token %q has expired on %s", t.Name, t.Expires.Format(time.RFC3339)).
			Hint("make a new one on the host: tender token create NAME")
	}
	return t, nil
}

// Tokens lists all tokens by name, expired ones too.
func (tx *Tx) Tokens() ([]Token, error) {
	list, err := collect(tx, scanToken, selectTokens+` ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	return list, nil
}

// RemoveToken removes the token with this id or name. NotFound: there is none.
func (tx *Tx) RemoveToken(id string) error {
	r, err := tx.exec(`DELETE FROM tokens WHERE id = ?1 OR name = ?1`, id)
	if err != nil {
		return fmt.Errorf("remove token %s: %w", id, err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return tender.Errorf(tender.NotFound, "there is no token %q", id).Hint("see them with: tender token ls")
	}
	return nil
}

const selectTokens = `SELECT id, name, scope, projects, created, expires FROM tokens`

func scanToken(scan func(...any) error) (t Token, err error) {
	var projects string
	var created, expires int64
	if err := scan(&t.ID, &t.Name, &t.Scope, &projects, &created, &expires); err != nil {
		return Token{}, err
	}
	t.Created, t.Expires = moment(created), moment(expires)
	return t, json.Unmarshal([]byte(projects), &t.Projects)
}
