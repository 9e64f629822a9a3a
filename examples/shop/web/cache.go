package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Cache is a client of Redis that knows as much of its protocol (RESP2) as the
// shop needs. An empty Addr is a cache that never has anything.
type Cache struct{ Addr string }

// errMiss is what Get returns for a key that is not there.
var errMiss = errors.New("not cached")

// Get returns the value of a key, or errMiss.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, error) {
	return c.do(ctx, "GET", key)
}

// Set stores a value for ttl, to the millisecond.
func (c *Cache) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	_, err := c.do(ctx, "SET", key, string(value), "PX", strconv.FormatInt(max(ttl.Milliseconds(), 1), 10))
	return err
}

// Delete removes a key.
func (c *Cache) Delete(ctx context.Context, key string) error {
	_, err := c.do(ctx, "DEL", key)
	return err
}

// do sends one command on a connection of its own: Redis is one hop away, and the
// shop is no benchmark.
func (c *Cache) do(ctx context.Context, args ...string) ([]byte, error) {
	if c.Addr == "" {
		return nil, errMiss
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", c.Addr)
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	if _, err := io.WriteString(conn, request(args)); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	value, err := reply(bufio.NewReader(conn))
	if err != nil && !errors.Is(err, errMiss) {
		return nil, fmt.Errorf("cache: %s: %w", args[0], err)
	}
	return value, err
}

func request(args []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

// largest is more than a list of orders can be.
const largest = 1 << 20

func reply(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return nil, errors.New("empty reply")
	}
	switch body := line[1:]; line[0] {
	case '+', ':':
		return []byte(body), nil
	case '-':
		return nil, errors.New(body)
	case '$':
		n, err := strconv.Atoi(body)
		if err != nil || n > largest {
			return nil, fmt.Errorf("reply of length %q", body)
		}
		if n < 0 {
			return nil, errMiss
		}
		value := make([]byte, n+2)
		if _, err := io.ReadFull(r, value); err != nil {
			return nil, err
		}
		return value[:n], nil
	}
	return nil, fmt.Errorf("reply %q", line)
}
