package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// Orders is where orders lie.
type Orders interface {
	Ping(ctx context.Context) error
	Place(ctx context.Context, o *Order) error
	Latest(ctx context.Context, n int) ([]Order, error)
}

// Shop answers HTTP requests.
type Shop struct {
	Config Config
	Host   string // this instance, in answers and orders
	Orders Orders
	Cache  *Cache
	Log    *slog.Logger

	metrics metrics
}

const latest = "shop:orders:latest"

// Handler returns all routes: /, /orders, /health and /metrics.
func (s *Shop) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.home)
	mux.HandleFunc("GET /orders", s.list)
	mux.HandleFunc("POST /orders", s.place)
	mux.HandleFunc("GET /health", s.health)
	mux.HandleFunc("GET /metrics", s.metrics.handle)
	return s.observe(mux)
}

func (s *Shop) home(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]string{"name": s.Config.Name, "version": version, "instance": s.Host})
}

// health says no when the database is away: without it no order can be taken.
// A cache that is away only makes the shop slower.
func (s *Shop) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	if err := s.Orders.Ping(ctx); err != nil {
		answer(w, http.StatusServiceUnavailable, map[string]string{"status": "no database"})
		s.Log.Warn("unhealthy", "error", err.Error())
		return
	}
	answer(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (s *Shop) place(w http.ResponseWriter, r *http.Request) {
	var o Order
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&o); err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": "not an order: " + err.Error()})
		return
	}
	o.Item = strings.TrimSpace(o.Item)
	if o.Quantity == 0 {
		o.Quantity = 1
	}
	if o.Item == "" || o.Quantity < 0 || o.Quantity > 1000 {
		answer(w, http.StatusBadRequest, map[string]string{"error": "an order has an item and a quantity of 1 to 1000"})
		return
	}
	o.By = s.Host
	if err := s.Orders.Place(r.Context(), &o); err != nil {
		s.fail(w, err)
		return
	}
	s.metrics.orders.Add(1)
	s.Log.Info("order placed", "order", o.ID, "item", o.Item, "quantity", o.Quantity)
	if err := s.Cache.Delete(r.Context(), latest); err != nil && !errors.Is(err, errMiss) {
		s.Log.Warn("stale list stays cached", "for", s.Config.CacheFor.String(), "error", err.Error())
	}
	answer(w, http.StatusCreated, o)
}

func (s *Shop) list(w http.ResponseWriter, r *http.Request) {
	if cached, err := s.Cache.Get(r.Context(), latest); err == nil {
		w.Header().Set("X-Cache", "hit")
		answer(w, http.StatusOK, json.RawMessage(cached))
		return
	} else if !errors.Is(err, errMiss) {
		s.Log.Warn("no cache", "error", err.Error())
	}
	orders, err := s.Orders.Latest(r.Context(), s.Config.List)
	if err != nil {
		s.fail(w, err)
		return
	}
	if orders == nil {
		orders = []Order{}
	}
	body, err := json.Marshal(orders)
	if err != nil {
		s.fail(w, err)
		return
	}
	if err := s.Cache.Set(r.Context(), latest, body, s.Config.CacheFor); err != nil && !errors.Is(err, errMiss) {
		s.Log.Warn("list not cached", "error", err.Error())
	}
	w.Header().Set("X-Cache", "miss")
	answer(w, http.StatusOK, json.RawMessage(body))
}

func (s *Shop) fail(w http.ResponseWriter, err error) {
	s.Log.Error("request failed", "error", err.Error())
	answer(w, http.StatusInternalServerError, map[string]string{"error": "something went wrong; the log knows more"})
}

// observe counts and logs every request but the probes.
func (s *Shop) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w, code: http.StatusOK}
		next.ServeHTTP(rec, r)
		took := time.Since(start)
		s.metrics.request(r.Method, r.Pattern, rec.code, took)
		if r.URL.Path == "/health" || r.URL.Path == "/metrics" {
			return
		}
		s.Log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", rec.code, "ms", took.Milliseconds())
	})
}

type recorder struct {
	http.ResponseWriter
	code int
}

func (r *recorder) WriteHeader(code int) {
	r.code = code
	r.ResponseWriter.WriteHeader(code)
}

func answer(w http.ResponseWriter, code int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	fmt.Fprintf(w, "%s\n", b)
}
