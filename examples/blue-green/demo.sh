#!/usr/bin/env bash
# Blue, green and back under load, with every answer counted.
#
#   demo.sh         do all that; safe to run again
#   demo.sh down    remove it, and end the control plane and its edge
#
# Everything it makes lies in .cache/blue-green of the clone and in /tmp, but the
# engine (when none was there) and the image. The edge serves on 127.0.0.1:PORT (default 8480).
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
state=$root/.cache/blue-green
tender=$root/bin/tender
port=${PORT:-8480}
run=/tmp/tender-blue-green-$(cksum <<<"$root" | cut -d' ' -f1) # the path of a socket has room for a hundred bytes
export TENDER_HOST=unix://$run/tender.sock
cd "$root"

die() { echo "blue-green: $*" >&2; exit 1; }
say() { echo; echo "==> $*"; }

serve() {
	if "$tender" status >/dev/null 2>&1; then return; fi
	mkdir -p "$state/data" && mkdir -p -m 700 "$run"
	setsid "$tender" serve --data-dir "$state/data" --run-dir "$run" --vault-key "$state/vault.key" --listen "" \
		--http "127.0.0.1:$port" --https "" --dns "" >"$state/serve.log" 2>&1 </dev/null &
	echo $! >"$state/serve.pid"
	for _ in $(seq 100); do
		if "$tender" status >/dev/null 2>&1; then return; fi
		sleep 0.2
	done
	tail -n 20 "$state/serve.log" >&2
	die "tender serve does not answer; its log is $state/serve.log"
}

up() { PAGE="$1" "$tender" up -f "$here/compose.yaml"; }

# load asks again and again until it is told to stop, and writes down what came.
load() {
	local answer
	while [ ! -e "$state/stop" ]; do
		answer=$(curl -sS -m 35 -H "Host: colour.test" "http://127.0.0.1:$port/" 2>&1) || answer="LOST: $answer"
		echo "$answer" >>"$state/answers.$1"
	done
}

count() { cat "$state"/answers.* | sort | uniq -c | sort -rn; }

story() {
	say "engine, bin/tender, image"
	e2e/engine.sh start
	make -s build
	e2e/images.sh busybox
	serve
	say "blue"
	up "blue is well"
	rm -f "$state/stop" "$state"/answers.*
	clients=()
	for n in 1 2 3 4; do
		load "$n" &
		clients+=($!)
	done
	trap 'touch "$state/stop"' EXIT
	say "green: what will happen"
	PAGE="green is well" "$tender" plan -f "$here/compose.yaml" || [ $? = 3 ]
	say "green"
	up "green is well"
	say "back to blue: it is kept, so this is one switch"
	"$tender" rollback web -p blue-green
	say "red is not what check asks for: nobody gets to see it"
	up "red is ill" || [ $? = 5 ]
	touch "$state/stop"
	wait "${clients[@]}"
	say "every answer to four clients that asked all the time"
	count
	say "the rollouts, each with a proof: tender show"
	"$tender" rollout ls -p blue-green
	if grep -q LOST "$state"/answers.*; then die "requests were lost"; fi
	if grep -q red "$state"/answers.*; then die "red was served"; fi
	echo
	echo "Nothing was lost. Type next: TENDER_HOST=$TENDER_HOST $tender show 2, or $0 down"
}

down() {
	[ -d "$state" ] || die "there is nothing to remove"
	serve
	"$tender" down -p blue-green
	local edge pid
	edge=$(curl -s --unix-socket "$run/edge.sock" http://edge/status | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
	for pid in "$(cat "$state/serve.pid")" ${edge:+"$edge"}; do
		kill "$pid"
		while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
	done
	rm -rf "$state" "$run"
}

case ${1:-up} in
up) story ;;
down) down ;;
*) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
