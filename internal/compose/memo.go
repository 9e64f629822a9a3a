package compose

import (
	"crypto/sha256"
	"maps"
	"slices"
	"sync"

	"github.com/compose-spec/compose-go/v2/types"

	tender "github.com/tenderhq/tender"
)

// The same texts are read again and again: a plan looks at each service from
// several sides, and the up after it at the same ones. What came of the last of
// them is kept; who asks cannot tell. The sizes bound the texts, in bytes: what
// is made of one takes some twenty times as much.
var (
	specs    = memo[*types.Project]{most: 1 << 20}
	essences = memo[[]byte]{most: 1 << 20}
	projects = memo[tender.Project]{most: 1 << 20}
)

// memo keeps what came of the texts that were read last. Once they are more
// than half of most, those not read since are the first to go.
type memo[V any] struct {
	most int

	mu       sync.Mutex
	now, old map[[sha256.Size]byte]V
	size     int // of the texts in now
}

// of returns what make says of a text, and whatever it said before. Errors are not kept.
func (m *memo[V]) of(text []byte, make func() (V, error)) (V, error) {
	key := sha256.Sum256(text)
	m.mu.Lock()
	v, ok := m.now[key]
	if !ok {
		if v, ok = m.old[key]; ok {
			m.put(key, len(text), v)
		}
	}
	m.mu.Unlock()
	if ok {
		return v, nil
	}
	v, err := make()
	if err != nil {
		return v, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(key, len(text), v)
	return v, nil
}

func (m *memo[V]) put(key [sha256.Size]byte, size int, v V) {
	if size > m.most/2 {
		return
	}
	if _, there := m.now[key]; there {
		return
	}
	if m.now == nil || m.size+size > m.most/2 {
		m.old, m.now, m.size = m.now, map[[sha256.Size]byte]V{}, 0
	}
	m.now[key] = v
	m.size += size
}

// ownSpec is p for somebody who may change what it holds, but nothing below that.
func ownSpec(p *types.Project) *types.Project {
	own := *p
	own.Services, own.Networks, own.Volumes = maps.Clone(p.Services), maps.Clone(p.Networks), maps.Clone(p.Volumes)
	own.Configs, own.Secrets, own.Extensions = maps.Clone(p.Configs), maps.Clone(p.Secrets), maps.Clone(p.Extensions)
	return &own
}

// ownProject is the same for a whole project.
func ownProject(p tender.Project) tender.Project {
	p.Services, p.Routes = slices.Clone(p.Services), slices.Clone(p.Routes)
	return p
}
