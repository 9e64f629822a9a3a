// Package compose turns Compose files into what Tender wants.
//
// It hides YAML, interpolation, merging, the rules of the environment, the
// normal form and the parser behind them: no other room reads a Compose file.
// The command line knocks at Load, where the user's files and environment are,
// and sends the Document to the daemon; the daemon knocks at Parse with bytes it
// does not trust; engines ask Spec for one service in the parser's types.
//
// Every field of the Compose Specification is honoured, or warned about, or
// refused, with file, line and column (see fields.go): none is dropped in silence.
// The package reads no environment but the one in Source, writes nothing, and
// never puts the value of a secret into the normal form.
package compose

import (
	"fmt"
	"io"
)

// Source says what to load, as the user typed it and from where.
type Source struct {
	// Files are the values of -f, in order; "-" is Stdin. None: COMPOSE_FILE, else
	// compose.yaml, compose.yml, docker-compose.yml or docker-compose.yaml with its
	// override file, searched from Dir upwards.
	Files      []string
	Dir        string // where the user stands, absolute
	ProjectDir string // --project-directory; empty: the folder of the first file
	Name       string // -p; empty: COMPOSE_PROJECT_NAME, name:, or the folder's name
	Profiles   []string
	EnvFiles   []string // --env-file; none: COMPOSE_ENV_FILES, else .env
	Env        []string // the user's environment, NAME=value
	Stdin      io.Reader
	// Remote: the engine is on another host, which has none of the user's files.
	Remote bool
	// Far is where the engine is, as tcp://10.0.0.8:2375, when that is not the host
	// of the daemon and its edge: routes and ports of the edge are refused then.
	Far string
	// Expr looks at an expression in PromQL or LogQL; nil: whoever gets the document does.
	Expr func(language, text string) error
	// Services are those asked for by name: their profiles become active.
	Services []string
}

// Document is a project as it travels to the daemon.
type Document struct {
	Name string `json:"name"`
	// YAML is the normal form: one Compose file in long syntax, with interpolation,
	// merging, env files and relative paths done. Dollar signs are not escaped.
	YAML string `json:"yaml"`
	// Files holds the contents of configs, by the hex SHA-256 that the normal form names.
	Files map[string][]byte `json:"files,omitempty"`
	// Secrets holds values by their key under secrets:. They are never in YAML.
	Secrets  map[string][]byte `json:"secrets,omitempty"`
	Warnings []Warning         `json:"warnings,omitempty"`
	Builds   []Build           `json:"builds,omitempty"`
	// ComposeFiles and WorkingDir are absolute paths on the user's machine, for the labels that Docker
	// Compose reads.
	ComposeFiles []string `json:"composefiles,omitempty"`
	WorkingDir   string   `json:"workingdir,omitempty"`
	// Profiles are all that the files name, active or not.
	Profiles []string `json:"profiles,omitempty"`
}

// Warning is something the user should know and may ignore. Line and Column
// count from 1; they are 0, and File is empty, where there is no place to point at.
type Warning struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Text   string `json:"text"`
}

func (w Warning) String() string {
	if w.File == "" {
		return w.Text
	}
	if w.Line == 0 {
		return w.File + ": " + w.Text
	}
	return fmt.Sprintf("%s:%d:%d: %s", w.File, w.Line, w.Column, w.Text)
}

// Build is what makes the image of one service.
type Build struct {
	Service          string             `json:"service"`
	Context          string             `json:"context"`              // absolute folder, or a URL
	Dockerfile       string             `json:"dockerfile,omitempty"` // relative to Context, or absolute
	DockerfileInline string             `json:"dockerfileinline,omitempty"`
	Args             map[string]*string `json:"args,omitempty"`
	Target           string             `json:"target,omitempty"`
	Labels           map[string]string  `json:"labels,omitempty"`
	Tags             []string           `json:"tags"` // the service's image first
	NoCache          bool               `json:"nocache,omitempty"`
	NoCacheFilter    []string           `json:"nocachefilter,omitempty"` // stages
	Pull             bool               `json:"pull,omitempty"`
	CacheFrom        []string           `json:"cachefrom,omitempty"`
	CacheTo          []string           `json:"cacheto,omitempty"`
	Network          string             `json:"network,omitempty"`
	ShmSize          int64              `json:"shmsize,omitempty"` // bytes
	Ulimits          []string           `json:"ulimits,omitempty"` // NAME=SOFT:HARD
	ExtraHosts       []string           `json:"extrahosts,omitempty"`
	Platforms        []string           `json:"platforms,omitempty"`
	Entitlements     []string           `json:"entitlements,omitempty"`
	// Contexts are those beside Context, by name: an absolute folder, a URL, or service:NAME.
	Contexts map[string]string `json:"contexts,omitempty"`
	// Secrets are keys of Document.Secrets, by the id that the Dockerfile calls them by. External ones are
	// names in the vault.
	Secrets  map[string]string `json:"secrets,omitempty"`
	External map[string]string `json:"external,omitempty"`
	// SSH holds sockets of agents by id; "" is the user's own agent.
	SSH map[string]string `json:"ssh,omitempty"`
}

const (
	// The sizes that Load and Parse accept, in bytes. They keep a hostile or
	// mistaken input from taking the memory of whoever reads it.
	maxFile    = 4 << 20 // one Compose file
	maxYAML    = 8 << 20 // the normal form
	maxContent = 4 << 20 // one config or secret
)
