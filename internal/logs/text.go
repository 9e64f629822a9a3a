package logs

// inText returns the rows whose exact text fulfils t.
func (t *test) inText(v *view) (set, error) {
	if t.op == Contains {
		return v.textContains(t.needle, nil)
	}
	if t.op != Matches {
		return v.keep(fullSet(v.rows), t.holds)
	}
	s := fullSet(v.rows)
	for i, any := range t.sets {
		// Once few rows are left, others are not worth a look.
		var within set
		if i > 0 && s.count() < v.rows/8 {
			within = s
		}
		one := newSet(v.rows)
		for _, n := range any {
			has, err := v.textContains(n, within)
			if err != nil {
				return nil, err
			}
			one.or(has)
		}
		if s.and(one); s.empty() {
			return s, nil
		}
	}
	return v.keep(s, t.re.Match)
}

// keep leaves those rows of s whose text holds.
func (v *view) keep(s set, holds func([]byte) bool) (set, error) {
	var buf []byte
	v.sparse = v.disk != nil && s.count() < v.rows/32
	defer func() { v.sparse = false }()
	err := s.each(func(row int) (err error) {
		if buf, err = v.text(buf[:0], row); err == nil && !holds(buf) {
			s[row>>6] &^= 1 << (row & 63)
		}
		return err
	})
	return s, err
}

// textContains returns the rows with n in their text, at least those of them that
// are in within (nil: all). It makes no text but of rows where n may cross the edge
// of a value.
func (v *view) textContains(n *needle, within set) (set, error) {
	if n.s == "" {
		return fullSet(v.rows), nil
	}
	s := newSet(v.rows)
	always, all := make([]bool, len(v.kinds)), true
	some := false
	for i := range v.kinds {
		always[i] = n.plan(&v.kinds[i]).always
		all, some = all && always[i], some || always[i]
	}
	if all {
		return fullSet(v.rows), nil
	}
	if some {
		if err := v.needCodes(); err != nil {
			return nil, err
		}
		for row, code := range v.codes {
			if always[code>>1] {
				s.add(row)
			}
		}
	}
	for c := range v.cols {
		here, everywhere := v.hole(c)
		if !here {
			continue
		}
		values, err := v.contains(c, n, within)
		if err != nil {
			return nil, err
		}
		if values == nil || values.empty() {
			continue
		}
		if err := v.lift(s, c, values, everywhere); err != nil {
			return nil, err
		}
	}
	return s, v.cross(s, n, always)
}

// lift adds the rows to s whose value in column c is in values; everywhere says that
// where a row has the column, it has it in the text.
func (v *view) lift(s set, c int, values set, everywhere bool) error {
	spot, err := v.spot(c)
	if err != nil {
		return err
	}
	if spot == nil && everywhere {
		s.or(values)
		return nil
	}
	var inText []bool
	if !everywhere {
		if err := v.needCodes(); err != nil {
			return err
		}
		inText = make([]bool, len(v.kinds))
		for i := range v.kinds {
			for _, col := range v.kinds[i].cols[:v.kinds[i].holes] {
				inText[i] = inText[i] || int(col) == c
			}
		}
	}
	for row := range v.rows {
		at := row
		if spot != nil {
			at = int(spot[row])
		}
		if at >= 0 && values.has(at) && (everywhere || inText[v.codes[row]>>1]) {
			s.add(row)
		}
	}
	return nil
}

// cross adds rows in whose text n crosses the edge of a value.
func (v *view) cross(s set, n *needle, always []bool) error {
	var buf []byte
	look := func(row int) (err error) {
		if buf, err = v.text(buf[:0], row); err == nil && n.in(buf) {
			s.add(row)
		}
		return err
	}
	type door struct {
		col int
		op  byte
		s   string
	}
	known := map[door]set{}
	for k := range v.kinds {
		p := n.plan(&v.kinds[k])
		if always[k] {
			continue
		}
		// of lets those of the rows through that are of this kind.
		of := func(rows set, then func(int) error) error {
			if rows.empty() {
				return nil
			}
			if err := v.needCodes(); err != nil {
				return err
			}
			return rows.each(func(row int) error {
				if int(v.codes[row]>>1) != k || s.has(row) {
					return nil
				}
				return then(row)
			})
		}
		if p.every {
			if err := of(fullSet(v.rows), look); err != nil {
				return err
			}
		}
		for _, g := range p.gates {
			d := door{int(v.kinds[k].cols[g.hole]), g.op, g.s}
			rows, ok := known[d]
			if !ok {
				var err error
				if rows, err = v.gated(d.col, g, n); err != nil {
					return err
				}
				known[d] = rows
			}
			then := look
			if g.sure {
				then = func(row int) error { s.add(row); return nil }
			}
			if err := of(rows, then); err != nil {
				return err
			}
		}
	}
	return nil
}

// gated returns the rows whose value in column c goes through a gate; nil: none.
func (v *view) gated(c int, g gate, n *needle) (set, error) {
	key := gate{op: g.op, s: g.s}
	words, ok := n.gated[key]
	if !ok {
		words = pieces(g.s, g.op != gateSuffix, g.op != gatePrefix)
		n.gated[key] = words
	}
	ok, err := v.may(c, g.s, n.fold, words)
	if !ok || err != nil {
		return nil, err
	}
	values, err := v.each(c, func(b []byte) bool { return g.open(n, b) }, nil)
	if err != nil || values == nil || values.empty() {
		return nil, err
	}
	s := newSet(v.rows)
	return s, v.lift(s, c, values, true)
}
