#!/usr/bin/env bash
# Types what README.md says, line by line, and fails where a line does.
#
#   demo.sh         do all that; everything it made is gone in the end
#
# What it makes lies in .cache/pipeline of the clone and in /tmp, but the engine (when none was
# there) and the base image. The registry listens on 127.0.0.1:REGISTRY_PORT (default 5480).
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
state=$root/.cache/pipeline
port=${REGISTRY_PORT:-5480}
run=/tmp/tender-pipeline-$(cksum <<<"$root" | cut -d' ' -f1) # the path of a socket has room for a hundred bytes
export TENDER_HOST=unix://$run/tender.sock REGISTRY=localhost:$port
serve=

tender() { "$root/bin/tender" "$@"; }
die() { echo "pipeline: $*" >&2; exit 1; }

clean() {
	set +e
	if [ -n "$serve" ]; then
		for project in shop-dev shop-staging shop; do tender down -p "$project" >/dev/null 2>&1; done
		kill "$serve" 2>/dev/null
		wait "$serve" 2>/dev/null
	fi
	local edge
	edge=$(curl -s --unix-socket "$run/edge.sock" http://edge/status | grep -oE '"pid":[0-9]+' | cut -d: -f2)
	[ -z "$edge" ] || kill "$edge"
	docker images --format '{{.Repository}}:{{.Tag}}' "$REGISTRY/shop/web" | grep -v '<none>' | xargs -r docker rmi -f >/dev/null 2>&1
	rm -rf "$run" "$state"
}
trap clean EXIT

cd "$root"
e2e/engine.sh start
make -s build
e2e/images.sh busybox
mkdir -p "$state/data"
mkdir -p -m 700 "$run"
"$root/bin/tender" serve --config "$here/tender.yaml" --data-dir "$state/data" --run-dir "$run" --vault-key "$state/vault.key" --listen "" \
	--listen-registry "127.0.0.1:$port" --http "" --https "" --dns "" >"$state/serve.log" 2>&1 </dev/null &
serve=$!
tries=0
until tender status >/dev/null 2>&1; do
	kill -0 "$serve" 2>/dev/null && [ $((tries += 1)) -lt 300 ] || { tail -n 20 "$state/serve.log" >&2; die "tender serve does not answer"; }
	sleep 0.2
done

cd "$here"
lines=$(sed -n '/^```sh$/,/^```$/{/^```/!p}' README.md)
while IFS= read -r line; do
	echo
	echo "\$ $line"
	eval "${line//localhost:5000/$REGISTRY}" </dev/null || die "that line failed: $line"
done <<<"$lines"
echo
echo "From build to production, and back."
