package logs

import "slices"

// found is a Chunk: some rows of a view.
type found struct {
	view   *view
	labels Labels
	times  []int64
	rows   []int32 // of the view
	edge   int64
	lost   int64
	cols   map[string][]string
	err    error // the first thing that could not be read
}

var _ Chunk = (*found)(nil)

func (c *found) bound() int64   { return c.edge }
func (c *found) missed() int64  { return c.lost }
func (c *found) Labels() Labels { return c.labels }
func (c *found) Times() []int64 { return c.times }

// pick takes the rows of one side, in order of time. rows nil: all.
func (c *found) pick(rows set, mixed, stderr, backward bool) {
	v := c.view
	if rows == nil && !mixed && v.sorted && !backward {
		c.times = v.times // rows are made when somebody asks
		return
	}
	n := v.rows
	if rows != nil {
		n = rows.count()
	}
	c.rows = make([]int32, 0, n)
	take := func(i int) error {
		if !mixed || v.codes[i]&1 == 1 == stderr {
			c.rows = append(c.rows, int32(i))
		}
		return nil
	}
	if rows == nil {
		for i := range v.rows {
			_ = take(i)
		}
	} else {
		_ = rows.each(take)
	}
	if !v.sorted {
		slices.SortStableFunc(c.rows, func(a, b int32) int {
			if v.times[a] < v.times[b] {
				return -1
			}
			if v.times[a] > v.times[b] {
				return 1
			}
			return 0
		})
	}
	if backward {
		slices.Reverse(c.rows)
	}
	c.times = make([]int64, len(c.rows))
	for i, r := range c.rows {
		c.times[i] = v.times[r]
	}
}

// all makes the numbers of the rows if they are still only meant.
func (c *found) all() {
	if c.rows == nil {
		c.rows = make([]int32, len(c.times))
		for i := range c.rows {
			c.rows[i] = int32(i)
		}
	}
}

// first leaves those rows that are among the first of all.
func (c *found) first(f *firsts) {
	n := 0
	for n < len(c.times) && f.add(c.times[n]) {
		n++
	}
	c.times = c.times[:n]
	if c.rows != nil {
		c.rows = c.rows[:n]
	}
}

// give calls fn. What could not be read of the chunk meanwhile is an error then.
func (c *found) give(fn func(Chunk) error) error {
	err := fn(c)
	if c.err != nil {
		return c.err
	}
	return err
}

func (c *found) note(err error) {
	if c.err == nil {
		c.err = err
	}
}

// Columns names the fields that a row may have.
func (c *found) Columns() []string {
	if err := c.view.need(); err != nil {
		c.note(err)
		return nil
	}
	var names []string
	for i := range c.view.cols {
		if c.view.cols[i].nth == 0 && c.view.cols[i].n > 0 {
			names = append(names, c.view.cols[i].name)
		}
	}
	return names
}

// Column returns the values of a field.
func (c *found) Column(name string) []string {
	if s, ok := c.cols[name]; ok {
		return s
	}
	s, err := c.column(name)
	if err != nil {
		c.note(err)
		return nil
	}
	if c.cols == nil {
		c.cols = map[string][]string{}
	}
	c.cols[name] = s
	return s
}

func (c *found) column(name string) ([]string, error) {
	v := c.view
	if err := v.need(); err != nil {
		return nil, err
	}
	i := v.find(name)
	if i < 0 {
		return nil, nil
	}
	col, err := v.column(i)
	if err != nil {
		return nil, err
	}
	spot, err := v.spot(i)
	if err != nil {
		return nil, err
	}
	c.all()
	if spot == nil {
		return col.strings(c.rows), nil
	}
	at, some := make([]int32, len(c.rows)), false
	for j, r := range c.rows {
		at[j] = spot[r]
		some = some || at[j] >= 0
	}
	if !some {
		return nil, nil
	}
	return col.strings(at), nil
}

// Text appends the exact text of row i.
func (c *found) Text(dst []byte, i int) []byte {
	c.all()
	if err := c.view.need(); err != nil {
		c.note(err)
		return dst
	}
	dst, err := c.view.text(dst, int(c.rows[i]))
	if err != nil {
		c.note(err)
	}
	return dst
}

// Fields appends the fields of row i.
func (c *found) Fields(dst []Field, i int) []Field {
	c.all()
	if err := c.view.need(); err != nil {
		c.note(err)
		return dst
	}
	dst, err := c.view.fields(dst, int(c.rows[i]))
	if err != nil {
		c.note(err)
	}
	return dst
}
