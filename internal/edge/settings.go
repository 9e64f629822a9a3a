package edge

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/proxy"
)

// SettingsFile lies in Config.Dir: what serve wants an edge to be started with,
// so that it starts after a reboot with serve away.
const SettingsFile = "edge.json"

// settings is Config as it lies on disk.
type settings struct {
	HTTP    []string       `json:"http,omitempty"`
	HTTPS   []string       `json:"https,omitempty"`
	DNS     []string       `json:"dns,omitempty"`
	Drain   time.Duration  `json:"drain,omitempty"`
	Grace   time.Duration  `json:"grace,omitempty"`
	ACME    proxy.ACME     `json:"acme"`
	Trusted []netip.Prefix `json:"trusted,omitempty"`
	// NoAccess is left out where there is a log, as before there was one: the same settings restart no edge.
	NoAccess bool `json:"no_access,omitempty"`
}

func (c Config) settings() settings {
	return settings{HTTP: c.HTTP, HTTPS: c.HTTPS, DNS: c.DNS, Drain: c.Drain, Grace: c.Grace, ACME: c.ACME, Trusted: c.Trusted, NoAccess: c.NoAccess}
}

// sum tells settings apart.
func (c Config) sum() string {
	c = c.filled()
	raw, err := json.Marshal(c.settings())
	if err != nil { // nothing in it can fail
		panic(err)
	}
	h := sha256.Sum256(raw)
	return hex.EncodeToString(h[:8])
}

// Load returns the settings that lie in dir; where there are none, the zero Config of dir.
func Load(dir string) (Config, error) {
	if dir == "" {
		dir = DefaultDir
	}
	path := filepath.Join(dir, SettingsFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{Dir: dir}, nil
	}
	if err != nil {
		return Config{}, fmt.Errorf("read the edge's settings: %w", err)
	}
	var s settings
	if err := json.Unmarshal(raw, &s); err != nil {
		return Config{}, tender.Errorf(tender.Invalid, "read the edge's settings: %s: %w", path, err).Hint("remove it; tender serve writes it anew")
	}
	return Config{Dir: dir, HTTP: s.HTTP, HTTPS: s.HTTPS, DNS: s.DNS, Drain: s.Drain, Grace: s.Grace, ACME: s.ACME, Trusted: s.Trusted, NoAccess: s.NoAccess}, nil
}

func (c Config) save() error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("write the edge's settings: %w", err)
	}
	raw, err := json.MarshalIndent(c.settings(), "", "  ")
	if err != nil {
		return fmt.Errorf("write the edge's settings: %w", err)
	}
	if err := replaceFile(filepath.Join(c.Dir, SettingsFile), append(raw, '\n')); err != nil {
		return fmt.Errorf("write the edge's settings: %w", err)
	}
	return nil
}
