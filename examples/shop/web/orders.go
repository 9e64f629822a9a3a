package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Order is one order as it is stored and shown.
type Order struct {
	ID       int64     `json:"id"`
	Item     string    `json:"item"`
	Quantity int       `json:"quantity"`
	Placed   time.Time `json:"placed"`
	By       string    `json:"taken_by"` // the instance that took it
}

// schema may run again and again, and beside instances of the version before.
const schema = `
create table if not exists orders (
	id       bigint generated always as identity primary key,
	item     text not null,
	quantity integer not null check (quantity > 0),
	placed   timestamptz not null default now()
);
alter table orders add column if not exists taken_by text not null default '';
`

// DB keeps orders in Postgres.
type DB struct{ pool *pgxpool.Pool }

// openOrders connects as the environment says. The password comes from a file, so
// that it shows in no process list and no inspect.
func openOrders(ctx context.Context) (*DB, error) {
	conf, err := pgxpool.ParseConfig(os.Getenv("DATABASE"))
	if err != nil {
		return nil, fmt.Errorf("DATABASE: %w", err)
	}
	if file := os.Getenv("DATABASE_PASSWORD_FILE"); file != "" {
		password, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("database password: %w", err)
		}
		conf.ConnConfig.Password = strings.TrimSpace(string(password))
	}
	conf.MaxConns = 5
	pool, err := pgxpool.NewWithConfig(ctx, conf)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	return &DB{pool}, nil
}

// Close ends all connections.
func (d *DB) Close() { d.pool.Close() }

// Ping reports whether the database answers.
func (d *DB) Ping(ctx context.Context) error { return d.pool.Ping(ctx) }

// Migrate makes or changes the tables.
func (d *DB) Migrate(ctx context.Context) error {
	if _, err := d.pool.Exec(ctx, schema); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// Place stores an order and fills in its id and time.
func (d *DB) Place(ctx context.Context, o *Order) error {
	err := d.pool.QueryRow(ctx, `insert into orders (item, quantity, taken_by) values ($1, $2, $3) returning id, placed`,
		o.Item, o.Quantity, o.By).Scan(&o.ID, &o.Placed)
	if err != nil {
		return fmt.Errorf("place order: %w", err)
	}
	return nil
}

// Latest returns at most n orders, the newest first.
func (d *DB) Latest(ctx context.Context, n int) ([]Order, error) {
	rows, err := d.pool.Query(ctx, `select id, item, quantity, placed, taken_by from orders order by id desc limit $1`, n)
	if err != nil {
		return nil, fmt.Errorf("list orders: %w", err)
	}
	orders, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Order])
	if err != nil {
		return nil, fmt.Errorf("list orders: %w", err)
	}
	return orders, nil
}
