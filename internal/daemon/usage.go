package daemon

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/plan"
)

// usage is what instances were measured to use: cores and bytes, by word and
// revision, and the name of the instance.
type usage struct {
	of      map[usedBy]map[string]float64
	missing map[string]string // by word: why there is nothing
}

type usedBy struct{ word, project, service, revision string }

// usageExprs ask for the words of x-tender.scale. What is older than %[1]d seconds
// is no answer.
var usageExprs = map[string]string{
	"cpu":    `sum by (project, service, revision, instance) (rate(container_cpu_usage_seconds_total{service!=""}[%[1]ds]))`,
	"memory": `sum by (project, service, revision, instance) (last_over_time(container_memory_working_set_bytes{service!=""}[%[1]ds]))`,
}

// measure asks once for all services.
func (s *scaling) measure(ctx context.Context, all []deploy.Scaled, now time.Time) usage {
	u := usage{of: map[usedBy]map[string]float64{}, missing: map[string]string{}}
	words := map[string]bool{"memory": true} // also what a newcomer needs
	for _, v := range all {
		words["cpu"] = words["cpu"] || v.Rule.CPU > 0
	}
	for word := range words {
		if !words[word] {
			continue
		}
		if s.query == nil {
			u.missing[word] = "metrics are off"
			continue
		}
		values, err := s.query(ctx, fmt.Sprintf(usageExprs[word], int(s.span.Seconds())), now)
		if err != nil {
			u.missing[word] = err.Error()
			continue
		}
		for _, v := range values {
			by := usedBy{word, v.Labels["project"], v.Labels["service"], v.Labels["revision"]}
			if u.of[by] == nil {
				u.of[by] = map[string]float64{}
			}
			u.of[by][v.Labels["instance"]] = v.Value
		}
	}
	return u
}

// load is what the ready instances of a service use of what each may use, on
// average.
func (u usage) load(word string, v deploy.Scaled, target, each float64, now time.Time) plan.Load {
	l := plan.Load{Word: word, Target: target}
	values := u.of[usedBy{word, v.Project, v.Service, v.Revision}]
	sum := 0.0
	for _, i := range v.Instances {
		// A newcomer gets the name of its slot once that is free; it is measured by that name from the first.
		if x, ok := values[strings.TrimSuffix(i.Name, "-"+i.Revision)]; ok {
			sum += x
			l.Of++
		}
	}
	switch {
	case each <= 0:
		l.Missing = "it has no limit, and the memory of the node is not known"
	case l.Of == 0:
		l.Missing = cmp.Or(u.missing[word], "none of its instances was measured yet")
	default:
		l.Value, l.At = sum/float64(l.Of)/each, now
	}
	return l
}

// most is what the instance that uses most of a service uses; 0: not known.
func (u usage) most(word string, v deploy.Scaled) (most float64) {
	for _, x := range u.of[usedBy{word, v.Project, v.Service, v.Revision}] {
		most = max(most, x)
	}
	return most
}

// nodeMemory is what the node has and what of it nobody uses, in bytes.
type nodeMemory struct{ Total, Available int64 }

// spare is what newcomers may take: a twentieth of all, and 64 MiB at least, stays free.
func (n nodeMemory) spare() int64 { return n.Available - max(n.Total/20, 64<<20) }

// readMemory reads it from a file like /proc/meminfo.
func readMemory(path string) (n nodeMemory, err error) {
	f, err := os.Open(path)
	if err != nil {
		return n, fmt.Errorf("read the node's memory: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		to := map[string]*int64{"MemTotal": &n.Total, "MemAvailable": &n.Available}[name]
		if to == nil {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			return n, fmt.Errorf("read the node's memory: %s: %w", name, err)
		}
		*to = kib << 10
	}
	if err := lines.Err(); err != nil {
		return n, fmt.Errorf("read the node's memory: %w", err)
	}
	if n.Total == 0 || n.Available == 0 {
		return n, fmt.Errorf("read the node's memory: %s does not say MemTotal and MemAvailable", path)
	}
	return n, nil
}
