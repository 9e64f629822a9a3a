package store

import (
	"database/sql"
	"errors"
	"fmt"
	"time"
)

const sinksTables = `
CREATE TABLE sinks (
	name    TEXT PRIMARY KEY,
	cursor  TEXT NOT NULL, -- of the store of logs
	sent    INTEGER NOT NULL,
	bytes   INTEGER NOT NULL,
	failed  INTEGER NOT NULL,
	refused INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE dead_letters (
	id     INTEGER PRIMARY KEY,
	sink   TEXT NOT NULL,
	time   INTEGER NOT NULL, -- when it was refused
	logged INTEGER NOT NULL, -- the row's own time
	labels TEXT NOT NULL,
	text   TEXT NOT NULL,
	reason TEXT NOT NULL
) STRICT;
CREATE INDEX dead_letters_of ON dead_letters (sink, id);
`

const sinksExpired = `ALTER TABLE sinks ADD COLUMN expired INTEGER NOT NULL DEFAULT 0; -- rows`

// keepLetters is how many dead letters of a sink stay, the newest.
const keepLetters = 1000

// Sink is how far one that logs are sent to has come.
type Sink struct {
	Name   string
	Cursor string
	// Rows taken, their bytes, requests that failed, rows refused for good, rows that were
	// gone before they were sent.
	Sent, Bytes, Failed, Refused, Expired int64
}

// DeadLetter is a row that a sink refused for good.
type DeadLetter struct {
	Time, Logged         time.Time
	Labels, Text, Reason string
}

// Sink returns the state of a sink; known is false if it was never saved.
func (tx *Tx) Sink(name string) (s Sink, known bool, err error) {
	s.Name = name
	err = tx.row(`SELECT cursor, sent, bytes, failed, refused, expired FROM sinks WHERE name = ?`, name).Scan(&s.Cursor, &s.Sent, &s.Bytes, &s.Failed, &s.Refused, &s.Expired)
	if errors.Is(err, sql.ErrNoRows) {
		return s, false, nil
	}
	if err != nil {
		return s, false, fmt.Errorf("read sink %s: %w", name, err)
	}
	return s, true, nil
}

// PutSink writes the state of a sink and the dead letters that came up since; of
// those it keeps the newest 1000.
func (tx *Tx) PutSink(s Sink, dead []DeadLetter) error {
	_, err := tx.exec(`INSERT OR REPLACE INTO sinks (name, cursor, sent, bytes, failed, refused, expired) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		s.Name, s.Cursor, s.Sent, s.Bytes, s.Failed, s.Refused, s.Expired)
	for _, d := range dead {
		if err != nil {
			break
		}
		_, err = tx.exec(`INSERT INTO dead_letters (sink, time, logged, labels, text, reason) VALUES (?, ?, ?, ?, ?, ?)`,
			s.Name, stamp(d.Time), stamp(d.Logged), d.Labels, d.Text, d.Reason)
	}
	if err == nil && len(dead) > 0 {
		_, err = tx.exec(`DELETE FROM dead_letters WHERE sink = ?1 AND id <= (SELECT id FROM dead_letters WHERE sink = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)`, s.Name, keepLetters)
	}
	if err != nil {
		return fmt.Errorf("write sink %s: %w", s.Name, err)
	}
	return nil
}

// DeadLetters returns the newest of a sink, the newest last.
func (tx *Tx) DeadLetters(sink string, limit int) ([]DeadLetter, error) {
	list, err := collect(tx, func(scan func(...any) error) (d DeadLetter, err error) {
		var at, logged int64
		err = scan(&at, &logged, &d.Labels, &d.Text, &d.Reason)
		d.Time, d.Logged = moment(at), moment(logged)
		return d, err
	}, `SELECT time, logged, labels, text, reason FROM (SELECT * FROM dead_letters WHERE sink = ? ORDER BY id DESC LIMIT ?) ORDER BY id`, sink, limit)
	if err != nil {
		return nil, fmt.Errorf("read dead letters of %s: %w", sink, err)
	}
	return list, nil
}
