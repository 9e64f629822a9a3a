// Package collect reads what instances write and hands it to the store of logs,
// each entry once.
//
// It follows the files of the engine's json-file driver through rotation,
// removal and restarts, asks the engine's API where there are none, finds the
// structure of each line, and follows what x-tender.logs says. It also listens to
// what others send: syslog, GELF, fluent, OTLP, Elasticsearch's bulk requests. The
// daemon knocks: with the instances to follow, with what has become durable, with
// requests. The room never asks what was kept, and never slows a container down.
package collect

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

// Store is where batches go.
type Store interface {
	// Append takes a batch in; it copies what it keeps and may block.
	Append(ctx context.Context, b logs.Batch) error
	// Last is the place up to which all of a source is durable.
	Last(source string) (logs.Place, bool)
}

// Options of a collector; the zero value works but for Store and Dir.
type Options struct {
	Log   *slog.Logger // default: none
	Store Store
	// Dir is where the collector notes where its spools are; Home, the daemon's data directory, tells them from
	// those of other daemons.
	Dir, Home string
	Node      string // the label
	// Settings are what x-tender.logs says of a service. ok false: the project is not Tender's.
	Settings func(project, service string) (l tender.Logs, ok bool)
	// API reads an instance's log from the engine, from a time on, framed as Docker does unless tty; every
	// line begins with its time. nil: there is none.
	API func(ctx context.Context, id string, since time.Time) (stream io.ReadCloser, tty bool, err error)
	// Local says that the engine's files are on this host.
	Local bool
	// MaxSpool bounds what is kept of one container, in bytes, while the store does not take it; default 1 GiB.
	MaxSpool int64
	// TLS is for those who send over TLS; nil: nobody can.
	TLS *tls.Config
	// Workers bounds how many logs are read at once; default 4.
	Workers int
}

// Identity is what the collector knows of an instance. It lies beside the spool,
// so that what a removed instance wrote last is kept under its labels.
type Identity struct {
	ID, Path                                   string
	Project, Service, Revision, Instance, Node string
	Logs                                       tender.Logs
	// Own: it is a file of Tender's, in no picture.
	Own bool
}

// Status is how collecting goes.
type Status struct {
	Files, API int // instances that are followed, by way
	Lines      int64
	Bytes      int64
	Gaps       int64 // times that lines were lost
	// Lossy says for which instances lines may be lost, and why.
	Lossy []string
	// Problem is what must be mended; "" nothing.
	Problem string
}

// Collector follows instances.
type Collector struct {
	o         Options
	log       *slog.Logger
	watcher   *watcher
	unwatched atomic.Bool
	desks     chan *desk
	intake    intake

	lines, bytes, gaps atomic.Int64
	told               sync.Map // troubles that were told once
	trouble            atomic.Pointer[string]

	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // of Run: what See starts lives as long
	tails   map[string]*tail
	streams map[string]*stream
	ending  map[string]logs.Place // ended, and not yet durable
	roots   map[string]bool       // folders of containers that are watched
	work    sync.WaitGroup
}

// desk is what one reader at a time needs: memory that idle logs do not hold.
type desk struct {
	block []byte
	rows  *rows
}

// New makes a collector and opens what the last one left: the spools, whatever the
// engine does. Run reads.
func New(o Options) (*Collector, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Workers <= 0 {
		o.Workers = 4
	}
	if o.MaxSpool <= 0 {
		o.MaxSpool = 1 << 30
	}
	c := &Collector{
		o: o, log: o.Log, desks: make(chan *desk, o.Workers),
		tails: map[string]*tail{}, streams: map[string]*stream{}, ending: map[string]logs.Place{}, roots: map[string]bool{},
	}
	c.intake = intake{queue: make(chan entry, intakeQueue), room: semaphore.NewWeighted(intakeBytes), streams: map[string]logs.Labels{}}
	for range o.Workers {
		c.desks <- nil
	}
	var err error
	if c.watcher, err = newWatcher(c.log); err != nil {
		c.watcher = nil
		c.unwatchable(err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the collector: %w", err)
	}
	var left []Identity
	for _, root := range c.readRoots() {
		c.watchRoot(root)
		entries, _ := os.ReadDir(filepath.Dir(c.spoolOf(root, "x").dir)) //nolint:errcheck // no spool: nothing was left
		for _, e := range entries {
			dir := c.spoolOf(root, e.Name())
			raw, err := os.ReadFile(filepath.Join(dir.dir, identityFile))
			var who Identity
			if err == nil {
				err = json.Unmarshal(raw, &who)
			}
			if err != nil || who.ID != e.Name() {
				continue // the inventory will say who it is
			}
			left = append(left, who)
		}
	}
	c.followAll(left)
	return c, nil
}

// followAll opens the files of all before it looks into those of the first: to unpack
// what the engine compressed takes a while, and a container may be removed meanwhile.
func (c *Collector) followAll(list []Identity) {
	held := make([][]*rotated, len(list))
	for i, who := range list {
		if !c.Follows(who.ID) {
			// What cannot be opened now is tried again by who follows it.
			held[i], _, _ = openRotated(filepath.Dir(who.Path), filepath.Base(who.Path)) //nolint:errcheck // see above
		}
	}
	for i, who := range list {
		c.follow(who, held[i]...)
	}
}

const identityFile = "identity.json"

// FollowOwn follows a file that Tender itself writes as the engine writes its own,
// until its folder is gone.
func (c *Collector) FollowOwn(id, path, service, instance string) {
	c.watchRoot(filepath.Dir(filepath.Dir(path)))
	c.follow(Identity{ID: id, Path: path, Project: "tender", Service: service, Instance: instance, Node: c.o.Node, Own: true})
}

// Run reads until ctx ends. What is read and not handed in then is read again by
// the next one.
func (c *Collector) Run(ctx context.Context) error {
	c.mu.Lock()
	c.ctx = ctx
	for _, t := range c.tails {
		c.work.Go(func() { t.run(ctx) })
	}
	for _, s := range c.streams {
		c.work.Go(func() { s.run(ctx) })
	}
	c.mu.Unlock()
	var watching sync.WaitGroup
	if c.watcher != nil {
		watching.Go(func() {
			c.watcher.run(func() { // events were lost: everybody looks
				for _, t := range c.all() {
					t.look()
					t.nudge()
				}
			})
		})
	}
	watching.Go(func() { c.take(ctx) })
	<-ctx.Done()
	if c.watcher != nil {
		c.watcher.close()
	}
	watching.Wait()
	c.mu.Lock()
	c.ctx = nil
	c.mu.Unlock()
	c.work.Wait()
	return nil
}

func (c *Collector) all() []*tail {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.tails))
}

// See says what there is to follow: a fresh picture. Instances that are not in it
// are read to their end. Those whose files are there all the same are newer than it.
func (c *Collector) See(picture []tender.Instance) {
	there, seen := map[string]bool{}, map[string]bool{}
	var list []Identity
	for i := range picture {
		n := &picture[i]
		seen[n.ID] = true
		if n.State == tender.Created && n.LogPath == "" && n.Started.IsZero() {
			there[n.ID] = true
			continue // there is nothing to read yet, or it was started since
		}
		set, ok := c.settings(n.Project, n.Service)
		if !ok {
			continue
		}
		there[n.ID] = true
		who := Identity{
			ID: n.ID, Path: n.LogPath, Project: n.Project, Service: n.Service, Revision: n.Revision,
			Instance: plainName(n.Name, n.Revision), Node: c.o.Node, Logs: set,
		}
		switch {
		case c.o.Local && n.LogDriver == "json-file" && n.LogPath != "":
			if !dirThere(filepath.Dir(n.LogPath)) && dirThere(filepath.Dir(filepath.Dir(n.LogPath))) {
				continue // removed since the picture was taken
			}
			if c.readable(n.LogPath) {
				c.watchRoot(filepath.Dir(filepath.Dir(n.LogPath)))
				list = append(list, who)
				continue
			}
			c.ask(who, "its log file cannot be read here", n.State)
		case n.LogDriver == "none" || n.LogDriver == "":
		case n.LogDriver == "json-file":
			c.ask(who, "the engine is on another host", n.State)
		default:
			c.ask(who, "its log driver is "+n.LogDriver, n.State)
		}
	}
	c.followAll(list)
	for _, t := range c.all() {
		if there[t.id] || t.is.Load().Own {
			continue
		}
		if !seen[t.id] && dirThere(t.dir) {
			continue // made since the picture was taken: its folder goes before it leaves the engine's list
		}
		t.leave()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, s := range c.streams {
		if !there[id] {
			s.gone.Store(true)
		}
	}
}

func (c *Collector) settings(project, service string) (tender.Logs, bool) {
	if c.o.Settings == nil {
		return tender.Logs{}, true
	}
	return c.o.Settings(project, service)
}

// plainName is the name that an instance has once it has its slot: a newcomer is
// PROJECT-SERVICE-N-REVISION until the other one is gone.
func plainName(name, revision string) string {
	if revision == "" {
		return name
	}
	return strings.TrimSuffix(name, "-"+revision)
}

func (c *Collector) readable(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) && dirThere(filepath.Dir(path))
	}
	f.Close()
	return true
}

func dirThere(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// follow begins to read a container's files, or takes in what has changed of it. held
// are those that are open already.
func (c *Collector) follow(who Identity, held ...*rotated) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.tails[who.ID]; ok {
		release(held)
		if who.Project != "" && !reflect.DeepEqual(*t.is.Load(), who) {
			t.rename(who)
		}
		return
	}
	dir := filepath.Dir(who.Path)
	t := &tail{
		c: c, id: who.ID, dir: dir, base: filepath.Base(who.Path), spool: c.spoolOf(filepath.Dir(dir), who.ID),
		wake: make(chan struct{}, 1),
	}
	t.is.Store(&who)
	t.settle()
	// The watch before the first look, so that nothing falls between the two.
	if c.watcher != nil && dirThere(dir) {
		if err := c.watcher.add(dir, watchFolder, func(event) { t.look(); t.nudge() }); err != nil {
			c.unwatchable(err)
		}
	}
	last, known := c.o.Store.Last(who.ID)
	// One that was left and is back goes on where its reader ended, though not all of that need be durable yet.
	if end, ended := c.ending[who.ID]; ended && end != (logs.Place{}) {
		last, known = end, true
	}
	t.note() // before the links: a kill between the two would leave links of nobody
	if err := t.begin(last, known, held); err != nil {
		c.once("begin "+who.ID, "a log cannot be followed", "instance", who.Instance, "err", err)
		return
	}
	delete(c.ending, who.ID) // its spool is in use again
	c.tails[who.ID] = t
	if c.ctx != nil {
		ctx := c.ctx
		c.work.Go(func() { t.run(ctx) })
	}
}

// settle makes labels and parser of what is known.
func (t *tail) settle() {
	who := t.is.Load()
	r, err := newRules(who.Logs)
	if err != nil { // it was checked when the project came; a later version may differ
		t.c.once("rules "+who.Project+"/"+who.Service, "x-tender.logs is not followed", "service", who.Service, "err", err)
		r = &rules{}
	}
	labels, names := labelsOf(*who, nil)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.labels, t.full, t.attrs = labels, nil, ""
	t.parser = newParser(r, names)
}

// rename takes in a new identity.
func (t *tail) rename(who Identity) {
	t.is.Store(&who)
	t.settle()
	t.note()
}

// note writes who it is beside the spool.
func (t *tail) note() {
	raw, err := json.Marshal(t.is.Load())
	path := filepath.Join(t.spool.dir, identityFile)
	if err == nil {
		err = os.MkdirAll(t.spool.dir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(path+".new", raw, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.c.spoolTrouble(err)
	}
}

// leave ends a tail whose instance is not in the picture: its folder is gone, or it
// is not ours to follow any more.
func (t *tail) leave() {
	t.look()
	t.mu.Lock()
	t.gone = true
	t.mu.Unlock()
	t.nudge()
}

// over is called by a tail that has handed in its end.
func (c *Collector) over(t *tail) {
	c.mu.Lock()
	delete(c.tails, t.id)
	c.ending[t.id] = t.place
	c.mu.Unlock()
	if last, ok := c.o.Store.Last(t.id); ok || t.place == (logs.Place{}) {
		c.Durable(t.id, last)
	}
}

// Durable is told by the store what it has on disk: what was kept for it goes.
func (c *Collector) Durable(source string, to logs.Place) {
	c.mu.Lock()
	t := c.tails[source]
	end, ended := c.ending[source]
	ended = ended && (to == end || to.Seq > end.Seq)
	if ended {
		delete(c.ending, source)
	}
	if ended { // still locked: it may be followed anew the next moment
		for root := range c.roots {
			if s := c.spoolOf(root, source); dirThere(s.dir) {
				s.release(math.MaxUint64) // before the identity: without it nobody would know whose they are
				_ = os.RemoveAll(s.dir)   // what stays is found by the next start
			}
		}
	}
	c.mu.Unlock()
	if t != nil && to.Seq > t.released.Load() {
		t.released.Store(to.Seq)
		t.spool.release(to.Seq)
	}
}

// Status says how it goes.
func (c *Collector) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Status{Files: len(c.tails), API: len(c.streams), Lines: c.lines.Load(), Bytes: c.bytes.Load(), Gaps: c.gaps.Load()}
	if text := c.trouble.Load(); text != nil {
		s.Problem = *text
	}
	for _, x := range c.streams {
		s.Lossy = append(s.Lossy, x.who.Instance+": "+x.why)
	}
	slices.Sort(s.Lossy)
	return s
}

func (c *Collector) count(rows, bytes int) {
	c.lines.Add(int64(rows))
	c.bytes.Add(int64(bytes))
}

// desk waits for one of the few.
func (c *Collector) desk(ctx context.Context) (*desk, error) {
	select {
	case w := <-c.desks:
		if w == nil {
			w = &desk{block: make([]byte, firstBlock), rows: new(rows)}
		}
		return w, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *Collector) leave(w *desk) { c.desks <- w }
