package api

import (
	"context"
	"io"
	"time"
)

// Backend is what Handler serves. Errors are *tender.Error where they are
// the caller's to mend. Methods with report block until the change has ended
// or ctx does; what was accepted before goes on without them.
type Backend interface {
	// Authenticate finds who holds a token: Denied if nobody does.
	Authenticate(ctx context.Context, token string) (Person, error)

	Status(ctx context.Context) (Status, error)
	Doctor(ctx context.Context) ([]Check, error)
	// DoctorLogs reads and verifies all of the store of logs, which takes as long as it is large.
	DoctorLogs(ctx context.Context) ([]Check, error)

	Projects(ctx context.Context) ([]Project, error)
	Project(ctx context.Context, project string) (Project, error)
	Instances(ctx context.Context, project string, all bool) ([]Instance, error) // project "": all
	// Config returns the normal form of what is wanted; generation 0: the newest.
	Config(ctx context.Context, project string, generation int) (string, error)

	Plan(ctx context.Context, s Submission) (Plan, error)
	Up(ctx context.Context, who Person, s Submission, report func(Event)) (Result, error)
	Change(ctx context.Context, who Person, project string, c Change, report func(Event)) (Result, error)

	// CheckPolicy asks the gate, and changes nothing. Of a waiver that is made, the person and the day are the daemon's.
	CheckPolicy(ctx context.Context, s Submission) (Policy, error)
	Waivers(ctx context.Context) ([]Waiver, error)
	Waive(ctx context.Context, who Person, w Waiver) (Waiver, error)
	RemoveWaiver(ctx context.Context, who Person, id int64) error

	History(ctx context.Context, project, service string) ([]Rollout, error)
	Rollout(ctx context.Context, id int64) (Rollout, error)
	// Steer says hold, resume or abort to an open rollout.
	Steer(ctx context.Context, who Person, id int64, verb string) (Rollout, error)
	Why(ctx context.Context, project, service string) (Why, error)
	// Events reports what happens from now on; project "": all. engine: what the engine says of instances, too,
	// of kind container. It returns when ctx ends.
	Events(ctx context.Context, project string, engine bool, report func(Event)) error
	Audit(ctx context.Context, project string, limit int) ([]Audit, error)

	Logs(ctx context.Context, project string, r LogRequest, line func(LogLine) error) error
	LogNumbers(ctx context.Context, project string, n LogNumbers) ([]LogSeries, error)
	// Sinks are what logs are sent on to; DeadLetters what one of them refused for good, the newest last.
	Sinks(ctx context.Context) ([]Sink, error)
	DeadLetters(ctx context.Context, sink string, limit int) ([]DeadLetter, error)
	// Rules are what is evaluated over samples and logs. RuleGroups are those that SetRules wrote; of a file that is not
	// right it takes nothing, and says where.
	Rules(ctx context.Context) (Rules, error)
	RuleGroups(ctx context.Context) ([]RuleGroup, error)
	SetRules(ctx context.Context, who Person, f RuleFile) ([]RuleGroup, error)
	RemoveRules(ctx context.Context, who Person, group string) error

	// RegistryImages are those of the registry; repository "": all. RetainImages and RemoveImage remove tags and
	// manifests, SweepRegistry the blobs that are nobody's then.
	RegistryImages(ctx context.Context, repository string) ([]RegistryImage, error)
	RetainImages(ctx context.Context, who Person, r RetainRequest) (RegistryClean, error)
	RemoveImage(ctx context.Context, who Person, r RemoveImageRequest) (RegistryClean, error)
	SweepRegistry(ctx context.Context, who Person, dry bool) (RegistrySweep, error)

	// Alerts are those that fire and fit all matchers; project "": all.
	Alerts(ctx context.Context, project string, match []string) (Alerts, error)
	// TestAlert sends a sample through the receiver; "": through all.
	TestAlert(ctx context.Context, who Person, receiver string) ([]AlertTry, error)
	// With a project, silences are those that mute nothing beyond it.
	Silences(ctx context.Context, project string, match []string, all bool) ([]Silence, error)
	AddSilence(ctx context.Context, who Person, project string, r SilenceRequest) (Silence, error)
	ExpireSilence(ctx context.Context, who Person, project, id string) error

	Stats(ctx context.Context, project string, services []string) ([]Sample, error)
	Top(ctx context.Context, project string, services []string) ([]Processes, error)
	Wait(ctx context.Context, t Target) (code int, err error)

	// Exec, Attach and Run open a connection to a process.
	Exec(ctx context.Context, who Person, t Target, r ExecRequest) (Stream, error)
	Attach(ctx context.Context, who Person, t Target, stdin bool) (Stream, error)
	Run(ctx context.Context, who Person, project, service string, r ExecRequest, report func(Event)) (Stream, error)
	CopyFrom(ctx context.Context, t Target, path string) (io.ReadCloser, error)
	CopyTo(ctx context.Context, who Person, t Target, path string, tarball io.Reader) error

	// Images looks references up among the engine's images; those it does not have are left out.
	Images(ctx context.Context, refs []string) ([]Image, error)
	Build(ctx context.Context, who Person, r BuildRequest, next BuildContexts, report func(Event)) (id string, err error)
	Pull(ctx context.Context, who Person, ref, auth string, report func(Event)) error
	Push(ctx context.Context, who Person, ref, auth string, report func(Event)) error
	// PruneImages removes images of the engine by rules: never what runs, or what a way back needs.
	PruneImages(ctx context.Context, who Person, r PruneRequest) (Pruned, error)

	// TagImage gives an image more names, and says of each what became of it. Conflict: one is immutable.
	TagImage(ctx context.Context, who Person, r TagRequest) ([]Tagged, error)
	// Outdated asks registries what newer images there are of those that run.
	Outdated(ctx context.Context, r OutdatedRequest) ([]Outdated, error)

	// Scan looks into an image: of the engine, else of its registry; or an archive. It runs nothing of it and keeps no layer.
	Scan(ctx context.Context, who Person, r ScanRequest, archive io.Reader, report func(Event)) (Scan, error)
	// Promote brings a digest to a step of the pipeline. Denied: the gate of the step does, with every reason.
	Promote(ctx context.Context, who Person, r PromoteRequest, report func(Event)) (Promotion, error)
	// ListImages are those of the registry and those that services run; repository "": all.
	ListImages(ctx context.Context, who Person, repository string) ([]ListedImage, error)
	Advisories(ctx context.Context) (Advisories, error)
	UpdateAdvisories(ctx context.Context, who Person, u AdvisoriesUpdate, report func(Event)) error

	// ImageKeys sign images or verify signatures; private halves come out of ExportImageKey alone, sealed with a password.
	ImageKeys(ctx context.Context) ([]ImageKey, error)
	AddImageKey(ctx context.Context, who Person, k ImageKeyNew) (ImageKey, error)
	ExportImageKey(ctx context.Context, who Person, name, password string) (string, error)
	RemoveImageKey(ctx context.Context, who Person, name string, force bool) error
	SignImage(ctx context.Context, who Person, s ImageSign) (ImageSignatures, error)
	VerifyImage(ctx context.Context, who Person, v ImageVerify) (ImageSignatures, error)

	// Shared counts how many of the lowest of an image's layers the engine has, so that Load may leave them out.
	Shared(ctx context.Context, layers []string) (Shared, error)
	// Load takes images as docker save writes them; with an arrival, one image as an OCI layout.
	Load(ctx context.Context, who Person, tarball io.Reader, a Arrival, report func(Event)) error

	// Logins are those at registries that the vault keeps for pulls and pushes; passwords never come out.
	Logins(ctx context.Context) ([]Login, error)
	// Login asks the registry before it keeps anything. Denied: the registry does not know the user.
	Login(ctx context.Context, who Person, registry, user, password string) (Login, error)
	Logout(ctx context.Context, who Person, registry string) error

	// RegistryUsers are those of the daemon's own registry; passwords never come out.
	RegistryUsers(ctx context.Context) ([]RegistryUser, error)
	AddRegistryUser(ctx context.Context, who Person, u RegistryUserNew) (RegistryUser, error)
	GrantRegistryUser(ctx context.Context, who Person, name string, access RegistryAccess) (RegistryUser, error)
	PasswordRegistryUser(ctx context.Context, who Person, name, password string) (RegistryUser, error)
	RemoveRegistryUser(ctx context.Context, who Person, name string) error
	ImportRegistryUsers(ctx context.Context, who Person, i RegistryImport) ([]RegistryUser, error)

	// Edge is the data plane; Routes what it serves of a project, or the one route that is named.
	Edge(ctx context.Context) (Edge, error)
	Routes(ctx context.Context, project, route string) ([]Route, error)
	// PauseRoute lets requests wait, for limit at most; 0: 30 s.
	PauseRoute(ctx context.Context, who Person, project, route string, limit time.Duration) (Route, error)
	ResumeRoute(ctx context.Context, who Person, project, route string) (Route, error)
	ShiftRoute(ctx context.Context, who Person, project string, s RouteShift) (Route, error)

	Secrets(ctx context.Context, project string) ([]Secret, error) // project "": those for all
	Secret(ctx context.Context, project, name string) (Secret, error)
	SetSecret(ctx context.Context, who Person, project, name string, value []byte) (Secret, error)
	RemoveSecret(ctx context.Context, who Person, project, name string) error

	Tokens(ctx context.Context) ([]Token, error)
	CreateToken(ctx context.Context, who Person, name string, scope Scope, projects []string, valid time.Duration) (Token, error)
	RemoveToken(ctx context.Context, who Person, id string) error
}

// Stream is an open connection to a process. Output is framed as Docker's
// (8 bytes: stream, three zeros, big-endian length) unless TTY.
type Stream struct {
	TTY        bool
	Instance   string // name
	Output     io.Reader
	Input      io.Writer // nil without stdin
	CloseWrite func() error
	Close      func() error
	Resize     func(ctx context.Context, width, height int) error
	Signal     func(ctx context.Context, signal string) error  // TERM, SIGTERM or 15; nil: it cannot be told
	Exit       func(ctx context.Context) (code int, err error) // once Output has ended
}
