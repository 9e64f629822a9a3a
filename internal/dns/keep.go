package dns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// file is what is registered, on disk: registered.json.
type file struct {
	Format   int             `json:"format"`
	Services []*registration `json:"services"`
}

func (s *Server) path() string { return filepath.Join(s.o.Dir, "registered.json") }

// load reads what was registered. Every check has a whole TTL from now to be heard of again.
// A file that cannot be understood is set aside: names are answered all the same, and services
// register again.
func (s *Server) load(now time.Time) (map[string]*registration, error) {
	out := map[string]*registration{}
	if s.o.Dir == "" {
		return out, nil
	}
	b, err := os.ReadFile(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read registered services: %w", err)
	}
	list, err := decode(b)
	if err != nil {
		aside := s.path() + ".broken"
		s.log.Error("registered services are unreadable and set aside", "err", err, "path", aside)
		if err := os.Rename(s.path(), aside); err != nil {
			return nil, fmt.Errorf("set registered services aside: %w", err)
		}
		return out, nil
	}
	for _, r := range list {
		for i := range r.Checks {
			r.Checks[i].renew(now)
		}
		out[r.ID] = r
	}
	return out, nil
}

func decode(b []byte) ([]*registration, error) {
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	if f.Format != 1 {
		return nil, fmt.Errorf("format %d, not 1", f.Format)
	}
	for _, r := range f.Services {
		if r == nil || r.ID == "" || r.Name == "" {
			return nil, errors.New("a service without name")
		}
		for _, c := range r.Checks {
			if c.TTL < shortestTTL || !known(c.Status) {
				return nil, fmt.Errorf("service %q: check %q is not whole", r.ID, c.ID)
			}
		}
	}
	return f.Services, nil
}

// save writes what is registered so that after a crash there is either the old or the new. s.mu is held.
func (s *Server) save(all map[string]*registration) (err error) {
	if s.o.Dir == "" {
		return nil
	}
	f := file{Format: 1, Services: []*registration{}}
	for _, r := range all {
		f.Services = append(f.Services, r)
	}
	slices.SortFunc(f.Services, func(a, b *registration) int { return strings.Compare(a.ID, b.ID) })
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("keep registered services: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("keep registered services: %w", err)
		}
	}()
	if err := os.MkdirAll(s.o.Dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(s.o.Dir, ".registered-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // nothing is left of it once it has its name
	_, err = tmp.Write(append(b, '\n'))
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), s.path()); err != nil {
		return err
	}
	dir, err := os.Open(s.o.Dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
