// Package logs keeps what instances wrote and finds it again: an append-only
// columnar block store, day folder by day folder.
//
// collect knocks with batches, logql and forward with queries, the daemon with
// retention. What is durable here is at the same time the checkpoint of who
// collects: a block carries the range of its source that it was made of. The
// room never reads a container's files, parses a line or speaks a protocol.
package logs

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Field is one named value of an entry.
type Field struct{ Name, Value string }

// Labels name a stream. They are sorted by name and each name is there once:
// project, service, revision, instance, node, and the constant labels that the
// user gave. The label "stream" (stdout, stderr) belongs to the row.
type Labels []Field

// Get returns the value of the label called name, "" if it is not there.
func (l Labels) Get(name string) string {
	if i, ok := slices.BinarySearchFunc(l, name, func(f Field, n string) int { return cmp.Compare(f.Name, n) }); ok {
		return l[i].Value
	}
	return ""
}

// String is the selector that names exactly this stream: {a="b", c="d"}.
func (l Labels) String() string {
	var b strings.Builder
	b.WriteByte('{')
	for i, f := range l {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(f.Name)
		b.WriteByte('=')
		b.WriteString(quote(f.Value))
	}
	b.WriteByte('}')
	return b.String()
}

// Hole is the byte in a Shape that stands for the value of the next field.
const Hole = 0

// Row is one entry as it is handed in. Its strings may point into a buffer
// of the caller: they are good until Append returns and not a moment longer.
type Row struct {
	Time   int64  // nanoseconds since 1970 UTC: the entry's own, or that of the engine
	Stderr bool   // else stdout
	Shape  string // the exact text, with a Hole for each of the first fields, in their order
	// Fields are the values cut out of the text, then those derived from it (level,
	// trace_id ...). What has no structure is Shape "\x00" with the one field message.
	// Of two with one name the first counts in searches; the text keeps both.
	Fields []Field
}

// Text appends the exact text of r to dst: what the program wrote, without the
// newline at its end.
func (r *Row) Text(dst []byte) []byte {
	shape, n := r.Shape, 0
	for {
		i := strings.IndexByte(shape, Hole)
		if i < 0 || n >= len(r.Fields) {
			return append(dst, shape...)
		}
		dst = append(dst, shape[:i]...)
		dst = append(dst, r.Fields[n].Value...)
		shape, n = shape[i+1:], n+1
	}
}

// Place is a position in a source: in the Seq-th file of it (counted by who
// collects, from 1), Offset bytes from its start. Head is a hash of the first
// HeadSize bytes of that file, so that a file which got another's inode is not
// taken for it.
type Place struct {
	Seq      uint64
	Offset   int64
	Head     uint64
	HeadSize int
}

// Batch is a run of entries of one source, in order.
type Batch struct {
	// Source names what was read, e.g. the container's id. From and To are the
	// places before and behind it. The next batch of the source begins at To; what a
	// restart reads again from the last durable To is neither lost nor doubled.
	// Empty for what comes without places (syslog, push): kept, but not once only.
	Source   string
	From, To Place
	Labels   Labels
	Rows     []Row
	// Gap says how many bytes before From are known to be lost (0: none, -1: some,
	// nobody knows how many); it is kept as a row of its own and shown.
	Gap int64
}

// Op compares: = != =~ !~ for strings, > >= < <= for numbers, durations and sizes;
// |= and !| (contains, does not contain) for text.
type Op string

// The comparisons.
const (
	Equal      Op = "="
	NotEqual   Op = "!="
	Matches    Op = "=~"
	NotMatches Op = "!~"
	Above      Op = ">"
	AtLeast    Op = ">="
	Below      Op = "<"
	AtMost     Op = "<="
	Contains   Op = "|="
	Lacks      Op = "!|"
)

// Condition is what must hold for a row. Regexp is set for Matches and NotMatches
// (on labels anchored at both ends, on text not), Number for the four that order.
type Condition struct {
	Name   string // of the label or field; empty for the text
	Op     Op
	Value  string
	Regexp *regexp.Regexp
	Number float64
}

// Query says which rows to find.
type Query struct {
	From, To int64 // nanoseconds, From <= time < To; To 0: no end
	// Labels hold for the labels of the stream and "stream", Text for the exact text,
	// Where for stored fields. All must hold. A field that is not there is "" to the
	// first four operators and fails the four that order.
	Labels, Text, Where []Condition
	// Columns are the fields that the caller will ask for; nil: all. Nothing else is
	// decoded. NoText says that Text will not be called. Who counts says both: NoText
	// and no columns (not nil) read the times alone.
	Columns  []string
	NoText   bool
	Backward bool
	// Limit, if it is not 0, says that the caller wants the first so many rows in time
	// (Backward: the last) and no others: Scan ends by itself when no other can be
	// among them. It may hand out a few more than those.
	Limit int
}

// quote writes s as a Go string literal, as LogQL does.
func quote(s string) string { return strconv.Quote(s) }
