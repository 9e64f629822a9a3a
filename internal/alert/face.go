package alert

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/alertmanager/api"
	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/route"
)

// face is Alertmanager's API. It is made when somebody first asks: its description of itself,
// by which it checks requests, is two megabytes.
type face struct {
	began   time.Time
	handler func() (http.Handler, error) // makes it, once

	mu    sync.Mutex
	api   *api.API       // nil: nobody has asked
	conf  *config.Config // what is in force
	mutes func(context.Context, model.LabelSet)
}

func newFace(make func() (*api.API, error)) *face {
	f := &face{began: time.Now()}
	f.handler = sync.OnceValues(func() (http.Handler, error) {
		a, err := make()
		if err != nil {
			return nil, err
		}
		f.mu.Lock()
		f.api = a
		f.mu.Unlock()
		f.update(nil, nil)
		return a.Register(route.New(), "/"), nil
	})
	return f
}

// update says what is in force from now on; nil: what was.
func (f *face) update(conf *config.Config, mutes func(context.Context, model.LabelSet)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if conf != nil {
		f.conf, f.mutes = conf, mutes
	}
	if f.api != nil && f.conf != nil {
		f.api.Update(f.conf, f.mutes)
	}
}

// ServeHTTP is http.Handler's.
func (f *face) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, err := f.handler()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if r.URL.Path != "/api/v2/status" {
		h.ServeHTTP(w, r)
		return
	}
	is := &written{header: http.Header{}, status: http.StatusOK}
	h.ServeHTTP(is, r)
	body := f.since(is.body.Bytes())
	maps.Copy(w.Header(), is.header)
	w.Header().Del("Content-Length")
	w.WriteHeader(is.status)
	_, _ = w.Write(body) // who asked may have gone
}

// since corrects in a status from when it runs.
func (f *face) since(status []byte) []byte {
	var is map[string]json.RawMessage
	if json.Unmarshal(status, &is) != nil || is["uptime"] == nil { // a refusal
		return status
	}
	began, err := json.Marshal(f.began.UTC().Truncate(time.Millisecond))
	if err != nil {
		return status
	}
	is["uptime"] = began
	if out, err := json.Marshal(is); err == nil {
		return append(out, '\n')
	}
	return status
}
