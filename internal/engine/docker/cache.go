package docker

import (
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
)

// cache keeps the last inspect of each container. It is good as long as a
// watch is alive, which says what was touched.
type cache struct {
	mu      sync.Mutex
	watches int // alive
	entries map[string]entry
	touched map[string]uint64 // how often an id was touched
	ooms    map[string]int    // how often one has run out of memory
}

type entry struct {
	key      string // what the list shows of it
	instance tender.Instance
	at       time.Time
}

// believed is how long an inspect counts without an event: one may get lost.
const believed = 3 * time.Minute

// touch makes the next List look at id anew.
func (c *cache) touch(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.touched == nil {
		c.touched = map[string]uint64{}
	}
	c.touched[id]++
	delete(c.entries, id)
}

// watching begins (1) or ends (-1) a watch. What was seen without one may be old.
func (c *cache) watching(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watches += n
	if n < 0 && c.watches > 0 {
		return
	}
	c.entries, c.touched = map[string]entry{}, map[string]uint64{}
}

// short notes that a container ran out of memory: an inspect forgets it at the next start.
func (c *cache) short(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ooms == nil {
		c.ooms = map[string]int{}
	}
	c.ooms[id]++
}

func (c *cache) shortOf(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ooms[id]
}

func (c *cache) get(id, key string) (i tender.Instance, ok bool, touched uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[id]
	return e.instance, ok && e.key == key && time.Since(e.at) < believed, c.touched[id]
}

// put keeps what was seen unless it was touched meanwhile.
func (c *cache) put(id, key string, touched uint64, i tender.Instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watches > 0 && c.touched[id] == touched {
		c.entries[id] = entry{key, i, time.Now()}
	}
}

// keep forgets all but ids.
func (c *cache) keep(ids map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.entries {
		if !ids[id] {
			delete(c.entries, id)
		}
	}
	for id := range c.touched {
		if !ids[id] {
			delete(c.touched, id)
		}
	}
	for id := range c.ooms {
		if !ids[id] {
			delete(c.ooms, id)
		}
	}
}
