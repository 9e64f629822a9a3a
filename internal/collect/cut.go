package collect

import (
	"slices"

	"github.com/tenderhq/tender/internal/logs"
)

// Cut finds the fields of lines that came with a time and labels of their own. Each
// row is a text, its first field, with what came beside it; that stays behind
// what is found. The rows that it returns are as many, and the caller's.
func Cut(labels logs.Labels, in []logs.Row) []logs.Row {
	names := map[string]bool{"stream": true}
	for _, f := range labels {
		names[f.Name] = true
	}
	p := newParser(&rules{single: true}, names)
	list := make([]entry, len(in))
	for i, r := range in {
		list[i] = entry{labels: labels, time: r.Time, stderr: r.Stderr, text: r.Fields[0].Value}
	}
	out := p.entries(list)
	if len(out) != len(in) {
		return in
	}
	for i := range out {
		out[i].Time = in[i].Time // it was said, and the line's own is a field
		out[i].Fields = append(slices.Clone(out[i].Fields), in[i].Fields[1:]...)
	}
	return out
}
