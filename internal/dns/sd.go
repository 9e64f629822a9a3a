package dns

import (
	"cmp"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// scrape serves Prometheus' HTTP service discovery.
type scrape struct{ s *Server }

// group is one target with its labels: https://prometheus.io/docs/prometheus/latest/http_sd/.
type group struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// SD returns the handler for Prometheus' http_sd_configs: every port of every instance as
// a target, healthy or not, for what is not healthy is what one wants to see. ?project=,
// ?service=, ?port= (name or number) and ?healthy choose among them.
func (s *Server) SD() http.Handler { return &scrape{s} }

func (h *scrape) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method "+r.Method+" not allowed", http.StatusMethodNotAllowed)
		return
	}
	only, err := flag(r, "healthy")
	if err != nil {
		respond(w, r, nil, err)
		return
	}
	q := r.URL.Query()
	wanted := func(key, have string) bool { return q.Get(key) == "" || q.Get(key) == have }
	out := []group{}
	p := h.s.Picture()
	for i := range p.Services {
		svc := &p.Services[i]
		if !wanted("project", svc.Project) || !wanted("service", svc.Name) {
			continue
		}
		for j := range svc.Endpoints {
			e := &svc.Endpoints[j]
			if only && !e.Healthy || e.Address == "" {
				continue
			}
			for _, port := range svc.portsOf(e) {
				if wanted("port", port.Name) || wanted("port", strconv.Itoa(port.Number)) {
					out = append(out, target(svc, e, port))
				}
			}
		}
	}
	body, err := json.Marshal(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n')) // whoever has gone needs no answer
}

// portsOf returns all ports of an endpoint; one that is zero where none is known.
func (s *Service) portsOf(e *Endpoint) []Port {
	ports := slices.Clone(s.Ports)
	if len(ports) == 0 {
		ports = []Port{{}}
	}
	ports[0].Number = s.port(e)
	return slices.DeleteFunc(ports, func(p Port) bool { return p.Protocol != "" && p.Protocol != "tcp" })
}

func target(s *Service, e *Endpoint, port Port) group {
	address := e.Address
	if port.Number > 0 {
		address = net.JoinHostPort(e.Address, strconv.Itoa(port.Number))
	}
	labels := map[string]string{
		"__meta_tender_project":     s.Project,
		"__meta_tender_service":     s.Name,
		"__meta_tender_instance":    cmp.Or(e.Name, e.ID),
		"__meta_tender_instance_id": e.ID,
		"__meta_tender_node":        e.Node,
		"__meta_tender_healthy":     strconv.FormatBool(e.Healthy),
		"__meta_tender_foreign":     strconv.FormatBool(s.Foreign),
		"__meta_tender_address":     e.Address,
		"__meta_tender_port_name":   port.Name,
		// With commas around it, as Prometheus does elsewhere: so ",tag," finds whole tags only.
		"__meta_tender_tags": "",
	}
	if len(s.Tags) > 0 {
		labels["__meta_tender_tags"] = "," + strings.Join(s.Tags, ",") + ","
	}
	if port.Number > 0 {
		labels["__meta_tender_port"] = strconv.Itoa(port.Number)
	}
	if e.Slot > 0 {
		labels["__meta_tender_slot"] = strconv.Itoa(e.Slot)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Meta)) {
		labels["__meta_tender_meta_"+labelName(k)] = s.Meta[k]
	}
	return group{[]string{address}, labels}
}

// labelName makes a key fit for the name of a label.
func labelName(key string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, key)
}
