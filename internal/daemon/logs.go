package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/collect"
	"github.com/tenderhq/tender/internal/compose"
	"github.com/tenderhq/tender/internal/edge"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/logs"
	"github.com/tenderhq/tender/internal/store"
)

// logRoom is the store of logs with those who bring them: opened before anything
// else of the daemon, so that what the engine rotates away meanwhile is kept.
type logRoom struct {
	log       *slog.Logger
	store     *logs.Store
	collector *collect.Collector
	state     *store.Store
	inventory *engine.Inventory
	engine    engine.Console
	tell      func(problem, note string)
	fail      func(problem string) // there will be no more
	access    string               // folder of the edge's access logs
	wake      chan struct{}
	down      atomic.Bool // the store has failed for good

	mu       sync.Mutex
	settings map[string]ofHead[map[string]tender.Logs] // of services, by project
}

// openLogs opens the store and what the last daemon left to read.
func openLogs(c Config, st *store.Store, log *slog.Logger) (*logRoom, error) {
	l := &logRoom{log: log, state: st, wake: make(chan struct{}, 1), tell: func(string, string) {}, fail: func(string) {}, access: filepath.Join(c.DataDir, "edge", edge.AccessDir)}
	if err := l.read(context.Background()); err != nil {
		return nil, err
	}
	var durable func(string, logs.Place)
	var err error
	l.store, err = logs.Open(filepath.Join(c.DataDir, "logs"), logs.Options{
		Log: log, Retain: l.retain, Retention: logs.Retention{Age: c.LogsAge, Size: c.LogsSize},
		Durable: func(source string, to logs.Place) {
			if durable != nil {
				durable(source, to)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	l.collector, err = collect.New(collect.Options{
		Log: log, Store: l.store, Dir: filepath.Join(c.DataDir, "collect"), Home: c.DataDir, Node: nodeName(),
		Local: strings.HasPrefix(c.Engine, "unix://"), Settings: l.settingsOf, API: l.fromEngine, TLS: senderTLS(c),
	})
	if err != nil {
		return nil, errors.Join(err, l.store.Close())
	}
	durable = l.collector.Durable // nothing is appended before Run
	return l, nil
}

// run is the part: it ends once all that was collected is on disk. A store that
// fails for good cannot be used again in this process, so nothing starts anew.
func (l *logRoom) run(until context.Context) error {
	ctx := until
	keeping, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	kept := make(chan error, 1)
	go func() { kept <- l.store.Run(keeping) }()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var work sync.WaitGroup
	work.Go(func() { _ = l.collector.Run(ctx) }) // it ends with ctx and has no error
	work.Go(func() { l.look(ctx) })
	select {
	case <-ctx.Done():
		work.Wait()
		cancel()
		return <-kept
	case err := <-kept:
		stop()
		work.Wait()
		if err == nil {
			err = errors.New("the store of logs has closed")
		}
		l.down.Store(true)
		l.log.Error("logs are not kept any more", "err", err)
		l.fail("logs are not kept until tender serve is started anew: " + err.Error())
		<-until.Done()
		return nil
	}
}

// look tells the collector whom to follow.
func (l *logRoom) look(ctx context.Context) {
	const again = 10 * time.Second // settings may have changed without a container
	var said [2]string
	for {
		picture, changed := l.inventory.Picture()
		if !picture.Taken.IsZero() && picture.Stale.IsZero() {
			if err := l.read(ctx); err == nil {
				l.collector.See(picture.Instances)
			} else if ctx.Err() == nil { // to know no project would end the reading of each
				l.log.Error("x-tender.logs of the projects cannot be read", "err", err)
			}
		}
		l.requests()
		if problem, note := l.problem(); said != [2]string{problem, note} {
			said = [2]string{problem, note}
			l.tell(problem, note)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-l.wake:
		case <-time.After(again):
		}
	}
}

// requests follows the access logs of the edges that run. That of one that has
// ended goes: its last lines are read from the spool.
func (l *logRoom) requests() {
	folders, _ := os.ReadDir(l.access) //nolint:errcheck // no folder: no edge ran
	for _, f := range folders {
		dir := filepath.Join(l.access, f.Name())
		path := filepath.Join(dir, edge.AccessFile)
		if _, err := os.Stat(path); err != nil || !f.IsDir() {
			continue
		}
		l.collector.FollowOwn("edge-"+f.Name(), path, "edge", "edge")
		lock, err := os.Open(filepath.Join(dir, "lock"))
		if err != nil {
			continue
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			if err := os.RemoveAll(dir); err != nil {
				l.log.Warn("the access log of an edge that has ended stays", "err", err)
			}
		}
		lock.Close()
	}
}

// problem is what status says of the part: what is wrong, and what may be lost though
// nothing is.
func (l *logRoom) problem() (problem, note string) {
	s := l.collector.Status()
	var all, notes []string
	if s.Problem != "" {
		all = append(all, s.Problem)
	}
	if f := l.store.Stats().Failing; f != "" {
		all = append(all, f)
	}
	if s.Gaps > 0 {
		all = append(all, fmt.Sprintf("lines were lost %d times since the start", s.Gaps))
	}
	if n := len(s.Lossy); n > 3 {
		notes = append(notes, s.Lossy[0], fmt.Sprintf("and %d instances more", n-1))
	} else {
		notes = append(notes, s.Lossy...)
	}
	return strings.Join(all, "; "), strings.Join(notes, "; ")
}

// poke has the settings read again soon.
func (l *logRoom) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// read takes in what x-tender.logs says in the newest generations.
func (l *logRoom) read(ctx context.Context) error {
	l.mu.Lock()
	before := l.settings
	l.mu.Unlock()
	var next map[string]ofHead[map[string]tender.Logs]
	err := l.state.View(ctx, func(tx *store.Tx) (err error) {
		_, next, err = readHeads(tx, before, func(g store.Generation) map[string]tender.Logs {
			services := map[string]tender.Logs{}
			for _, s := range g.Services {
				set, err := compose.Logs(s.Service.Spec)
				if err != nil { // written by another version; its lines are read without
					l.log.Warn("x-tender.logs is not understood", "project", g.Project, "service", s.Service.Name, "err", err)
					continue
				}
				services[s.Service.Name] = set
			}
			return services
		})
		return err
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.settings = next
	l.mu.Unlock()
	return nil
}

func (l *logRoom) settingsOf(project, service string) (tender.Logs, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.settings[project]
	return p.is[service], ok
}

func (l *logRoom) retain(project, service string) logs.Retention {
	set, _ := l.settingsOf(project, service)
	return logs.Retention{Age: set.RetainAge, Size: set.RetainSize}
}

// fromEngine reads a log over the engine's API.
func (l *logRoom) fromEngine(ctx context.Context, id string, since time.Time) (io.ReadCloser, bool, error) {
	return l.engine.Logs(ctx, id, engine.LogOptions{Since: since, Tail: -1, Follow: true, Timestamps: true})
}

// LogSpools are the folders inside of the engine's data root in which the daemon with
// this data directory keeps log files that it has not stored yet.
func LogSpools(data string) []string { return collect.Spools(filepath.Join(data, "collect"), data) }

// checkLogs refuses what x-tender.logs says wrongly and only its reader knows.
func checkLogs(p tender.Project) error {
	for _, s := range p.Services {
		set, err := compose.Logs(s.Spec)
		if err == nil {
			err = collect.Check(set)
		}
		if err != nil {
			return fmt.Errorf("services.%s: %w", s.Name, err)
		}
	}
	return nil
}

// openLogRoom opens logs; a store that cannot be opened keeps nothing else from running.
func openLogRoom(c Config, st *store.Store, board *board, log *slog.Logger) *logRoom {
	if c.NoLogs {
		board.set("logs", func(p *api.Part) { p.State, p.Since = "off", time.Now().UTC() })
		// Links would keep files on the engine's disk that it has removed.
		for _, dir := range LogSpools(c.DataDir) {
			if err := os.RemoveAll(dir); err != nil {
				log.Warn("links to log files stay", "err", err)
			}
		}
		return nil
	}
	l, err := openLogs(c, st, log)
	if err != nil {
		log.Error("logs are not kept", "err", err)
		board.set("logs", func(p *api.Part) { p.State, p.Since, p.Error = "failed", time.Now().UTC(), err.Error() })
		return nil
	}
	l.tell = func(problem, note string) {
		board.set("logs", func(p *api.Part) { p.Error, p.Note = problem, note })
	}
	l.fail = func(problem string) {
		board.set("logs", func(p *api.Part) { p.State, p.Since, p.Error = "failed", time.Now().UTC(), problem })
	}
	return l
}

// senderTLS is for those who send logs over TLS: the certificate of the API, as it is
// when they come. nil: there is none.
func senderTLS(c Config) *tls.Config {
	if c.TLSCert == "" {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		return &pair, err
	}}
}

// senders are the parts that listen to what others send.
func (l *logRoom) senders(c Config) (out []part) {
	for protocol, list := range map[string]string{"syslog": c.Syslog, "gelf": c.GELF, "fluent": c.Fluent} {
		for _, address := range addresses(list) {
			out = append(out, part{name: protocol + " " + address, grace: 10 * time.Second, run: func(ctx context.Context) error {
				return l.collector.Listen(ctx, protocol, address)
			}})
		}
	}
	slices.SortFunc(out, func(a, b part) int { return strings.Compare(a.name, b.name) })
	return out
}

// deed keeps one line of the audit trail among the logs.
func (l *logRoom) deed(a store.Audit) {
	facts := map[string]string{"who": a.Who, "what": a.What, "outcome": "done", "level": "info"}
	if a.Outcome != "" {
		facts["outcome"], facts["level"] = a.Outcome, "warn"
	}
	for name, value := range map[string]string{"of": a.Project, "detail": a.Detail} {
		if value != "" {
			facts[name] = value
		}
	}
	facts["message"] = strings.Join(strings.Fields(a.Who+" "+a.What+" "+a.Project+" "+a.Detail), " ")
	l.collector.Audit(a.Time, facts)
}
