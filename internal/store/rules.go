package store

import (
	"fmt"
	"time"

	"github.com/tenderhq/tender"
)

const rulesTable = `
CREATE TABLE rule_groups (
	name    TEXT PRIMARY KEY,
	logs    INTEGER NOT NULL, -- 1: its expressions are LogQL
	text    TEXT NOT NULL,    -- a rule file with this group alone
	who     TEXT NOT NULL,
	changed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
`

// RuleGroup is a group of rules that came over the API.
type RuleGroup struct {
	Name    string
	Logs    bool   // its expressions are LogQL
	Text    string // a rule file with this group alone
	Who     string
	Changed time.Time
}

// RuleGroups returns them by name.
func (tx *Tx) RuleGroups() ([]RuleGroup, error) {
	list, err := collect(tx, func(scan func(...any) error) (g RuleGroup, err error) {
		var at int64
		err = scan(&g.Name, &g.Logs, &g.Text, &g.Who, &at)
		g.Changed = moment(at)
		return g, err
	}, `SELECT name, logs, text, who, changed FROM rule_groups ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("read groups of rules: %w", err)
	}
	return list, nil
}

// PutRuleGroup writes one, in the place of that with its name.
func (tx *Tx) PutRuleGroup(g RuleGroup) error {
	_, err := tx.exec(`INSERT OR REPLACE INTO rule_groups (name, logs, text, who, changed) VALUES (?, ?, ?, ?, ?)`, g.Name, g.Logs, g.Text, g.Who, stamp(g.Changed))
	if err != nil {
		return fmt.Errorf("write group of rules %s: %w", g.Name, err)
	}
	return nil
}

// RemoveRuleGroup removes one; NotFound if there is none of that name.
func (tx *Tx) RemoveRuleGroup(name string) error {
	res, err := tx.exec(`DELETE FROM rule_groups WHERE name = ?`, name)
	if err != nil {
		return fmt.Errorf("remove group of rules %s: %w", name, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return tender.Errorf(tender.NotFound, "there is no group of rules %q that was set", name).
			Hint("tender alert rules lists them; those of files and projects are changed where they stand")
	}
	return nil
}
