package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tenderhq/tender"
)

const accountsTable = `
CREATE TABLE registry_accounts (
	name    TEXT PRIMARY KEY,
	hash    TEXT NOT NULL,    -- bcrypt; of a robot sha256:HEX
	robot   INTEGER NOT NULL,
	admin   INTEGER NOT NULL,
	grants  TEXT NOT NULL,    -- JSON
	made    INTEGER NOT NULL,
	who     TEXT NOT NULL,
	expires INTEGER NOT NULL, -- 0: never
	used    INTEGER NOT NULL  -- 0: not yet; within the hour
) STRICT, WITHOUT ROWID;
`

// Account is who may use the registry by name and password, or by the token of a robot.
// Neither is kept.
type Account struct {
	Name    string
	Hash    string // bcrypt; of a robot sha256:HEX of its token, which has 256 random bits
	Robot   bool
	Admin   bool
	Grants  []AccountGrant
	Made    time.Time
	Who     string    // made it
	Expires time.Time // zero: never
	Used    time.Time // within the hour; zero: not yet
}

// AccountGrant allows actions (pull, push, delete) in repositories.
type AccountGrant struct {
	Repositories string   `json:"repositories"`
	Actions      []string `json:"actions"`
}

// PutAccount writes one, in the place of that with its name.
func (tx *Tx) PutAccount(a Account) error {
	if a.Grants == nil {
		a.Grants = []AccountGrant{}
	}
	grants, err := json.Marshal(a.Grants)
	if err != nil {
		return fmt.Errorf("write account %s: %w", a.Name, err)
	}
	if _, err := tx.exec(`INSERT OR REPLACE INTO registry_accounts (name, hash, robot, admin, grants, made, who, expires, used) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		a.Name, a.Hash, a.Robot, a.Admin, string(grants), stamp(a.Made), a.Who, stamp(a.Expires), stamp(a.Used)); err != nil {
		return fmt.Errorf("write account %s: %w", a.Name, err)
	}
	return nil
}

// Accounts lists all by name, expired ones too.
func (tx *Tx) Accounts() ([]Account, error) {
	list, err := collect(tx, scanAccount, selectAccounts+` ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	return list, nil
}

// Account returns the one of this name; NotFound: there is none.
func (tx *Tx) Account(name string) (Account, error) {
	a, err := scanAccount(tx.row(selectAccounts+` WHERE name = ?`, name).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return a, tender.Errorf(tender.NotFound, "the registry has no user %q", name).Hint("tender registry user ls lists them")
	}
	if err != nil {
		return a, fmt.Errorf("read account %s: %w", name, err)
	}
	return a, nil
}

// RemoveAccount removes one; NotFound: there is none.
func (tx *Tx) RemoveAccount(name string) error {
	if _, err := tx.Account(name); err != nil {
		return err
	}
	if _, err := tx.exec(`DELETE FROM registry_accounts WHERE name = ?`, name); err != nil {
		return fmt.Errorf("remove account %s: %w", name, err)
	}
	return nil
}

// UseAccount notes that an account was used; none of that name is no error.
func (tx *Tx) UseAccount(name string, at time.Time) error {
	if _, err := tx.exec(`UPDATE registry_accounts SET used = max(used, ?) WHERE name = ?`, stamp(at), name); err != nil {
		return fmt.Errorf("write account %s: %w", name, err)
	}
	return nil
}

const selectAccounts = `SELECT name, hash, robot, admin, grants, made, who, expires, used FROM registry_accounts`

func scanAccount(scan func(...any) error) (a Account, err error) {
	var grants string
	var made, expires, used int64
	if err := scan(&a.Name, &a.Hash, &a.Robot, &a.Admin, &grants, &made, &a.Who, &expires, &used); err != nil {
		return a, err
	}
	a.Made, a.Expires, a.Used = moment(made), moment(expires), moment(used)
	return a, json.Unmarshal([]byte(grants), &a.Grants)
}
