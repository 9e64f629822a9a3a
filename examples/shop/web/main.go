// Command web is the shop: it takes orders over HTTP, keeps them in Postgres and
// caches the list of the latest ones in Redis.
//
//	web serve      answers on :8080 until SIGTERM (what the image runs)
//	web migrate    makes the tables and ends
//	web health     asks /health of the instance it runs in; the healthcheck
//
// Environment: DATABASE (a postgres:// URL), DATABASE_PASSWORD_FILE, CACHE
// (host:port), CONFIG (/etc/shop/config.yml), LISTEN (:8080).
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// version is set by the linker.
var version = "dev"

// drain is how long open requests may take after SIGTERM; the Compose file's
// stop_grace_period is longer.
const drain = 10 * time.Second

func main() {
	command := "serve"
	if len(os.Args) > 1 {
		command = os.Args[1]
	}
	host, _ := os.Hostname()
	log := slog.New(slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{Level: &level})).
		With("version", version, "instance", host)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	var err error
	switch command {
	case "serve":
		err = serve(ctx, log, host)
	case "migrate":
		err = migrateAll(ctx, log)
	case "health":
		err = health(ctx)
	default:
		err = fmt.Errorf("unknown command %q: serve, migrate or health", command)
	}
	if err != nil {
		log.Error(command, "error", err.Error())
		os.Exit(1)
	}
}

// level is the least level that is logged; the configuration sets it.
var level slog.LevelVar

func listen() string { return cmp.Or(os.Getenv("LISTEN"), ":8080") }

func serve(ctx context.Context, log *slog.Logger, host string) error {
	conf, err := readConfig(cmp.Or(os.Getenv("CONFIG"), "/etc/shop/config.yml"))
	if err != nil {
		return err
	}
	level.Set(conf.LogLevel)
	db, err := openOrders(ctx)
	if err != nil {
		return err
	}
	defer db.Close()

	shop := &Shop{Config: conf, Host: host, Orders: db, Cache: &Cache{Addr: os.Getenv("CACHE")}, Log: log}
	srv := &http.Server{Addr: listen(), Handler: shop.Handler(), ReadHeaderTimeout: 10 * time.Second, ConnState: shop.metrics.connection}
	done := make(chan error, 1)
	go func() { done <- srv.ListenAndServe() }()
	log.Info("listening", "address", srv.Addr, "name", conf.Name)

	select {
	case err := <-done:
		return fmt.Errorf("listen: %w", err)
	case <-ctx.Done():
	}
	log.Info("draining", "at_most", drain.String())
	last, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if err := srv.Shutdown(last); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	log.Info("bye")
	return nil
}

func migrateAll(ctx context.Context, log *slog.Logger) error {
	db, err := openOrders(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Migrate(ctx); err != nil {
		return err
	}
	log.Info("migrated")
	return nil
}

// health is a command because the image has no shell and no curl.
func health(ctx context.Context) error {
	_, port, err := net.SplitHostPort(listen())
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+port+"/health", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("/health answers %s", res.Status)
	}
	return nil
}
