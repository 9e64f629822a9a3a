package daemon

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/scan"
	"github.com/tenderhq/tender/internal/store"
)

// Advisories says where advisories come from. Its zero value: nothing is fetched unasked.
type Advisories struct {
	From       string        // URL, folder, .tar or .zip; "": OSV
	Every      time.Duration // 0: only when somebody asks
	Ecosystems []string      // none: what the index has, and the images need
}

// treeAdvisories reads where advisories come from. Who writes the key wants them fetched.
func treeAdvisories(c *Config, n *yaml.Node) error {
	c.Advisories = Advisories{Every: 24 * time.Hour}
	if n = plainNode(n); n.Kind == yaml.ScalarNode && n.Value == "" {
		c.Advisories.Every = 0
		return nil
	}
	return mapping(n, "advisories", map[string]func(*yaml.Node) error{
		"from": func(n *yaml.Node) error {
			if n.Kind != yaml.ScalarNode || n.Value == "" {
				return wrongNode(n, "advisories.from: want a URL, a folder, a .tar or a .zip")
			}
			c.Advisories.From = n.Value
			return nil
		},
		"every": func(n *yaml.Node) error {
			if n.Value == "off" || n.Value == "false" || n.Value == "0" {
				c.Advisories.Every = 0
				return nil
			}
			every, err := age(n.Value)
			if err != nil {
				return wrongNode(n, "advisories.every: %q is neither off nor a time such as 24h", n.Value)
			}
			c.Advisories.Every = every
			return nil
		},
		"ecosystems": func(n *yaml.Node) error {
			if n.Kind != yaml.SequenceNode {
				return wrongNode(n, "advisories.ecosystems is not a list such as [Debian, npm]")
			}
			for _, one := range n.Content {
				if one = plainNode(one); one.Kind != yaml.ScalarNode || one.Value == "" {
					return wrongNode(one, "advisories.ecosystems: want names such as Debian, npm")
				}
				c.Advisories.Ecosystems = append(c.Advisories.Ecosystems, one.Value)
			}
			return nil
		},
	})
}

// common is what is fetched while nobody has said what is needed.
var common = []string{"Alpine", "Debian", "Go", "Maven", "PyPI", "Ubuntu", "npm"}

// update brings advisories up to date. What became of each ecosystem is told.
func (s *scans) update(ctx context.Context, u api.AdvisoriesUpdate, tell func(api.Event)) error {
	o := scan.UpdateOptions{From: cmp.Or(u.From, s.config.From), Ecosystems: u.Ecosystems, All: u.All}
	remote := o.From == "" || strings.HasPrefix(o.From, "https://") || strings.HasPrefix(o.From, "http://")
	if len(o.Ecosystems) == 0 && !o.All {
		o.Ecosystems = s.config.Ecosystems
	}
	if len(o.Ecosystems) == 0 && !o.All {
		if o.All = !remote; remote { // a mirror has what somebody chose
			needed, err := s.needed(ctx)
			if err != nil {
				return err
			}
			o.Ecosystems = needed
		}
	}
	last := ""
	o.Report = func(p scan.Progress) {
		text := fmt.Sprintf("%s: %s", p.Ecosystem, p.Stage)
		if text != last || p.Total > 0 {
			last = text
			tell(api.Event{Kind: api.KindPull, Text: text, Current: p.Done, Total: p.Total})
		}
	}
	all, err := s.db.Update(ctx, o)
	failed := 0
	for _, one := range all {
		text := fmt.Sprintf("%s: %d advisories", one.Ecosystem, one.Advisories)
		switch {
		case one.Err != nil:
			failed++
			tell(api.Event{Kind: api.KindFailed, Text: one.Ecosystem + ": " + one.Err.Error(), Hint: tender.AdviceOf(one.Err)})
			continue
		case one.How == "unchanged":
			text += ", nothing new"
		case one.How == "changed":
			text += fmt.Sprintf(", %d of them new or changed", one.Changed)
		}
		if one.Bytes > 0 {
			text += " (" + units.HumanSize(float64(one.Bytes)) + ")"
		}
		if one.Skipped > 0 {
			text += fmt.Sprintf(", %d could not be read", one.Skipped)
		}
		tell(api.Event{Kind: api.KindEnded, Text: text})
	}
	s.poke()
	if err == nil && failed > 0 {
		err = tender.Errorf(tender.Unavailable, "%d of %d ecosystems were not brought up to date; what was there stays", failed, len(all)).
			Hint("is the source right, and does it answer? tender image db update --from DIR reads a mirror")
	}
	return err
}

// needed are the ecosystems that the index has, and those of what is deployed.
func (s *scans) needed(ctx context.Context) ([]string, error) {
	out := s.db.Ecosystems()
	all, err := s.heads(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range all {
		r, err := s.kept(ctx, keyOf(d.image))
		if tender.KindOf(err) == tender.NotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, p := range r.Packages {
			if base, _, _ := strings.Cut(p.Ecosystem, ":"); base != "" {
				out = append(out, base)
			}
		}
	}
	if len(out) == 0 {
		out = slices.Clone(common)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func (s *scans) poke() {
	for _, who := range []chan struct{}{s.changed, s.pushed} {
		select {
		case who <- struct{}{}:
		default:
		}
	}
}

// Advisories says how old they are.
func (b *backend) Advisories(context.Context) (api.Advisories, error) {
	age, err := b.scans.db.Age()
	c := b.scans.config
	out := api.Advisories{
		Updated: age.Updated, Newest: age.Newest, Count: age.Advisories, Ecosystems: age.Ecosystems,
		Stale: age.Stale(time.Now(), advisoriesOld), From: cmp.Or(c.From, scan.OSVDumps),
	}
	if c.Every > 0 {
		out.Every = c.Every.String()
	}
	if out.Ecosystems == nil {
		out.Ecosystems = []string{}
	}
	return out, err
}

// UpdateAdvisories brings them up to date.
func (b *backend) UpdateAdvisories(ctx context.Context, who api.Person, u api.AdvisoriesUpdate, report func(api.Event)) error {
	err := b.scans.update(ctx, u, stamped(report, ""))
	b.auditEnd(ctx, who, "image db update", "", strings.TrimSpace(u.From+" "+strings.Join(u.Ecosystems, " ")), err)
	return err
}

// deployed is a service with its image, and what is wrong with it.
type deployed struct {
	project, service string
	image            tender.ImageID
	counts           map[count]int
}

type count struct {
	severity tender.Severity
	fixable  bool
}

// heads are the services that are wanted.
func (s *scans) heads(ctx context.Context) (out []deployed, err error) {
	err = s.store.View(ctx, func(tx *store.Tx) error {
		out = nil
		names, err := tx.Projects()
		for _, name := range names {
			if err != nil {
				return err
			}
			var g store.Generation
			if g, err = tx.Head(name); err != nil || g.Down != nil {
				continue
			}
			for _, w := range g.Services {
				if !w.Gone && w.Image.ID != "" {
					out = append(out, deployed{project: name, service: w.Service.Name, image: w.Image})
				}
			}
		}
		return err
	})
	return out, err
}

// memory is what the part remembers between two looks.
type memory struct {
	age    scan.Age // of the advisories that were asked
	known  map[string]matched
	unread map[string]time.Time // images that could not be read, and when
}

type matched struct {
	at       time.Time
	findings []tender.Finding
}

// look asks about all that is deployed, and counts. Images that were never read are read
// once there are advisories.
func (s *scans) look(ctx context.Context, m *memory) error {
	all, err := s.heads(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	if age, err := s.db.Age(); err == nil && !age.Updated.Equal(m.age.Updated) {
		m.age, m.unread, m.known = age, map[string]time.Time{}, map[string]matched{}
	}
	var waivers []tender.Waiver
	var keys []string
	if err := s.store.View(ctx, func(tx *store.Tx) (err error) { waivers, err = tx.Waivers(); return err }); err != nil {
		return err
	}
	var found []deployed
	ready := len(s.db.Ecosystems()) > 0
	for _, d := range all {
		key := keyOf(d.image)
		keys = append(keys, key)
		k, have := m.known[key]
		if !have || now.Sub(k.at) >= matchedFor {
			if now.Sub(m.unread[key]) < time.Hour {
				continue
			}
			r, err := s.kept(ctx, key)
			if err == nil {
				r, err = s.fresh(ctx, key, r, now)
			} else if gone(err) && ready {
				r, err = s.report(ctx, d.image, func(api.Event) {})
			}
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				if ready {
					m.unread[key] = now
					s.log.Warn("image not scanned", "project", d.project, "service", d.service, "image", d.image.Reference, "err", err)
				}
				continue
			}
			k = matched{r.Scanned, r.Findings}
			m.known[key] = k
		}
		d.counts = map[count]int{}
		for _, f := range k.findings {
			if f.Kind == tender.Vulnerability && waived(waivers, f, d, now) == nil {
				d.counts[count{f.Severity, f.Fixable()}]++
			}
		}
		found = append(found, d)
	}
	s.mu.Lock()
	s.found = found
	s.mu.Unlock()
	return s.store.Update(ctx, func(tx *store.Tx) error { return tx.NeedScans(keys, now) })
}

// run is the part: it fetches advisories when they are due, and asks them about what is deployed.
func (s *scans) run(tell func(change func(*api.Part))) func(context.Context) error {
	return func(ctx context.Context) error {
		defer s.db.Close()
		m := &memory{known: map[string]matched{}, unread: map[string]time.Time{}}
		var tried time.Time
		failure := ""
		for {
			now := time.Now()
			age, _ := s.db.Age()
			if every := s.config.Every; every > 0 && now.Sub(age.Updated) >= every && now.Sub(tried) >= min(every, time.Hour) {
				tried = now
				failure = ""
				if err := s.update(ctx, api.AdvisoriesUpdate{}, func(api.Event) {}); err != nil && ctx.Err() == nil {
					failure = "advisories: " + err.Error()
					s.log.Warn("advisories not updated", "err", err)
				}
				age, _ = s.db.Age()
			}
			if ctx.Err() != nil {
				return nil
			}
			if err := s.look(ctx, m); err != nil && ctx.Err() == nil {
				return err
			}
			problem := failure
			if problem == "" && !age.Updated.IsZero() {
				problem = age.Stale(time.Now(), advisoriesOld)
			}
			tell(func(p *api.Part) { p.Error = problem })
			select {
			case <-ctx.Done():
				return nil
			case <-s.changed:
			case <-time.After(time.Minute):
			}
		}
	}
}

// findings writes what is wrong with what is deployed; what is waived is left out.
func (f *figures) findings(s *scans) {
	s.mu.Lock()
	found := s.found
	s.mu.Unlock()
	var samples []any
	for _, d := range found {
		for severity := tender.Critical; severity >= tender.UnknownSeverity; severity-- {
			for _, fixable := range []bool{true, false} {
				samples = append(samples, fmt.Sprintf("{project=%q,service=%q,severity=%q,fixable=\"%v\"}", d.project, d.service, severity, fixable), d.counts[count{severity, fixable}])
			}
		}
	}
	f.metric("image_findings", "gauge", "Advisories that hold for the image of a service and are not waived.", samples...)
}
