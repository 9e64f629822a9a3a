package collect

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tenderhq/tender/internal/logs"
)

const (
	maxEntry = 1 << 20 // bytes of one entry, as they lie in the engine's file; what is longer is cut and says so
	cutField = "cut"   // "true": the entry goes on in the next one
	// An entry that is not complete keeps what comes on the other stream waiting, so that entries are handed in
	// in the order in which they began. After so many lines it has to do.
	maxWaiting     = 64
	maxWaitingPart = 256
)

// parser makes rows of what lies in an engine's files. A block of bytes always
// gives the same rows, whatever was read before it and wherever it is cut: so
// a restart that reads a block again neither loses nor doubles an entry.
type parser struct {
	rules  *rules
	labels map[string]bool // names that a field may not have
	shapes shapes
	reader jsonReader
	before time.Duration // how late a line may be
	times  clock         // of lines
	engine clock
	logfmt int // how many lines of late were logfmt, up to logfmtSure
	attrs  []byte
	rows   *rows
	open   [2]pending
	// goes is what is known of lines that were cut in the block before, by their stream, and after the same behind
	// what was used of this one: who goes on from there hands it in again.
	goes, after [2]verdict
	piece       verdict // of the entry that is being made a row
	values      [][]byte
	pairs       []pair
	scratch     []byte
}

// pending is an entry of one stream that the next line may go on with.
type pending struct {
	on      bool
	part    bool // the engine cut the line here
	row     int
	begin   int // where its first line begins in the block
	time    int64
	last    int64
	trace   trace
	lines   int
	waiting int // lines of the other stream since
	text    []byte
	verdict verdict // of the line that it is a piece of
}

// verdict is what the rules say of the first piece of a line that is too long for one
// entry: it holds for all of them.
type verdict byte

const (
	undecided verdict = iota
	kept
	unwanted
)

// dropped is the time of a row that the rules do not want.
const dropped = math.MinInt64

const (
	logfmtSure = 8
	logfmtMind = 3
)

func newParser(r *rules, labels map[string]bool) *parser {
	p := &parser{rules: r, labels: labels, rows: new(rows), before: believeBefore}
	p.times.zone = r.zone
	return p
}

// block makes rows of as many whole entries as data holds, and returns how many
// bytes these are. What is left must be given again with what follows it; last
// says that nothing will. The rows are in p.rows, good until the next block.
// waits: what is left is a line that the engine cut, not one that may go on.
func (p *parser) block(data []byte, last bool) (used int, waits bool) {
	p.rows.reset()
	p.open = [2]pending{}
	p.after = p.goes
	ready := 0 // rows that lie before used
	for at := 0; at < len(data); {
		end := bytes.IndexByte(data[at:], '\n')
		next := at + end + 1
		if end < 0 {
			if !last {
				break
			}
			end, next = len(data)-at, len(data)
		}
		p.record(data[at:at+end], at)
		out, err := &p.open[0], &p.open[1]
		switch {
		case !out.on && !err.on:
			used, ready, p.after = next, len(p.rows.list), p.goes
		case out.on != err.on:
			if o := p.only(); o.begin >= at {
				used, ready, p.after = o.begin, o.row, p.goes
				p.after[streamOf(o == &p.open[1])] = o.verdict
			}
		}
		at = next
	}
	if last {
		p.close(&p.open[0])
		p.close(&p.open[1])
		p.thin(len(p.rows.list))
		p.after = p.goes
		return len(data), false
	}
	waits = p.open[0].on && p.open[0].part || p.open[1].on && p.open[1].part
	p.thin(ready)
	return used, waits
}

// thin keeps the first n rows, but for those that the rules have dropped.
func (p *parser) thin(n int) {
	p.rows.list = p.rows.list[:n]
	if p.rules.active {
		p.rows.list = slices.DeleteFunc(p.rows.list, func(r logs.Row) bool { return r.Time == dropped })
	}
}

func streamOf(stderr bool) int {
	if stderr {
		return 1
	}
	return 0
}

func (p *parser) only() *pending {
	if p.open[0].on {
		return &p.open[0]
	}
	return &p.open[1]
}

// record takes in one record of the engine's, which begins at begin.
func (p *parser) record(line []byte, begin int) {
	e, ok := readEnvelope(line)
	if !ok {
		if len(line) == 0 {
			return
		}
		if e, ok = salvageEnvelope(line); !ok {
			// Not a record. It is kept as it is, so that nothing goes in silence.
			e = envelope{log: escape(nil, str(line)), full: true}
		}
	}
	seen, ok := p.engine.engine(e.time)
	if !ok {
		seen = time.Now().UnixNano() // a torn record
	}
	if len(e.attrs) > 0 && !bytes.Equal(e.attrs, p.attrs) {
		p.attrs = append(p.attrs[:0], e.attrs...)
	}
	p.line(e.log, e.full, e.stderr, seen, begin, begin+len(line)+1)
}

// line takes in a line that is still escaped.
func (p *parser) line(log []byte, full, stderr bool, seen int64, begin, next int) {
	o, other := &p.open[0], &p.open[1]
	if stderr {
		o, other = other, o
	}
	if other.on {
		other.waiting++
		if most := maxWaitingPart; !other.part && (other.trace == noTrace || other.waiting > maxWaiting) || other.waiting > most {
			p.close(other)
		}
	}
	if v := &p.goes[streamOf(stderr)]; !o.on && *v != undecided {
		p.start(o, stderr, seen, begin)
		o.part, o.verdict = true, *v
		*v = undecided
	}
	if o.on && o.part {
		o.text = append(o.text, log...)
		switch {
		case full:
			o.part = false
			p.whole(o, o.text)
		case len(o.text) > maxEntry:
			p.cut(o, next)
		}
		return
	}
	if !full {
		if o.on {
			p.close(o)
		}
		p.start(o, stderr, seen, begin)
		o.part = true
		o.text = append(make([]byte, 0, 4*len(log)), log...)
		return
	}
	if log = bytes.TrimSuffix(log, []byte(`\r`)); len(log) > 0 && log[0] == '{' {
		if o.on {
			p.close(o)
		}
		p.start(o, stderr, seen, begin)
		o.on = false
		p.entry(o.row, log)
		return
	}
	text := log
	if bytes.IndexByte(log, '\\') >= 0 {
		text = p.rows.plain(log)
	}
	if o.on {
		if len(o.text)+len(text) < maxEntry && o.lines < maxTraceLines && p.goesOn(o, str(text), seen) {
			if o.lines == 1 {
				o.text = append(append([]byte(nil), o.text...), '\n')
			} else {
				o.text = append(o.text, '\n')
			}
			o.text = append(o.text, text...)
			o.lines++
			o.last, o.waiting = seen, 0
			return
		}
		p.close(o)
	}
	p.start(o, stderr, seen, begin)
	o.text = text
	if p.rules.multiline == nil && !p.rules.single {
		o.trace = begins(str(text))
	}
	if p.rules.single {
		p.close(o)
	}
}

// goesOn reports whether a line belongs to an open entry.
func (p *parser) goesOn(o *pending, text string, seen int64) bool {
	if p.rules.multiline != nil {
		return !p.rules.multiline.MatchString(text)
	}
	t, ok := o.trace.continues(text, time.Duration(seen-o.last))
	if ok {
		o.trace = t
	}
	return ok
}

func (p *parser) start(o *pending, stderr bool, seen int64, begin int) {
	*o = pending{on: true, row: len(p.rows.list), begin: begin, time: seen, last: seen, lines: 1}
	p.rows.list = append(p.rows.list, logs.Row{Time: seen, Stderr: stderr})
}

// whole ends an entry that the engine cut into parts; log is still escaped.
func (p *parser) whole(o *pending, log []byte) {
	o.on = false
	p.piece = o.verdict
	p.entry(o.row, bytes.TrimSuffix(log, []byte(`\r`)))
	p.piece = undecided
}

// cut ends an entry that is too long, and begins the next one with what follows.
func (p *parser) cut(o *pending, next int) {
	row := &p.rows.list[o.row]
	start := len(p.rows.fields)
	text, _ := p.rules.clean(str(p.rows.plain(o.text)))
	p.rows.add("message", text)
	p.rows.add(cutField, "true")
	row.Shape, row.Fields = wholeShape, p.rows.fields[start:len(p.rows.fields):len(p.rows.fields)]
	n := *o
	if n.verdict == undecided {
		n.verdict = kept
		if p.rules.active && !p.rules.wants(p, row) {
			n.verdict = unwanted
		}
	}
	if n.verdict == unwanted {
		row.Time = dropped
	}
	p.start(o, row.Stderr, n.last, next)
	o.part, o.verdict = true, n.verdict
}

// close ends an entry that nothing more comes to.
func (p *parser) close(o *pending) {
	if !o.on {
		return
	}
	o.on = false
	if o.part {
		p.piece = o.verdict
		p.entry(o.row, o.text)
		p.piece = undecided
		return
	}
	p.text(o.row, o.text, o.lines)
}

// entry makes the row of a whole line that is still escaped.
func (p *parser) entry(row int, log []byte) {
	if len(p.rules.redact) > 0 {
		text := p.rows.plain(log)
		if clean, changed := p.rules.clean(str(text)); changed {
			log = escape(nil, clean)
		}
	}
	if len(log) > 1 && log[0] == '{' && p.rules.mayBe("json") && p.json(log, row) {
		return
	}
	p.free(row, p.rows.plain(log), 1)
}

// text makes the row of an entry that is no JSON, of one line or several.
func (p *parser) text(row int, text []byte, lines int) {
	if len(p.rules.redact) > 0 {
		if clean, changed := p.rules.clean(str(text)); changed {
			text = []byte(clean)
		}
	}
	p.free(row, text, lines)
}

// free finds the structure of a text that is no JSON.
func (p *parser) free(row int, raw []byte, lines int) {
	text, start := str(raw), len(p.rows.fields)
	if strings.IndexByte(text, 0x1b) >= 0 {
		// Colours stay in the text, and are taken away for whoever searches.
		p.rows.add(rawField, text)
		text = str(p.rows.keep(stripANSI(p.rows.room(len(text)), text)))
		roles := noRoles
		if pairs, ok := p.pairsOf(text, lines); ok {
			p.derive(pairs, text, start, &roles)
		} else if !p.rules.mayBe("json") || !p.object([]byte(text), start, &roles) {
			roles.see(len(p.rows.fields)-start, "message")
			p.rows.add("message", text)
			p.rules.cutGroups(p, text, start, &roles)
			p.level(text, roles)
		}
		p.row(row, wholeShape, start, roles)
		return
	}
	pairs, ok := p.pairsOf(text, lines)
	if !ok {
		roles := noRoles
		roles.see(0, "message")
		p.rows.add("message", text)
		p.rules.cutGroups(p, text, start, &roles)
		p.level(text, roles)
		p.row(row, wholeShape, start, roles)
		return
	}
	roles, at, escaped := noRoles, 0, false
	p.scratch = p.scratch[:0]
	for i, x := range pairs {
		p.scratch = append(append(p.scratch, text[at:x.from]...), logs.Hole)
		at = x.to
		if x.escaped {
			p.rows.add(rawField, text[x.from:x.to])
			escaped = true
			continue
		}
		roles.see(i, x.name)
		p.rows.add(x.name, text[x.from:x.to])
	}
	p.scratch = append(p.scratch, text[at:]...)
	shape, ok := p.shapes.intern(p.scratch, len(pairs))
	if !ok { // its keys are data
		p.rows.fields = p.rows.fields[:start]
		p.rows.add(rawField, text)
		roles, shape = noRoles, wholeShape
		p.derive(pairs, text, start, &roles)
		escaped = false
	}
	if escaped {
		for _, x := range pairs {
			if x.escaped {
				roles.see(len(p.rows.fields)-start, x.name)
				p.rows.add(x.name, x.decoded)
			}
		}
	}
	p.row(row, shape, start, roles)
}

// derive adds what the pairs mean, beside a text that is kept whole.
func (p *parser) derive(pairs []pair, text string, start int, roles *roles) {
	for _, x := range pairs {
		value := text[x.from:x.to]
		if x.escaped {
			value = x.decoded
		}
		roles.see(len(p.rows.fields)-start, x.name)
		p.rows.add(x.name, value)
	}
}

// pairsOf finds the structure of a text: logfmt, or an access log. A source whose
// lines are seldom logfmt must show a key that only logs have.
func (p *parser) pairsOf(text string, lines int) (pairs []pair, ok bool) {
	if lines > 1 || len(text) < 3 || len(p.rules.parse) > 0 {
		return nil, false
	}
	if p.rules.mayBe("access") && text[len(text)-1] != '}' {
		pairs, ok = readAccess(text, p.pairs[:0])
		p.pairs = pairs
		if ok {
			for i := range pairs {
				pairs[i].name = p.field(pairs[i].name)
			}
			return pairs, true
		}
	}
	if !p.rules.mayBe("logfmt") || !keyByte(text[0]) {
		return nil, false
	}
	pairs, ok = readLogfmt(text, p.pairs[:0], func(s string) string { return p.field(p.shapes.name([]byte(s))) })
	p.pairs = pairs
	if !ok {
		p.logfmt = max(p.logfmt-1, 0)
		return nil, false
	}
	sure := p.rules.format == "logfmt" || p.logfmt >= logfmtMind || telling(pairs)
	p.logfmt = min(p.logfmt+1, logfmtSure)
	return pairs, sure
}

// field is the name under which a value of a line is kept.
func (p *parser) field(name string) string {
	if p.rules.rename != nil {
		if to, ok := p.rules.rename[name]; ok {
			name = to
		}
	}
	if p.labels[name] {
		return p.shapes.name([]byte(extracted(name)))
	}
	return name
}

// level adds the level that a text without structure shows.
func (p *parser) level(text string, roles roles) {
	if roles.level >= 0 {
		return
	}
	if l := levelIn(text); l != "" {
		p.rows.add(p.field("level"), l)
		p.rows.add(detectedLevel, l)
	}
}

const detectedLevel = "detected_level"

// row ends a row: what its fields mean gets the names that all know, and the
// rules of the service are followed.
func (p *parser) row(i int, shape string, start int, roles roles) {
	r, out := &p.rows.list[i], p.rows
	r.Shape = shape
	value := func(at int) string { return out.fields[start+at].Value }
	if roles.time >= 0 {
		if own, res, ok := p.times.read(value(roles.time)); ok {
			r.Time = believed(own, res, r.Time, p.before)
		}
	}
	if roles.level >= 0 {
		if l := levelOf(value(roles.level)); l != "" {
			if !roles.hasLevel {
				out.add(p.field("level"), l)
			}
			out.add(detectedLevel, l)
		}
	}
	if roles.message >= 0 && !roles.hasMessage {
		out.add("message", value(roles.message))
	}
	if roles.trace >= 0 && !roles.hasTrace {
		out.add("trace_id", value(roles.trace))
	}
	if roles.user >= 0 && !roles.hasUser {
		out.add("user_id", value(roles.user))
	}
	for _, f := range p.rules.add {
		out.add(p.field(f.Name), f.Value)
	}
	r.Fields = out.fields[start:len(out.fields):len(out.fields)]
	if p.piece == unwanted || p.piece == undecided && p.rules.active && !p.rules.wants(p, r) {
		r.Time = dropped
	}
}

// stripANSI appends text without its escape sequences: colours, cursor, titles.
func stripANSI(dst []byte, text string) []byte {
	for i := 0; i < len(text); {
		if text[i] != 0x1b {
			dst = append(dst, text[i])
			i++
			continue
		}
		if i++; i >= len(text) {
			break
		}
		switch text[i] {
		case '[': // until a letter
			for i++; i < len(text) && (text[i] < 0x40 || text[i] > 0x7e); i++ {
			}
			i++
		case ']': // until BEL or ESC backslash
			for i++; i < len(text) && text[i] != 7 && text[i] != 0x1b; i++ {
			}
			if i < len(text) && text[i] == 0x1b {
				i++
			}
			i++
		case '(', ')', '#', '%':
			i += 2
		default:
			i++
		}
	}
	return dst
}
