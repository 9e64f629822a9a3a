package tender

import "time"

// Logs is what x-tender.logs says of a service: how its lines are read, what
// is kept of them and for how long. It is no part of a revision.
type Logs struct {
	// Format is "" or "auto", "json", "logfmt", "access" (common and combined access logs) or "plain".
	Format string
	// Drop and Keep choose entries; one that both choose is dropped. No Keep: all.
	Drop, Keep []LogMatch
	// Sample is the share of entries below warn that is kept, 0.1 is 10 %; 0: all.
	Sample float64
	// Redact holds "email", "card", "token", and regular expressions.
	Redact []string
	// Add are constant fields, Rename gives fields other names, Labels are constant labels of the stream.
	Add, Rename, Labels map[string]string
	// Parse are regular expressions with named groups, or grok patterns; the first that matches counts.
	Parse []string
	// Zone is the IANA name of the zone that times without one are in; "": UTC.
	Zone string
	// Multiline is a regular expression for the first line of an entry, "" (stack traces by rule) or "off".
	Multiline string
	// RetainAge and RetainSize (bytes, as stored) say when the oldest go; 0: as the daemon's retention says.
	RetainAge  time.Duration
	RetainSize int64
}

// LogMatch is a condition on an entry: its text matches the regular expression
// Text, and each field the one in Fields, from end to end.
type LogMatch struct {
	Text   string            `json:",omitempty"`
	Fields map[string]string `json:",omitempty"`
}
