package compose_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/compose"
)

func routes(t *testing.T, p tender.Project) string {
	t.Helper()
	var b strings.Builder
	for _, r := range p.Routes {
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(r.ID(p.Name) + " " + string(line) + "\n")
	}
	return b.String()
}

func TestRoutesAreRead(t *testing.T) {
	_, p := load(t, `
services:
  web:
    image: x
    expose: ["8080"]
    x-tender:
      routes:
        - host: Shop.example.com
        - host: [a.example.com, "*.a.example.com"]
          path: /api/
          port: 9090
          retries: 0
          health: {}
          allow: [10.1.2.3/8, "::1"]
          rate_limit: {requests: 10/30s, by: "header:X-Key"}
          max_body: 10MB
        - redirect: "https://shop.example.com{path}{query}"
          rate_limit: 100/s
        - {path: /x, port: 81, sticky: "true"}
  orders: {image: y, ports: ["8000:80"]}
x-tender:
  routes:
    - host: shop.example.com
      path: /orders
      to: [{service: orders, weight: 10}, {url: "http://10.0.0.8:8081/", weight: 90}]
    - {host: "*.b.example.com", to: [{service: orders, port: 81}, {service: web}]}
`)
	want := `shop/shop.example.com/ {"service":"web","hosts":["shop.example.com"],"path":"/","aims":[{"service":"web","port":8080,"weight":1}],"timeout":{}}
shop/a.example.com/api/ {"service":"web","hosts":["a.example.com","*.a.example.com"],"path":"/api/","aims":[{"service":"web","port":9090,"weight":1}],"health":{"path":"/"},"timeout":{},"retries":-1,"allow":["10.0.0.0/8","::1/128"],"rate_limit":{"requests":10,"per":30000000000,"by":"header:X-Key"},"max_body":10485760}
shop/web:8080/ {"service":"web","path":"/","aims":[{"service":"web","port":8080,"weight":1}],"timeout":{},"redirect":{"to":"https://shop.example.com{path}{query}"},"rate_limit":{"requests":100,"per":1000000000}}
shop/web:81/x {"service":"web","path":"/x","aims":[{"service":"web","port":81,"weight":1}],"sticky":true,"timeout":{}}
shop/shop.example.com/orders {"hosts":["shop.example.com"],"path":"/orders","aims":[{"service":"orders","port":80,"weight":10},{"url":"http://10.0.0.8:8081","weight":90}],"timeout":{}}
shop/*.b.example.com/ {"hosts":["*.b.example.com"],"path":"/","aims":[{"service":"orders","port":81,"weight":1},{"service":"web","port":8080,"weight":1}],"timeout":{}}
`
	if diff := cmp.Diff(want, routes(t, p)); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

func TestRolloutsThatTheEdgeCarriesAreRead(t *testing.T) {
	_, p := load(t, `
services:
  web:
    image: x
    expose: ["80"]
    x-tender:
      routes: [{host: a.example.com}]
      rollout: {strategy: canary, steps: [5, "25"], pause: 30s, keep: 10m, abort: {errors: 0.5%, p99: 500ms}, check: [{path: "/x?y", status: 204, body: ok}, {}]}
`)
	got := p.Services[0].Rollout
	want := tender.Rollout{
		Strategy: tender.Canary, Steps: []int{5, 25}, Pause: 30e9, Keep: 600e9, AbortErrors: 0.005, AbortP99: 500e6,
		Check: []tender.Check{{Path: "/x?y", Status: 204, Body: "ok"}, {Path: "/", Status: 200}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

func TestWordsOfTrafficMakeNoRevision(t *testing.T) {
	const plain = `{image: x, expose: ["80"], x-tender: {boot: ordered}}`
	for _, with := range []string{
		`{image: x, expose: ["80"], x-tender: {boot: ordered, routes: [{host: a.example.com}]}}`,
		`{image: x, expose: ["80"], x-tender: {boot: ordered, publish: engine}}`,
		`{image: x, expose: ["80"], x-tender: {boot: ordered, routes: [{host: b.example.com}], rollout: {strategy: canary, steps: [1]}}}`,
	} {
		_, a := load(t, "services:\n  web: "+plain+"\n")
		_, b := load(t, "services:\n  web: "+with+"\n")
		if !compose.Same(a.Services[0].Spec, b.Services[0].Spec) {
			t.Errorf("%s is another revision", with)
		}
	}
}

func TestWhoHoldsThePorts(t *testing.T) {
	tests := []struct {
		name, service string
		replicas      int
		held          bool
		want          string // who, and what stands in the way of two at a time
	}{
		{"one instance stays at the engine", `{image: x, ports: ["80:80"]}`, 1, false, `"" "host port 80"`},
		{"several instances need the edge", `{image: x, ports: ["80:80"]}`, 3, false, `"proxy" ""`},
		{"what the edge held it holds", `{image: x, ports: ["80:80"]}`, 1, true, `"proxy" ""`},
		{"said", `{image: x, ports: ["80:80", "53:53/udp"], x-tender: {publish: proxy}}`, 1, false, `"proxy" ""`},
		{"said otherwise", `{image: x, ports: ["80:80"], x-tender: {publish: engine}}`, 1, true, `"" "host port 80"`},
		{"a range that is large enough", `{image: x, ports: ["80-83:80"]}`, 3, true, `"" ""`},
		{"no number, nothing to hold", `{image: x, ports: ["80"]}`, 3, true, `"" ""`},
		{"UDP stays at the engine", `{image: x, ports: ["53:53/udp"]}`, 1, true, `"" "host port 53"`},
		{"the host's network", `{image: x, network_mode: host}`, 1, true, `"" "host network"`},
		{"no ports", `{image: x}`, 3, true, `"" ""`},
		{"nobody can", `{image: x, ports: ["53:53/udp"]}`, 2, false, "services.web.ports: 2 instances cannot share host port 53"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, p := load(t, "services:\n  web: "+tt.service+"\n")
			s := p.Services[0]
			s.Replicas = tt.replicas
			got := ""
			h, err := compose.Hold(s, tt.held)
			if err != nil {
				got = err.Error()
			} else {
				got = quoted(h.Publish) + " " + quoted(h.OneAtATime)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
			if err != nil {
				return
			}
			again, err := compose.Hold(h, h.Publish == tender.PublishProxy)
			if err != nil || string(again.Spec) != string(h.Spec) || again.Publish != h.Publish {
				t.Errorf("held again it changes: %v", err)
			}
			c, err := compose.Spec(h.Spec)
			if err != nil {
				t.Fatal(err)
			}
			if published := len(c.Services["web"].Ports); h.Publish == tender.PublishProxy && published != 0 {
				t.Errorf("the engine publishes %d ports that the edge holds", published)
			}
			if moved := !compose.Same(s.Spec, h.Spec); moved != (h.Publish == tender.PublishProxy && s.Publish != h.Publish) {
				t.Errorf("another revision: %v", moved)
			}
			back, _, err := compose.Join([][]byte{h.Spec})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(s.Ports, back.Services[0].Ports); diff != "" {
				t.Errorf("ports after Join: want -, got +\n%s", diff)
			}
		})
	}
}

func quoted(s string) string { return `"` + s + `"` }

func TestTheSchemaForEditorsIsWhole(t *testing.T) {
	b, err := compose.Schema()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{`"x-tender"`, `"rate_limit"`, `"blue-green"`, `"strip_prefix"`} {
		if !strings.Contains(string(b), key) {
			t.Errorf("%s is not in it", key)
		}
	}
	if strings.Contains(string(b), `"mesh"`) {
		t.Error("it has keys that are not known to this version")
	}
}
