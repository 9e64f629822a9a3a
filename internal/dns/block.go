package dns

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// How long a blocking query waits: as in Consul's documentation, with up to a sixteenth more
// so that many who began together do not end together.
const (
	defaultWait = 5 * time.Minute
	longestWait = 10 * time.Minute
)

// view makes what a query answers. It is called once it is known that it will be sent: many may
// wait, and each looks at the index alone.
type view func() any

// block answers a query of the catalogue. With ?index= it waits until what was asked for has
// a higher index, at most for ?wait=, and then answers whatever there is: Consul's rules,
// https://developer.hashicorp.com/consul/api-docs/features/blocking.
func (s *Server) block(w http.ResponseWriter, r *http.Request, f func(*http.Request, *catalog) (uint64, view, error)) {
	after, wait, err := s.asked(r)
	if err != nil {
		respond(w, r, nil, err)
		return
	}
	var timer *time.Timer
	for {
		st := s.state.Load()
		index, v, err := f(r, st.catalog)
		if err != nil {
			respond(w, r, nil, err)
			return
		}
		if after == 0 || index > after {
			answer(w, r, index, v())
			return
		}
		if timer == nil {
			select {
			case s.waiters <- struct{}{}:
				defer func() { <-s.waiters }()
			default:
				w.Header().Set("Retry-After", "1")
				respond(w, r, nil, refuse(http.StatusTooManyRequests, "too many blocking queries: at most %d at a time", cap(s.waiters)))
				return
			}
			timer = time.NewTimer(wait + rand.N(wait/16+1))
			defer timer.Stop()
		}
		select {
		case <-st.next:
		case <-timer.C:
			// What it would answer now, which may have an index below the one asked for.
			if index, v, err = f(r, s.state.Load().catalog); err != nil {
				respond(w, r, nil, err)
				return
			}
			answer(w, r, index, v())
			return
		case <-r.Context().Done():
			return
		}
	}
}

func answer(w http.ResponseWriter, r *http.Request, index uint64, v any) {
	w.Header().Set("X-Consul-Index", strconv.FormatUint(max(index, 1), 10)) // 0 would make clients ask without end
	w.Header().Set("X-Consul-KnownLeader", "true")
	w.Header().Set("X-Consul-LastContact", "0")
	respond(w, r, v, nil)
}

// asked reads what all queries of the catalogue may say.
func (s *Server) asked(r *http.Request) (after uint64, wait time.Duration, err error) {
	q := r.URL.Query()
	if dc := q.Get("dc"); dc != "" && dc != s.o.Datacenter {
		return 0, 0, refuse(http.StatusInternalServerError, "No path to datacenter")
	}
	for _, name := range []string{"filter", "node-meta"} {
		if q.Get(name) != "" {
			return 0, 0, refuse(http.StatusBadRequest, "?%s is not supported: ask for a service, a tag, or ?passing", name)
		}
	}
	if text := q.Get("index"); text != "" {
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			return 0, 0, refuse(http.StatusBadRequest, "Invalid index")
		}
	}
	if text := q.Get("wait"); text != "" {
		if wait, err = time.ParseDuration(text); err != nil || wait < 0 {
			return 0, 0, refuse(http.StatusBadRequest, "Invalid wait time")
		}
	}
	if wait == 0 {
		wait = defaultWait
	}
	return after, min(wait, longestWait), nil
}

// flag reads a parameter that says yes by being there.
func flag(r *http.Request, name string) (bool, error) {
	q := r.URL.Query()
	if !q.Has(name) {
		return false, nil
	}
	if q.Get(name) == "" {
		return true, nil
	}
	on, err := strconv.ParseBool(q.Get(name))
	if err != nil {
		return false, refuse(http.StatusBadRequest, "Invalid value for ?%s", name)
	}
	return on, nil
}
