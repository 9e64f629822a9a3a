package main

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// shelf is a database in memory.
type shelf struct {
	orders []Order
	away   error
}

func (s *shelf) Ping(context.Context) error { return s.away }

func (s *shelf) Place(_ context.Context, o *Order) error {
	o.ID = int64(len(s.orders) + 1)
	s.orders = append([]Order{*o}, s.orders...)
	return s.away
}

func (s *shelf) Latest(_ context.Context, n int) ([]Order, error) {
	return s.orders[:min(n, len(s.orders))], s.away
}

func ask(t *testing.T, s *Shop, method, path, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w.Code, strings.TrimSpace(w.Body.String())
}

func TestShop(t *testing.T) {
	db := &shelf{}
	s := &Shop{Config: Config{Name: "Test", List: 1}, Host: "h1", Orders: db, Cache: &Cache{}, Log: slog.New(slog.DiscardHandler)}
	for _, step := range []struct {
		name, method, path, body string
		code                     int
		want                     string
	}{
		{"an empty shop lists nothing", "GET", "/orders", "", 200, `[]`},
		{"an order is taken", "POST", "/orders", `{"item":"tea","quantity":2}`, 201, `{"id":1,"item":"tea","quantity":2,"placed":"0001-01-01T00:00:00Z","taken_by":"h1"}`},
		{"the quantity is one when not said", "POST", "/orders", `{"item":"cup"}`, 201, `{"id":2,"item":"cup","quantity":1,"placed":"0001-01-01T00:00:00Z","taken_by":"h1"}`},
		{"the list is as long as configured", "GET", "/orders", "", 200, `[{"id":2,"item":"cup","quantity":1,"placed":"0001-01-01T00:00:00Z","taken_by":"h1"}]`},
		{"an order without item is refused", "POST", "/orders", `{"quantity":1}`, 400, `{"error":"an order has an item and a quantity of 1 to 1000"}`},
		{"what is no JSON is refused", "POST", "/orders", `tea`, 400, `{"error":"not an order: invalid character 'e' in literal true (expecting 'r')"}`},
		{"health", "GET", "/health", "", 200, `{"status":"ok"}`},
		{"home", "GET", "/", "", 200, `{"instance":"h1","name":"Test","version":"dev"}`},
	} {
		if code, got := ask(t, s, step.method, step.path, step.body); code != step.code || got != step.want {
			t.Errorf("%s: got %d %s, want %d %s", step.name, code, got, step.code, step.want)
		}
	}
	ask(t, s, "GET", "/made/up", "")
	_, got := ask(t, s, "GET", "/metrics", "")
	for _, want := range []string{
		"shop_orders_total 2", `app_requests_total{method="POST",endpoint="/orders"} 4`, `app_requests_total{method="GET",endpoint="/"} 1`,
		`app_requests_total{method="other",endpoint="other"} 1`, "app_request_duration_seconds_count 9", "app_active_connections 0", "app_failed_requests_total 0",
	} {
		if !strings.Contains(got+"\n", want+"\n") {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	db.away = errors.New("gone")
	if code, _ := ask(t, s, "GET", "/health", ""); code != http.StatusServiceUnavailable {
		t.Errorf("health without a database: %d", code)
	}
}

func TestReply(t *testing.T) {
	for in, want := range map[string]string{
		"+OK\r\n":              "OK",
		":3\r\n":               "3",
		"$5\r\na\r\nbc\r\n":    "a\r\nbc",
		"$0\r\n\r\n":           "",
		"$-1\r\n":              "error: not cached",
		"-ERR no\r\n":          "error: ERR no",
		"$9999999999\r\nx":     `error: reply of length "9999999999"`,
		"$9\r\nshort\r\n":      "error: unexpected EOF",
		"\r\n":                 "error: empty reply",
		"*1\r\n+nested\r\n":    `error: reply "*1"`,
		"no end":               "error: EOF",
		"$notanumber\r\nx\r\n": `error: reply of length "notanumber"`,
	} {
		got, err := reply(bufio.NewReader(strings.NewReader(in)))
		said := string(got)
		if err != nil {
			said = "error: " + err.Error()
		}
		if said != want {
			t.Errorf("%q: got %q, want %q", in, said, want)
		}
	}
}

func TestConfig(t *testing.T) {
	for in, want := range map[string]string{
		"# a shop\nname: A: B\nlog_level: debug\nlist: 3\ncache_for: 5s\n": "",
		"nme: x":         `line 1: unknown key "nme"`,
		"\nlist: many":   `line 2: strconv.Atoi: parsing "many": invalid syntax`,
		"just a line":    `line 1: "just a line" is not key: value`,
		"cache_for: ten": `line 1: time: invalid duration "ten"`,
	} {
		c, err := parseConfig(strings.NewReader(in))
		said := ""
		if err != nil {
			said = err.Error()
		}
		if said != want {
			t.Errorf("%q: got %q, want %q", in, said, want)
		}
		if want == "" && (c != Config{Name: "A: B", LogLevel: slog.LevelDebug, List: 3, CacheFor: 5 * time.Second}) {
			t.Errorf("%q: got %+v", in, c)
		}
	}
}
