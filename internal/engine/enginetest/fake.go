// Package enginetest holds an engine in memory and the promises that every
// engine must keep.
//
// Tests of plan, deploy and the daemon drive the Fake, most of them in fake
// time; every engine's own tests call Run. Nothing here touches the world.
package enginetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

var _ engine.Engine = (*Fake)(nil)

// Behaviour says what the instances of a service, or of one revision of it, do.
// The zero value starts at once, has a healthcheck only if the service or its
// image says so, passes it at once, and runs until it is stopped.
type Behaviour struct {
	// Health gives it a healthcheck even if the service does not say so.
	Health bool
	// Warmup is from its start until the healthcheck passes.
	Warmup time.Duration
	// Sick: the healthcheck never passes; it is unhealthy once Warmup is over.
	Sick bool
	// Ends: it exits by itself with Code, After its start. The restart policy is honoured.
	Ends  bool
	After time.Duration
	Code  int
	// OOM: that exit was the kernel's doing.
	OOM bool
	// PullErr is what Pull answers for an image; the key is its reference then.
	PullErr error
	// ScaleErr is what Scale answers the first ScaleErrs times; 0: always.
	ScaleErr  error
	ScaleErrs int
	// Hang: Scale blocks until its context ends.
	Hang bool
	// Slow is how long Scale takes for each call.
	Slow time.Duration
	// Output is what Logs returns.
	Output string
}

// Fake is an engine in memory. The zero value is ready for use.
type Fake struct {
	Home string        // of what Scale makes
	Skew time.Duration // how far its clock is ahead of ours; SetClock changes it later

	mu        sync.Mutex
	behaviour map[string]Behaviour
	calls     map[string]int
	history   []string
	next      int
	instances []*instance
	networks  []tender.Network
	volumes   []tender.Volume
	anonymous map[string]bool
	missing   map[string]bool           // images that are not there
	images    map[string]tender.ImageID // set ones
	kept      map[string][]tender.ImageID
	shelf     map[string]engine.Shelved // what Shelve said
	cache     []engine.Cached
	meanwhile func()
	wants     map[string]engine.Want // the last one of service@revision
	watchers  map[int]watcher
	listeners map[chan engine.Event]bool
	broken    error
}

type watcher struct {
	changed func()
	lost    chan error
}

// instance is an instance with what only the engine knows of it.
type instance struct {
	tender.Instance
	plain   string // the name that Name gives it
	restart string
	max     int
	health  bool
	b       Behaviour
	life    int // counts its starts: a timer of an earlier life does nothing
	stopped bool
	same    bool // what Equal answers
	why     string
	out     string
	ended   chan struct{} // closed when this life ends
	files   map[string][]byte
}

// Behave sets what service does; service may be NAME or NAME@REVISION, the
// longer one wins. It holds for starts from now on.
func (f *Fake) Behave(service string, b Behaviour) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.behaviour == nil {
		f.behaviour = map[string]Behaviour{}
	}
	f.behaviour[service] = b
}

// Calls returns how often each method that changes something was called, and List.
func (f *Fake) Calls() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.calls)
}

// History returns what was done, one line each: "scale web@r1 [1 2] drop [a]", "stop ID", "remove ID"...
func (f *Fake) History() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.history)
}

// LastWant returns the last Want that Scale was called with for NAME@REVISION.
func (f *Fake) LastWant(service string) (engine.Want, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, ok := f.wants[service]
	return w, ok
}

// Crash ends an instance's process from outside with code; its restart policy is honoured.
func (f *Fake) Crash(id string, code int) {
	f.change(func() {
		if i := f.byID(id); i != nil {
			f.exit(i, code, false)
		}
	})
}

// Reboot is a power cut: every process ends, and the engine starts at once, in
// no order, what its restart policy says.
func (f *Fake) Reboot() {
	f.change(func() {
		for _, i := range f.instances {
			stopped := i.stopped
			i.stopped = true // so that no pause of a restart policy comes before the boot
			f.exit(i, 137, false)
			i.stopped = stopped
		}
		for _, i := range f.instances {
			if i.restart == "always" || (i.restart == "unless-stopped" || i.restart == "on-failure") && !i.stopped {
				f.start(i)
			}
		}
	})
}

// policy is the engine's share of restart.
func policy(s tender.Service) string {
	if s.Boot == tender.BootOrdered {
		return ""
	}
	return s.Restart
}

// Kill is docker kill: the process ends with 137 and no policy restarts it.
func (f *Fake) Kill(id string) {
	f.change(func() {
		if i := f.byID(id); i != nil {
			i.stopped = true
			f.exit(i, 137, false)
		}
	})
}

// Vanish is docker rm -f.
func (f *Fake) Vanish(id string) {
	f.change(func() {
		if i := f.byID(id); i != nil {
			f.drop(i)
		}
	})
}

// Adopt adds an instance that somebody else made. Where i has no ID, Name or
// State it gets one. same and why are what Equal says of it.
func (f *Fake) Adopt(i tender.Instance, same bool, why string) (id string) {
	f.change(func() {
		f.next++
		if i.ID == "" {
			i.ID = fmt.Sprintf("%s-%d", i.Service, f.next)
		}
		if i.Name == "" {
			i.Name = fmt.Sprintf("%s-%s-%d", i.Project, i.Service, max(i.Slot, 1))
		}
		if i.State == "" {
			i.State = tender.Running
		}
		if i.Created.IsZero() {
			i.Created = f.now()
			i.Started = i.Created
		}
		for _, v := range i.Anonymous {
			f.remember(v)
		}
		id = i.ID
		f.instances = append(f.instances, &instance{Instance: i, plain: i.Name, same: same, why: why, ended: make(chan struct{})})
	})
	return id
}

// Update changes an instance behind everybody's back.
func (f *Fake) Update(id string, change func(*tender.Instance)) {
	f.change(func() {
		if i := f.byID(id); i != nil {
			change(&i.Instance)
		}
	})
}

// SetClock sets the engine's clock: so far ahead of ours, from now on.
func (f *Fake) SetClock(ahead time.Duration) { f.change(func() { f.Skew = ahead }) }

// now is what the engine's clock says.
func (f *Fake) now() time.Time { return time.Now().Add(f.Skew) }

// SetImage says what Resolve answers for ref; without it an id is made from ref.
func (f *Fake) SetImage(ref string, id tender.ImageID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.images == nil {
		f.images = map[string]tender.ImageID{}
	}
	f.images[ref] = id
	delete(f.missing, ref)
}

// LoseImage makes Resolve say NotFound for ref until it is pulled.
func (f *Fake) LoseImage(ref string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.missing == nil {
		f.missing = map[string]bool{}
	}
	f.missing[ref] = true
}

// Break makes every method answer err, and ends all watches with it, until Break(nil).
func (f *Fake) Break(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = err
	if err == nil {
		return
	}
	for id, w := range f.watchers {
		w.lost <- err
		delete(f.watchers, id)
	}
}

// Tear takes an instance out of its network, as a Promote does that is killed in the middle.
func (f *Fake) Tear(id string) {
	f.change(func() {
		if i := f.byID(id); i != nil {
			i.Found, i.Pinned, i.Addresses = tender.Nowhere, false, map[string]string{}
		}
	})
}

// AnonymousVolumes returns the names of the anonymous volumes that exist.
func (f *Fake) AnonymousVolumes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.anonymous))
}

// called counts a call and answers what Break said.
func (f *Fake) called(method, line string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls == nil {
		f.calls = map[string]int{}
	}
	f.calls[method]++
	if line != "" {
		f.history = append(f.history, line)
	}
	if f.broken != nil {
		return tender.Errorf(tender.Unavailable, "engine: %w", f.broken)
	}
	return nil
}

// change does something under the lock and tells the watchers afterwards.
func (f *Fake) change(do func()) {
	f.mu.Lock()
	do()
	watchers := slices.Collect(maps.Values(f.watchers))
	f.mu.Unlock()
	for _, w := range watchers {
		w.changed()
	}
}

func (f *Fake) behaviourOf(service, revision string) Behaviour {
	if b, ok := f.behaviour[service+"@"+revision]; ok {
		return b
	}
	return f.behaviour[service]
}

func (f *Fake) byID(id string) *instance {
	for _, i := range f.instances {
		if i.ID == id {
			return i
		}
	}
	return nil
}

func (f *Fake) byName(name string) *instance {
	for _, i := range f.instances {
		if i.Name == name {
			return i
		}
	}
	return nil
}

func (f *Fake) remember(volume string) {
	if f.anonymous == nil {
		f.anonymous = map[string]bool{}
	}
	f.anonymous[volume] = true
}

// Scale implements engine.Engine.
func (f *Fake) Scale(ctx context.Context, w engine.Want) error {
	line := fmt.Sprintf("scale %s@%s %v", w.Service.Name, w.Service.Revision, w.Slots)
	if len(w.Drop) > 0 {
		line += fmt.Sprintf(" drop %v", w.Drop)
	}
	if err := f.called("Scale", line); err != nil {
		return err
	}
	key := w.Service.Name + "@" + w.Service.Revision
	f.mu.Lock()
	if f.wants == nil {
		f.wants = map[string]engine.Want{}
	}
	f.wants[key] = w
	b := f.behaviourOf(w.Service.Name, w.Service.Revision)
	if b.ScaleErr != nil {
		if b.ScaleErrs == 1 {
			c := b
			c.ScaleErr, c.ScaleErrs = nil, 0
			f.replace(w.Service.Name, w.Service.Revision, c)
		} else if b.ScaleErrs > 1 {
			c := b
			c.ScaleErrs--
			f.replace(w.Service.Name, w.Service.Revision, c)
		}
		f.mu.Unlock()
		return fmt.Errorf("scale %s: %w", key, b.ScaleErr)
	}
	f.mu.Unlock()
	if b.Hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if b.Slow > 0 {
		select {
		case <-time.After(b.Slow):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.change(func() { f.scale(w) })
	return nil
}

func (f *Fake) replace(service, revision string, b Behaviour) {
	key := service + "@" + revision
	if _, ok := f.behaviour[key]; !ok {
		key = service
	}
	f.behaviour[key] = b
}

func (f *Fake) scale(w engine.Want) {
	inherit := map[int][]string{}
	for slot, id := range w.Inherit {
		if i := f.byID(id); i != nil {
			inherit[slot] = i.Anonymous
		}
	}
	for _, id := range w.Drop {
		if i := f.byID(id); i != nil {
			f.drop(i)
		}
	}
	for _, slot := range w.Slots {
		i := f.slot(w, slot)
		if i == nil {
			i = f.create(w, slot, inherit[slot])
			f.happens(i, "create")
		}
		if i.State != tender.Running && i.State != tender.Restarting {
			f.start(i)
		}
	}
}

func (f *Fake) slot(w engine.Want, slot int) *instance {
	for _, i := range f.instances {
		if i.Project == w.Project && i.Service == w.Service.Name && i.Revision == w.Service.Revision && i.Slot == slot && !i.Oneoff {
			return i
		}
	}
	return nil
}

func (f *Fake) create(w engine.Want, slot int, inherited []string) *instance {
	f.next++
	plain := fmt.Sprintf("%s-%s-%d", w.Project, w.Service.Name, slot)
	name := plain
	if f.byName(name) != nil {
		name = plain + "-" + w.Service.Revision
	}
	now := f.now()
	i := &instance{
		Instance: tender.Instance{
			ID: fmt.Sprintf("%s-%d", w.Service.Name, f.next), Name: name,
			Project: w.Project, Service: w.Service.Name, Revision: w.Service.Revision, Slot: slot, Home: f.Home,
			State: tender.Created, Created: now, Image: w.Image.Reference, ImageID: w.Image.ID,
			Addresses: map[string]string{w.Project + "_default": fmt.Sprintf("10.201.0.%d", f.next%250+2)},
		},
		plain: plain, restart: policy(w.Service), max: w.Service.RestartMax,
		health: w.Service.Healthcheck > 0 || w.Service.Healthcheck == 0 && w.Image.Healthcheck,
		ended:  make(chan struct{}),
	}
	if i.health {
		i.Pinned = true
		if w.Unnamed {
			i.Found = tender.BySlot
		}
	}
	for n := range w.Image.Volumes {
		volume := fmt.Sprintf("anonymous-%s-%d", i.ID, n+1)
		if n < len(inherited) {
			volume = inherited[n]
		}
		f.remember(volume)
		i.Anonymous = append(i.Anonymous, volume)
	}
	f.instances = append(f.instances, i)
	return i
}

// Name implements engine.Engine.
func (f *Fake) Name(_ context.Context, id string) error {
	if err := f.called("Name", "name "+id); err != nil {
		return err
	}
	var err error
	f.change(func() {
		i := f.byID(id)
		if i == nil {
			err = notFound(id)
			return
		}
		if o := f.byName(i.plain); o != nil && o != i {
			err = tender.Errorf(tender.Conflict, "name %s: %s has it", i.plain, o.ID)
			return
		}
		i.Name = i.plain
	})
	return err
}
