#!/usr/bin/env bash
# Docker Engines beside the one of this host: each with its own data root,
# processes and network, so that it can be started, killed and upgraded without
# the other noticing.
#
#   own.sh NAME start [debian|current]   start it; current is the default
#   own.sh NAME stop                     end it as an init system would
#   own.sh NAME kill                     a power cut: engine and containers are gone at once
#   own.sh NAME images IMAGE...          copy images from the engine of DOCKER_HOST
#   own.sh NAME env                      print its DOCKER_HOST, for eval
#   own.sh NAME run COMMAND...           run a command in its network, with its DOCKER_HOST
#   own.sh NAME status                   say which version answers; 1 when none does
#   own.sh NAME remove                   end it and delete its data
#   own.sh - build                       build the current engine, if it is not there yet
#   own.sh - sweep                       remove engines of tests that were killed: te-PID
#
# debian is the one of the package docker.io, current is moby's newest, built
# once by the Go module proxy into ${XDG_CACHE_HOME:-~/.cache}/tender. Its data
# and its log lie in /var/lib/tender-engines/NAME. An engine listens on a unix
# socket; what it publishes is reached in its own network: own.sh NAME run.
set -euo pipefail

moby=v2.0.0-beta.24
runc=v1.5.2
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tender/engine-$moby-runc-$runc
patience=90 # seconds until a started engine must answer

usage() { sed -n '2,21s/^# \{0,1\}//p' "$0" >&2; exit 2; }
say() { echo "engine $name: $*"; }
die() { echo "engine $name: $*" >&2; exit 1; }

[ $# -ge 2 ] || usage
name=$1 command=$2
shift 2
dir=/var/lib/tender-engines/$name
socket=$dir/docker.sock
log=$dir/log

# part runs one step of the build and says every 30 s that it still does.
part() { # what, log, command...
	local what=$1 out=$2 started=$SECONDS pid next=30
	shift 2
	say "building $what"
	"$@" >"$out" 2>&1 </dev/null &
	pid=$!
	while kill -0 $pid 2>/dev/null; do
		if [ $((SECONDS - started)) -ge $next ]; then
			say "still building $what, $((SECONDS - started)) s"
			next=$((next + 30))
		fi
		sleep 0.5
	done
	wait $pid || {
		tail -n 30 "$out" >&2
		die "building $what failed; the log is $out"
	}
	say "built $what in $((SECONDS - started)) s"
}

packages() { # needed by runc alone: it is the one part written with cgo
	local need=()
	command -v gcc >/dev/null || need+=(gcc libc6-dev)
	command -v pkg-config >/dev/null || need+=(pkg-config)
	[ -e /usr/include/seccomp.h ] || need+=(libseccomp-dev)
	[ ${#need[@]} = 0 ] && return
	say "installing ${need[*]} from Debian"
	local get=(apt-get install -y -qq --no-install-recommends "${need[@]}")
	DEBIAN_FRONTEND=noninteractive "${get[@]}" >/dev/null 2>&1 || {
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive "${get[@]}" >/dev/null
	}
}

build() {
	mkdir -p "$cache"
	exec 8>"$cache/lock"
	flock 8 # two clones on one machine: one builds, the other finds
	if [ ! -x "$cache/bin/dockerd" ] || [ ! -x "$cache/bin/docker-proxy" ] || [ ! -x "$cache/bin/runc" ]; then
		packages
		say "the current engine ($moby) is not in $cache: about 4 minutes, once per machine"
		# Not in the project's module, whose go.mod and flags say nothing about this.
		cd "$cache"
		local go=(env GOFLAGS= GOWORK=off GOBIN="$cache/new" go install -trimpath -ldflags '-s -w')
		part "runc $runc" "$cache/runc.log" env CGO_ENABLED=1 "${go[@]}" -tags seccomp "github.com/opencontainers/runc@$runc"
		part "docker-proxy $moby" "$cache/docker-proxy.log" env CGO_ENABLED=0 "${go[@]}" "github.com/moby/moby/v2/cmd/docker-proxy@$moby"
		part "dockerd $moby" "$cache/dockerd.log" env CGO_ENABLED=0 "${go[@]}" "github.com/moby/moby/v2/cmd/dockerd@$moby"
		rm -rf "$cache/bin"
		mv "$cache/new" "$cache/bin"
	fi
	exec 8>&-
}

# init prints the pid of the first process of the engine's own pid namespace.
init() {
	local outer
	outer=$(cat "$dir/pid" 2>/dev/null) && [ -n "$outer" ] && [ "$(cat "/proc/$outer/comm" 2>/dev/null)" = unshare ] || return 1
	grep -qF "$dir" "/proc/$outer/environ" || return 1
	cat "/proc/$outer/task/$outer/children" | grep -oE '[0-9]+' | head -1
}

inside() { nsenter --target "$(init)" --net -- "$@"; }

version() {
	init >/dev/null && timeout 20 docker -H "unix://$socket" version --format '{{.Server.Version}} (API {{.Server.APIVersion}})' 2>/dev/null
}

status() {
	local v
	if v=$(version); then
		say "$v at unix://$socket"
	else
		say "does not run"
		return 1
	fi
}

start() {
	local kind=${1:-current} path=$PATH v started=$SECONDS
	case $kind in
	current) build; path=$cache/bin:$PATH ;;
	debian) ;;
	*) usage ;;
	esac
	[ "$(id -u)" = 0 ] || die "only root can start an engine"
	for v in dockerd docker containerd docker-init iptables ip nsenter unshare; do
		PATH=$path command -v $v >/dev/null || die "$v is missing: e2e/engine.sh start installs Debian's engine, iproute2 and util-linux have the rest"
	done
	mkdir -p "$dir"
	exec 9>"$dir/lock"
	flock 9
	if v=$(version); then
		say "found $v"
		return
	fi
	if init >/dev/null; then end KILL; fi
	# A /run of its own, since the engine's plugins and sockets have fixed places
	# there. What the host mounts later shows inside (slave), and nothing the other
	# way round. The socket lies outside of it, where clients find it.
	rm -f "$socket"
	say "starting $kind dockerd, log in $log"
	TENDER_ENGINE=$dir PATH=$path setsid unshare --mount --propagation slave --net --pid --fork --kill-child=KILL --mount-proc \
		sh -c '
			mount -t tmpfs tmpfs /run && mkdir /run/docker && ip link set lo up || exit 1
			exec docker-init -- dockerd --host "unix://$1/docker.sock" --data-root "$1/data" --exec-root /run/docker --pidfile /run/docker.pid
		' sh "$dir" >>"$log" 2>&1 </dev/null 8>&- 9>&- &
	echo $! >"$dir/pid"
	while ! v=$(version); do
		kill -0 "$(cat "$dir/pid")" 2>/dev/null || {
			tail -n 30 "$log" >&2
			die "dockerd ended after $((SECONDS - started)) s"
		}
		[ $((SECONDS - started)) -lt $patience ] || {
			tail -n 30 "$log" >&2
			die "dockerd does not answer after $patience s"
		}
		sleep 0.2
	done
	say "$v is ready after $((SECONDS - started)) s"
}

# end sends a signal to the first process; with it goes everything in the namespace.
end() {
	local pid outer started=$SECONDS
	pid=$(init) || { rm -f "$dir/pid"; return 0; }
	outer=$(cat "$dir/pid")
	kill "-$1" "$pid"
	while kill -0 "$outer" 2>/dev/null && [ "$(cut -d' ' -f3 "/proc/$outer/stat" 2>/dev/null)" != Z ]; do
		[ $((SECONDS - started)) -lt $patience ] || die "$outer does not end; see $log"
		sleep 0.1
	done
	rm -f "$dir/pid" "$socket"
}

# stop: dockerd stops its containers and ends.
stop() {
	init >/dev/null || { say "does not run"; return; }
	local started=$SECONDS
	end TERM
	say "stopped after $((SECONDS - started)) s"
}

images() {
	local missing=() image started=$SECONDS
	for image; do
		docker -H "unix://$socket" image inspect "$image" >/dev/null 2>&1 || missing+=("$image")
	done
	[ ${#missing[@]} != 0 ] || { say "all $# images are there"; return; }
	docker save "${missing[@]}" | docker -H "unix://$socket" load >/dev/null
	say "copied ${#missing[@]} images in $((SECONDS - started)) s"
}

env_() { echo "export DOCKER_HOST=unix://$socket"; }

run() {
	init >/dev/null || die "does not run"
	export DOCKER_HOST=unix://$socket
	exec nsenter --target "$(init)" --net -- "$@"
}

remove() {
	end KILL
	# Mounts were the namespace's own and are gone with it; cgroups are the host's.
	local container
	for container in "$dir"/data/containers/*; do
		rmdir /sys/fs/cgroup{,/*}/docker/"${container##*/}" 2>/dev/null || true
	done
	rm -rf "$dir"
	say "removed"
}

sweep() {
	local d
	for d in /var/lib/tender-engines/te-*; do
		[ ! -e "$d" ] || [ -e "/proc/${d##*-}" ] || "$0" "${d##*/}" remove
	done
}

case $command in
start | stop | images | run | status | remove | build | sweep) "$command" "$@" ;;
kill) end KILL && say "killed" ;;
env) env_ ;;
*) usage ;;
esac
