package convert_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/tenderhq/tender/internal/convert"
)

const haproxyFile = `global
    maxconn 4096
defaults
    mode http
    timeout connect 5000
    timeout server 1m
    timeout check 2s
    option forwardfor
    retries 3
frontend web
    bind *:443 ssl crt /etc/x.pem
    http-request redirect scheme https unless { ssl_fc }
    http-request set-header X-Shop "the shop" # a comment
    acl is_api path_beg /api /v2
    acl is_shop hdr(host) -i Shop.example.com
    acl under hdr_end(host) -i .b.example.com
    acl inside src 10.0.0.0/8
    use_backend api if is_shop is_api
    use_backend b if under
    use_backend b if inside
    use_backend %[req.hdr(x)] if under
    default_backend app
backend api
    balance leastconn
    option httpchk HEAD /health
    http-check expect status 204
    server a1 10.0.0.1:8080 check inter 500 fall 3 rise 2 weight 20
    server a2 10.0.0.2:8080 check backup
    server a3 10.0.0.3:8080 disabled
backend b
    balance uri
    server b1 b.internal.example.com:443 ssl verify none check
backend app
    cookie SRV insert indirect nocache
    compression algo gzip
    server web1 web:8080 check
    server web2 web:8080 check
listen stats
    bind *:8404
    stats enable
listen db
    mode tcp
    server db db:5432
`

func TestHAProxyBecomesRoutes(t *testing.T) {
	got, err := convert.Routes("haproxy.cfg", []byte(haproxyFile))
	if err != nil {
		t.Fatal(err)
	}
	common := "\n      timeout:\n        connect: 5s\n        server: 1m\n      retries: 3\n      headers:\n        request:\n          X-Shop: the shop\n"
	api := func(path string) string {
		return "    - host: shop.example.com\n      path: " + path + "\n      to:\n        - {url: 'http://10.0.0.1:8080', weight: 20}\n        - {url: 'http://10.0.0.2:8080', weight: 0}" +
			common + "      balance: least-conn\n      health:\n        method: HEAD\n        path: /health\n        status: \"204\"\n        interval: 500ms\n        down: 3\n        up: 2\n"
	}
	want := "x-tender:\n  routes:\n" + api("/api") + api("/v2") +
		"    - host: '*.b.example.com'\n      to:\n        - {url: 'https://b.internal.example.com:443'}" + common + "      health:\n        path: tcp\n" +
		"    - to:\n        - {service: web, port: 8080}" + common + "      sticky: true\n      compress: true\n      health:\n        path: tcp\n"
	if diff := cmp.Diff(want, got.YAML); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
	notes := `haproxy.cfg:11: TLS: routes with a host get a certificate by themselves; or say tls: internal, or cert_file and key_file
haproxy.cfg:12: http-request redirect scheme https unless { ssl_fc }: routes with TLS redirect from HTTP by themselves
haproxy.cfg:21: use_backend %[req.hdr(x)] if under: not turned into a route
haproxy.cfg:28: server a2 is a backup: its weight is 0
haproxy.cfg:29: server a3 is disabled and left out
haproxy.cfg:31: balance uri: round-robin is used
haproxy.cfg:20: condition inside of backend b is not one on host or path
haproxy.cfg:36: web is taken for a service of the project
haproxy.cfg:40: stats enable: not turned
haproxy.cfg:41: listen db is in TCP mode: publish the port with ports: and x-tender: {publish: proxy}`
	have := map[string]bool{}
	for _, n := range got.Notes {
		have[n] = true
	}
	for _, n := range strings.Split(notes, "\n") {
		if !have[n] {
			t.Errorf("%q is not told; told is\n%s", n, strings.Join(got.Notes, "\n"))
		}
	}
}

func TestNginxBecomesRoutes(t *testing.T) {
	got, err := convert.Routes("nginx.conf", []byte(`user nginx;
events { worker_connections 1024; }
http {
  gzip on; include mime.types;
  client_max_body_size 10m;
  upstream app { ip_hash; server web:8080 weight=3; server 10.0.0.2; server 10.0.0.3 down; }
  server { listen 80; server_name shop.example.com; return 301 https://$host$request_uri; }
  server {
    listen 443 ssl;
    server_name shop.example.com .b.example.com "~^x";
    ssl_certificate /etc/c.pem; ssl_certificate_key /etc/k.pem;
    add_header Strict-Transport-Security "max-age=1" always;
    proxy_set_header Host $host;
    location / { proxy_pass http://app; proxy_read_timeout 90; proxy_set_header X-A b; }
    location /api/ { proxy_pass http://api:3000/; allow 10.0.0.0/8; deny all; }
    location = /health { proxy_pass http://api:3000; }
    location /rpc { grpc_pass grpc://rpc:9000; }
    location /away { return 302 https://other.example.com/x; }
    location ~ \.php$ { fastcgi_pass x; }
    location /static { root /srv; }
  }
}
stream { server { listen 5432; } }
`))
	if err != nil {
		t.Fatal(err)
	}
	hosts := "    - host:\n        - shop.example.com\n        - b.example.com\n        - '*.b.example.com'\n"
	common := "\n      compress: true\n      max_body: 10m\n      cert_file: /etc/c.pem\n      key_file: /etc/k.pem\n      hsts: true\n"
	want := "x-tender:\n  routes:\n" +
		hosts + "      to:\n        - {service: web, port: 8080, weight: 3}\n        - {url: 'http://10.0.0.2:80', weight: 1}" + common +
		"      balance: hash:ip\n      timeout:\n        server: 90s\n      headers:\n        request:\n          X-A: b\n" +
		hosts + "      path: /api/\n      to:\n        - {service: api, port: 3000}" + common + "      strip_prefix: true\n      allow:\n        - 10.0.0.0/8\n" +
		hosts + "      path: /health\n      to:\n        - {service: api, port: 3000}" + common +
		hosts + "      path: /rpc\n      to:\n        - {service: rpc, port: 9000}" + common + "      protocol: h2c\n" +
		hosts + "      path: /away\n      redirect:\n        to: https://other.example.com/x\n        code: 302" + common
	if diff := cmp.Diff(want, got.YAML); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
	for _, n := range []string{
		"nginx.conf:10: server_name ~^x: patterns are not turned", "nginx.conf:19: location ~ \\.php$: patterns are not turned",
		"nginx.conf:20: location /static leads to no other server and is left out", "nginx.conf:23: stream: publish its ports with ports: and x-tender: {publish: proxy}",
	} {
		if !strings.Contains(strings.Join(got.Notes, "\n"), n) {
			t.Errorf("%q is not told; told is\n%s", n, strings.Join(got.Notes, "\n"))
		}
	}
}

func FuzzRoutes(f *testing.F) {
	f.Add(haproxyFile)
	f.Add("server { server_name a; location / { proxy_pass http://b:1/; } }")
	f.Add("upstream x { server \"a b\" weight=q; hash $cookie_;\nserver")
	f.Add("frontend f\n use_backend b if a\n acl a path -m beg\nbackend b\n server s [::1]:80 weight\n timeout x")
	f.Fuzz(func(t *testing.T, content string) {
		got, err := convert.Routes("file", []byte(content))
		if err != nil {
			return
		}
		var v map[string]any
		if err := yaml.Unmarshal([]byte(got.YAML), &v); err != nil || v["x-tender"] == nil {
			t.Errorf("%q gives\n%s%v", content, got.YAML, err)
		}
	})
}
