package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestConfigure(t *testing.T) {
	for _, tt := range []struct {
		name  string
		file  string
		env   map[string]string
		flags map[string]string
		check func(Config) bool
		err   string
	}{
		{name: "defaults", check: func(c Config) bool {
			return c.DataDir == "/var/lib/tender" && c.Listen == "127.0.0.1:7070" && c.Subnets.String() == "10.201.0.0/16"
		}},
		{
			name: "flags win over variables, variables over the file",
			file: "data_dir: /a\nrun_dir: /a/run\nlisten: {api: \"\"}\nsubnets: 10.9.0.0/16\n",
			env:  map[string]string{"TENDER_DATA_DIR": "/b", "TENDER_RUN_DIR": "/b/run"}, flags: map[string]string{"data-dir": "/c"},
			check: func(c Config) bool {
				return c.DataDir == "/c" && c.RunDir == "/b/run" && c.Listen == "" && c.Subnets.String() == "10.9.0.0/16"
			},
		},
		{
			name: "Docker's variable names the engine, ours wins", env: map[string]string{"DOCKER_HOST": "tcp://a:1", "TENDER_ENGINE": "tcp://b:1"},
			check: func(c Config) bool { return c.Engine == "tcp://b:1" },
		},
		{name: "unknown key", file: "data_dir: /a\nlisten: {apl: x}\n", err: `:2:10: unknown key "listen.apl"`},
		{name: "not YAML", file: "a: [", err: "tender.yaml: "},
		{name: "key beside the sealed data", flags: map[string]string{"data-dir": "/a", "vault-key": "/a/key"}, err: "lies inside the data directory"},
		{name: "no password in the clear", flags: map[string]string{"listen-registry": ":5000"}, err: "in the clear"},
		{name: "a listener of nothing", flags: map[string]string{"listen-registry": "127.0.0.1:5000", "registry": "off"}, err: "the registry is off"},
		{
			name: "the registry", file: "data_dir: /a\nregistry: {dir: /srv/registry}\nlisten: {registry: \"127.0.0.1:5000\"}\n",
			check: func(c Config) bool {
				return !c.NoRegistry && c.RegistryDir == "/srv/registry" && c.ListenRegistry == "127.0.0.1:5000"
			},
		},
		{
			name: "the registry's name", flags: map[string]string{"data-dir": "/a", "registry-host": "registry.example.com"},
			check: func(c Config) bool { return c.RegistryHost == "registry.example.com" },
		},
		{name: "a name with a scheme", flags: map[string]string{"registry-host": "https://registry.example.com"}, err: "is no name of a host"},
		{name: "a name that nothing serves", flags: map[string]string{"registry-host": "registry.example.com", "https": ""}, err: "listens for HTTPS nowhere"},
		{name: "a name of nothing", flags: map[string]string{"registry-host": "registry.example.com", "registry": "off"}, err: "the registry is off"},
		{
			name: "the registry's place", file: "data_dir: /a\nregistry: off\n",
			check: func(c Config) bool { return c.NoRegistry && c.RegistryDir == "/a/registry" },
		},
		{name: "no token in the clear", flags: map[string]string{"listen": "0.0.0.0:7070"}, err: "in the clear"},
		{
			name: "beyond loopback with TLS", flags: map[string]string{"listen": "0.0.0.0:7070", "tls-cert": "c", "tls-key": "k"},
			check: func(c Config) bool { return c.TLSCert == "c" },
		},
		{
			name: "rules and alerts",
			file: "rules: {files: /a/*.yml, logs: [/b, /c], every: 30s}\nalerts:\n  off: [LogGap]\n  set:\n    NearMemoryLimit: {threshold: 0.8, for: 0s, severity: page}\nheartbeat: https://x/y\n",
			check: func(c Config) bool {
				t := c.Builtin.Set["NearMemoryLimit"]
				return len(c.RuleFiles) == 1 && len(c.LogRuleFiles) == 2 && c.RulesEvery == 30*time.Second && len(c.Builtin.Off) == 1 && !c.Builtin.None &&
					*t.Threshold == 0.8 && *t.For == 0 && t.Severity == "page" && c.Heartbeat == "https://x/y"
			},
		},
		{
			name: "no built-in alerts", file: "alerts: {off: all}\nheartbeat: {url: 'http://x', every: 10s}\n",
			check: func(c Config) bool { return c.Builtin.None && c.HeartbeatEvery == 10*time.Second },
		},
		{name: "an alert that is none", file: "alerts:\n  off: [Nope]\n", err: `:2:3: alerts: there is no built-in alert "Nope"`},
		{name: "a key of alerts that is none", file: "alerts:\n  set: {LogGap: {treshold: 3}}\n", err: `:2:18: unknown key "alerts.set.LogGap.treshold"`},
		{name: "a threshold that is none", file: "alerts: {set: {LogGap: {threshold: much}}}\n", err: `:1:36: "much" is not a number`},
		{name: "rules at a place that moves", file: "rules: {files: a.yml}\n", err: `:1:16: "a.yml" is not an absolute path`},
		{name: "a heartbeat that is none", file: "heartbeat: hc-ping.com/secret\n", err: ":1:12: heartbeat: want an address such as"},
		{name: "bad pool", env: map[string]string{"TENDER_SUBNETS": "10.201.0.1/16"}, err: `TENDER_SUBNETS: "10.201.0.1/16" is not a pool`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "tender.yaml")
			if err := os.WriteFile(file, []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := Configure(file, func(k string) string { return tt.env[k] }, tt.flags)
			switch {
			case tt.err == "" && (err != nil || !tt.check(c)):
				t.Errorf("config %+v, err %v", c, err)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("err = %v, want %q", err, tt.err)
			}
		})
	}
}
