#!/usr/bin/env bash
# From a bare clone to a running shop: engine, tender, images, control plane, up.
#
#   demo.sh         do all that; safe to run again
#   demo.sh down    remove the shop with its data, and end the control plane
#
# Everything it makes lies in .cache/demo of the clone and in /run/tender-demo-N,
# but the engine (when none was there) and its images.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
state=$root/.cache/demo
tender=$root/bin/tender
pidfile=$state/serve.pid
log=$state/serve.log
# Opened secrets lie in the run directory, so it is on a tmpfs where there is one.
run=$state/run
if [ "$(stat -f -c %T /run 2>/dev/null)" = tmpfs ] && [ -w /run ]; then
	run=/run/tender-demo-$(cksum <<<"$root" | cut -d' ' -f1)
fi
socket=$run/tender.sock
export TENDER_HOST=unix://$socket
version=${VERSION:-1.0.0}
cd "$root"

die() { echo "demo: $*" >&2; exit 1; }
doing=start
trap 'echo "demo: stopped at: $doing" >&2' ERR

# step TITLE COMMAND...: says what happens, and afterwards how long it took.
step() {
	local started
	doing=$1 started=$(date +%s%N)
	shift
	echo "==> $doing"
	"$@"
	awk -v ns=$(($(date +%s%N) - started)) 'BEGIN { printf "    %.1f s\n", ns / 1e9 }'
}

build() { make -s build; }

images() {
	e2e/images.sh postgres:15 redis:alpine
	VERSION=$version examples/shop/build.sh
}

# A password of this clone's own. Readable by all inside a directory of root's:
# plain `docker compose` mounts the file as it is, for users that are not root.
secret() {
	local file=$here/secrets/db_password
	if [ ! -s "$file" ]; then
		if docker volume inspect shop_db >/dev/null 2>&1; then
			die "the volume shop_db is there already, with a password that this clone does not know. Remove it (its orders go): docker volume rm shop_db"
		fi
		(umask 077 && mkdir -p "$here/secrets" && head -c 18 /dev/urandom | base64 >"$file.new")
		chmod 700 "$here/secrets"
		chmod 444 "$file.new"
		mv "$file.new" "$file"
	fi
}

running() { # is the pid in the file our control plane?
	local pid
	pid=$(cat "$pidfile" 2>/dev/null) && [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = tender ]
}

# The edge outlives the control plane, so it is ended by itself.
unedge() {
	local pid
	pid=$(curl -fsS -m 5 --unix-socket "$run/edge.sock" http://edge/status 2>/dev/null | grep -oE '"pid":[0-9]+' | cut -d: -f2) || return 0
	kill "$pid"
}

# A control plane of an older build is replaced: the shop runs on meanwhile.
serve() {
	if running; then
		if [ "$(readlink -f "/proc/$(cat "$pidfile")/exe")" = "$tender" ]; then
			echo "    runs already, pid $(cat "$pidfile")"
			return
		fi
		unserve
	fi
	mkdir -p "$state/data" "$run"
	setsid "$tender" serve --data-dir "$state/data" --run-dir "$run" --vault-key "$state/vault.key" --listen "" \
		--http "" --https "" --dns "" >"$log" 2>&1 </dev/null &
	echo $! >"$pidfile"
	local tries=0
	until "$tender" status >/dev/null 2>&1; do
		if ! kill -0 "$(cat "$pidfile")" 2>/dev/null || [ $tries -ge 100 ]; then
			tail -n 30 "$log" >&2
			die "tender serve does not answer at $socket; its log is $log"
		fi
		tries=$((tries + 1))
		sleep 0.2
	done
	echo "    pid $(cat "$pidfile"), log $log"
}

unserve() {
	running || return 0
	local pid tries=0
	pid=$(cat "$pidfile")
	kill "$pid"
	while kill -0 "$pid" 2>/dev/null; do
		[ $tries -lt 150 ] || die "tender serve ($pid) does not end; its log is $log"
		tries=$((tries + 1))
		sleep 0.2
	done
	rm -f "$pidfile"
}

up() { VERSION=$version "$tender" up -f examples/shop/compose.yaml; }

port() { "$tender" port -p shop web 8080 | grep -oE '[0-9]+$' | head -1; }

order() {
	local port
	port=$(port)
	[ -n "$port" ] || die "web has no port"
	curl -fsS -m 10 -X POST "http://127.0.0.1:$port/orders" -d '{"item":"tea","quantity":2}' | sed 's/^/    /'
}

demo_up() {
	local started=$SECONDS
	step "engine" e2e/engine.sh start
	step "bin/tender" build
	step "images" images
	secret
	step "control plane: tender serve" serve
	step "the shop: tender up -f examples/shop/compose.yaml" up
	step "an order: POST /orders" order
	echo
	"$tender" ps -a -p shop
	cat <<-TEXT

		The shop runs after $((SECONDS - started)) s, three instances behind one port. Open:
		  http://127.0.0.1:$(port)/orders

		Type next (tender is bin/tender):
		  export TENDER_HOST=$TENDER_HOST PATH=$root/bin:\$PATH
		  cd examples/shop
		  tender status                       what runs, and how Tender itself is
		  tender scale web=4                  one more instance
		  ./build.sh 1.1.0                    a new version of the shop ...
		  VERSION=1.1.0 tender plan           ... what it would change, and why
		  VERSION=1.1.0 tender up             ... and the rollout
		  tender history web                  every rollout; tender rollback web goes back
		  tender logs -f web
		  make demo-down                      remove all of it (in the clone's root)
	TEXT
}

down() {
	if [ ! -x "$tender" ]; then
		echo "demo: nothing to remove, bin/tender was never built"
		return
	fi
	e2e/engine.sh status >/dev/null || die "no engine answers: e2e/engine.sh start"
	step "control plane" serve # one must run to take the shop down
	step "the shop and its volumes: tender down -v" "$tender" down -v -p shop
	step "end the control plane" unserve
	step "end the edge" unedge
	rm -rf "$state" "$run"
	echo "The engine and the images stay: e2e/engine.sh stop ends the engine if this clone started it."
}

case ${1:-up} in
up) demo_up ;;
down) down ;;
*) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
