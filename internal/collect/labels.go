package collect

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"

	"github.com/tenderhq/tender/internal/logs"
)

// What a container's labels say has no bound of its own.
const (
	maxLabel  = 2048 // bytes of a constant label's value
	maxLabels = 64   // constant labels of one stream
)

// labelsOf makes the labels of a stream, and the names that no field may have.
// A constant label never replaces one of ours: it becomes NAME_label.
func labelsOf(who Identity, attrs map[string]string) (logs.Labels, map[string]bool) {
	all := map[string]string{}
	own := map[string]string{"project": who.Project, "service": who.Service, "revision": who.Revision, "instance": who.Instance, "node": who.Node}
	names := map[string]bool{"stream": true}
	for name := range own {
		names[name] = true
	}
	for _, more := range []map[string]string{attrs, who.Logs.Labels} {
		for name, value := range more {
			name = labelName(name)
			if names[name] {
				name += "_label"
			}
			all[short(name)] = shortened(value, maxLabel)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all))[min(len(all), maxLabels):] {
		delete(all, name)
	}
	maps.Copy(all, own)
	var out logs.Labels
	for name, value := range all {
		if value != "" {
			out = append(out, logs.Field{Name: name, Value: value})
		}
		names[name] = true
	}
	slices.SortFunc(out, func(a, b logs.Field) int { return cmp.Compare(a.Name, b.Name) })
	return out, names
}

// labelName is a name as a label may have it.
func labelName(s string) string {
	b := []byte(s)
	for i, c := range b {
		if !letter(c) && c != '_' && (!digit(c) || i == 0) {
			b[i] = '_'
		}
	}
	return string(b)
}

// labelsWith adds what the engine's log options attach to every line.
func (t *tail) labelsWith(attrs []byte) logs.Labels {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(attrs) == 0 {
		return t.labels
	}
	if t.attrs == string(attrs) && t.full != nil {
		return t.full
	}
	var m map[string]string
	if json.Unmarshal(attrs, &m) != nil {
		return t.labels
	}
	t.attrs = string(attrs)
	t.full, t.parser.labels = labelsOf(*t.is.Load(), m)
	return t.full
}
