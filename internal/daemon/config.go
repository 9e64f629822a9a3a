package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/forward"
	"github.com/tenderhq/tender/internal/metrics"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/policy"
	"github.com/tenderhq/tender/internal/registry"
)

// ConfigFile is where serve looks when --config does not say otherwise.
const ConfigFile = "/etc/tender/tender.yaml"

// Config is what serve needs to know. Its zero value is filled by Configure.
type Config struct {
	DataDir string // state that outlives a reboot
	RunDir  string // socket and unsealed secrets; a tmpfs
	Engine  string // unix:///…, tcp://…
	Listen  string // host:port of the API beside the socket; "" none
	TLSCert string
	TLSKey  string
	Key     string // the vault's key file
	Subnets netip.Prefix

	// What the edge is started with. HTTP, HTTPS and DNS are addresses, several with commas; "" none.
	HTTP, HTTPS, DNS                   string
	ACMEEmail, ACMEDirectory, ACMERoot string
	Drain                              time.Duration
	Trusted                            []netip.Prefix
	NoAccess                           bool

	// NoLogs: what instances write stays with the engine.
	NoLogs bool
	// NoRegistry: no images are kept here. RegistryDir holds their blobs; ListenRegistry is a
	// host:port of the registry's own beside the API, "" none.
	NoRegistry                  bool
	RegistryDir, ListenRegistry string
	// RegistryStorage keeps the registry's blobs in an S3; nil: they lie in RegistryDir.
	RegistryStorage *registry.Bucket
	// RegistryHost is the name under which the edge serves the registry; "" none.
	RegistryHost      string
	RegistryAnonymous []string // patterns of repositories that everybody may pull from
	RegistryImmutable []registry.Immutable
	RegistryQuotas    []registry.Quota
	// RegistryCache are other registries whose images are kept here, RegistryCacheSize how many bytes of them.
	RegistryCache     []Upstream
	RegistryCacheSize int64
	// RegistryRetain says what goes of it, each day at RegistryGC after midnight.
	RegistryRetain []registry.Rule
	RegistryGC     time.Duration
	NoRegistryGC   bool
	NoRegistryScan bool // what is pushed is scanned when somebody asks

	// Images says what goes of the engine's.
	Images ImagesConfig

	// How long logs are kept, where the service does not say: the oldest go first.
	LogsAge  time.Duration
	LogsSize int64 // bytes on the disk, of all

	// NoMetrics: nothing is measured, scraped or kept.
	NoMetrics bool
	// Metrics is a prometheus.yml; "" none.
	Metrics string
	// How long samples are kept, how many bytes they may take on the disk, and how many
	// series a project may have at a time.
	MetricsAge    time.Duration
	MetricsSize   int64
	MetricsSeries int

	// Sinks are where logs are sent on to.
	Sinks []forward.Config

	// RuleFiles and LogRuleFiles are patterns of rule files, in PromQL and in LogQL. RulesEvery is how often
	// groups that do not say are evaluated; 0: as often as the room of metrics does.
	RuleFiles, LogRuleFiles []string
	RulesEvery              time.Duration
	// Builtin is what is different of the built-in alerts.
	Builtin metrics.Builtin
	// Heartbeat is an address that is called while all is well, each HeartbeatEvery (0: 1 min); "" none.
	Heartbeat      string
	HeartbeatEvery time.Duration

	// Gate is what must hold of whatever is to run. Pipeline are the steps on the way to production, in this order.
	Gate     policy.Gate
	Pipeline []Step

	// Advisories are what images are scanned with.
	Advisories Advisories

	// Autoscale is how often the counts of services with x-tender.scale are looked at.
	Autoscale time.Duration
	// Updates is how often newer images are looked for of services with x-tender.update.auto.
	Updates time.Duration
	// Alertmanager is its configuration, a file, or the Alertmanager outside that does it
	// instead, a URL, several with commas; "": nobody is told of alerts.
	Alertmanager string

	// Sampling is how often what instances and the host use is read.
	Sampling time.Duration
	// ComposeLabels: with the labels by which cAdvisor tells projects and services of Docker Compose.
	ComposeLabels bool

	// Where others send logs to: host:port each, "" nowhere.
	Syslog, GELF, Fluent string
}

// Key is one setting: a line of tender.yaml, a flag and a variable.
type Key struct {
	Name     string // as in the file, dots between levels: listen.api
	Flag     string // without dashes
	Variable string
	Default  string
	Help     string
	set      func(*Config, string) error
}

// trees take what is no scalar in the file; in a flag and in a variable it is YAML.
var trees = map[string]func(*Config, *yaml.Node) error{
	"sinks": treeSinks, "rules": treeRules, "alerts": treeAlerts, "heartbeat": treeHeartbeat, "gate": treeGate, "pipeline": treePipeline,
	"registry.anonymous": treeAnonymous, "registry.immutable": treeImmutable, "registry.quota": treeQuotas, "registry.retain": treeRetain, "registry.cache": treeCache,
	"images.retain": treeImagesRetain, "images.build_cache": treeBuildCache, "advisories": treeAdvisories,
}

func text(field func(*Config) *string) func(*Config, string) error {
	return func(c *Config, v string) error { *field(c) = v; return nil }
}

// Keys lists every setting in the order in which help shows them.
func Keys() []Key {
	return []Key{
		{
			"data_dir", "data-dir", "TENDER_DATA_DIR", "/var/lib/tender", "where state is kept",
			text(func(c *Config) *string { return &c.DataDir }),
		},
		{
			"run_dir", "run-dir", "TENDER_RUN_DIR", "/run/tender", "where the socket and unsealed secrets are; a tmpfs",
			text(func(c *Config) *string { return &c.RunDir }),
		},
		{
			"engine", "engine", "TENDER_ENGINE", "unix:///var/run/docker.sock", "the engine's address (DOCKER_HOST is heeded too)",
			text(func(c *Config) *string { return &c.Engine }),
		},
		{
			"listen.api", "listen", "TENDER_LISTEN", "127.0.0.1:7070", `address of the API beside the socket, "" for none; every request needs a token`,
			text(func(c *Config) *string { return &c.Listen }),
		},
		{
			"tls.cert", "tls-cert", "TENDER_TLS_CERT", "", "certificate for --listen beyond loopback (PEM)",
			text(func(c *Config) *string { return &c.TLSCert }),
		},
		{
			"tls.key", "tls-key", "TENDER_TLS_KEY", "", "key for --listen beyond loopback (PEM)",
			text(func(c *Config) *string { return &c.TLSKey }),
		},
		{
			"vault.key", "vault-key", "TENDER_VAULT_KEY", "/etc/tender/vault.key", "file with the key of the secrets, made when missing; not inside --data-dir",
			text(func(c *Config) *string { return &c.Key }),
		},
		{"subnets", "subnets", "TENDER_SUBNETS", "10.201.0.0/16", "the pool that networks get their subnets from", setSubnets},
		{
			"listen.http", "http", "TENDER_HTTP", ":80", `addresses on which the edge serves routes, with commas, "" for none`,
			text(func(c *Config) *string { return &c.HTTP }),
		},
		{
			"listen.https", "https", "TENDER_HTTPS", ":443", `the same with TLS`,
			text(func(c *Config) *string { return &c.HTTPS }),
		},
		{
			"listen.dns", "dns", "TENDER_DNS", "127.0.0.1:5353", `addresses on which the edge answers for names of services, "" for none`,
			text(func(c *Config) *string { return &c.DNS }),
		},
		{
			"acme.email", "acme-email", "TENDER_ACME_EMAIL", "", "address that the authority for tls: auto writes to",
			text(func(c *Config) *string { return &c.ACMEEmail }),
		},
		{
			"acme.directory", "acme-directory", "TENDER_ACME_DIRECTORY", "", "its directory (default Let's Encrypt)",
			text(func(c *Config) *string { return &c.ACMEDirectory }),
		},
		{
			"acme.roots", "acme-roots", "TENDER_ACME_ROOTS", "", "file with the roots of that directory's own certificate (PEM)",
			text(func(c *Config) *string { return &c.ACMERoot }),
		},
		{"edge.drain", "edge-drain", "TENDER_EDGE_DRAIN", "1h", "how long connections of an edge that was replaced may go on", setDrain},
		{"edge.trusted", "edge-trusted", "TENDER_EDGE_TRUSTED", "", "networks of proxies in front that say who the client is, with commas", setTrusted},
		{
			"listen.syslog", "syslog", "TENDER_SYSLOG", "", "address that takes in syslog (RFC 5424 and 3164) on TCP and UDP, such as 127.0.0.1:5514",
			text(func(c *Config) *string { return &c.Syslog }),
		},
		{
			"listen.gelf", "gelf", "TENDER_GELF", "", "the same for GELF, such as 127.0.0.1:12201",
			text(func(c *Config) *string { return &c.GELF }),
		},
		{
			"listen.fluent", "fluent", "TENDER_FLUENT", "", "the same for fluentd's forward protocol, such as 127.0.0.1:24224",
			text(func(c *Config) *string { return &c.Fluent }),
		},
		{"edge.access_log", "edge-access-log", "TENDER_EDGE_ACCESS_LOG", "on", "on: the edge keeps a line of each request among the logs; off", setAccess},
		{"registry", "registry", "TENDER_REGISTRY", "on", "on: images are kept and served under /v2/ of the API; off", setRegistry},
		{
			"registry.dir", "registry-dir", "TENDER_REGISTRY_DIR", "", "where images are kept (default registry in --data-dir); the directory of a registry:2 is served as it is",
			text(func(c *Config) *string { return &c.RegistryDir }),
		},
		{"registry.storage", "registry-storage", "TENDER_REGISTRY_STORAGE", "", "an S3 in which images are kept instead: s3://BUCKET/PREFIX?endpoint=URL&region=REGION&key=SECRET; docs/registry.md", setStorage},
		{"registry.anonymous", "registry-anonymous", "TENDER_REGISTRY_ANONYMOUS", "", "repositories that everybody may pull from, as YAML: docs/registry-accounts.md", treeSetter(treeAnonymous)},
		{"registry.immutable", "registry-immutable", "TENDER_REGISTRY_IMMUTABLE", "", "tags that keep their digest, as YAML: docs/registry-accounts.md", treeSetter(treeImmutable)},
		{"registry.quota", "registry-quota", "TENDER_REGISTRY_QUOTA", "", "how much repositories may hold, as YAML: docs/registry-accounts.md", treeSetter(treeQuotas)},
		{
			"listen.registry", "listen-registry", "TENDER_LISTEN_REGISTRY", "", "address of the registry alone, beside the API's, such as :5000; TLS as for --listen",
			text(func(c *Config) *string { return &c.ListenRegistry }),
		},
		{
			"registry.host", "registry-host", "TENDER_REGISTRY_HOST", "", "name under which the edge serves the registry over HTTPS, with a certificate like that of any route, such as registry.example.com",
			text(func(c *Config) *string { return &c.RegistryHost }),
		},
		{"registry.gc", "registry-gc", "TENDER_REGISTRY_GC", "03:00", "time of day at which the registry is cleaned up, or off", setClean},
		{"registry.scan", "registry-scan", "TENDER_REGISTRY_SCAN", "on", "on: what is pushed is scanned by itself, once there are advisories; off", setRegistryScan},
		{"registry.retain", "registry-retain", "TENDER_REGISTRY_RETAIN", "", "which tags go then, as YAML: docs/registry-cleanup.md", treeSetter(treeRetain)},
		{"registry.cache", "registry-cache", "TENDER_REGISTRY_CACHE", "", "other registries whose images are kept when they are pulled through, as YAML: docs/registry-cache.md", treeSetter(treeCache)},
		{"registry.cache_size", "registry-cache-size", "TENDER_REGISTRY_CACHE_SIZE", "20GiB", "what they may take on the disk, what was pulled longest ago goes first", setCacheSize},
		{"images.gc", "images-gc", "TENDER_IMAGES_GC", "03:30", "time of day at which the engine's images are cleaned up, or off", setImagesGC},
		{"images.retain", "images-retain", "TENDER_IMAGES_RETAIN", "", "which of them go then, as YAML: docs/prune.md", treeSetter(treeImagesRetain)},
		{"images.free", "images-free", "TENDER_IMAGES_FREE", "off", "share of the engine's disk, such as 15%: with less free a clean-up comes out of turn; off", setImagesFree},
		{"images.build_cache", "images-build-cache", "TENDER_IMAGES_BUILD_CACHE", "", "how much builds may leave, as YAML: docs/prune.md", treeSetter(treeBuildCache)},
		{"images.foreign", "images-foreign", "TENDER_IMAGES_FOREIGN", "off", "on: images that Tender did not bring go by the same rules; off: they stay", setImagesForeign},
		{"logs", "logs", "TENDER_LOGS", "on", "on: what instances write is collected and kept; off: it stays with the engine", setLogs},
		{"retention.logs.age", "logs-age", "TENDER_LOGS_AGE", "14d", "how long logs are kept where x-tender.logs does not say", setLogsAge},
		{"retention.logs.size", "logs-size", "TENDER_LOGS_SIZE", "20GiB", "what all logs may take on the disk, the oldest go first", setLogsSize},
		{"autoscale.interval", "autoscale-interval", "TENDER_AUTOSCALE_INTERVAL", "10s", "how often services with x-tender.scale are looked at", setAutoscale},
		{"updates.interval", "updates-interval", "TENDER_UPDATES_INTERVAL", "1h", "how often newer images are looked for of services with x-tender.update.auto", setUpdates},
		{
			"alertmanager", "alertmanager", "TENDER_ALERTMANAGER", "", "who is told of alerts: Alertmanager's own configuration, a file, read again when it changes and at SIGHUP; or the URL of an Alertmanager outside that alerts go to instead",
			setAlertmanager,
		},
		{"metrics", "metrics", "TENDER_METRICS", "on", "on: what instances and the host use is measured and kept, and metrics are scraped; off", setMetrics},
		{
			"metrics.config", "metrics-config", "TENDER_METRICS_CONFIG", "", "a prometheus.yml: what else is scraped, rules, where samples are sent on to; read again at SIGHUP",
			text(func(c *Config) *string { return &c.Metrics }),
		},
		{"metrics.series", "metrics-series", "TENDER_METRICS_SERIES", "200000", "how many series each project may have at a time", setMetricsSeries},
		{"retention.metrics.age", "metrics-age", "TENDER_METRICS_AGE", "30d", "how long samples are kept", setMetricsAge},
		{"retention.metrics.size", "metrics-size", "TENDER_METRICS_SIZE", "10GiB", "what all samples may take on the disk, the oldest go first", setMetricsSize},
		{"metrics.interval", "metrics-interval", "TENDER_METRICS_INTERVAL", "10s", "how often what instances and the host use is read", setSampling},
		{"metrics.compose_labels", "metrics-compose-labels", "TENDER_METRICS_COMPOSE_LABELS", "off", "on: samples of instances carry cAdvisor's container_label_com_docker_compose_project and _service too; off", setComposeLabels},
		{"sinks", "sinks", "TENDER_SINKS", "", "where logs are sent on to, as YAML: docs/sinks.md", setSinks},
		{"rules", "rules", "TENDER_RULES", "", "rule files beside those of projects, as YAML: docs/alerts.md", treeSetter(treeRules)},
		{"alerts", "alerts", "TENDER_ALERTS", "", "what is off or different of the built-in alerts, as YAML: docs/alerts.md", treeSetter(treeAlerts)},
		{"heartbeat", "heartbeat", "TENDER_HEARTBEAT", "", "address that is called each minute while all is well", treeSetter(treeHeartbeat)},
		{"gate", "gate", "TENDER_GATE", "", "what must hold of all that is to run, as YAML: docs/gate.md", treeSetter(treeGate)},
		{"pipeline", "pipeline", "TENDER_PIPELINE", "", "the steps on the way to production, each with a gate, as YAML: docs/gate.md", treeSetter(treePipeline)},
		{"advisories", "advisories", "TENDER_ADVISORIES", "", "where advisories about packages come from, and how often, as YAML: docs/scanning.md", treeSetter(treeAdvisories)},
	}
}

func setAccess(c *Config, v string) (err error) {
	c.NoAccess, err = off(v)
	return err
}

func setLogs(c *Config, v string) (err error) {
	c.NoLogs, err = off(v)
	return err
}

// off reads a switch.
func off(v string) (bool, error) {
	switch v {
	case "on", "true":
		return false, nil
	case "off", "false":
		return true, nil
	}
	return false, fmt.Errorf("%q is neither on nor off", v)
}

func setRegistry(c *Config, v string) (err error) {
	c.NoRegistry, err = off(v)
	return err
}

func setRegistryScan(c *Config, v string) (err error) {
	c.NoRegistryScan, err = off(v)
	return err
}

func setMetrics(c *Config, v string) (err error) {
	c.NoMetrics, err = off(v)
	return err
}

func setMetricsSeries(c *Config, v string) (err error) {
	if c.MetricsSeries, err = strconv.Atoi(v); err != nil || c.MetricsSeries < 1000 {
		return fmt.Errorf("%q is not a number of series, at least 1000", v)
	}
	return nil
}

func setLogsAge(c *Config, v string) (err error) {
	c.LogsAge, err = age(v)
	return err
}

func setMetricsAge(c *Config, v string) (err error) {
	c.MetricsAge, err = age(v)
	return err
}

func age(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if days, ok := strings.CutSuffix(v, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d < time.Minute || d > 100*365*24*time.Hour {
		return 0, fmt.Errorf("%q is not an age such as 14d or 36h", v)
	}
	return d, nil
}

func setLogsSize(c *Config, v string) (err error) {
	c.LogsSize, err = size(v)
	return err
}

func setMetricsSize(c *Config, v string) (err error) {
	c.MetricsSize, err = size(v)
	return err
}

func size(v string) (int64, error) {
	n, err := units.RAMInBytes(v)
	if err != nil || n < 1<<20 {
		return 0, fmt.Errorf("%q is not a size such as 20GiB", v)
	}
	return n, nil
}

func setUpdates(c *Config, v string) error {
	d, err := time.ParseDuration(v)
	if err != nil || d < time.Second || d > 7*24*time.Hour {
		return fmt.Errorf("%q is not a duration from 1s to 168h", v)
	}
	c.Updates = d
	return nil
}

func setAutoscale(c *Config, v string) error {
	d, err := time.ParseDuration(v)
	if err != nil || d < 100*time.Millisecond || d > plan.LoadFor/2 {
		return fmt.Errorf("%q is not a duration from 100ms to %s", v, plan.LoadFor/2)
	}
	c.Autoscale = d
	return nil
}

func setSampling(c *Config, v string) error {
	d, err := time.ParseDuration(v)
	if err != nil || d < time.Second || d > 5*time.Minute {
		return fmt.Errorf("%q is not between 1s and 5m", v)
	}
	c.Sampling = d
	return nil
}

func setComposeLabels(c *Config, v string) error {
	without, err := off(v)
	c.ComposeLabels = !without
	return err
}

func setDrain(c *Config, v string) error {
	d, err := time.ParseDuration(v)
	if err != nil || d < time.Second {
		return fmt.Errorf("%q is not a duration such as 1h", v)
	}
	c.Drain = d
	return nil
}

func setTrusted(c *Config, v string) error {
	c.Trusted = nil
	for _, text := range addresses(v) {
		p, err := netip.ParsePrefix(text)
		if a, aerr := netip.ParseAddr(text); err != nil && aerr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return fmt.Errorf("%q is not a network such as 10.0.0.0/8", text)
		}
		c.Trusted = append(c.Trusted, p.Masked())
	}
	return nil
}

// addresses are the words between commas.
func addresses(v string) (out []string) {
	for word := range strings.SplitSeq(v, ",") {
		if word = strings.TrimSpace(word); word != "" {
			out = append(out, word)
		}
	}
	return out
}

func setSubnets(c *Config, v string) error {
	p, err := netip.ParsePrefix(v)
	if err != nil || !p.Addr().Is4() || p.Masked() != p || p.Bits() > 24 {
		return fmt.Errorf("%q is not a pool of subnets such as 10.201.0.0/16", v)
	}
	c.Subnets = p
	return nil
}

// Configure makes a Config: flags win over variables, variables over the file,
// the file over defaults. file "" means ConfigFile, which may be absent; a file
// that was named must be there.
func Configure(file string, env func(string) string, flags map[string]string) (Config, error) {
	said, nodes, where, err := readFile(file)
	if err != nil {
		return Config{}, err
	}
	var c Config
	for _, k := range Keys() {
		v, from := k.Default, "default"
		if k.Name == "engine" && env("DOCKER_HOST") != "" {
			v, from = env("DOCKER_HOST"), "DOCKER_HOST"
		}
		if f, ok := said[k.Name]; ok {
			v, from = f, where+": "+k.Name
		}
		n := nodes[k.Name]
		if e := env(k.Variable); e != "" {
			v, from, n = e, k.Variable, nil
		}
		if f, ok := flags[k.Flag]; ok {
			v, from, n = f, "--"+k.Flag, nil
		}
		if n != nil {
			if err := trees[k.Name](&c, n); err != nil {
				return Config{}, tender.Errorf(tender.Invalid, "%s:%w", where, err)
			}
			continue
		}
		if err := k.set(&c, v); err != nil {
			return Config{}, tender.Errorf(tender.Invalid, "%s: %w", from, err)
		}
	}
	return c, c.check()
}

func (c *Config) check() error {
	if c.RegistryDir == "" {
		c.RegistryDir = filepath.Join(c.DataDir, "registry")
	}
	for _, dir := range []*string{&c.DataDir, &c.RunDir, &c.Key, &c.RegistryDir} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return fmt.Errorf("find %s: %w", *dir, err)
		}
		*dir = abs
	}
	if rel, err := filepath.Rel(c.DataDir, c.Key); err == nil && filepath.IsLocal(rel) {
		return tender.Errorf(tender.Invalid, "the vault's key %s lies inside the data directory %s, beside what it opens", c.Key, c.DataDir).
			Hint("choose another place: --vault-key /etc/tender/vault.key")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return tender.Errorf(tender.Invalid, "--tls-cert and --tls-key go together").Hint("give both, or neither")
	}
	for what, list := range map[string]string{"http": c.HTTP, "https": c.HTTPS, "dns": c.DNS, "syslog": c.Syslog, "gelf": c.GELF, "fluent": c.Fluent} {
		for _, a := range addresses(list) {
			if _, _, err := net.SplitHostPort(a); err != nil {
				return tender.Errorf(tender.Invalid, "listen for %s on %q: %w", what, a, err).Hint("give host:port or :port")
			}
		}
	}
	if c.NoLogs && (len(c.Sinks) > 0 || c.Syslog+c.GELF+c.Fluent != "") {
		return tender.Errorf(tender.Invalid, "logs are off, and there are sinks or senders of logs").Hint("leave logs: off out, or sinks and listen.syslog, listen.gelf, listen.fluent")
	}
	if c.NoRegistry && c.ListenRegistry != "" {
		return tender.Errorf(tender.Invalid, "the registry is off, and listen.registry is %s", c.ListenRegistry).Hint("leave one of them out")
	}
	if err := c.checkCache(); err != nil {
		return err
	}
	if err := c.checkRegistryHost(); err != nil {
		return err
	}
	for _, address := range []string{c.Listen, c.ListenRegistry} {
		if address == "" {
			continue
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return tender.Errorf(tender.Invalid, "listen on %q: %w", address, err).Hint("give host:port, such as 127.0.0.1:7070")
		}
		if a, err := netip.ParseAddr(host); c.TLSCert == "" && host != "localhost" && (err != nil || !a.IsLoopback()) {
			return tender.Errorf(tender.Invalid, "listen on %s: tokens would cross the network in the clear", address).
				Hint("give --tls-cert and --tls-key, or listen on 127.0.0.1")
		}
	}
	return nil
}

// readFile reads the strict YAML file as a flat table of dotted keys; nodes are the
// values of those that are trees.
func readFile(file string) (said map[string]string, nodes map[string]*yaml.Node, where string, err error) {
	where = file
	if file == "" {
		where = ConfigFile
	}
	raw, err := os.ReadFile(where)
	if file == "" && errors.Is(err, fs.ErrNotExist) {
		return nil, nil, where, nil
	}
	if err != nil {
		return nil, nil, where, tender.Errorf(tender.Invalid, "read configuration: %w", err).Hint("name a file that is there: --config %s", ConfigFile)
	}
	var doc yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(raw)).Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil, where, nil
	} else if err != nil {
		return nil, nil, where, tender.Errorf(tender.Invalid, "%s: %w", where, err)
	}
	known := map[string]bool{}
	nodes = map[string]*yaml.Node{}
	for _, k := range Keys() {
		known[k.Name] = true
	}
	said = map[string]string{}
	if len(doc.Content) > 0 {
		if err := flatten(doc.Content[0], "", known, said, nodes); err != nil {
			return nil, nil, where, tender.Errorf(tender.Invalid, "%s:%w", where, err).Hint("see: tender serve --help")
		}
	}
	return said, nodes, where, nil
}

func flatten(n *yaml.Node, prefix string, known map[string]bool, said map[string]string, nodes map[string]*yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("%d:%d: %s is not a mapping", n.Line, n.Column, strings.TrimSuffix(prefix, "."))
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		name := prefix + k.Value
		if _, twice := said[name]; twice {
			return fmt.Errorf("%d:%d: %s is there twice", k.Line, k.Column, name)
		}
		switch {
		case nodes[name] != nil:
			return fmt.Errorf("%d:%d: %s is there twice", k.Line, k.Column, name)
		case trees[name] != nil:
			nodes[name] = v
		case known[name] && v.Kind == yaml.ScalarNode:
			said[name] = v.Value
		case v.Kind == yaml.MappingNode && isLevel(name, known):
			if err := flatten(v, name+".", known, said, nodes); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%d:%d: unknown key %q", k.Line, k.Column, name)
		}
	}
	return nil
}

func isLevel(name string, known map[string]bool) bool {
	for k := range known {
		if strings.HasPrefix(k, name+".") {
			return true
		}
	}
	return false
}
