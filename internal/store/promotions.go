package store

import (
	"fmt"
	"time"
)

const promotionsTable = `
CREATE TABLE promotions (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	step       TEXT NOT NULL,
	repository TEXT NOT NULL,    -- without what steps put before it
	digest     TEXT NOT NULL,    -- that stands since; '': none
	version    TEXT NOT NULL,    -- its tag without what steps put around it; '': it was named by its digest
	source     TEXT NOT NULL,    -- where it was read
	target     TEXT NOT NULL,    -- where it was written; '': the step is this row alone
	tag_before TEXT NOT NULL,    -- the digest that the target's tag had; '': none
	came_from  TEXT NOT NULL,    -- the step before; '': none
	before     TEXT NOT NULL,    -- the digest that stood; '': none
	undoes     INTEGER NOT NULL, -- 0: it is a promotion
	who        TEXT NOT NULL,
	reason     TEXT NOT NULL,
	at         INTEGER NOT NULL,
	done       INTEGER NOT NULL, -- 0: it was begun
	evidence   TEXT NOT NULL,    -- JSON, as it is attached to the digest
	referrer   TEXT NOT NULL     -- the digest of that
) STRICT;
CREATE INDEX promotions_by_place ON promotions (repository, step);
CREATE INDEX promotions_by_digest ON promotions (digest);
`

// keepPromotions is how many promotions of a repository to one step are kept.
const keepPromotions = 500

// Promotion is a digest that came to stand at a step of the pipeline, or the return to the
// one before. What Tender wrote about it in registries is made of this.
type Promotion struct {
	ID               int64
	Step, Repository string
	Digest           string // that stands since; "": none, after an undo
	Version          string
	Source, Target   string // references; Target "": the step is this row alone
	TagBefore        string // the digest that Target's tag had; "": there was none
	From             string // the step before; "": none
	Before           string // the digest that stood; "": none
	Undoes           int64  // 0: it is a promotion
	Who, Reason      string
	At               time.Time
	Done             bool // else it was begun, and something may be written already
	Evidence         string
	Referrer         string // a digest
}

// BeginPromotion writes one that is not done yet, in the place of any other that was begun of
// its repository and step.
func (tx *Tx) BeginPromotion(p Promotion) (id int64, err error) {
	doing := func(err error) error {
		return fmt.Errorf("write the promotion of %s to %s: %w", p.Repository, p.Step, err)
	}
	if _, err := tx.exec(`DELETE FROM promotions WHERE repository = ? AND step = ? AND done = 0`, p.Repository, p.Step); err != nil {
		return 0, doing(err)
	}
	r, err := tx.exec(`INSERT INTO promotions (step, repository, digest, version, source, target, tag_before, came_from, before, undoes, who, reason, at, done, evidence, referrer)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, '')`,
		p.Step, p.Repository, p.Digest, p.Version, p.Source, p.Target, p.TagBefore, p.From, p.Before, p.Undoes, p.Who, p.Reason, stamp(p.At), p.Evidence)
	if err == nil {
		id, err = r.LastInsertId()
	}
	if err != nil {
		return 0, doing(err)
	}
	return id, nil
}

// EndPromotion says that all of it is written, and drops those that are too many.
func (tx *Tx) EndPromotion(id int64, referrer string) error {
	_, err := tx.exec(`UPDATE promotions SET done = 1, referrer = ? WHERE id = ?`, referrer, id)
	if err == nil {
		_, err = tx.exec(`DELETE FROM promotions WHERE id <= (SELECT id FROM promotions AS other
			WHERE (repository, step) = (SELECT repository, step FROM promotions WHERE id = ?1) ORDER BY id DESC LIMIT 1 OFFSET ?2)
			AND (repository, step) = (SELECT repository, step FROM promotions WHERE id = ?1)`, id, keepPromotions)
	}
	if err != nil {
		return fmt.Errorf("end promotion %d: %w", id, err)
	}
	return nil
}

// DropPromotion forgets one that was begun; what is done stays.
func (tx *Tx) DropPromotion(id int64) error {
	if _, err := tx.exec(`DELETE FROM promotions WHERE id = ? AND done = 0`, id); err != nil {
		return fmt.Errorf("forget promotion %d: %w", id, err)
	}
	return nil
}

// Promotions returns those of a repository to a step, the newest first; "": of all, to all.
func (tx *Tx) Promotions(repository, step string) ([]Promotion, error) {
	list, err := collect(tx, func(scan func(...any) error) (p Promotion, err error) {
		var at int64
		err = scan(&p.ID, &p.Step, &p.Repository, &p.Digest, &p.Version, &p.Source, &p.Target, &p.TagBefore, &p.From, &p.Before, &p.Undoes, &p.Who, &p.Reason, &at, &p.Done, &p.Evidence, &p.Referrer)
		p.At = moment(at)
		return p, err
	}, `SELECT id, step, repository, digest, version, source, target, tag_before, came_from, before, undoes, who, reason, at, done, evidence, referrer FROM promotions
		WHERE (?1 = '' OR repository = ?1) AND (?2 = '' OR step = ?2) ORDER BY id DESC`, repository, step)
	if err != nil {
		return nil, fmt.Errorf("read promotions: %w", err)
	}
	return list, nil
}

// PromotedTo returns the steps that a digest was promoted to; what was undone does not count.
func (tx *Tx) PromotedTo(digest string) ([]string, error) {
	list, err := collect(tx, func(scan func(...any) error) (step string, err error) { return step, scan(&step) },
		`SELECT step FROM promotions WHERE digest = ? AND digest <> '' AND undoes = 0 AND done = 1
			AND id NOT IN (SELECT undoes FROM promotions WHERE done = 1 AND undoes <> 0) GROUP BY step ORDER BY min(id)`, digest)
	if err != nil {
		return nil, fmt.Errorf("read what %s was promoted to: %w", digest, err)
	}
	return list, nil
}

// Stand is what stands at a step of the pipeline.
type Stand struct {
	Step, Repository string
	Now              Promotion  // that stands
	Since            time.Time  // when it came to stand: that of an undo, if one brought it back
	Before           *Promotion // what an undo would bring back; nil: nothing
}

// Stands makes of promotions, the newest first, what stands now.
func Stands(all []Promotion) []Stand {
	type place struct{ step, repository string }
	undone := map[int64]bool{}
	since := map[place]time.Time{}
	at := map[place]int{}
	var out []Stand
	for _, p := range all {
		here := place{p.Step, p.Repository}
		if !p.Done {
			continue
		}
		if since[here].IsZero() {
			since[here] = p.At
		}
		if p.Undoes != 0 {
			undone[p.Undoes] = true
			continue
		}
		if undone[p.ID] {
			continue
		}
		i, seen := at[here]
		if !seen {
			at[here] = len(out)
			out = append(out, Stand{Step: p.Step, Repository: p.Repository, Now: p, Since: since[here]})
			continue
		}
		if out[i].Before == nil {
			out[i].Before = &p
		}
	}
	return out
}
