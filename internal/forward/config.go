package forward

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/tenderhq/tender/internal/logs"
)

// Config is one entry of sinks: in tender.yaml.
type Config struct {
	Name, Kind string
	Where      string   // the other side, for people; never a secret
	Secrets    []string // that it needs, by name
	Match      Match
	FromNow    bool          // a sink that was never saved begins with what comes, not with what is there
	Size       int           // bytes of rows that are read together
	Wait       time.Duration // how long a row waits for others
	Request    int           // bytes of one request; 0: all that was read is sent at once
	Rows       int           // of one request
	make       func(Config, Options) wire
}

func (c Config) wire(o Options) wire { return c.make(c, o) }

// Match says which rows go to a sink: those whose labels have one of the values,
// for every list that is not empty.
type Match struct{ Projects, Services []string }

func (m Match) holds(l logs.Labels) bool {
	return m.of(l.Get("project"), l.Get("service"))
}

func (m Match) of(project, service string) bool {
	return (len(m.Projects) == 0 || slices.Contains(m.Projects, project)) &&
		(len(m.Services) == 0 || slices.Contains(m.Services, service))
}

// kinds of sinks, and how their part of the file is read. Each fills in Where, make
// and its own defaults of Size, Wait, Request and Rows.
var kinds = map[string]func(*section, *Config){
	"elasticsearch": elasticsearchConfig,
	"opensearch":    elasticsearchConfig,
	"loki":          lokiConfig,
	"otlp":          otlpConfig,
	"syslog":        syslogConfig,
	"s3":            s3Config,
	"webhook":       webhookConfig,
}

const (
	kB = 1 << 10
	mB = 1 << 20
)

var goodName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// Parse reads the value of sinks: in tender.yaml. Errors are Invalid and begin with
// line and column.
func Parse(n *yaml.Node) ([]Config, error) {
	var p parser
	var out []Config
	all := p.section(n, "sinks")
	if all == nil {
		return nil, p.err
	}
	for _, name := range all.names {
		if !goodName.MatchString(name) {
			p.fail(all.keys[name], "call it something like es or my-loki", "%q is no name for a sink", name)
		}
		if c, ok := p.sink(all, name); ok {
			out = append(out, c)
		}
	}
	return out, p.err
}

func (p *parser) sink(all *section, name string) (c Config, ok bool) {
	s := all.section(name)
	if s == nil {
		return c, false
	}
	c = Config{Name: name, Size: 4 * mB, Wait: time.Second, Request: 2 * mB, Rows: 5000}
	known := make([]string, 0, len(kinds))
	for kind := range kinds {
		known = append(known, kind)
		if !s.has(kind) {
			continue
		}
		if c.Kind != "" {
			p.fail(s.node, "give the second a name of its own under sinks:", "%s is both %s and %s", s.path, min(c.Kind, kind), max(c.Kind, kind))
			return c, false
		}
		c.Kind = kind
	}
	slices.Sort(known)
	if c.Kind == "" {
		p.fail(s.node, fmt.Sprintf("say what it is: %s", strings.Join(known, ", ")), "%s has no kind", s.path)
		return c, false
	}
	if own := s.section(c.Kind); own != nil {
		p.secrets = nil
		kinds[c.Kind](own, &c)
		own.done()
		c.Secrets = p.secrets
	}
	if m := s.optional("match"); m != nil {
		c.Match.Projects, c.Match.Services = m.list("projects"), m.list("services")
		m.done()
	}
	if b := s.optional("batch"); b != nil {
		c.Size = b.size("size", c.Size, 64*kB, 64*mB)
		c.Wait = b.duration("wait", c.Wait, 10*time.Millisecond, time.Hour)
		b.done()
		c.Request = min(c.Request, c.Size)
	}
	switch from := s.text("from", "oldest"); from {
	case "oldest":
	case "now":
		c.FromNow = true
	default:
		p.fail(s.value("from"), "oldest: all that is kept; now: what comes from now on", "%s.from: %q is not known", s.path, from)
	}
	s.done(known...)
	return c, p.err == nil
}
