package e2e

import (
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The password that the registry of the tests knows, and its hash (bcrypt).
const (
	registryPassword = "open-sesame"
	registryHash     = "$2a$05$9Me.oiQPlsPooE5GpZ.XQO1WIGAUJj7olWV6YpdtW5XujeA2902wG"
)

// registry starts one that lets in nobody but deploy, and puts busybox into it
// as HOST/team/base:1.
func (h *host) registry() (address string) {
	h.t.Helper()
	users := h.file("registry/users", "deploy:"+registryHash+"\n")
	address = fmt.Sprintf("127.0.0.1:%d", freePort(h.t))
	name := h.project + "-registry"
	h.t.Cleanup(func() {
		if h.t.Failed() {
			show(h.t, "the registry's log", docker("logs", "--tail", "5", name).all())
		}
		docker("rm", "-fv", name)
	})
	if r := docker("run", "-d", "--name", name, "-p", address+":5000", "-v", users+":/users:ro",
		"-e", "REGISTRY_AUTH=htpasswd", "-e", "REGISTRY_AUTH_HTPASSWD_REALM=test", "-e", "REGISTRY_AUTH_HTPASSWD_PATH=/users", "registry:2"); r.code != 0 {
		h.t.Fatal(r.all())
	}
	config := h.dockerConfig("filler", fmt.Sprintf(`{"auths": {"%s": {"auth": "%s"}}}`, address, base64.StdEncoding.EncodeToString([]byte("deploy:"+registryPassword))))
	base := address + "/team/base:1"
	h.t.Cleanup(func() { docker("rmi", "-f", base) })
	docker("tag", "busybox", base)
	h.until("the registry takes an image", func() error { return docker("--config", config, "push", base).err() })
	docker("rmi", base)
	return address
}

// token makes one of the daemon's.
func (h *host) token(name, scope string) (secret string) {
	h.t.Helper()
	if secret = strings.TrimSpace(h.must("token", "create", name, "--scope", scope)); secret == "" {
		h.t.Fatal("token create prints no secret")
	}
	return secret
}

// login lets the daemon into a registry.
func (h *host) login(address, password string) {
	h.t.Helper()
	cmd := h.command("registry", "login", address, "-u", "ci", "--password-stdin")
	cmd.Stdin = strings.NewReader(password + "\n")
	if r := run(cmd); r.code != 0 {
		h.t.Fatal(r.all())
	}
}

// dockerLogin lets docker into one, with a folder for its configuration.
func dockerLogin(config, address, password string) result {
	cmd := exec.Command("docker", "--config", config, "login", address, "-u", "ci", "--password-stdin")
	cmd.Stdin = strings.NewReader(password)
	return run(cmd)
}

func (h *host) dockerConfig(name, content string) (dir string) {
	return filepath.Dir(h.file(filepath.Join(name, "config.json"), content))
}

func TestAPrivateRegistryMustOpenToTheVaultsLogin(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	address := h.registry()
	base := address + "/team/base:1"
	h.setenv("DOCKER_CONFIG", h.dockerConfig("empty", "{}"))
	h.file("compose.yaml", "services:\n  app:\n    image: "+base+"\n    command: [sleep, \"600\"]\n    stop_signal: SIGKILL\n")

	// Without a login: which registry, and which command.
	r := h.exits(4, "up")
	for _, want := range []string{"the registry " + address + " refuses", "tender registry login " + address + " -u USER --password-stdin"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("up without a login does not say %q:\n%s", want, r.all())
		}
	}
	login := func(password string) result {
		cmd := h.command("registry", "login", address, "-u", "deploy", "--password-stdin")
		cmd.Stdin = strings.NewReader(password + "\n")
		return run(cmd)
	}
	if r := login("wrong"); r.code != 4 || !strings.Contains(r.stderr, address) {
		t.Errorf("a wrong password: %s", r.all())
	}
	if out := h.must("registry", "logins", "-q"); out != "" {
		t.Errorf("a wrong password was kept: %s", out)
	}
	if r := login(registryPassword); r.code != 0 {
		t.Fatal(r.all())
	}
	up := h.exits(0, "up")
	if len(h.running("app")) != 1 {
		t.Error("app does not run")
	}
	ls := h.must("registry", "logins")
	if !strings.Contains(ls, address) || !strings.Contains(ls, "deploy") {
		t.Errorf("registry logins:\n%s", ls)
	}

	// It is the daemon's: also for what is built and pushed, and after a restart.
	h.stop()
	h.start()
	image := address + "/team/app:1"
	t.Cleanup(func() { docker("rmi", "-f", image) })
	h.must("down")
	docker("rmi", base)
	h.file("src/Dockerfile", "FROM "+base+"\nCOPY Dockerfile /\n")
	h.file("compose.yaml", "services:\n  app:\n    image: "+image+"\n    build: src\n    command: [sleep, \"600\"]\n    stop_signal: SIGKILL\n")
	h.must("build")
	h.must("push")
	h.must("up")

	// The password is nowhere to be read.
	places := map[string]string{"up": up.all(), "registry logins": h.must("registry", "logins", "--json"), "audit": h.must("audit", "--json"), "log": h.serveLog(), "secret ls": h.must("secret", "ls")}
	for _, dir := range []string{"data", "run"} {
		maps.Copy(places, filesUnder(t, filepath.Join(h.dir, dir)))
	}
	for place, text := range places {
		for _, secret := range []string{registryPassword, base64.StdEncoding.EncodeToString([]byte("deploy:" + registryPassword))} {
			if strings.Contains(text, secret) {
				t.Errorf("%s holds the password", place)
			}
		}
	}

	h.must("registry", "logout", address)
	h.must("down")
	docker("rmi", "-f", image, base)
	h.file("compose.yaml", "services:\n  app:\n    image: "+base+"\n")
	h.exits(4, "up")
}

func TestDockersLoginsMustServeOneCommand(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	address := h.registry()
	base := address + "/team/base:1"
	h.file("compose.yaml", "services:\n  app:\n    image: "+base+"\n    command: [sleep, \"600\"]\n    stop_signal: SIGKILL\n")
	helper := h.file("bin/docker-credential-test", fmt.Sprintf(`#!/bin/sh
read -r host
if [ "$host" = %s ]; then echo '{"Username": "deploy", "Secret": "%s"}'; else echo credentials not found in native keychain; exit 1; fi
`, address, registryPassword))
	if err := os.Chmod(helper, 0o755); err != nil {
		t.Fatal(err)
	}
	h.setenv("PATH", filepath.Dir(helper)+":"+os.Getenv("PATH"))
	pair := base64.StdEncoding.EncodeToString([]byte("deploy:" + registryPassword))
	for name, config := range map[string]string{
		"auths":       fmt.Sprintf(`{"auths": {"%s": {"auth": "%s"}}}`, address, pair),
		"credsStore":  fmt.Sprintf(`{"auths": {"%s": {}}, "credsStore": "test"}`, address),
		"credHelpers": fmt.Sprintf(`{"credHelpers": {"%s": "test"}}`, address),
	} {
		h.setenv("DOCKER_CONFIG", h.dockerConfig(name, config))
		if r := h.tender("up"); r.code != 0 {
			t.Fatalf("%s: %s", name, r.all())
		}
		h.must("down")
		docker("rmi", base)
	}
	// The daemon has kept none of them.
	h.setenv("DOCKER_CONFIG", h.dockerConfig("empty", "{}"))
	h.exits(4, "up")
	if out := h.must("registry", "logins", "-q"); out != "" {
		t.Errorf("the daemon kept a login: %s", out)
	}
}
