// Package daemon is the control plane as a process: it reads the
// configuration, opens the rooms, introduces them to each other, supervises
// what runs for long, and answers the API by asking them. cli knocks. It
// decides nothing about containers: that is plan's.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/collect"
	"github.com/tenderhq/tender/internal/compose"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/dns"
	"github.com/tenderhq/tender/internal/edge"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/engine/docker"
	"github.com/tenderhq/tender/internal/proxy"
	"github.com/tenderhq/tender/internal/store"
	"github.com/tenderhq/tender/internal/vault"
)

const (
	storeFile  = "tender.db"
	socketFile = "tender.sock"
)

// recoveryFile is where the recovery key lies until somebody takes it away.
func recoveryFile(c Config) string { return c.Key + ".recovery" }

// keepRecovery writes a new recovery key there; "" is none.
func keepRecovery(c Config, recovery string, log *slog.Logger) error {
	if recovery == "" {
		return nil
	}
	// Not into the log, which others keep.
	if err := os.WriteFile(recoveryFile(c), []byte(recovery+"\n"), 0o600); err != nil {
		return fmt.Errorf("keep the vault's recovery key: %w", err)
	}
	log.Warn("a key was made for the vault; move its recovery key to another place", "key", c.Key, "recovery", recoveryFile(c))
	return nil
}

// Options are what the binary knows; the zero value works.
type Options struct {
	Version string
	Log     *slog.Logger // default: none
}

// Run is tender serve: it returns when ctx has ended and all has stopped, or
// when a part has failed without which nothing works.
func Run(ctx context.Context, c Config, o Options) (err error) {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(c.RunDir, 0o755); err != nil {
		return fmt.Errorf("make the run directory: %w", err)
	}
	var collector atomic.Pointer[collect.Collector]
	log = slog.New(collect.NewOwn(log.Handler(), collector.Load))
	st, err := store.Open(c.DataDir, store.Options{Log: log.With("part", "store")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	// Before all that takes time: the engine rotates on.
	board := new(board)
	logRoom := openLogRoom(c, st, board, log.With("part", "logs"))
	if logRoom != nil {
		collector.Store(logRoom.collector)
	}
	running := false
	defer func() {
		if logRoom != nil && !running {
			err = errors.Join(err, logRoom.store.Close())
		}
	}()
	v, recovery, err := vault.Init(ctx, st, vault.Options{KeyFile: c.Key, InUse: func(project, name string, version int) []string {
		used, err := users(context.WithoutCancel(ctx), st, project, name, version)
		if err != nil { // then it may be in use
			return []string{err.Error()}
		}
		return append(used, sinksWith(c, project, name)...)
	}})
	if err != nil {
		return err
	}
	if err := keepRecovery(c, recovery, log); err != nil {
		return err
	}
	eng, err := docker.New(c.Engine, docker.Options{Log: log.With("part", "engine"), Parse: compose.Spec, Pool: c.Subnets, Home: c.DataDir})
	if err != nil {
		return err
	}
	listeners, err := listen(c)
	if err != nil {
		return err
	}
	b := &backend{
		config: c, version: o.Version, started: time.Now(), log: log.With("part", "api"),
		store: st, vault: v, engine: eng, inventory: engine.NewInventory(eng, log.With("part", "inventory")), board: board, logs: logRoom,
	}
	b.remote = b.registries(nil)
	b.lookout = b.newLookout()
	b.scans = newScans(b, filepath.Join(c.DataDir, "advisories"), log.With("part", "scans"))
	b.knowledge.scanned, b.knowledge.signers = b.scans.scanned, b.signersOf
	b.knowledge.promoted = b.promotedTo
	if err := checkGates(c, b.knowledge); err != nil {
		return err
	}
	if err := b.warnOfKeys(ctx, log.With("part", "gate")); err != nil {
		return err
	}
	if err := b.keep(); err != nil {
		return err
	}
	b.loop = deploy.New(deploy.Options{
		Store: st, Engine: eng, Inventory: b.inventory, Log: log.With("part", "loop"),
		Parse: compose.Parse, Same: compose.Same, Essence: compose.Essence, Hold: compose.Hold, Edge: &asker{keeper: b.keeper, edge: edge.NewClient(edgeSocket(c))},
		SecretVersion: b.newestSecret, Deliver: b.deliver,
		Home: c.DataDir, Join: compose.Join, Salvage: b.salvage, Routes: routesServed(edge.LastTable(filepath.Join(c.DataDir, "edge"))),
	})
	b.keeper.loop, b.keeper.looked = b.loop, b.loop.Looked()
	loki := b.loki()
	mounts := map[string]http.Handler{
		"/v1/": b.keeper.names.Consul(), "/sd": b.keeper.names.SD(), "/metrics": b.metrics(edge.NewClient(edgeSocket(c))),
	}
	if logRoom != nil {
		mounts["/v1/logs"] = logRoom.collector.OTLP()
		mounts["/elasticsearch/"] = http.StripPrefix("/elasticsearch", logRoom.collector.Bulk())
	}
	if b.alerts = openAlerts(b, log.With("part", "alerts")); b.alerts != nil {
		defer func() { err = errors.Join(err, b.alerts.room.Close()) }()
	}
	maps.Copy(mounts, b.alertmanager())
	b.metered = openMetricRoom(b, log.With("part", "metrics"))
	b.scaling = newScaling(b, log.With("part", "scaling"))
	defer func() {
		if b.metered != nil {
			err = errors.Join(err, b.metered.db.Close())
		}
	}()
	figures, own := b.prometheus()
	maps.Copy(mounts, figures)
	maps.Copy(own, map[string]http.Handler{"/loki/": loki, "/ready": loki})
	port, err := listenRegistry(c)
	if err != nil {
		return err
	}
	mirrors, err := listenMirrors(c)
	if err != nil {
		return err
	}
	behind, err := behindEdge(c)
	if err != nil {
		return err
	}
	var ports []net.Listener
	for _, l := range []net.Listener{port, behind} {
		if l != nil {
			ports = append(ports, l)
		}
	}
	if behind != nil {
		b.keeper.own = []proxy.Route{registryRoute(c.RegistryHost, behind.Addr().String())}
	}
	alone := map[string]http.Handler{}
	if b.images = openRegistryRoom(b, log.With("part", "registry")); b.images != nil {
		alone["/v2/"] = b.images
		defer func() { err = errors.Join(err, b.images.Close()) }()
	}
	b.rules = openRules(b, log.With("part", "rules"))
	handler := api.Handler(b, api.Options{Log: b.log, Version: o.Version, Mounts: mounts, Apart: own, Alone: alone})
	log.Info("serving", "version", o.Version, "data", c.DataDir, "socket", filepath.Join(c.RunDir, socketFile), "listen", c.Listen, "engine", c.Engine)
	var parts []part
	if logRoom != nil {
		b.sinks = b.makeSinks(log.With("part", "sinks"))
		logRoom.inventory, logRoom.engine, running = b.inventory, eng, true
		parts = append(parts, part{name: "logs", run: logRoom.run, grace: 20 * time.Second})
		if b.sinks != nil {
			parts = append(parts, part{name: "sinks", run: b.sinks.Run, grace: 10 * time.Second})
		}
		parts = append(parts, logRoom.senders(c)...)
	}
	if b.alerts != nil {
		parts = append(parts, part{name: "alerts", run: b.alerts.run, grace: 10 * time.Second})
	}
	parts = append(parts, part{name: "inventory", run: b.inventory.Run, grace: 10 * time.Second})
	if b.metered != nil {
		parts = append(parts, part{name: "metrics", run: b.metered.run, grace: 20 * time.Second})
		if b.sampling = openSampling(c, b, log.With("part", "samples")); b.sampling != nil {
			parts = append(parts, part{name: "samples", run: b.sampling.run, grace: 5 * time.Second})
		}
	}
	if b.rules != nil {
		parts = append(parts, part{name: "rules", run: b.rules.run, grace: 20 * time.Second})
	}
	parts = append(parts, part{name: "scans", grace: 20 * time.Second, run: b.scans.run(func(change func(*api.Part)) { b.board.set("scans", change) })})
	if b.images != nil {
		parts = append(parts, part{name: "registry", grace: 20 * time.Second, run: func(ctx context.Context) error { return b.images.run(ctx, ports) }})
	}
	for _, m := range mirrors {
		parts = append(parts, part{name: "mirror of " + m.of, grace: 20 * time.Second, run: func(ctx context.Context) error { return b.images.serveMirror(ctx, m) }})
	}
	if b.images != nil && !c.NoRegistryScan {
		parts = append(parts, part{name: "registry scans", grace: 20 * time.Second, run: b.scans.runPushed(func(problem string) {
			b.board.set("registry scans", func(p *api.Part) { p.Error = problem })
		})})
	}
	if b.images != nil && !c.NoRegistryGC {
		parts = append(parts, part{name: "registry clean-up", grace: 20 * time.Second, run: b.cleanDaily})
	}
	if !c.Images.idle() {
		parts = append(parts, part{name: "image clean-up", grace: 20 * time.Second, run: b.tidyImages})
	}
	if c.Heartbeat != "" {
		parts = append(parts, part{name: "heartbeat", run: b.heartbeat().run, grace: 15 * time.Second})
	}
	return runParts(ctx, log, b.board, append(parts, []part{
		{name: "loop", run: b.loop.Run, vital: true, grace: 30 * time.Second},
		{name: "names", run: b.keeper.names.Run, grace: 10 * time.Second},
		{name: "edge", run: b.keeper.run, grace: 10 * time.Second},
		{name: "scaling", run: b.scaling.run, grace: 10 * time.Second},
		{name: "updates", run: newUpdates(b, log.With("part", "updates")).run, grace: 20 * time.Second},
		{name: "api", vital: true, grace: 20 * time.Second, run: func(ctx context.Context) error {
			return api.Serve(ctx, handler, listeners, api.Serving{Log: b.log})
		}},
	}...))
}

func edgeSocket(c Config) string { return filepath.Join(c.RunDir, "edge.sock") }

// keep makes the keeper of the edge; it gets the loop later.
func (b *backend) keep() (err error) {
	c := b.config
	k := newKeeper(b.log.With("part", "edge"))
	k.store, k.inventory, k.socket = b.store, b.inventory, edgeSocket(c)
	k.client = edge.NewClient(k.socket)
	dir := filepath.Join(c.DataDir, "edge")
	var roots []byte
	if c.ACMERoot != "" {
		if roots, err = os.ReadFile(c.ACMERoot); err != nil {
			return tender.Errorf(tender.Invalid, "read acme.roots: %w", err).Hint("name a file with certificates in PEM: --acme-roots")
		}
	}
	k.ensure = func(ctx context.Context) error {
		return edge.Ensure(ctx, edge.Config{
			Dir: dir, Socket: edgeSocket(c), HTTP: addresses(c.HTTP), HTTPS: addresses(c.HTTPS), DNS: addresses(c.DNS), Drain: c.Drain,
			ACME: proxy.ACME{Email: c.ACMEEmail, Directory: c.ACMEDirectory, Roots: roots}, Trusted: c.Trusted, NoAccess: c.NoAccess || c.NoLogs, Version: b.version,
		})
	}
	names := filepath.Join(c.DataDir, "names")
	if err := os.MkdirAll(names, 0o700); err != nil {
		return fmt.Errorf("make the directory of registered services: %w", err)
	}
	if k.names, err = dns.New(dns.Options{Dir: names, Node: k.node, NoForward: true, Log: b.log.With("part", "names")}); err != nil {
		return err
	}
	k.tell = func(problem string) { b.board.set("edge", func(p *api.Part) { p.Error = problem }) }
	b.keeper = k
	return nil
}

// listen opens the socket and, where it is asked for, the port.
func listen(c Config) (out []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range out {
				l.Close()
			}
		}
	}()
	socket := filepath.Join(c.RunDir, socketFile)
	// The store's lock says that nobody else serves this data; another daemon with other data may have the socket.
	if conn, err := net.DialTimeout("unix", socket, time.Second); err == nil {
		conn.Close()
		return nil, tender.Errorf(tender.Conflict, "another daemon answers at %s", socket).Hint("stop that one, or choose another place: tender serve --run-dir DIR")
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	out = append(out, l)
	// Whoever reaches it is as good as root.
	if err := os.Chmod(socket, 0o600); err != nil {
		return out, fmt.Errorf("listen: %w", err)
	}
	if c.Listen == "" {
		return out, nil
	}
	tcp, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return out, tender.Errorf(tender.Conflict, "listen: %w", err).Hint(`choose another address: tender serve --listen 127.0.0.1:7071, or --listen ""`)
	}
	if tcp, err = secured(c, tcp); err != nil {
		return out, err
	}
	return append(out, tcp), nil
}
