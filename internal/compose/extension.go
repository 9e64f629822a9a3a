package compose

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
)

// extension is what x-tender says of a service.
type extension struct {
	Boot     string
	Strategy string
	Hold     *time.Duration
	Before   string
}

// extensionOf reads x-tender of a service. Unknown keys and wrong values were
// refused before, where they have a line.
func extensionOf(s types.ServiceConfig) (extension, error) {
	var x extension
	m, ok := s.Extensions[extensionKey].(map[string]any)
	if !ok {
		return x, nil
	}
	x.Boot, _ = m["boot"].(string)
	r, ok := m["rollout"].(map[string]any)
	if !ok {
		return x, nil
	}
	x.Strategy, _ = r["strategy"].(string)
	x.Before, _ = r["before"].(string)
	if h, ok := r["hold"]; ok {
		d, err := hold(fmt.Sprint(h))
		if err != nil {
			return x, fmt.Errorf("x-tender.rollout.hold %v: %w", h, err)
		}
		x.Hold = &d
	}
	return x, nil
}

// The words of x-tender: what this version knows, and what it does not know yet
// but another does.
var (
	serviceWords = []string{"rollout", "boot"}
	boots        = []string{tender.BootEngine, tender.BootOrdered}
	rolloutWords = []string{"strategy", "hold", "before"}
	strategies   = []string{"rolling", "recreate"}
	laterWords   = map[string][]string{
		"services.*": {"routes", "publish", "scale", "metrics", "logs", "alerts", "backup", "pool", "schedule", "allow", "mesh", "profile"},
		"rollout":    {"steps", "pause", "abort", "keep", "check"},
		"volumes.*":  {"backup"},
		"":           {"environment", "routes"},
	}
)

// extension checks a key that begins with x-: those of Tender's own strictly,
// others only for their variables.
func (w *walk) extension(k, v *yaml.Node, at place) {
	down := at.down(k.Value, "x-")
	if !strings.HasPrefix(k.Value, extensionKey) {
		w.node(v, nil, down)
		return
	}
	if k.Value != extensionKey {
		own := k.Value == formatKey && at.field == "" || k.Value == contentKey && at.field == "configs.*" || k.Value == secretKey && at.field == "secrets.*"
		if !w.normal || !own {
			w.bad(k, "", at.text("unknown key %q%s", k.Value, meant(k.Value, []string{extensionKey})))
		}
		return
	}
	var known []string
	switch at.field {
	case "services.*":
		known = serviceWords
	case "volumes.*", "":
	default:
		w.bad(k, "", at.text("x-tender has no place here, only in a service, a volume or at the top"))
		return
	}
	w.words(v, down, at.field, known, func(key, value *yaml.Node, at place) {
		if key.Value == "boot" {
			w.bootWord(value, at)
			return
		}
		w.words(value, at, "rollout", rolloutWords, w.rolloutWord)
	})
}

// words walks a mapping of x-tender.
func (w *walk) words(n *yaml.Node, at place, level string, known []string, each func(k, v *yaml.Node, at place)) {
	n = follow(n)
	if n.Kind != yaml.MappingNode {
		w.bad(n, "", at.text("want a mapping"))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		down := at.down(k.Value, "x-")
		switch {
		case k.Value == "<<":
			w.words(v, at, level, known, each)
		case seen[k.Value]:
			w.bad(k, "", at.text("key %q is there already", k.Value))
		case slices.Contains(known, k.Value):
			each(k, v, down)
		case slices.Contains(laterWords[level], k.Value):
			w.bad(k, "", down.text("not known to this version"))
		default:
			w.bad(k, "", at.text("unknown key %q%s", k.Value, meant(k.Value, append(slices.Clone(known), laterWords[level]...))))
		}
		seen[k.Value] = true
	}
}

func (w *walk) bootWord(v *yaml.Node, at place) {
	v = follow(v)
	if v.Kind != yaml.ScalarNode {
		w.bad(v, "", at.text("want one value"))
		return
	}
	_, value, known := w.scalar(v, at)
	if known && !slices.Contains(boots, fmt.Sprint(value)) {
		w.bad(v, "", at.text("%q: want %s%s", value, list(boots), meant(fmt.Sprint(value), boots)))
	}
}

func (w *walk) rolloutWord(k, v *yaml.Node, at place) {
	v = follow(v)
	if v.Kind != yaml.ScalarNode {
		w.bad(v, "", at.text("want one value"))
		return
	}
	kind, value, known := w.scalar(v, at)
	if !known {
		return
	}
	if kind != "string" {
		w.bad(v, "", at.text("%s: want text", v.Value))
		return
	}
	switch k.Value {
	case "strategy":
		switch {
		case value == "blue-green" || value == "canary":
			w.bad(v, "", at.text("%q is not known to this version, want %s", value, list(strategies)))
		case !slices.Contains(strategies, value):
			w.bad(v, "", at.text("%q: want %s%s", value, list(strategies), meant(value, strategies)))
		}
	case "hold":
		if _, err := hold(value); err != nil {
			w.bad(v, "", at.text("%q: %s", value, err))
		}
	case "before":
		if value == "" {
			w.bad(v, "", at.text("want the name of a service"))
		}
	}
}

func hold(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("want a duration such as 10s")
	}
	return d, nil
}
