package dns

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
)

// consulVersion is the version of Consul whose API is served, for clients that look at it.
const consulVersion = "1.20.0"

// consul serves the part of Consul's HTTP API that finds services and registers them.
type consul struct {
	s   *Server
	mux *http.ServeMux
}

// Consul returns the handler of Consul's paths, which begin with /v1/: catalogue and health with
// blocking queries, and the agent's registration of services with TTL checks. It asks
// for no token: whoever mounts it does.
func (s *Server) Consul() http.Handler {
	return s.consul(func(c *catalog) *catalog { return c })
}

// consul serves what of the catalogue part lets through.
func (s *Server) consul(part func(*catalog) *catalog) http.Handler {
	c := &consul{s: s, mux: http.NewServeMux()}
	get := func(path string, f func(*http.Request, *catalog) (uint64, view, error)) {
		c.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			s.block(w, r, func(r *http.Request, c *catalog) (uint64, view, error) { return f(r, part(c)) })
		})
	}
	get("/v1/catalog/datacenters", func(_ *http.Request, c *catalog) (uint64, view, error) {
		return c.nodes, func() any { return []string{s.o.Datacenter} }, nil
	})
	get("/v1/catalog/nodes", s.catalogNodes)
	get("/v1/catalog/services", s.catalogServices)
	get("/v1/catalog/service/{name...}", s.catalogService)
	get("/v1/catalog/node/{name}", s.catalogNode)
	get("/v1/health/service/{name...}", s.healthService)
	get("/v1/health/checks/{name...}", s.healthChecks)
	get("/v1/health/state/{state}", s.healthState)
	get("/v1/health/node/{name}", s.healthNode)
	plain := func(pattern string, f func(*http.Request) (any, error)) {
		c.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			v, err := f(r)
			respond(w, r, v, err)
		})
	}
	plain("GET /v1/status/leader", func(*http.Request) (any, error) { return s.o.Address + ":8300", nil })
	plain("GET /v1/status/peers", func(*http.Request) (any, error) { return []string{s.o.Address + ":8300"}, nil })
	plain("GET /v1/agent/self", s.agentSelf)
	plain("GET /v1/agent/members", func(*http.Request) (any, error) { return []any{s.member()}, nil })
	plain("GET /v1/agent/services", s.agentServices)
	plain("GET /v1/agent/service/{id...}", s.agentService)
	plain("GET /v1/agent/checks", s.agentChecks)
	plain("PUT /v1/agent/service/register", s.putService)
	plain("PUT /v1/agent/service/deregister/{id...}", s.deleteService)
	plain("PUT /v1/agent/check/register", s.putCheck)
	plain("PUT /v1/agent/check/deregister/{id...}", s.deleteCheck)
	plain("PUT /v1/agent/check/pass/{id...}", s.report(passing))
	plain("PUT /v1/agent/check/warn/{id...}", s.report(warning))
	plain("PUT /v1/agent/check/fail/{id...}", s.report(critical))
	plain("PUT /v1/agent/check/update/{id...}", s.putUpdate)
	c.mux.HandleFunc("/v1/kv/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "Tender keeps no key/value store. Put settings into the Compose file (environment, configs) "+
			"and secrets into the vault: tender secret set NAME", http.StatusNotImplemented)
	})
	return c
}

func (c *consul) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !c.has(r, r.Method) && !c.has(r, http.MethodGet) && !c.has(r, http.MethodPut) {
		http.Error(w, "Tender serves Consul's catalog, health, and agent services and checks, not "+r.URL.Path, http.StatusNotImplemented)
		return
	}
	c.mux.ServeHTTP(w, r) // which says what methods there are
}

// has reports whether there is something at a request's path for a method.
func (c *consul) has(r *http.Request, method string) bool {
	_, pattern := c.mux.Handler(&http.Request{Method: method, URL: r.URL, Host: r.Host})
	return pattern != ""
}

// refusal is an error with the status that Consul gives it.
type refusal struct {
	status int
	text   string
}

func (e *refusal) Error() string { return e.text }

func refuse(status int, format string, args ...any) error {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

// respond writes a value as Consul does: errors as plain text, nothing as nothing.
func respond(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		status := http.StatusInternalServerError
		if e, ok := errors.AsType[*refusal](err); ok {
			status = e.status
		}
		http.Error(w, err.Error(), status)
		return
	}
	if v == nil {
		return
	}
	var body []byte
	if r.URL.Query().Has("pretty") {
		body, err = json.MarshalIndent(v, "", "    ")
	} else {
		body, err = json.Marshal(v)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n')) // whoever has gone needs no answer
}

func (s *Server) catalogNodes(_ *http.Request, c *catalog) (uint64, view, error) {
	return c.nodes, func() any {
		out := []wireNode{}
		for _, n := range c.hosts {
			out = append(out, s.wireNode(n, c.nodes))
		}
		return out
	}, nil
}

func (s *Server) catalogServices(_ *http.Request, c *catalog) (uint64, view, error) {
	return c.names, func() any {
		out := map[string][]string{}
		for name, l := range c.services {
			out[name] = append([]string{}, l.tags...)
		}
		return out
	}, nil
}

func (s *Server) catalogService(r *http.Request, c *catalog) (uint64, view, error) {
	index, entries := c.of(r.PathValue("name"))
	return index, func() any {
		out := []catalogEntry{}
		for i := range entries {
			if entries[i].tagged(r.URL.Query()["tag"]) {
				out = append(out, s.catalogEntry(&entries[i]))
			}
		}
		return out
	}, nil
}

func (s *Server) catalogNode(r *http.Request, c *catalog) (uint64, view, error) {
	name := r.PathValue("name")
	i := slices.IndexFunc(c.hosts, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return c.nodes, func() any { return json.RawMessage("null") }, nil
	}
	return c.index, func() any {
		services := map[string]agentEntry{}
		for l := range c.on(name) {
			services[l.id()] = s.agentEntry(l)
		}
		return struct {
			Node     wireNode
			Services map[string]agentEntry
		}{s.wireNode(c.hosts[i], c.nodes), services}
	}, nil
}

func (s *Server) healthService(r *http.Request, c *catalog) (uint64, view, error) {
	only, err := flag(r, "passing")
	if err != nil {
		return 0, nil, err
	}
	index, entries := c.of(r.PathValue("name"))
	return index, func() any {
		out := []healthEntry{}
		for i := range entries {
			l := &entries[i]
			if l.tagged(r.URL.Query()["tag"]) && (!only || l.status() == passing) {
				out = append(out, healthEntry{s.wireNode(l.node, l.created), s.agentEntry(l), s.wireChecks(l)})
			}
		}
		return out
	}, nil
}

func (s *Server) healthChecks(r *http.Request, c *catalog) (uint64, view, error) {
	index, entries := c.of(r.PathValue("name"))
	return index, func() any {
		out := []wireCheck{}
		for i := range entries {
			out = append(out, s.wireChecks(&entries[i])...)
		}
		return out
	}, nil
}

func (s *Server) healthState(r *http.Request, c *catalog) (uint64, view, error) {
	state := r.PathValue("state")
	if !slices.Contains([]string{"any", passing, warning, critical}, state) {
		return 0, nil, refuse(http.StatusBadRequest, "unknown state %q: any, passing, warning or critical", state)
	}
	return c.index, func() any {
		out := []wireCheck{}
		for _, name := range slices.Sorted(maps.Keys(c.services)) {
			for i := range c.services[name].entries {
				for _, ch := range s.wireChecks(&c.services[name].entries[i]) {
					if state == "any" || ch.Status == state {
						out = append(out, ch)
					}
				}
			}
		}
		return out
	}, nil
}

func (s *Server) healthNode(r *http.Request, c *catalog) (uint64, view, error) {
	return c.index, func() any {
		out := []wireCheck{}
		for l := range c.on(r.PathValue("name")) {
			out = append(out, s.wireChecks(l)...)
		}
		return out
	}, nil
}

func (s *Server) agentSelf(*http.Request) (any, error) {
	return map[string]any{
		"Config": map[string]any{
			"Datacenter": s.o.Datacenter, "PrimaryDatacenter": s.o.Datacenter, "NodeName": s.o.Node,
			"NodeID": nodeID(s.o.Node), "Server": true, "Version": consulVersion, "VersionMetadata": "tender",
		},
		"Member": s.member(),
		"Meta":   map[string]string{},
	}, nil
}

// member is ourselves as a member of a Consul cluster of one.
func (s *Server) member() any {
	return map[string]any{
		"Name": s.o.Node, "Addr": s.o.Address, "Port": 8301, "Status": 1,
		"Tags": map[string]string{"dc": s.o.Datacenter, "role": "consul", "id": nodeID(s.o.Node)},
	}
}
