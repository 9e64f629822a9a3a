package metrics

import (
	"cmp"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// counts are what the room says of itself, beside what the libraries say.
type counts struct {
	late, panics prometheus.Counter

	mu      sync.Mutex
	failing string // why nothing can be written, "" it can
	stuck   string // why what is old enough does not go into blocks, "" it does
}

func (c *counts) register(d *DB) {
	c.late = prometheus.NewCounter(prometheus.CounterOpts{Name: "tender_metrics_late_samples_total", Help: "Samples of rounds that were left out because they came late or twice."})
	c.panics = prometheus.NewCounter(prometheus.CounterOpts{Name: "tender_metrics_panics_total", Help: "Panics of the store that were survived."})
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tender_metrics_" + name, Help: help}, value)
	}
	d.registry.MustRegister(c.late, c.panics, &projects{d.bounds},
		gauge("damaged_parts", "Parts of the store that could not be read and were set aside.", func() float64 { return float64(len(d.damage.list())) }),
		gauge("disk_bytes", "Bytes of samples on disk.", func() float64 { return float64(d.bytes()) }),
		gauge("failing", "1 while samples cannot be written, or not into blocks.", func() float64 {
			if d.counts.fails() != "" {
				return 1
			}
			return 0
		}),
		gauge("config_ok", "1 if prometheus.yml is in force as it is.", func() float64 {
			if d.config.Load().problem == "" {
				return 1
			}
			return 0
		}),
	)
}

func (c *counts) fails() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return cmp.Or(c.failing, c.stuck)
}

// wrote takes in how a write ended.
func (d *DB) wrote(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	d.counts.mu.Lock()
	before := d.counts.failing
	d.counts.failing = text
	d.counts.mu.Unlock()
	switch {
	case text != "" && before == "":
		d.log.Error("samples cannot be written", "err", err)
	case text == "" && before != "":
		d.log.Info("samples are written again")
	}
}

// compacted takes in how the last look after the blocks ended. That samples are written
// meanwhile says nothing of it.
func (d *DB) compacted(err error) {
	text := ""
	if err != nil {
		text = "compact: " + err.Error()
	}
	d.counts.mu.Lock()
	before := d.counts.stuck
	d.counts.stuck = text
	d.counts.mu.Unlock()
	switch {
	case text != "" && before == "":
		d.log.Error("samples stay in memory and in the log of writes", "err", err)
	case text == "" && before != "":
		d.log.Info("samples go into blocks again")
	}
}

// projects collects how many series each has.
type projects struct{ bounds *bounds }

var (
	seriesDesc  = prometheus.NewDesc("tender_metrics_series", "Series that are kept, by project.", []string{projectLabel}, nil)
	limitDesc   = prometheus.NewDesc("tender_metrics_series_limit", "How many each project may have.", nil, nil)
	refusedDesc = prometheus.NewDesc("tender_metrics_refused_samples_total", "Samples of new series that were refused because the project has as many as it may.", []string{projectLabel}, nil)
)

// Describe is prometheus.Collector's.
func (*projects) Describe(out chan<- *prometheus.Desc) {
	out <- seriesDesc
	out <- limitDesc
	out <- refusedDesc
}

// Collect is prometheus.Collector's.
func (p *projects) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstMetric(limitDesc, prometheus.GaugeValue, float64(p.bounds.limit))
	for name, b := range p.bounds.count() {
		out <- prometheus.MustNewConstMetric(seriesDesc, prometheus.GaugeValue, float64(b.series), name)
		out <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(b.refused), name)
	}
}

// counter is the value of a counter or gauge of the registry without labels.
func (d *DB) counter(name string) float64 {
	all, _ := d.registry.Gather() //nolint:errcheck // what could be gathered is there
	for _, f := range all {
		if f.GetName() == name && len(f.GetMetric()) > 0 {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return 0
}

// Gather is prometheus.Gatherer's: what the room and its libraries count.
func (d *DB) Gather() ([]*dto.MetricFamily, error) {
	all := prometheus.Gatherers{d.registry}
	if s := d.scraping.Load(); s != nil {
		all = append(all, s.registry)
	}
	return all.Gather()
}

// Figures is that in Prometheus' text format.
func (d *DB) Figures() string {
	var b strings.Builder
	all, _ := d.Gather() //nolint:errcheck // what could be gathered is there
	for _, f := range all {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return ""
		}
	}
	return b.String()
}

// Status is how the room fares.
type Status struct {
	Series  int
	Bytes   int64    // on disk
	Failing string   // why samples cannot be written, or not into blocks; "" they can
	Config  string   // what is wrong with prometheus.yml, which is not in force as it is; "" nothing
	Damaged []string // names of what was set aside, in the folder damaged
	Full    []Full   // projects that have as many series as they may
	Targets int
	Down    int
}

// Status says how the room fares.
func (d *DB) Status() Status {
	s := Status{
		Series: int(d.tsdb.Head().NumSeries()), Bytes: d.bytes(), Failing: d.counts.fails(), Config: d.config.Load().problem,
		Damaged: d.damage.list(), Full: d.bounds.full(time.Now()),
	}
	s.Targets, s.Down = d.health()
	return s
}

// Problem is what of it somebody should look at, in one line; "" nothing.
func (s Status) Problem() string {
	var all []string
	if s.Failing != "" {
		all = append(all, s.Failing)
	}
	if s.Config != "" {
		all = append(all, s.Config)
	}
	for _, f := range s.Full {
		name := "series without a project"
		if f.Project != "" {
			name = "project " + f.Project
		}
		text := fmt.Sprintf("%s has %d series, as many as it may: no new ones are kept", name, f.Series)
		if f.Label != "" {
			text += fmt.Sprintf("; the label %s has %d values", f.Label, f.Values)
		}
		all = append(all, text)
	}
	if n := len(s.Damaged); n > 0 {
		all = append(all, fmt.Sprintf("%d damaged parts of the store of samples were set aside: metrics/%s/%s", n, damagedDir, s.Damaged[n-1]))
	}
	return strings.Join(all, "; ")
}

// bytes are those on disk.
func (d *DB) bytes() (n int64) {
	for _, b := range d.tsdb.Blocks() {
		n += b.Size()
	}
	return n + d.tsdb.Head().Size()
}
