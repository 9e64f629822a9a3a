// Package tender is the glossary: the values that three or more rooms share.
// It does no I/O, starts no goroutine and reads no clock.
//
// The words are those of docs/words.md: a project is what one Compose file
// describes, a revision is one immutable version of one of its services, an
// instance is one running copy of a revision.
package tender

import (
	"cmp"
	"slices"
	"time"
)

// Project is what one Compose file, with its overrides and environment,
// describes: one generation of it. compose.Parse makes it from the normal form.
type Project struct {
	Name string
	// Environment is x-tender.environment: which step of the pipeline it is; "" none.
	Environment string
	Services    []Service // by name
	// Routes are those of its services, by service and as written, then those at the top of the file.
	Routes []Route
	// Spec is the canonical Compose YAML of the whole project (long syntax,
	// interpolation done). Only compose and the engines read it.
	Spec []byte
}

// Service returns the service called name.
func (p *Project) Service(name string) (Service, bool) {
	i, ok := slices.BinarySearchFunc(p.Services, name, func(s Service, n string) int { return cmp.Compare(s.Name, n) })
	if !ok {
		return Service{}, false
	}
	return p.Services[i], true
}

// Service is one service of a project: what Tender decides on, and beside it
// the whole of what the user wrote.
type Service struct {
	Name     string
	Revision string // given once, at up; empty in what compose.Parse returns
	Replicas int    // 0 is allowed
	// Scale is x-tender.scale; nil: Replicas are what somebody said.
	Scale *Scale `json:",omitempty"`
	// Update is x-tender.update; nil: the same major version is looked for, and nothing moves by itself.
	Update *Update `json:",omitempty"`
	Image  string  // reference as written (or PROJECT-SERVICE for build without image)
	Build  bool    // has build:
	// PullPolicy is pull_policy: "", "always", "missing", "never", "build". Platform is as written, linux/arm64.
	PullPolicy, Platform string

	DependsOn []Dependency // by service name
	Rollout   Rollout      // update_config and x-tender.rollout, defaults not applied
	Rollback  Rollout      // rollback_config

	Restart string // "", "no", "always", "on-failure", "unless-stopped"
	// RestartMax is the N of on-failure:N, or deploy.restart_policy.max_attempts; 0: without end.
	RestartMax int
	// Publish is x-tender.publish: who holds ports: on the host. "" is not said; see PublishProxy.
	Publish string
	// Ports are what ports: publishes at one number each on the host (HostPort 0: the engine chooses).
	Ports []Port
	// Exposed are the container's ports as far as the file tells: those of expose: and ports:.
	Exposed []Port
	// Catalog is the label consul.service, CatalogPort consul.port: how discovery calls it; empty: by its own name.
	Catalog     string
	CatalogPort int
	// Reach is how the edge comes to its instances: "" by address, on one of Networks, which are names that
	// the host reaches, the best first; "host" over loopback; "service:NAME" at that service's addresses.
	Reach    string
	Networks []string
	// Resolver: its instances ask Tender's DNS (dns: tender), at the host's address in the first of Networks that
	// shows a Gateway.
	Resolver bool
	// Boot says who starts and restarts instances: "" or BootEngine the engine does as Restart says, at a boot
	// in no order; BootOrdered Tender alone does, what it depends on first.
	Boot string
	// Healthcheck: 1 the service has one, -1 it is disabled, 0 not said (the image may bring one).
	Healthcheck int
	// Job: another service waits for it to end with 0 (service_completed_successfully or rollout.before).
	Job bool
	// Grace is stop_grace_period, default 10 s.
	Grace time.Duration

	// OneAtATime is why two revisions of one slot cannot run side by side (a host port held by the
	// engine, host network, static address, device, container_name, anonymous volume, writable volume with
	// one replica): such a service is replaced stop-first unless order is set. Empty: they can.
	OneAtATime string

	// Secrets and Configs are the files that must lie on the host before an instance is created.
	Secrets []SecretFile
	Configs []ConfigFile

	// Spec is a canonical Compose document of this service alone with the networks, volumes, configs and
	// secrets it uses, and under services: nothing else. Only compose and the engines read it.
	Spec []byte
}

// The words of x-tender.boot.
const (
	BootEngine  = "engine"
	BootOrdered = "ordered"
)

// DNS is the word that stands for Tender's own resolver under dns:.
const DNS = "tender"

// The words of x-tender.publish.
const (
	PublishProxy  = "proxy"  // the edge holds the ports and leads to all instances
	PublishEngine = "engine" // the engine publishes them, for one instance each
)

// SecretFile is a secret as a service uses it.
type SecretFile struct {
	Name     string // in the vault: NAME for external ones, else the key under secrets: of this project
	External bool   // lives in the vault for all projects; else it belongs to this project
	Source   string // the key under secrets:
	Target   string // absolute path in the container; default /run/secrets/SOURCE
	UID, GID int    // default 0
	Mode     uint32 // default 0o444
	Version  int    // given at up, 0 in what compose.Parse returns
}

// ConfigFile is a config as a service uses it.
type ConfigFile struct {
	Source   string // the key under configs:
	Target   string // absolute path in the container; default /SOURCE
	SHA256   string // hex, of the content, which travels in Document.Files
	UID, GID int
	Mode     uint32 // default 0o444
}

// Dependency is one entry of depends_on.
type Dependency struct {
	Service   string
	Condition Condition
	Required  bool // false: start without it when it is not there or cannot come
	Restart   bool // restart this service when that one was restarted or replaced
}

// Condition is Compose's word for when a dependency is met.
type Condition string

const (
	Started   Condition = "service_started"
	Healthy   Condition = "service_healthy"
	Completed Condition = "service_completed_successfully"
)

// Rollout says how one revision replaces another. Zero values mean "not said".
type Rollout struct {
	Strategy string         // "", "rolling", "blue-green", "canary", "recreate"
	Order    string         // "", "start-first", "stop-first"
	Parallel *int           // update_config.parallelism; 0: all at once; nil: not said (1)
	Delay    time.Duration  // between two batches
	Hold     *time.Duration // an instance must stay healthy this long; nil: not said
	Monitor  time.Duration  // update_config.monitor: how long after its start a failure counts
	Failure  string         // failure_action: "", "pause", "continue", "rollback"
	MaxRatio float64        // max_failure_ratio
	Before   string         // a job that must end with 0 first

	Steps       []int         // canary: percent of the traffic, growing, each below 100; none: 5, 25, 50
	Pause       time.Duration // canary: how long each step is watched; 0: not said (1 min)
	AbortErrors float64       // share of failed requests above which it goes back, 0.01 is 1 %; 0: not said (1 %)
	AbortP99    time.Duration // p99 above which it goes back; 0: not said
	Keep        time.Duration // blue-green: how long the old revision stays after the switch
	Check       []Check       // asked of the new revision through the edge before it gets traffic
}

// Check is a request to a new revision and what it must answer.
type Check struct {
	Path   string `json:"path"`             // with query; default "/"
	Status int    `json:"status,omitempty"` // default 200
	Body   string `json:"body,omitempty"`   // what the body must hold; empty: anything
}

// The words of Rollout.Strategy.
const (
	Rolling   = "rolling"
	BlueGreen = "blue-green"
	Canary    = "canary"
	Recreate  = "recreate"
)

// State is Docker's word for what an instance does.
type State string

const (
	Created    State = "created"
	Running    State = "running"
	Paused     State = "paused"
	Restarting State = "restarting"
	Exited     State = "exited"
	Removing   State = "removing"
	Dead       State = "dead"
)

// Health is Docker's word for what the healthcheck says; "" means there is none.
type Health string

const (
	Starting  Health = "starting"
	HealthyIs Health = "healthy"
	Unhealthy Health = "unhealthy"
)

// Instance is one copy of a revision as the engine shows it.
type Instance struct {
	ID      string // the engine's
	Name    string // the container's name, without slash
	Project string
	Service string
	// Revision is empty for a foreign instance.
	Revision string
	Slot     int  // 1..n; 0 unknown
	Foreign  bool // made by Docker Compose, not by Tender
	// Home is the data directory of the Tender that made it: another one never takes it for lost.
	Home string
	// ConfigHash is Docker Compose's hash label; ComposeOf is the service's config that a foreign one was made from as far as labels tell.
	ConfigHash string
	Oneoff     bool // made by tender run or docker compose run: shown, never planned

	State    State
	Health   Health
	ExitCode int  // where State is exited or dead
	OOM      bool // the kernel ended it for memory
	// OOMs is how often the engine told that memory ran out in it, since this process began to watch.
	OOMs     int
	PID      int // of its first process, as the engine's host counts; 0: it does not run
	Error    string
	Restarts int // by the engine's restart policy
	Created  time.Time
	Started  time.Time // zero: never
	Finished time.Time
	// Since is when State and Health took their present value as seen by this process.
	Since time.Time
	// Begun is when this process first saw it in its present life, from one start to the next.
	Begun time.Time

	Command string // for people, as docker ps prints it
	Image   string // reference as created
	ImageID string
	Ports   []Port
	// Addresses holds the address per network name; Aliases the names there.
	Addresses map[string]string
	// Found says under which names it is found inside of its networks. Pinned: its addresses are its own, so that
	// it keeps them when it leaves a network and joins it again.
	Found  Found
	Pinned bool
	// Anonymous lists the anonymous volumes that it holds.
	Anonymous []string
	// Drift says how it differs from its own revision (limits, restart policy, networks) without Tender
	// having done that; empty: it does not.
	Drift string
	// HealthOutput is the last output of a failing healthcheck, cut at 1 KB.
	HealthOutput string

	// LogDriver is what the engine does with what it writes; LogPath is the file that the driver json-file
	// writes, on the engine's host.
	LogDriver, LogPath string
}

// Found says under which names an instance is found by its neighbours.
type Found string

const (
	ByService Found = ""        // that of its service, and its aliases
	BySlot    Found = "slot"    // SERVICE-N alone: nobody who asks for the service gets to it
	Nowhere   Found = "nowhere" // it is not in a network that its revision joins
)

// Ready reports whether the instance serves: running, and healthy where it has a healthcheck.
func (i *Instance) Ready() bool {
	return i.State == Running && (i.Health == "" || i.Health == HealthyIs)
}

// Port is a published port.
type Port struct {
	HostIP    string `json:"host_ip,omitempty"`
	HostPort  int    `json:"host_port,omitempty"`
	Container int    `json:"container"`
	Protocol  string `json:"protocol"` // tcp, udp, sctp
}

// Network and Volume are what the engine has under a project's label, or what one of its instances uses.
type Network struct {
	ID, Name, Project, Key string // Key: the name under networks: in the file
	Foreign                bool
	// Roomy: it has addresses that the engine gives to nobody by itself. Instances with one of them are Pinned.
	Roomy bool
	// Gateway is the host's address in a bridge network, Subnets those of its instances.
	Gateway string
	Subnets []string
}

// Volume is a named volume of a project.
type Volume struct {
	Name, Project, Key string
	Foreign            bool
}

// Picture is what is there now, taken from the engine and never stored.
type Picture struct {
	Instances []Instance // by project, service, slot, name
	Networks  []Network
	Volumes   []Volume
	Taken     time.Time
	// Stale is set when the engine no longer answers: since when.
	Stale time.Time
}

// Of returns the instances of one project.
func (p *Picture) Of(project string) []Instance {
	var out []Instance
	for _, i := range p.Instances {
		if i.Project == project {
			out = append(out, i)
		}
	}
	return out
}

// ImageID is what an image reference was found to be, once, at up (decision 5).
type ImageID struct {
	Reference string `json:"reference"`        // as the user wrote it
	Digest    string `json:"digest,omitempty"` // repository digest, sha256:…, where one is known
	ID        string `json:"id"`               // the engine's image id
	// Healthcheck: the image brings one. Volumes: paths the image declares as VOLUME.
	Healthcheck bool     `json:"healthcheck,omitempty"`
	Volumes     []string `json:"volumes,omitempty"`
}

// Same reports whether both are the same image: any match is enough.
func (a ImageID) Same(b ImageID) bool {
	return a.ID != "" && a.ID == b.ID || a.Digest != "" && a.Digest == b.Digest
}
