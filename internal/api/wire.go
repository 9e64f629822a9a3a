// Package api is the way in: HTTP over a unix socket or TCP, JSON, and the
// types that travel. Handler serves a Backend, which the daemon implements;
// Client is the other end. It decides nothing and knows no other room.
package api

import (
	"io"
	"time"
)

// Prefix of all paths that are ours.
const Prefix = "/tender/v1"

// Error is how an error travels (RFC 9457's shape, application/problem+json).
type Error struct {
	Status int    `json:"status"`
	Kind   string `json:"kind"`   // invalid, not found, conflict, denied, unavailable, internal
	Detail string `json:"detail"` // the message
	Hint   string `json:"hint,omitempty"`
}

// Submission is what up and plan send: the normal form, what it needs beside
// it, and what was said on the command line.
type Submission struct {
	// Project is the name that YAML gives to itself. It is said here too, because a token may be
	// good for some projects only; the backend refuses a YAML that says otherwise.
	Project      string            `json:"project"`
	YAML         string            `json:"yaml"`              // compose.Document.YAML
	Files        map[string][]byte `json:"files,omitempty"`   // sha256 hex -> content
	Secrets      map[string][]byte `json:"secrets,omitempty"` // key under secrets: -> value; goes to the vault and nowhere else
	ComposeFiles []string          `json:"compose_files,omitempty"`
	WorkingDir   string            `json:"working_dir,omitempty"`

	Services  []string          `json:"services,omitempty"` // only these and what they need; empty: all
	NoDeps    bool              `json:"no_deps,omitempty"`
	Scale     map[string]int    `json:"scale,omitempty"`
	Strategy  string            `json:"strategy,omitempty"` // rolling, blue-green, canary, recreate: for this rollout
	Grace     *time.Duration    `json:"grace,omitempty"`    // -t, of the instances that are replaced; nanoseconds
	Hold      bool              `json:"hold,omitempty"`     // blue-green and canary wait at each step for resume
	Supersede bool              `json:"supersede,omitempty"`
	Recreate  bool              `json:"recreate,omitempty"`   // --force-recreate: a new revision although nothing changed
	RenewAnon bool              `json:"renew_anon,omitempty"` // --renew-anon-volumes
	Orphans   bool              `json:"remove_orphans,omitempty"`
	Pull      string            `json:"pull,omitempty"`   // always, missing, never
	Auths     map[string]string `json:"auths,omitempty"`  // registry host -> X-Registry-Auth, from the user's docker config
	Token     string            `json:"token,omitempty"`  // of a plan: refused if the world changed since
	Detach    bool              `json:"detach,omitempty"` // return once accepted
}

// Plan is what up would do.
type Plan struct {
	Project  string     `json:"project"`
	Token    string     `json:"token"`
	Services []Decision `json:"services"`
	Actions  []Action   `json:"actions"`
	// Routes are those that come, go or change.
	Routes   []RouteChange `json:"routes,omitempty"`
	Warnings []string      `json:"warnings,omitempty"`
	// Gate is what the gate says of it; up refuses where a verdict denies.
	Gate []Verdict `json:"gate,omitempty"`
	Text string    `json:"text"` // the same for people
}

// Decision says in one word what happens to a service.
type Decision struct {
	Service string `json:"service"`
	// Verdict: create, keep, restart, replace, scale, remove, adopt, start, stop
	Verdict string `json:"verdict"`
	Why     string `json:"why,omitempty"`
	From    string `json:"from,omitempty"` // revision
	To      string `json:"to,omitempty"`
	Gap     string `json:"gap,omitempty"` // for how long nobody serves: "" none
	Diff    string `json:"diff,omitempty"`
}

// RouteChange is what up would make of one route.
type RouteChange struct {
	Route string `json:"route"` // PROJECT/HOST/PATH
	Text  string `json:"text"`  // new, changed, goes
}

// Action is one step of a plan.
type Action struct {
	Verb     string `json:"verb"`
	Service  string `json:"service,omitempty"`
	Revision string `json:"revision,omitempty"`
	Instance string `json:"instance,omitempty"` // name
	Slots    []int  `json:"slots,omitempty"`
	Cause    string `json:"cause"`
	Text     string `json:"text"`
}

// Event is one piece of news: of a running up, or of a project.
type Event struct {
	Time       time.Time  `json:"time"`
	Kind       string     `json:"kind"` // see below
	Project    string     `json:"project,omitempty"`
	Service    string     `json:"service,omitempty"`
	Instance   string     `json:"instance,omitempty"` // name
	Generation int        `json:"generation,omitempty"`
	Rollout    int64      `json:"rollout,omitempty"`
	Revision   string     `json:"revision,omitempty"`
	Text       string     `json:"text"`
	Hint       string     `json:"hint,omitempty"`
	Current    int64      `json:"current,omitempty"` // bytes, of a pull
	Total      int64      `json:"total,omitempty"`
	Result     *Result    `json:"result,omitempty"`    // with done
	Image      string     `json:"image,omitempty"`     // with the done of a build: its id
	Scan       *Scan      `json:"scan,omitempty"`      // with the done of a scan
	Promotion  *Promotion `json:"promotion,omitempty"` // with the done of a promotion
	Error      *Error     `json:"error,omitempty"`     // with error

	// With container, as docker compose events --json prints them.
	Type       string            `json:"type,omitempty"` // container
	ID         string            `json:"id,omitempty"`   // of the instance
	Action     string            `json:"action,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Kinds of Event.
const (
	KindPull     = "pull"     // news of one image
	KindBuild    = "build"    // one line of a build
	KindAccepted = "accepted" // a generation stands; from here on the daemon goes on alone
	KindBegun    = "begun"    // an action has begun
	KindEnded    = "ended"    // an action has ended well
	KindFailed   = "failed"   // an action has failed; it is tried again or given up, Text says which
	KindState    = "state"    // an instance changed
	KindRollout  = "rollout"  // a rollout began, was rolled back, ended
	KindScaled   = "scaled"   // a count follows what is measured
	KindUpdate   = "update"   // a newer image: what was decided about it
	KindPromoted = "promoted" // an image came to stand at a step of the pipeline
	KindWarning  = "warning"
	// KindContainer is what the engine says of an instance, in its own words: Type, ID, Action, Attributes.
	KindContainer = "container"
	KindDone      = "done"  // the last one of a stream, with Result
	KindError     = "error" // the last one of a stream that ended badly, with Error
)

// Result is how a change ended.
type Result struct {
	// Outcome: converged, accepted (detached), rolled back, failed
	Outcome  string          `json:"outcome"`
	Services []ServiceResult `json:"services,omitempty"`
	Text     string          `json:"text"`
	Hint     string          `json:"hint,omitempty"`
}

// ServiceResult is how it ended for one service.
type ServiceResult struct {
	Service string `json:"service"`
	State   string `json:"state"` // as Service.State
	Text    string `json:"text,omitempty"`
}

// Change is everything else that changes a project.
type Change struct {
	Verb      string         `json:"verb"` // down, stop, start, restart, kill, pause, unpause, rm, scale, rollback, release
	Services  []string       `json:"services,omitempty"`
	Scale     map[string]int `json:"scale,omitempty"`
	To        string         `json:"to,omitempty"`      // rollback: revision
	Signal    string         `json:"signal,omitempty"`  // kill
	Grace     *time.Duration `json:"grace,omitempty"`   // -t; nanoseconds
	Volumes   bool           `json:"volumes,omitempty"` // down -v, rm -v
	Images    string         `json:"images,omitempty"`  // down --rmi local|all
	Orphans   bool           `json:"remove_orphans,omitempty"`
	Detach    bool           `json:"detach,omitempty"`
	Supersede bool           `json:"supersede,omitempty"`
}

// Project is one row of ls.
type Project struct {
	Name       string    `json:"name"`
	State      string    `json:"state"` // healthy, converging, degraded, stopped, foreign
	Detail     string    `json:"detail,omitempty"`
	Generation int       `json:"generation"`
	Accepted   time.Time `json:"accepted,omitzero"`
	Who        string    `json:"who,omitempty"`
	Files      []string  `json:"compose_files,omitempty"`
	Services   []Service `json:"services,omitempty"`
	Foreign    bool      `json:"foreign,omitempty"` // Docker Compose runs it
}

// Service is what is wanted of a service and what is there.
type Service struct {
	Project  string    `json:"project"`
	Name     string    `json:"name"`
	Image    string    `json:"image"`
	Revision string    `json:"revision"`
	Wanted   int       `json:"wanted"`
	Ready    int       `json:"ready"`
	State    string    `json:"state"` // healthy, starting, updating, degraded, failed, stopped, done, foreign
	Detail   string    `json:"detail,omitempty"`
	Rollout  *Rollout  `json:"rollout,omitempty"` // the open one
	Since    time.Time `json:"since,omitzero"`
	// Scale is there where Wanted follows what is measured.
	Scale *Scale `json:"scale,omitempty"`
}

// Scale is how the count of a service follows what is measured.
type Scale struct {
	Min  int    `json:"min"`
	Max  int    `json:"max"`
	Rule string `json:"rule"` // for people: "2..10, cpu 70 %"
	// Cause is what the last look found: figures, and why the count stays or changes.
	Cause string `json:"cause,omitempty"`
	// Changed is when the count was last changed, from what, by whom and why; absent: it was not.
	Changed time.Time `json:"changed,omitzero"`
	From    int       `json:"from,omitempty"`
	Who     string    `json:"who,omitempty"`
	Why     string    `json:"why,omitempty"`
}

// Instance is one row of ps.
type Instance struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Project   string            `json:"project"`
	Service   string            `json:"service"`
	Revision  string            `json:"revision,omitempty"`
	Slot      int               `json:"slot"`
	Image     string            `json:"image"`
	ImageID   string            `json:"image_id"`
	Command   string            `json:"command,omitempty"`
	State     string            `json:"state"`
	Health    string            `json:"health,omitempty"`
	ExitCode  int               `json:"exit_code"`
	OOM       bool              `json:"oom,omitempty"`
	Status    string            `json:"status"` // for people: "up 3 minutes (healthy)"
	Restarts  int               `json:"restarts"`
	Created   time.Time         `json:"created"`
	Started   time.Time         `json:"started,omitzero"`
	Ports     []Port            `json:"ports,omitempty"`
	Foreign   bool              `json:"foreign,omitempty"`
	Oneoff    bool              `json:"oneoff,omitempty"`
	Drift     string            `json:"drift,omitempty"`
	Addresses map[string]string `json:"addresses,omitempty"`
}

// Port is a published port.
type Port struct {
	HostIP    string `json:"host_ip,omitempty"`
	HostPort  int    `json:"host_port,omitempty"`
	Container int    `json:"container"`
	Protocol  string `json:"protocol"`
}

// Rollout is one move of a service from a revision to another, with its record.
type Rollout struct {
	ID         int64     `json:"id"` // 0 with Scaled
	Project    string    `json:"project"`
	Service    string    `json:"service"`
	Generation int       `json:"generation"`
	From       string    `json:"from,omitempty"` // revision; empty: first deploy
	To         string    `json:"to"`
	FromImage  string    `json:"from_image,omitempty"`
	ToImage    string    `json:"to_image,omitempty"`
	Strategy   string    `json:"strategy"` // rolling start-first, rolling stop-first, blue-green, canary, recreate, scale
	State      string    `json:"state"`    // open, done, rolled back, failed, superseded
	Reason     string    `json:"reason,omitempty"`
	Who        string    `json:"who"`
	Started    time.Time `json:"started"`
	Ended      time.Time `json:"ended,omitzero"`
	Diff       string    `json:"diff,omitempty"` // what changed between the two, secrets never
	// Shifts are the shares of the traffic that the new revision was given, in order.
	Shifts []Shift `json:"shifts,omitempty"`
	Held   string  `json:"held,omitempty"` // at whose word it waits before its next step
	// Evidence is what is known of an ended rollout: what was served, and how instances came and went.
	Evidence *Evidence `json:"evidence,omitempty"`
	// Proof lists what happened, in order.
	Proof []Step `json:"proof,omitempty"`
	// Scaled: it is no move to another revision, the count was changed.
	Scaled *Scaled `json:"scaled,omitempty"`
}

// Scaled is how many instances a service had, and has since.
type Scaled struct {
	From int `json:"from"`
	To   int `json:"to"`
}

// Shift is a share of the traffic that a new revision was given.
type Shift struct {
	At      time.Time `json:"at"`
	Percent float64   `json:"percent"`
}

// Evidence is what is known of an ended rollout.
type Evidence struct {
	Verdict string `json:"verdict"`
	// Served is what the edge counted while it ran, the old revision first; absent: the edge does not serve it.
	Served  []ServedBy `json:"served,omitempty"`
	Partial bool       `json:"partial,omitempty"` // the edge began to count anew meanwhile: Served is a part
	Health  []Vital    `json:"health,omitempty"`  // of the new revision's instances when it ended
	Drains  []Drain    `json:"drains,omitempty"`  // how instances left the traffic
}

// ServedBy is what one revision served.
type ServedBy struct {
	Revision string `json:"revision"`
	Digest   string `json:"digest"` // of its image, or the image's id
	Requests uint64 `json:"requests"`
	Failed   uint64 `json:"failed"` // what the edge could not bring home, and what was answered with 5xx
	// Cut are streams that a drain ended.
	Cut uint64  `json:"cut"`
	P99 float64 `json:"p99,omitempty"` // a bound under which 99 % of the latencies stayed, in seconds
}

// Vital is how an instance was.
type Vital struct {
	Instance string  `json:"instance"`
	State    string  `json:"state"`           // healthy, running, exited with 1
	After    float64 `json:"after,omitempty"` // seconds from its start to that state
	Restarts int     `json:"restarts,omitempty"`
}

// Drain is how an instance left the traffic.
type Drain struct {
	Instance string  `json:"instance"`
	Seconds  float64 `json:"seconds"`
	Cut      int     `json:"cut"`               // requests that were under way still
	Skipped  string  `json:"skipped,omitempty"` // why it was not waited for
}

// Step is one line of a rollout's proof.
type Step struct {
	Time time.Time `json:"time"`
	Text string    `json:"text"`
}

// Why answers "why is it like that?".
type Why struct {
	Project  string    `json:"project"`
	Service  string    `json:"service"`
	Summary  string    `json:"summary"`
	Findings []Finding `json:"findings"`
}

// Finding is one reason, with its evidence and what to do.
type Finding struct {
	What     string   `json:"what"`
	Evidence []string `json:"evidence,omitempty"`
	Next     string   `json:"next,omitempty"`
}

// Status is the daemon's own state.
type Status struct {
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Data     string    `json:"data_dir"`
	Engine   Engine    `json:"engine"`
	Parts    []Part    `json:"parts"`
	Taken    time.Time `json:"picture_taken,omitzero"`
	Stale    time.Time `json:"stale_since,omitzero"`
	Projects []Project `json:"projects"`
}

// Engine is what runs the instances.
type Engine struct {
	Name    string `json:"name"`
	Host    string `json:"host"`
	Version string `json:"version"`
	API     string `json:"api"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	Kernel  string `json:"kernel"`
}

// Part is one supervised piece of the daemon.
type Part struct {
	Name     string    `json:"name"`
	State    string    `json:"state"` // running, restarting, failed, off
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`
	Error    string    `json:"error,omitempty"`
	Note     string    `json:"note,omitempty"` // nothing is wrong, and yet to be known
	Done     time.Time `json:"done,omitzero"`  // of a part that does one thing again and again: the last time that it could
}

// Check is one line of tender doctor.
type Check struct {
	Name   string `json:"name"`
	Result string `json:"result"` // ok, warning, failed
	Text   string `json:"text"`
	Fix    string `json:"fix,omitempty"` // what to type
}

// Secret is what may be known of a secret.
type Secret struct {
	Name     string          `json:"name"`
	Project  string          `json:"project,omitempty"` // empty: for all projects
	Version  int             `json:"version"`
	Created  time.Time       `json:"created"`
	Who      string          `json:"who"`
	Size     int             `json:"size"`              // bytes
	UsedBy   []string        `json:"used_by,omitempty"` // PROJECT/SERVICE
	Versions []SecretVersion `json:"versions,omitempty"`
}

// SecretVersion is one version that is still kept.
type SecretVersion struct {
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	Who     string    `json:"who"`
	Size    int       `json:"size"`
}

// Token is what may be known of an API token.
type Token struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Scope    string    `json:"scope"` // read, deploy, admin
	Projects []string  `json:"projects,omitempty"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires,omitzero"`
	Secret   string    `json:"secret,omitempty"` // once, when made
}

// Audit is one line of who did what.
type Audit struct {
	Time    time.Time `json:"time"`
	Who     string    `json:"who"`
	What    string    `json:"what"`
	Project string    `json:"project,omitempty"`
	Detail  string    `json:"detail,omitempty"`
	Outcome string    `json:"outcome,omitempty"` // "" ok, else the error
}

// LogRequest chooses log lines.
type LogRequest struct {
	Services []string
	Instance string // name or id; empty: all of the services
	Since    time.Time
	Until    time.Time
	Tail     int // lines per instance, < 0: all
	Follow   bool
	// Query is LogQL: stages such as |= "x" | status >= 500, or a whole log query. It is
	// about this project alone, whatever it says.
	Query  string
	Fields bool // of each line are wanted
}

// LogLine is one entry that an instance wrote.
type LogLine struct {
	Time     time.Time `json:"time"`
	Service  string    `json:"service"`
	Instance string    `json:"instance"`
	Stream   string    `json:"stream"` // stdout, stderr
	Text     string    `json:"text"`   // without the line end; at most 1 MiB; a stack trace has line ends inside
	// With LogRequest.Fields, of what the store of logs keeps.
	Revision string            `json:"revision,omitempty"`
	Fields   map[string]string `json:"fields,omitempty"`
	// Note is what the daemon says of the lines, in place of one: that some were left out,
	// or come from somewhere else.
	Note string `json:"note,omitempty"`
}

// LogNumbers ask for a metric query of LogQL, about one project.
type LogNumbers struct {
	Query string
	Start time.Time
	End   time.Time
	Step  time.Duration // 0: at End alone
}

// LogSeries is a row of numbers.
type LogSeries struct {
	Labels map[string]string `json:"labels"`
	Values []LogValue        `json:"values"`
}

// LogValue is one of them; those without a value are left out.
type LogValue struct {
	Time  time.Time `json:"time"`
	Value float64   `json:"value"` // what is not finite is left out, too
}

// Sample is what an instance uses now.
type Sample struct {
	Instance    string  `json:"instance"` // name
	ID          string  `json:"id"`
	Project     string  `json:"project"`
	Service     string  `json:"service"`
	CPU         float64 `json:"cpu_percent"` // of one core
	Memory      int64   `json:"memory"`      // bytes
	MemoryLimit int64   `json:"memory_limit"`
	// Bytes since the start of the instance, and in a second as of late.
	NetRead int64 `json:"net_read"`
	NetSent int64 `json:"net_sent"`
	BlkRead int64 `json:"block_read"`
	BlkSent int64 `json:"block_written"`
	PIDs    int   `json:"pids"`

	NetReadRate *float64 `json:"net_read_rate,omitempty"` // nil: not known
	NetSentRate *float64 `json:"net_sent_rate,omitempty"`
	// Requests in a second, and the 99th percentile of the seconds until the head of an answer; nil: no route leads
	// there, or nothing came.
	Requests *float64 `json:"requests_per_second,omitempty"`
	P99      *float64 `json:"p99_seconds,omitempty"`

	Restarts int       `json:"restarts"`         // by the engine's restart policy
	Health   string    `json:"health,omitempty"` // "" without a healthcheck
	State    string    `json:"state,omitempty"`  // running or paused
	Started  time.Time `json:"started,omitzero"`
}

// Processes are the processes of one instance.
type Processes struct {
	Instance string     `json:"instance"`
	Service  string     `json:"service"`
	Slot     int        `json:"slot"`
	Titles   []string   `json:"titles"`
	Rows     [][]string `json:"rows"`
}

// Target names one instance of a service. Where Project is given, the instance
// must be one of that project: a token may be good for some projects only.
type Target struct {
	Project, Service string
	Slot             int    // 0: the first that runs
	Instance         string // id or name; wins over Service
}

// ExecRequest is what exec, attach and run open.
type ExecRequest struct {
	Cmd        []string          `json:"cmd,omitempty"`
	Env        []string          `json:"env,omitempty"`
	User       string            `json:"user,omitempty"`
	WorkingDir string            `json:"working_dir,omitempty"`
	Entrypoint []string          `json:"entrypoint,omitempty"` // run
	TTY        bool              `json:"tty,omitempty"`
	Stdin      bool              `json:"stdin,omitempty"`
	Privileged bool              `json:"privileged,omitempty"`
	Detach     bool              `json:"detach,omitempty"`
	Remove     bool              `json:"remove,omitempty"` // run --rm
	Ports      bool              `json:"service_ports,omitempty"`
	Name       string            `json:"name,omitempty"` // run --name
	NoDeps     bool              `json:"no_deps,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Width      int               `json:"width,omitempty"`
	Height     int               `json:"height,omitempty"`
}

// Image is an image that the engine has.
type Image struct {
	Reference string    `json:"reference"` // as asked for
	ID        string    `json:"id"`
	Digest    string    `json:"digest,omitempty"`   // repository digest, where one is known
	Platform  string    `json:"platform,omitempty"` // linux/amd64
	Size      int64     `json:"size,omitempty"`     // bytes, with the layers that it shares
	Created   time.Time `json:"created,omitzero"`
}

// BuildRequest is one build; its contexts follow as tar streams.
type BuildRequest struct {
	Project       string             `json:"project,omitempty"` // whose secrets External may be
	Service       string             `json:"service,omitempty"`
	Tags          []string           `json:"tags"`
	Dockerfile    string             `json:"dockerfile,omitempty"`
	Remote        string             `json:"remote,omitempty"` // the context is at this URL; no stream context follows
	Args          map[string]*string `json:"args,omitempty"`
	Target        string             `json:"target,omitempty"`
	Labels        map[string]string  `json:"labels,omitempty"`
	NoCache       bool               `json:"no_cache,omitempty"`
	NoCacheFilter []string           `json:"no_cache_filter,omitempty"` // stages
	Pull          bool               `json:"pull,omitempty"`
	CacheFrom     []string           `json:"cache_from,omitempty"`
	CacheTo       []string           `json:"cache_to,omitempty"`
	Network       string             `json:"network,omitempty"`
	ShmSize       int64              `json:"shm_size,omitempty"` // bytes
	Ulimits       []string           `json:"ulimits,omitempty"`  // NAME=SOFT:HARD
	ExtraHosts    []string           `json:"extra_hosts,omitempty"`
	Platforms     []string           `json:"platforms,omitempty"`
	Entitlements  []string           `json:"entitlements,omitempty"`
	ContextURLs   map[string]string  `json:"context_urls,omitempty"` // contexts beside the main one that are no streams
	Secrets       map[string][]byte  `json:"secrets,omitempty"`      // values by id, never kept
	External      map[string]string  `json:"external,omitempty"`     // names of secrets in the vault, by id
	Agents        map[string]string  `json:"agents,omitempty"`       // sockets of SSH agents on the daemon's host, by id
	Auths         map[string]string  `json:"auths,omitempty"`        // registry to X-Registry-Auth
}

// Login is what may be known of a login that the daemon keeps.
type Login struct {
	Registry string    `json:"registry"`
	User     string    `json:"user"`
	Created  time.Time `json:"created"`
	Who      string    `json:"who"`
}

// BuildContext is one context of a build.
type BuildContext struct {
	Name string // as the Dockerfile calls it; empty: the main one, which comes last
	Tar  io.Reader
}

// BuildContexts returns the contexts of a build as they arrive; each one can be
// read until the next is asked for. io.EOF: there are no more.
type BuildContexts func() (BuildContext, error)
