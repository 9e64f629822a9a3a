package metrics

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/protobuf/proto"
)

// last is the newest sample of a series.
type last struct {
	labels labels.Labels
	at     int64
	value  float64
	hist   *histogram.FloatHistogram
}

// federate answers another Prometheus with the newest sample of each series that
// match[] chooses, as Prometheus does.
func (d *DB) federate(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	chosen, err := d.parser.ParseMetricSelectors(r.Form["match[]"])
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	all, err := d.newest(r, chosen)
	if err != nil {
		d.asked(err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	format := expfmt.NegotiateAccept(r.Header, expfmt.NewFormat(expfmt.TypeProtoDelim), expfmt.NewFormat(expfmt.TypeProtoText), expfmt.NewFormat(expfmt.TypeProtoCompact), expfmt.NewFormat(expfmt.TypeTextPlain))
	w.Header().Set("Content-Type", string(format))
	out := expfmt.NewEncoder(w, format)
	binary := format.FormatType() != expfmt.TypeTextPlain
	var family *dto.MetricFamily
	for _, s := range all {
		if s.hist != nil && !s.hist.UsesCustomBuckets() && !binary { // text has no words for it
			continue
		}
		kind, m := s.metric(d.Config().GlobalConfig.ExternalLabels)
		name := s.labels.Get(model.MetricNameLabel)
		if family != nil && (family.GetName() != name || family.GetType() != kind) {
			if err := out.Encode(family); err != nil { // who asked has gone
				return
			}
			family = nil
		}
		if family == nil {
			family = &dto.MetricFamily{Name: &name, Type: kind.Enum()}
		}
		family.Metric = append(family.Metric, m)
	}
	if family != nil {
		_ = out.Encode(family)
	}
	if c, ok := out.(expfmt.Closer); ok {
		_ = c.Close()
	}
}

// newest reads the last sample of each series, in the order of their names.
func (d *DB) newest(r *http.Request, chosen [][]*labels.Matcher) ([]last, error) {
	to := time.Now()
	hints := &storage.SelectHints{Start: to.Add(-lookback).UnixMilli(), End: to.UnixMilli()}
	q, err := d.tsdb.Querier(hints.Start, hints.End)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	sets := make([]storage.SeriesSet, 0, len(chosen))
	for _, m := range chosen {
		sets = append(sets, q.Select(r.Context(), true, hints, m...))
	}
	var out []last
	var it chunkenc.Iterator
	set := storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
	for set.Next() {
		it = set.At().Iterator(it)
		s, seen := last{labels: set.At().Labels()}, false
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			seen, s.hist = true, nil
			switch kind {
			case chunkenc.ValFloat:
				s.at, s.value = it.At()
			default:
				s.at, s.hist = it.AtFloatHistogram(nil)
				s.value = s.hist.Sum
			}
		}
		if err := it.Err(); err != nil {
			return nil, fmt.Errorf("read %s: %w", s.labels, err)
		}
		// What has ended has no sample; texts have no word for the end.
		if seen && !value.IsStaleNaN(s.value) && s.labels.Has(model.MetricNameLabel) {
			out = append(out, s)
		}
	}
	if err := set.Err(); err != nil && !errors.Is(err, r.Context().Err()) {
		return nil, err
	}
	slices.SortStableFunc(out, func(a, b last) int {
		return cmp.Or(cmp.Compare(a.labels.Get(model.MetricNameLabel), b.labels.Get(model.MetricNameLabel)), cmp.Compare(a.kind(), b.kind()))
	})
	return out, nil
}

func (s last) kind() dto.MetricType {
	switch {
	case s.hist == nil:
		return dto.MetricType_UNTYPED
	case s.hist.CounterResetHint == histogram.GaugeType:
		return dto.MetricType_GAUGE_HISTOGRAM
	}
	return dto.MetricType_HISTOGRAM
}

// metric is the sample as it is sent; labels of all that is ours come with it where it
// has no such label. One without an instance says so, or it would get that of the asker's.
func (s last) metric(external labels.Labels) (dto.MetricType, *dto.Metric) {
	m := &dto.Metric{TimestampMs: proto.Int64(s.at)}
	add := func(l labels.Label) {
		m.Label = append(m.Label, &dto.LabelPair{Name: proto.String(l.Name), Value: proto.String(l.Value)})
	}
	s.labels.Range(func(l labels.Label) {
		if l.Name != model.MetricNameLabel {
			add(l)
		}
	})
	external.Range(func(l labels.Label) {
		if !s.labels.Has(l.Name) {
			add(l)
		}
	})
	if !s.labels.Has(model.InstanceLabel) && !external.Has(model.InstanceLabel) {
		add(labels.Label{Name: model.InstanceLabel})
	}
	switch {
	case s.hist == nil:
		m.Untyped = &dto.Untyped{Value: proto.Float64(s.value)}
	case s.hist.UsesCustomBuckets():
		m.Histogram = classic(s.hist)
	default:
		m.Histogram = native(s.hist)
	}
	return s.kind(), m
}

// native is a histogram with exponential buckets.
func native(h *histogram.FloatHistogram) *dto.Histogram {
	spans := func(all []histogram.Span) (out []*dto.BucketSpan) {
		for _, s := range all {
			out = append(out, &dto.BucketSpan{Offset: proto.Int32(s.Offset), Length: proto.Uint32(s.Length)})
		}
		return out
	}
	out := &dto.Histogram{
		SampleCountFloat: proto.Float64(h.Count), SampleSum: proto.Float64(h.Sum), Schema: proto.Int32(h.Schema),
		ZeroThreshold: proto.Float64(h.ZeroThreshold), ZeroCountFloat: proto.Float64(h.ZeroCount),
		NegativeSpan: spans(h.NegativeSpans), NegativeCount: h.NegativeBuckets, PositiveSpan: spans(h.PositiveSpans), PositiveCount: h.PositiveBuckets,
	}
	if len(out.PositiveSpan) == 0 && len(out.NegativeSpan) == 0 && h.ZeroThreshold == 0 && h.ZeroCount == 0 {
		// One without buckets says by an empty span that it is native.
		out.PositiveSpan = []*dto.BucketSpan{{Offset: proto.Int32(0), Length: proto.Uint32(0)}}
	}
	return out
}

// classic is a histogram whose bounds were given.
func classic(h *histogram.FloatHistogram) *dto.Histogram {
	out := &dto.Histogram{SampleCountFloat: proto.Float64(h.Count), SampleSum: proto.Float64(h.Sum)}
	it, sum := h.PositiveBucketIterator(), 0.0
	more := it.Next()
	for i, upper := range h.CustomValues { // empty buckets are not in the iterator
		for ; more && int(it.At().Index) <= i; more = it.Next() {
			sum += it.At().Count
		}
		out.Bucket = append(out.Bucket, &dto.Bucket{CumulativeCountFloat: proto.Float64(sum), UpperBound: proto.Float64(upper)})
	}
	return out
}
