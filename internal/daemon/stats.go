package daemon

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/metrics"
)

// Stats says what instances use: from the store of samples, which costs nothing at the
// engine however often it is asked, and from the engine for those that it does not have yet.
func (b *backend) Stats(ctx context.Context, project string, services []string) ([]api.Sample, error) {
	of, err := b.some(project, services, true)
	if err != nil {
		return nil, err
	}
	have := used{}
	if ask := b.ask(); ask != nil {
		if have, err = ask.usage(ctx, project, time.Now(), max(b.config.Sampling, 10*time.Second)); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			b.log.Warn("the store of samples does not say what instances use: the engine is asked", "err", err)
			have = used{}
		}
	}
	var rest []string
	for _, i := range of {
		if !have.has(i) {
			rest = append(rest, i.ID)
		}
	}
	asked, err := b.measured(ctx, rest)
	if err != nil {
		return nil, err
	}
	out := make([]api.Sample, 0, len(of))
	for _, i := range of {
		s, there := asked[i.ID]
		if !there && !have.has(i) {
			continue // it went meanwhile
		}
		s.Instance, s.ID, s.Project, s.Service = i.Name, i.ID, i.Project, i.Service
		s.Restarts, s.Health, s.State, s.Started = i.Restarts, string(i.Health), string(i.State), i.Started
		have.fill(&s, i)
		out = append(out, s)
	}
	return out, nil
}

// measured asks the engine for two samples a moment apart: CPU in percent is their difference.
func (b *backend) measured(ctx context.Context, ids []string) (map[string]api.Sample, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	first, err := b.engine.Stats(ctx, ids)
	if err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(500 * time.Millisecond):
	}
	second, err := b.engine.Stats(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := map[string]api.Sample{}
	for _, id := range ids {
		x, y := first[id], second[id]
		if x.At.IsZero() || y.At.IsZero() {
			continue
		}
		s := api.Sample{Memory: y.Memory, MemoryLimit: y.MemoryLimit, NetRead: y.NetRead, NetSent: y.NetSent, BlkRead: y.BlkRead, BlkSent: y.BlkSent, PIDs: y.PIDs}
		if d := y.At.Sub(x.At); d > 0 {
			s.CPU = 100 * float64(y.CPU-x.CPU) / float64(d)
		}
		out[id] = s
	}
	return out, nil
}

// asks answers an expression of PromQL for one time.
type asks func(ctx context.Context, expr string, at time.Time) ([]metrics.Value, error)

// ask is the store of samples; nil: there is none.
func (b *backend) ask() asks {
	if b.metered == nil {
		return nil
	}
	return b.metered.db.Query
}

// used is what instances use: what is measured of them by the engine's id, what the edge counted by their name.
type used struct {
	now, rate     map[string]map[string]float64 // by series, by id
	requests, p99 map[string]float64
	memory        float64 // of the host, bytes
}

// usage asks for all instances of a project at once; project "": of all. every is how often samples are taken: what
// is older than a few of them is of something that has ended.
func (ask asks) usage(ctx context.Context, project string, at time.Time, every time.Duration) (used, error) {
	recent := fmt.Sprintf("[%dms]", (3*every + every/2).Milliseconds())
	const throughEdge = "[1m]" // it is scraped every 15 s
	u := used{now: map[string]map[string]float64{}, rate: map[string]map[string]float64{}, requests: map[string]float64{}, p99: map[string]float64{}}
	of := ""
	if project != "" {
		of = "project=" + strconv.Quote(project)
	}
	// last_over_time keeps the name of a series, so that one question answers for all gauges and totals.
	values, err := ask(ctx, `last_over_time({__name__=~"container_memory_working_set_bytes|container_spec_memory_limit_bytes|container_threads|`+
		`container_network_(receive|transmit)_bytes_total|container_fs_(reads|writes)_bytes_total", id!="", `+of+`}`+recent+`)`, at)
	if err != nil {
		return u, err
	}
	for _, v := range values {
		name, container := v.Labels["__name__"], whole.FindString(v.Labels["id"])
		if u.now[name] == nil {
			u.now[name] = map[string]float64{}
		}
		u.now[name][container] += v.Value // of all interfaces and devices
	}
	for _, name := range []string{"container_cpu_usage_seconds_total", "container_network_receive_bytes_total", "container_network_transmit_bytes_total"} {
		values, err := ask(ctx, fmt.Sprintf(`sum by (id) (rate(%s{id!="", %s}%s))`, name, of, recent), at)
		if err != nil {
			return u, err
		}
		u.rate[name] = map[string]float64{}
		for _, v := range values {
			u.rate[name][whole.FindString(v.Labels["id"])] = v.Value
		}
	}
	for expr, into := range map[string]map[string]float64{
		`sum by (instance) (rate(tender_edge_requests_total{instance!="", ` + of + `}` + throughEdge + `))`:                                        u.requests,
		`histogram_quantile(0.99, sum by (instance, le) (rate(tender_edge_duration_seconds_bucket{instance!="", ` + of + `}` + throughEdge + `)))`: u.p99,
	} {
		values, err := ask(ctx, expr, at)
		if err != nil {
			return u, err
		}
		for _, v := range values {
			if v.Value == v.Value { // no quantile of nothing
				into[v.Labels["instance"]] = v.Value
			}
		}
	}
	host, err := ask(ctx, `max(node_memory_MemTotal_bytes)`, at)
	if err == nil && len(host) > 0 {
		u.memory = host[0].Value
	}
	return u, err
}

// whole is the engine's id in the name of a control group, which the label id has: /docker/ID or /system.slice/docker-ID.scope.
var whole = regexp.MustCompile(`[0-9a-f]{64}`)

// has reports whether the instance is measured; one that has just started is not yet.
func (u used) has(i tender.Instance) bool {
	_, memory := u.now["container_memory_working_set_bytes"][i.ID]
	_, cpu := u.rate["container_cpu_usage_seconds_total"][i.ID]
	return memory && cpu
}

func (u used) fill(s *api.Sample, i tender.Instance) {
	if u.has(i) {
		c := i.ID
		n := func(series string) int64 { return int64(u.now[series][c]) }
		s.CPU = 100 * u.rate["container_cpu_usage_seconds_total"][c]
		s.Memory, s.MemoryLimit = n("container_memory_working_set_bytes"), n("container_spec_memory_limit_bytes")
		if s.MemoryLimit <= 0 || u.memory > 0 && float64(s.MemoryLimit) > u.memory { // none: the host's memory is the limit
			s.MemoryLimit = int64(u.memory)
		}
		s.NetRead, s.NetSent = n("container_network_receive_bytes_total"), n("container_network_transmit_bytes_total")
		s.BlkRead, s.BlkSent = n("container_fs_reads_bytes_total"), n("container_fs_writes_bytes_total")
		s.PIDs = int(n("container_threads"))
		s.NetReadRate = known(u.rate["container_network_receive_bytes_total"], c)
		s.NetSentRate = known(u.rate["container_network_transmit_bytes_total"], c)
	}
	s.Requests, s.P99 = known(u.requests, i.Name), known(u.p99, i.Name)
}

func known(m map[string]float64, key string) *float64 {
	if v, there := m[key]; there {
		return &v
	}
	return nil
}
