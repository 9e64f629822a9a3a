package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/registry"
)

// Upstream is another registry whose images are kept here. Listen is a host:port on which
// it is served as a mirror, under its own names; "": none.
type Upstream struct {
	registry.Upstream
	Listen string
}

// treeCache reads of which registries images are kept: names, or mappings that say more.
func treeCache(c *Config, n *yaml.Node) error {
	c.RegistryCache = nil
	var all []registry.Upstream
	return items(n, "registry.cache", func(n *yaml.Node) error {
		var u Upstream
		if n.Kind == yaml.ScalarNode {
			u.Name = n.Value
		} else if err := mapping(n, "registry.cache", map[string]func(*yaml.Node) error{
			"name":     func(n *yaml.Node) error { u.Name = n.Value; return nil },
			"upstream": func(n *yaml.Node) error { u.URL = n.Value; return nil },
			"fresh":    promDuration(&u.Fresh, time.Second),
			"listen": func(n *yaml.Node) error {
				if _, _, err := net.SplitHostPort(n.Value); err != nil {
					return wrongNode(n, "listen on %q: %s", n.Value, err)
				}
				u.Listen = n.Value
				return nil
			},
		}); err != nil {
			return err
		}
		all = append(all, u.Upstream)
		if err := registry.CheckUpstreams(all); err != nil {
			return wrongNode(n, "%s", err)
		}
		u.Upstream = all[len(all)-1]
		c.RegistryCache = append(c.RegistryCache, u)
		return nil
	})
}

func setCacheSize(c *Config, v string) (err error) {
	c.RegistryCacheSize, err = size(v)
	return err
}

// setStorage reads where the registry's blobs lie.
func setStorage(c *Config, v string) (err error) {
	c.RegistryStorage = nil
	if v != "" {
		c.RegistryStorage, err = registry.ParseBucket(v)
	}
	return err
}

// hasImages says whether somebody has ever pushed anything here, as far as is known without opening the registry.
func (c Config) hasImages() bool {
	if c.RegistryStorage != nil {
		return true
	}
	_, err := os.Stat(filepath.Join(c.RegistryDir, "docker"))
	return err == nil
}

// inTheClear says whether an address is for this host alone.
func inTheClear(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// checkCache says what does not go together.
func (c *Config) checkCache() error {
	for _, u := range c.RegistryCache {
		switch {
		case c.NoRegistry:
			return tender.Errorf(tender.Invalid, "the registry is off, and registry.cache has %s", u.Name).Hint("leave one of them out")
		case u.Listen != "" && c.TLSCert == "" && !inTheClear(u.Listen):
			return tender.Errorf(tender.Invalid, "listen on %s as a mirror of %s: passwords would cross the network in the clear", u.Listen, u.Name).
				Hint("give --tls-cert and --tls-key, or listen on 127.0.0.1")
		}
	}
	return nil
}

func (c Config) upstreams() (list []registry.Upstream) {
	for _, u := range c.RegistryCache {
		list = append(list, u.Upstream)
	}
	return list
}

// mirror is a listener on which an upstream is served as it would answer itself.
type mirror struct {
	net.Listener
	of string
}

// listenMirrors opens the ports of mirrors. On this host they speak plain HTTP, whatever
// certificate there is: it is made out for another name.
func listenMirrors(c Config) (list []mirror, err error) {
	if c.NoRegistry {
		return nil, nil
	}
	defer func() {
		if err != nil {
			for _, m := range list {
				err = errors.Join(err, m.Close())
			}
			list = nil
		}
	}()
	for _, u := range c.RegistryCache {
		if u.Listen == "" {
			continue
		}
		l, err := net.Listen("tcp", u.Listen)
		if err != nil {
			return list, tender.Errorf(tender.Conflict, "listen as a mirror of %s: %w", u.Name, err).Hint("choose another address in registry.cache: listen: 127.0.0.1:5001")
		}
		if !inTheClear(u.Listen) {
			if l, err = secured(c, l); err != nil {
				return list, err
			}
		}
		list = append(list, mirror{l, u.Name})
	}
	return list, nil
}

// serveMirror answers on a mirror's port until ctx ends.
func (r *registryRoom) serveMirror(ctx context.Context, m mirror) error {
	answer := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		open, err := r.get(req.Context())
		if err != nil {
			r.log.Error("the registry does not open", "err", err)
			registry.Refuse(w, err)
			return
		}
		open.Mirror(m.of).ServeHTTP(w, req)
	})
	return api.Serve(ctx, r.aloneWith(answer), []net.Listener{m}, api.Serving{Log: r.log})
}

// evict keeps the cache of other registries within its size.
func (b *backend) evict(ctx context.Context) error {
	if len(b.config.RegistryCache) == 0 {
		return nil
	}
	r, err := b.keptImages(ctx)
	if err != nil {
		return err
	}
	done, err := r.Evict(ctx, "tender")
	if done.Images > 0 || err != nil {
		b.auditEnd(ctx, api.Person{Name: "tender"}, "registry cache evicted", "", fmt.Sprintf("%d images, %d bytes", done.Images, done.Bytes), err)
	}
	return err
}

// cached writes how much of other registries is kept, and how often that was enough.
func (f *figures) cached(r *registry.Registry) {
	counts, kept := r.CacheCounts()
	if len(counts) == 0 {
		return
	}
	var requests, failed, fetched, served, resting, remaining []any
	for _, c := range counts {
		of := fmt.Sprintf("upstream=%q", c.Upstream)
		requests = append(requests, "{"+of+`,result="hit"}`, c.Hits, "{"+of+`,result="miss"}`, c.Misses, "{"+of+`,result="stale"}`, c.Stale)
		failed = append(failed, "{"+of+"}", c.Errors)
		fetched = append(fetched, "{"+of+"}", c.Fetched)
		served = append(served, "{"+of+"}", c.Served)
		is := 0
		if c.Resting {
			is = 1
		}
		resting = append(resting, "{"+of+"}", is)
		if c.Remaining >= 0 {
			remaining = append(remaining, "{"+of+"}", c.Remaining)
		}
	}
	f.metric("registry_cache_requests_total", "counter", "Requests for images of other registries: answered of what is kept (hit), fetched (miss), or kept although the upstream could not be asked (stale).", requests...)
	f.metric("registry_cache_upstream_errors_total", "counter", "Requests to the upstream in vain.", failed...)
	f.metric("registry_cache_fetched_bytes_total", "counter", "Bytes that came from the upstream.", fetched...)
	f.metric("registry_cache_served_bytes_total", "counter", "Bytes that were answered of what is kept.", served...)
	f.metric("registry_cache_resting", "gauge", "1 while the upstream is not asked, because it wants that or does not answer.", resting...)
	if len(remaining) > 0 {
		f.metric("registry_cache_upstream_pulls_left", "gauge", "Pulls that the upstream still allows, as it said.", remaining...)
	}
	if kept >= 0 {
		f.metric("registry_cache_bytes", "gauge", "Bytes of other registries that are kept.", "", kept)
	}
}
