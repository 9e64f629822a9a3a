// Package engine is the line between Tender and whatever runs containers.
//
// Engine is what the rest of the house may ask for; the docker package below
// this one answers it, and enginetest holds a fake and the promises that every
// engine must keep. Inventory turns an engine into a picture that is always
// there and always recent. Nothing here decides: that is plan's.
package engine

import (
	"context"
	"io"
	"time"

	tender "github.com/tenderhq/tender"
)

// Engine runs instances. Every method may be called again after it was cut
// off in the middle and then ends where one whole call would have.
type Engine interface {
	Reader
	Images
	Console

	// Traits says what this engine can do.
	Traits() Traits

	// Ensure makes the project's own networks and volumes exist. Those that are
	// external must be there: NotFound otherwise. One that is there and made
	// otherwise (driver, subnet, internal, options) is a Conflict; nothing is ever
	// removed. Networks without a subnet get one from the engine's pool of subnets.
	Ensure(ctx context.Context, p tender.Project) error

	// Scale removes the instances in w.Drop (stopped first, with the grace they
	// were made with), then makes one started instance of w's revision exist in
	// each slot of w.Slots. Instances of the revision in other slots are left
	// alone. It returns when the engine has accepted that; healthy or not shows in
	// List. A slot that is there but not running is started, not made again.
	//
	// A newcomer is called by the plain name of its slot if nobody but one of
	// w.Drop has it, else PLAIN-REVISION. One that cannot start is removed, except
	// that one which inherited volumes stays, not started, as their only holder.
	// NotFound: the image or a file is missing. Conflict: a host port is taken.
	Scale(ctx context.Context, w Want) error

	// Name gives an instance the plain name of its slot, PROJECT-SERVICE-N or its
	// container_name, once nobody else has it.
	Name(ctx context.Context, id string) error

	// Promote lets an instance be found by the names of its service, in all networks of its revision, and
	// Demote by SERVICE-N alone, where it is pinned. Neither restarts it; a pinned one keeps its addresses, and
	// what is connected to it goes on after a moment. One that is not in a network of its revision joins it.
	// A call that was cut off may leave it outside of a network: Found says so, and the next call mends it.
	Promote(ctx context.Context, id string) error
	Demote(ctx context.Context, id string) error

	Start(ctx context.Context, id string) error
	// Stop sends the stop signal and kills after grace, a negative one being that
	// which the instance was made with; so do Restart and Remove.
	Stop(ctx context.Context, id string, grace time.Duration) error
	Restart(ctx context.Context, id string, grace time.Duration) error
	Signal(ctx context.Context, id, signal string) error // tender kill
	Pause(ctx context.Context, id string) error
	Unpause(ctx context.Context, id string) error

	// Remove stops and removes one instance; its anonymous volumes go only when
	// volumes is set. One that is gone already is no error.
	Remove(ctx context.Context, id string, grace time.Duration, volumes bool) error
	// RemoveNetwork and RemoveVolume: gone already is no error, in use is Conflict.
	RemoveNetwork(ctx context.Context, id string) error
	RemoveVolume(ctx context.Context, name string) error
}

// Reader is an engine that can only be looked at. Plans and dry runs hold this.
type Reader interface {
	// List takes the picture: every instance, network and volume that carries
	// Tender's or Docker Compose's project labels.
	List(ctx context.Context) (tender.Picture, error)
	// Watch calls changed whenever List may answer differently, after the engine has
	// begun to watch (started is called then, once). It returns nil when ctx ends,
	// else why the connection was lost.
	Watch(ctx context.Context, started, changed func()) error
	// Events reports what happens to the instances of a project from now on, in Docker's words, one-off ones
	// left out; project "": of all. started is called once, when it has begun to listen. It returns nil when ctx
	// ends, else why the connection was lost.
	Events(ctx context.Context, project string, started func(), report func(Event)) error
	// Info says what runs.
	Info(ctx context.Context) (Info, error)
	// Equal reports whether the instance id, made by somebody else, is what w would make,
	// and if not, in a few words what differs.
	Equal(ctx context.Context, w Want, id string) (same bool, why string, err error)
	// Recall reads from an instance what it was made from, as far as it carries it: Project, Generation,
	// Image, ComposeFiles, WorkingDir, and of Service the Name, Revision and Spec. NotFound: it carries none.
	Recall(ctx context.Context, id string) (Want, error)
	// Sizes measures what instances have written into their own layers, in bytes, by id: these, or all where
	// none is named. One that is gone is left out. It reads the disk: for people who ask, not for a loop.
	Sizes(ctx context.Context, ids ...string) (map[string]int64, error)
	// Disk measures what the engine keeps on its disk, in bytes by kind: images, containers (what they have
	// written into their own layers), volumes, build_cache. It walks all of that: rarely.
	Disk(ctx context.Context) (map[string]int64, error)
	// Written names the files, and folders without any, that an instance has written into its own layer, by path.
	Written(ctx context.Context, id string) ([]string, error)
	// Check says what of this service the engine cannot do: warnings, or an error (Invalid).
	Check(ctx context.Context, s tender.Service) (warnings []string, err error)
}

// Event is one thing that happened to an instance.
type Event struct {
	Time             time.Time
	Project, Service string
	ID, Name         string
	Action           string // create, start, die, stop, kill, destroy, exec_start: CMD…
	// Attributes are what the engine says beside it: image, name, exitCode, signal and the user's own labels.
	Attributes map[string]string
}

// Want is one revision of a service, and in which slots it shall be.
type Want struct {
	Project    string
	Generation int
	Service    tender.Service // Revision set
	Image      tender.ImageID
	Slots      []int
	Drop       []string // instance ids
	// StopIn is the grace of those in Drop; nil: that which each was made with.
	StopIn *time.Duration
	// Inherit names, per slot, the instance whose anonymous volumes the newcomer takes over. It may be in
	// Drop: then its volumes outlive it.
	Inherit map[int]string
	// Unnamed: newcomers are found by SERVICE-N alone until they are promoted, in networks that are roomy. An
	// instance with a healthcheck that publishes no port is pinned there.
	Unnamed bool
	// Files are bind-mounted read-only: secrets and configs, which lie on the host already.
	Files []File
	// ComposeFiles and WorkingDir go into Docker Compose's labels.
	ComposeFiles []string
	WorkingDir   string
}

// File is a file on the host that an instance sees at Target.
type File struct {
	Source, Target string
}

// Traits says what an engine can do.
type Traits struct {
	Drop bool // can remove the instances it is told to
}

// Info says what the engine is.
type Info struct {
	Name          string // "docker"
	Host          string // unix:///…, tcp://…
	Version       string
	API           string // the version spoken
	OS, Arch      string
	Kernel        string
	Root          string // data root
	StorageDriver string
	LoggingDriver string
	CgroupVersion string
	Warnings      []string
	CPUs          int
	Memory        int64 // bytes
	Containers    int
}

// Images are what instances are made from.
type Images interface {
	// Resolve looks ref up among the engine's images: NotFound if it is not there.
	Resolve(ctx context.Context, ref string) (tender.ImageID, error)
	// Describe is Resolve with what people want to know beside it.
	Describe(ctx context.Context, ref string) (Description, error)
	// Pull fetches ref; progress lines go to report, which may be nil. auth is
	// base64 JSON as in X-Registry-Auth, or "".
	Pull(ctx context.Context, ref, platform, auth string, report func(Progress)) error
	Push(ctx context.Context, ref, auth string, report func(Progress)) error
	// Build builds from a tar stream of the context, which is read once and never kept; it may be nil with
	// o.Remote. Invalid: the Dockerfile is wrong, or one of its steps failed; the error then ends with what
	// that step said last.
	Build(ctx context.Context, tarball io.Reader, o BuildOptions, report func(Progress)) (id string, err error)
	Tag(ctx context.Context, id, ref string) error
	RemoveImage(ctx context.Context, ref string) error
	// Keep sees to it that no prune of images takes these, and lets go of others that were kept for the
	// project. One that is not there is no error. It changes nothing that List or Resolve tell.
	Keep(ctx context.Context, project string, images []tender.ImageID) error
	// Shelf lists every image that the engine has, whoever brought it, and who has it.
	Shelf(ctx context.Context) ([]Shelved, error)
	// Discard removes an image by its ID, with these names, which are all that it may have. It never forces:
	// Conflict, and nothing has changed, where a container has it, another image is made from it, or it has
	// got another name. Gone already is no error. between: what nothing else is made from goes with it.
	Discard(ctx context.Context, id string, names []string, between bool) error
	// BuildCache lists what the engine remembers of builds; PruneCache removes of it what no build has in
	// hand, the longest unused first, and returns the bytes of that.
	BuildCache(ctx context.Context) ([]Cached, error)
	PruneCache(ctx context.Context, o CachePrune) (bytes int64, err error)

	// Layers names the layers of ref by their digests unpacked, the lowest first. NotFound: it is not there.
	Layers(ctx context.Context, ref string) ([]string, error)
	// Shared counts how many of the lowest of these layers are there already, stacked in this order.
	Shared(ctx context.Context, layers []string) (int, error)
	// Save writes images with their names as docker save does; Load takes such a tar, gzipped or not.
	// Where Shared counted layers, most engines do without their files; one that does not is Invalid.
	Save(ctx context.Context, refs []string) (io.ReadCloser, error)
	Load(ctx context.Context, tarball io.Reader, report func(Progress)) error
	// Layouts says whether this engine is asked by Arrive: it keeps the layers of images as an OCI layout
	// holds them, and knows of each whether it is there.
	Layouts(ctx context.Context) (bool, error)
	// Arrive takes one image as an OCI layout, a tar, gzipped or not, that may lack layers which the engine
	// has. In the layout it is called as, which begins with Arriving and is nobody else's; once nothing of it is
	// missing it gets names, and as goes whatever happens. Invalid: it is not whole, and no name has changed.
	Arrive(ctx context.Context, tarball io.Reader, as string, names []string, report func(Progress)) error

	// Login asks the registry at host whether it knows a user, and returns what to keep
	// for Pull and Push, as in X-Registry-Auth. Denied: it does not.
	Login(ctx context.Context, host, user, password string) (auth string, err error)
}

// Arriving begins the names under which images arrive. What was cut off in the
// middle may leave one; the next Arrive removes it.
const Arriving = "tender-arriving:"

// Description is an image that the engine has.
type Description struct {
	tender.ImageID
	Platform string // linux/amd64
	Size     int64  // bytes, with the layers that it shares
	Created  time.Time
	User     string // who its process runs as; "": root
	Labels   map[string]string
}

// Shelved is an image as it lies on the engine's shelf.
type Shelved struct {
	ID       string
	Names    []string // with their tags
	Digests  []string // REPOSITORY@sha256:… as its registries call it
	Size     int64    // bytes, with the layers that it shares
	Own      int64    // bytes that no other image has; -1: not known
	Created  time.Time
	Tagged   time.Time // when it last got a name; zero: not known
	Labels   map[string]string
	Users    []string // containers that have it, running or not, whoever made them
	Keeps    string   // the project that Keep keeps it for; "": none
	Children bool     // another image was made from it by this engine
	// Between are the images without a name that a build left on the way to this one.
	Between []string
}

// Cached is one record of what the engine remembers of builds.
type Cached struct {
	Size       int64 // bytes
	Used       time.Time
	InUse      bool
	SharedWith bool // its bytes are an image's, too
}

// CachePrune bounds PruneCache. Its zero value takes all that is not in use.
type CachePrune struct {
	Keep      int64         // bytes that stay, the last used
	OlderThan time.Duration // what was used since then stays; 0: no matter
}

// Progress is one piece of news of a pull, a push or a build.
type Progress struct {
	ID      string `json:"id,omitempty"` // layer, or empty
	Text    string `json:"text"`
	Current int64  `json:"current,omitempty"` // bytes
	Total   int64  `json:"total,omitempty"`
}

// BuildOptions say how an image is built. The zero value builds the file
// Dockerfile of the context.
type BuildOptions struct {
	Tags       []string
	Dockerfile string // path in the context
	Remote     string // the context is at this URL (git, or a tar over HTTP) instead of in the stream
	Args       map[string]*string
	Target     string
	Labels     map[string]string
	NoCache    bool
	// NoCacheFilter names the stages that are built anew.
	NoCacheFilter []string
	Pull          bool
	CacheFrom     []string // references, or type=registry,ref=…
	CacheTo       []string // type=inline, type=registry,ref=…
	Network       string   // default, none or host
	ShmSize       int64    // bytes
	Ulimits       []string // NAME=SOFT:HARD
	ExtraHosts    []string // NAME:ADDRESS; the address may be host-gateway
	Platforms     []string // none: the engine's own
	Entitlements  []string // network.host, security.insecure
	// Contexts are those that the Dockerfile names beside its own: a tar stream each, or a URL
	// (docker-image://…, git or HTTP).
	Contexts    map[string]io.Reader
	ContextURLs map[string]string
	// Secrets are the values that RUN --mount=type=secret shows, by id. They reach the step and nothing else:
	// no layer, no history, no cache key.
	Secrets map[string][]byte
	// Agents are sockets of SSH agents on the host, by the id of RUN --mount=type=ssh.
	Agents map[string]string
	// Auths are logins by registry, base64 JSON as in X-Registry-Auth.
	Auths map[string]string
}

// Console is for people: what they type at one instance.
type Console interface {
	// Logs writes what id wrote since since, both streams in Docker's multiplexed
	// framing unless the instance has a terminal (then raw). tail < 0: all.
	Logs(ctx context.Context, id string, o LogOptions) (stream io.ReadCloser, tty bool, err error)
	// Exec starts a command and returns its connection.
	Exec(ctx context.Context, id string, o ExecOptions) (*Session, error)
	// Attach connects to the instance's own process.
	Attach(ctx context.Context, id string, stdin bool) (*Session, error)
	Top(ctx context.Context, id string, args []string) (titles []string, rows [][]string, err error)
	// Wait blocks until id has exited and returns its code.
	Wait(ctx context.Context, id string) (code int, err error)
	// CopyFrom returns a tar of path in id; CopyTo unpacks one into the directory path.
	CopyFrom(ctx context.Context, id, path string) (io.ReadCloser, error)
	CopyTo(ctx context.Context, id, path string, tarball io.Reader) error
	// Oneoff creates (not starts) an instance of w outside its slots: tender run.
	Oneoff(ctx context.Context, w Want, o OneoffOptions) (id string, err error)
	// Stats reads one sample of each instance.
	Stats(ctx context.Context, ids []string) (map[string]Sample, error)
}

// LogOptions choose what Logs returns.
type LogOptions struct {
	Since, Until time.Time // zero: no bound
	Tail         int       // lines; < 0: all
	Follow       bool
	Timestamps   bool
}

// ExecOptions say what to run in an instance.
type ExecOptions struct {
	Cmd        []string
	Env        []string // NAME=value
	User       string
	WorkingDir string
	TTY        bool
	Stdin      bool
	Privileged bool
	Detach     bool
	Width      int // of the terminal, in columns; 0: not known
	Height     int
}

// OneoffOptions change a service for one run.
type OneoffOptions struct {
	Name       string
	Cmd        []string // nil: the service's
	Entrypoint []string
	Env        []string
	User       string
	WorkingDir string
	TTY        bool
	Stdin      bool
	Labels     map[string]string
	Ports      bool // publish the service's ports
	Remove     bool // by the engine when it ends
}

// Session is an open connection to a process. Output is multiplexed in
// Docker's framing unless TTY.
type Session struct {
	ID     string // of the exec; empty when attached
	TTY    bool
	Output io.Reader
	Input  io.Writer // nil without stdin
	// CloseWrite ends stdin; Close ends the connection.
	CloseWrite func() error
	Close      func() error
	Resize     func(ctx context.Context, width, height int) error
	// Exit returns the code once Output has ended.
	Exit func(ctx context.Context) (code int, err error)
}

// Sample is what an instance uses now.
type Sample struct {
	At               time.Time
	CPU              time.Duration // used since its start
	Memory           int64         // working set, bytes
	MemoryLimit      int64         // bytes; the host's memory where there is none
	NetRead, NetSent int64         // bytes since its start
	BlkRead, BlkSent int64
	PIDs             int
}
