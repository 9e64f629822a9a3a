package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// What a container with dns: tender asks is answered by the edge, at the host's
// address in its network; serve may be away.
func TestAContainerMustFindWhatServes(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.file("compose.yaml", `
services:
  web:
    image: demo/app
    expose: ["8080"]
    stop_grace_period: 1s
    healthcheck: {test: [CMD, /app, check], interval: 1s, timeout: 10s, retries: 2}
    deploy: {replicas: 2}
  asker:
    image: busybox
    command: [sleep, "3600"]
    stop_signal: SIGKILL
    dns: tender
`)
	h.must("up")
	asker := h.one("asker")
	name, listed := "web."+h.project+".tender", h.project+"-web.service.consul"
	addresses := map[string]string{} // of web, by container
	for _, id := range h.running("web") {
		addresses[id] = strings.TrimSpace(docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", id).out)
	}
	// says is what a command in the container writes, once it holds these words and none of those.
	says := func(what string, yes, no []string, cmd ...string) {
		t.Helper()
		h.until(what, func() error {
			out := docker(append([]string{"exec", asker}, cmd...)...).all() + "\n"
			for _, word := range yes {
				if !strings.Contains(out, word) {
					return fmt.Errorf("no %q in:\n%s", word, out)
				}
			}
			for _, word := range no {
				if strings.Contains(out, word) {
					return fmt.Errorf("%q in:\n%s", word, out)
				}
			}
			return nil
		})
	}
	var all []string
	for _, a := range addresses {
		all = append(all, "Address: "+a+"\n")
	}
	says("both are found", all, nil, "nslookup", name)
	says("and by Consul's name, with their port", []string{"1 1 8080 "}, nil, "nslookup", "-type=srv", listed)
	says("the engine's own names stay", []string{"web"}, nil, "getent", "hosts", "web")
	says("Consul's API is there", []string{`"ServiceName":"` + h.project + `-web"`}, nil, "wget", "-q", "-O", "-", "http://consul:8500/v1/catalog/service/"+h.project+"-web")
	says("and can only be read", []string{"403"}, nil, "wget", "-S", "-O", "-", "--post-data=x", "http://consul:8500/v1/agent/check/pass/x")

	// Paused, it stays as it is: Tender would restart one that is sick.
	still := h.running("web")[0]
	docker("pause", still)
	says("one that does not serve is not given out", []string{"Address: "}, []string{"Address: " + addresses[still] + "\n"}, "nslookup", name)
	docker("unpause", still)
	says("until it does", all, nil, "nslookup", name)
	h.stop()
	says("serve is away", []string{"Address: "}, nil, "nslookup", name)
}
