package logs

import (
	"cmp"
	"context"
	"slices"
)

// Streams returns the labels, with "stream", of all streams with rows in the time
// and with the labels that q asks for; blocks at the edges of the time count whole.
func (s *Store) Streams(ctx context.Context, q Query) ([]Labels, error) {
	x := newSearch(Query{From: q.From, To: q.To, Labels: q.Labels})
	parts, letGo, err := s.parts(x)
	if err != nil {
		return nil, err
	}
	defer letGo()
	type side struct {
		st  *stream
		err bool
	}
	seen := map[side]bool{}
	var all []Labels
	for _, p := range parts {
		st, rows, errs := p.about()
		w := x.wants(st)
		if o := (side{st, false}); errs < rows && w&wantOut != 0 && !seen[o] {
			seen[o] = true
			all = append(all, st.out)
		}
		if o := (side{st, true}); errs > 0 && w&wantErr != 0 && !seen[o] {
			seen[o] = true
			all = append(all, st.err)
		}
	}
	slices.SortFunc(all, func(a, b Labels) int {
		return slices.CompareFunc(a, b, func(f, g Field) int {
			return cmp.Or(cmp.Compare(f.Name, g.Name), cmp.Compare(f.Value, g.Value))
		})
	})
	return all, ctx.Err()
}

func (p part) about() (st *stream, rows, errs int) {
	if p.mem != nil {
		return p.mem.stream, p.mem.rows, p.mem.errs
	}
	return p.e.stream, p.e.rows, p.e.errs
}

// Fields returns what is known of the stored fields in the blocks that q asks for
// by time and labels.
func (s *Store) Fields(ctx context.Context, q Query) (map[string]FieldStat, error) {
	x := newSearch(Query{From: q.From, To: q.To, Labels: q.Labels})
	parts, letGo, err := s.parts(x)
	if err != nil {
		return nil, err
	}
	defer letGo()
	u, err := s.unpacker()
	if err != nil {
		return nil, err
	}
	defer s.giveBack(u)
	all := map[string]FieldStat{}
	for _, p := range parts {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		err := s.with(p, u, func(v *view) error {
			if err := v.need(); err != nil {
				return err
			}
			for i := range v.cols {
				c := &v.cols[i]
				if c.n == 0 {
					continue
				}
				var distinct int
				var kind byte
				if a := c.about; a != nil {
					distinct, kind = a.distinct, a.kind
				} else {
					distinct, kind = c.col.guess()
				}
				st, ok := all[c.name]
				if !ok {
					st.Type = typeNames[kind]
				}
				if have := slices.Index(typeNames[:], st.Type); int(kind) < have {
					st.Type = typeNames[kind]
				}
				st.Rows += int64(c.n)
				st.Distinct = max(st.Distinct, int64(distinct))
				all[c.name] = st
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// guess says of a column in memory what the directory says of one on disk.
func (c *column) guess() (distinct int, kind byte) {
	distinct = c.n
	if c.form == formDict {
		distinct = len(c.dict)
	}
	kind = typeInt
	for i := range min(distinct, 64) {
		var v []byte
		if c.form == formDict {
			v = []byte(c.dict[i])
		} else {
			v = c.text(i)
		}
		kind = min(kind, typeOf(v))
	}
	return distinct, kind
}

// Volume counts what q asks for. Where it asks for time and labels alone the headers
// of the blocks tell; only those at the edges of the time are read.
func (s *Store) Volume(ctx context.Context, q Query) (rows, bytes, chunks, streams int64, err error) {
	q.NoText, q.Columns = true, []string{}
	x := newSearch(q)
	parts, letGo, err := s.parts(x)
	if err != nil {
		return 0, 0, 0, 0, err
	}
	defer letGo()
	u, err := s.unpacker()
	if err != nil {
		return 0, 0, 0, 0, err
	}
	defer s.giveBack(u)
	seen := map[*stream]bool{}
	count := func(st *stream, n, of, size int64) {
		if n > 0 {
			rows += n
			bytes += size / of * n
			bytes += size % of * n / of
			chunks++
			seen[st] = true
		}
	}
	for _, p := range parts {
		if ctx.Err() != nil {
			return 0, 0, 0, 0, context.Cause(ctx)
		}
		st, n, errs := p.about()
		size := int64(0)
		if p.mem != nil {
			size = p.mem.size
		} else {
			size = p.e.raw
		}
		mixed := errs > 0 && errs < n
		if len(x.tests) == 0 && p.min >= q.From && p.max < x.to && (!mixed || x.wants(st) == wantOut|wantErr) {
			count(st, int64(n), int64(n), size)
			continue
		}
		err := s.with(p, u, func(v *view) error {
			return x.hand(v, 0, nil, func(c Chunk) error {
				count(st, int64(len(c.Times())), int64(n), size)
				return nil
			})
		})
		if err != nil {
			return 0, 0, 0, 0, err
		}
	}
	return rows, bytes, chunks, int64(len(seen)), nil
}
