package logs

// inText returns the rows whose exact text fulfils t.
func (t *test) inText(v *view) (set, error) {
	if t.op == Contains {
		s, _, err := v.textContains(t.needle, nil, nil)
		return s, err
	}
	if t.op != Matches {
		return v.keep(fullSet(v.rows), t.holds)
	}
	s, best := fullSet(v.rows), -1
	for i := range t.re.demands {
		// Once few rows are left, others are not worth a look.
		var within set
		if i > 0 && s.count() < v.rows/8 {
			within = s
		}
		d, one := &t.re.demands[i], newSet(v.rows)
		for _, n := range d.any {
			has, c, err := v.textContains(n, within, d.sift)
			if err != nil {
				return nil, err
			}
			if best < 0 {
				best = c
			}
			one.or(has)
		}
		if s.and(one); s.empty() {
			return s, nil
		}
	}
	if t.re.all {
		return s, nil
	}
	if best < 0 || !t.re.loose {
		return v.keep(s, t.re.Match)
	}
	yes, err := t.glance(v, best, s)
	if err != nil {
		return nil, err
	}
	s.without(yes)
	if s, err = v.keep(s, t.re.Match); err == nil {
		s.or(yes)
	}
	return s, err
}

// keep leaves those rows of s whose text holds.
func (v *view) keep(s set, holds func([]byte) bool) (set, error) {
	var buf []byte
	v.sparse = v.disk != nil && s.count() < v.rows/32
	defer func() { v.sparse = false }()
	err := s.each(func(row int) (err error) {
		if buf, err = v.text(buf[:0], row); err == nil && !holds(buf) {
			s.drop(row)
		}
		return err
	})
	return s, err
}

// textContains returns the rows with n in their text, at least those of them that
// are in within (nil: all). It makes no text but of rows where n may cross the edge
// of a value. sift, if it is given, takes values of a column out again. The column is
// the first that has n, -1 if none has.
func (v *view) textContains(n *needle, within set, sift func(*view, int, set) error) (set, int, error) {
	if n.s == "" {
		return fullSet(v.rows), -1, nil
	}
	s := newSet(v.rows)
	always, all := make([]bool, len(v.kinds)), true
	some := false
	for i := range v.kinds {
		always[i] = n.plan(&v.kinds[i]).always
		all, some = all && always[i], some || always[i]
	}
	if all {
		return fullSet(v.rows), -1, nil
	}
	if some {
		if err := v.needCodes(); err != nil {
			return nil, -1, err
		}
		for row, code := range v.codes {
			if always[code>>1] {
				s.add(row)
			}
		}
	}
	first := -1
	for c := range v.cols {
		here, everywhere := v.hole(c)
		if !here {
			continue
		}
		values, err := v.contains(c, n, within)
		if err == nil && values != nil && sift != nil {
			err = sift(v, c, values)
		}
		if err != nil {
			return nil, -1, err
		}
		if values == nil || values.empty() {
			continue
		}
		if first < 0 {
			first = c
		}
		if err := v.lift(s, c, values, everywhere); err != nil {
			return nil, -1, err
		}
	}
	return s, first, v.cross(s, n, always)
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
