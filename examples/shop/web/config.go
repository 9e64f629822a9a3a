package main

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"
)

// Config is what differs between environments.
type Config struct {
	Name     string
	LogLevel slog.Level
	List     int           // how many orders GET /orders lists
	CacheFor time.Duration // how long that list may be cached
}

func readConfig(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	c, err := parseConfig(f)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

// parseConfig reads lines "key: value" with # comments: the flat part of YAML,
// which is all that the shop needs.
func parseConfig(r io.Reader) (Config, error) {
	c := Config{Name: "Shop", List: 20, CacheFor: time.Second}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			return c, fmt.Errorf("line %d: %q is not key: value", n, line)
		}
		value = strings.TrimSpace(value)
		var err error
		switch key {
		case "name":
			c.Name = value
		case "log_level":
			err = c.LogLevel.UnmarshalText([]byte(value))
		case "list":
			c.List, err = strconv.Atoi(value)
		case "cache_for":
			c.CacheFor, err = time.ParseDuration(value)
		default:
			err = fmt.Errorf("unknown key %q", key)
		}
		if err != nil {
			return c, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return c, lines.Err()
}
