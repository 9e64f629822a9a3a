#!/usr/bin/env bash
# Makes sure that images are in the engine, under the names given:
#
#   images.sh [NAME...]     default: what the tests need
#   images.sh -l            the names that can be made here
#   images.sh -n            the names that the tests need
#
# What is there stays as it is. What is missing is pulled; where no registry
# answers it is made from Debian packages by images/build.sh. The registry is
# asked once: when it is silent for 5 s, this run does not ask again.
#
# TENDER_IMAGES=build never asks a registry, TENDER_IMAGES=pull makes nothing.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
docker=${DOCKER:-docker}
mode=${TENDER_IMAGES:-auto}
needed="busybox:latest alpine:latest debian:latest postgres:15 redis:alpine nginx:alpine
  haproxy:alpine pgbouncer/pgbouncer:latest prom/prometheus:latest prom/alertmanager:latest
  registry:2 openjdk:17-jre-slim demo/app:latest demo/app:2"
own="demo/app" # lives nowhere else

say() { echo "images: $*"; }
die() { echo "images: $*" >&2; exit 1; }
present() { "$docker" image inspect "$1" >/dev/null 2>&1; }

# recipe prints the directory whose image gets the name.
recipe() {
	local f
	f=$(cd "$here/images" && grep -lxF -- "$1" ./*/tags | head -1)
	[ -n "$f" ] && basename "$(dirname "$f")"
}

# pull waits 5 s for the first word of the registry and 5 minutes for the rest.
pull() {
	local out pid tenths=0 ok=
	out=$(mktemp)
	timeout 300 "$docker" pull "$1" >"$out" 2>&1 </dev/null &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		if ! grep -q 'Pulling from' "$out"; then
			[ $tenths -lt 50 ] || { kill "$pid" 2>/dev/null || true; break; }
			tenths=$((tenths + 1))
		fi
		sleep 0.1
	done
	wait "$pid" 2>/dev/null && ok=1
	why=$(tail -n 1 "$out" | cut -c1-160)
	rm -f "$out"
	[ -n "$ok" ]
}

list() {
	local f
	for f in "$here"/images/*/tags; do sed "s|\$| ($(basename "$(dirname "$f")"))|" "$f"; done
}

main() {
	case ${1:-} in
	-l) list; return ;;
	-n) echo $needed; return ;;
	-*) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
	esac
	"$docker" version >/dev/null 2>&1 || die "no engine answers: e2e/engine.sh start"
	# shellcheck disable=SC2086
	[ $# -gt 0 ] || set -- $needed
	local name missing=() build=() started=$SECONDS r why=
	for name in "$@"; do
		case ${name##*/} in *:*) ;; *) name=$name:latest ;; esac
		present "$name" || missing+=("$name")
	done
	if [ ${#missing[@]} = 0 ]; then
		say "all $# are there"
		return
	fi
	say "missing: ${missing[*]}"
	for name in "${missing[@]}"; do
		if [ "$mode" != build ] && [ "${name%:*}" != "$own" ]; then
			if pull "$name"; then
				say "pulled $name"
				continue
			fi
			[ "$mode" != pull ] || die "pull $name: $why"
			case $why in
			*denied* | *unknown* | *'not found'* | *toomanyrequests*) say "pull $name: $why" ;;
			*)
				say "no registry answers (${why:-silent for 5 s}): the rest is made here"
				mode=build
				;;
			esac
		fi
		r=$(recipe "$name") || die "$name cannot be pulled, and there is no recipe for it in e2e/images (see $0 -l)"
		case " ${build[*]} " in *" $r "*) ;; *) build+=("$r") ;; esac
	done
	[ ${#build[@]} = 0 ] || "$here/images/build.sh" "${build[@]}"
	for name in "${missing[@]}"; do present "$name" || die "$name is still missing"; done
	say "done in $((SECONDS - started)) s"
}

main "$@"
