package metrics

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/scrape"

	"github.com/tenderhq/tender/internal/sample"
)

// describe notes what a series is: what is handed in by rounds has no target that tells of it.
// d.mu is held.
func (d *DB) describe(s *sample.Series) {
	if _, known := d.described[s.Name]; known || s.Help == "" {
		return
	}
	m := metadata.Metadata{Type: model.MetricTypeGauge, Help: s.Help}
	if s.Kind == sample.Counter {
		m.Type = model.MetricTypeCounter
	}
	d.described[s.Name] = m
}

// metadata answers what types and texts of help series have, as Prometheus does, also for those
// that no target tells of.
func (d *DB) metadata(w http.ResponseWriter, r *http.Request) {
	d.tell(w, r, func(string) bool { return true }, func(*scrape.Target) bool { return true })
}

// tell answers it of the series whose name is right where rounds brought them, and of targets that are.
func (d *DB) tell(w http.ResponseWriter, r *http.Request, right func(name string) bool, of func(*scrape.Target) bool) {
	answer := func(code int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v) // who asked may have gone
	}
	bound := map[string]int{"limit": -1, "limit_per_metric": -1}
	for name := range bound {
		if said := r.FormValue(name); said != "" {
			n, err := strconv.Atoi(said)
			if err != nil {
				answer(http.StatusBadRequest, map[string]string{"status": "error", "errorType": "bad_data", "error": name + " must be a number"})
				return
			}
			bound[name] = n
		}
	}
	wanted := r.FormValue("metric")
	found := map[string][]metadata.Metadata{}
	add := func(name string, m metadata.Metadata) {
		if wanted != "" && name != wanted || slices.Contains(found[name], m) {
			return
		}
		if most := bound["limit_per_metric"]; most > 0 && len(found[name]) >= most {
			return
		}
		found[name] = append(found[name], m)
	}
	d.mu.Lock()
	for name, m := range d.described {
		if right(name) {
			add(name, m)
		}
	}
	d.mu.Unlock()
	for _, pool := range d.active().TargetsActive() {
		for _, t := range pool {
			if !of(t) {
				continue
			}
			for _, m := range t.ListMetadata() {
				add(m.MetricFamily, metadata.Metadata{Type: m.Type, Help: m.Help, Unit: m.Unit})
			}
		}
	}
	names := slices.Sorted(maps.Keys(found))
	if most := bound["limit"]; most >= 0 && len(names) > most {
		for _, name := range names[most:] {
			delete(found, name)
		}
	}
	answer(http.StatusOK, map[string]any{"status": "success", "data": found})
}
