#!/usr/bin/env bash
# The strangler fig: an old shop loses its orders to a new service, a share at a
# time, and nobody who buys notices.
#
#   demo.sh         do all that, and clean up
#
# Everything it makes lies in .cache/strangler of the clone, but the engine (when
# none was there) and its images. The edge listens on 127.0.0.1:18290.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
state=$root/.cache/strangler
tender=$root/bin/tender
run=$(mktemp -d /tmp/strangler-XXXXXX) # the path of a socket has room for a hundred bytes
export TENDER_HOST=unix://$run/tender.sock OLD_PORT=${OLD_PORT:-18291}
port=${PORT:-18290}
old=strangler-old-$OLD_PORT
serve=
doing=start
cd "$root"

die() { echo "strangler: $*" >&2; exit 1; }
trap 'echo "strangler: stopped at: $doing" >&2' ERR

clean() {
	set +e
	[ -z "$serve" ] || "$tender" down -p strangler >/dev/null 2>&1
	[ -z "$serve" ] || kill "$serve" 2>/dev/null
	[ -z "$serve" ] || wait "$serve" 2>/dev/null
	local edge
	edge=$(curl -s --unix-socket "$run/edge.sock" http://edge/status | grep -oE '"pid":[0-9]+' | cut -d: -f2)
	[ -z "$edge" ] || kill "$edge"
	docker rm -f "$old" >/dev/null 2>&1
	rm -rf "$run"
}
trap clean EXIT

step() {
	doing=$1
	shift
	echo "==> $doing"
	"$@"
}

# The old shop is nobody's here: a container of its own, that Tender only knows by address.
old_shop() {
	docker rm -f "$old" >/dev/null 2>&1 || true
	docker run -d --name "$old" --init -p "127.0.0.1:$OLD_PORT:8080" busybox sh -c \
		'mkdir -p /srv/orders && echo "shop: old" > /srv/index.html && echo "orders: old" > /srv/orders/index.html && exec httpd -f -p 8080 -h /srv' >/dev/null
}

control_plane() {
	mkdir -p "$state/data"
	"$tender" serve --data-dir "$state/data" --run-dir "$run" --vault-key "$state/vault.key" --listen "" \
		--http "127.0.0.1:$port" --https "" --dns "" >"$state/serve.log" 2>&1 </dev/null &
	serve=$!
	local tries=0
	until "$tender" status >/dev/null 2>&1; do
		kill -0 "$serve" 2>/dev/null && [ $((tries += 1)) -lt 100 ] || die "tender serve does not answer; its log is $state/serve.log"
		sleep 0.2
	done
}

get() { curl -sS -m 10 -H 'Host: shop.localhost' "http://127.0.0.1:$port$1"; }

# Customers ask for their orders all the time. Each answer is a line of a file.
customers() {
	while [ -e "$run/open" ]; do
		curl -s -m 10 -o "$run/body" -w '%{http_code} ' -H 'Host: shop.localhost' "http://127.0.0.1:$port/orders/" >>"$run/answers" || echo -n "failed " >>"$run/answers"
		cut -d, -f1 "$run/body" >>"$run/answers"
	done
}

move() {
	touch "$run/open"
	customers &
	local buying=$!
	"$tender" route shift shop.localhost/orders -p strangler --to orders=100 --auto --every 2s
	rm "$run/open"
	wait "$buying"
	echo "    what customers were answered while it moved:"
	sort "$run/answers" | uniq -c | sed 's/^/    /'
	! grep -qv '^200 ' "$run/answers" || die "somebody was not answered"
}

step "engine" e2e/engine.sh start
step "bin/tender" make -s build
step "image" e2e/images.sh busybox
step "the old shop, on port $OLD_PORT" old_shop
step "control plane: tender serve" control_plane
step "the new orders, with no traffic yet: tender up" "$tender" up -f "$here/compose.yaml"
step "before: /orders/" get /orders/
step "orders move: tender route shift shop.localhost/orders --to orders=100 --auto" move
step "after: /orders/, and all the rest" get /orders/
get /
step "tender route show shop.localhost/orders" "$tender" route show shop.localhost/orders -p strangler
