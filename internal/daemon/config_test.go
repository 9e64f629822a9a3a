package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
		{name: "no token in the clear", flags: map[string]string{"listen": "0.0.0.0:7070"}, err: "in the clear"},
		{
			name: "beyond loopback with TLS", flags: map[string]string{"listen": "0.0.0.0:7070", "tls-cert": "c", "tls-key": "k"},
			check: func(c Config) bool { return c.TLSCert == "c" },
		},
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
