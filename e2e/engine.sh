#!/usr/bin/env bash
# A Docker Engine for tests and the demo: finds the one that runs, else installs
# Debian's and starts it. Works as root and without systemd.
#
#   engine.sh start     make sure that an engine answers
#   engine.sh stop      end the engine that this clone started, and no other
#   engine.sh status    say which engine answers; 1 when none does
#   engine.sh current start|stop|env|run COMMAND...
#                       the same for the current engine, beside that one: built
#                       once (about 4 min), with the images of the first engine
#
# DOCKER_HOST names the engine, else unix:///var/run/docker.sock. An engine
# that is started here logs to .cache/engine/log of this clone.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
state=$root/.cache/engine
log=$state/log
pidfile=$state/pid
socket=/var/run/docker.sock
patience=60 # seconds until a started engine must answer

say() { echo "engine: $*"; }
die() { echo "engine: $*" >&2; exit 1; }

# version prints the version of the engine that answers, and fails when none does.
version() {
	if command -v docker >/dev/null; then
		timeout 10 docker version --format '{{.Server.Version}} (API {{.Server.APIVersion}})' 2>/dev/null
	elif [ -z "${DOCKER_HOST:-}" ] && command -v curl >/dev/null; then
		timeout 10 curl -fsS --unix-socket $socket http://engine/version 2>/dev/null |
			sed -n 's/.*"Version":"\([0-9][^"]*\)","ApiVersion":"\([^"]*\)".*/\1 (API \2)/p' | grep .
	else
		return 1
	fi
}

status() {
	local v
	if v=$(version); then
		say "$v at ${DOCKER_HOST:-unix://$socket}"
	else
		say "none answers at ${DOCKER_HOST:-unix://$socket}"
		return 1
	fi
}

# running: does the pid in the file belong to a process of that name?
running() { # pid file, name
	local pid
	pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ]
}

install() {
	command -v dockerd >/dev/null && command -v docker >/dev/null && command -v iptables >/dev/null && return
	[ "$(id -u)" = 0 ] || die "no engine answers, and only root can install one: sudo $0 start"
	command -v apt-get >/dev/null || die "no engine answers, and this is no Debian: install Docker Engine, then run again"
	local started=$SECONDS out
	say "installing docker.io and iptables from Debian (about 10 s)"
	out=$(mktemp)
	packages() { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io iptables; }
	# A policy that lets no package start its service: there may be no init here.
	local policy=/usr/sbin/policy-rc.d made=
	[ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy && made=1; }
	packages >"$out" 2>&1 || { apt-get update -qq && packages; } >>"$out" 2>&1 || {
		[ -z "$made" ] || rm -f $policy
		tail -n 20 "$out" >&2
		die "apt-get could not install docker.io"
	}
	[ -z "$made" ] || rm -f $policy
	rm -f "$out"
	say "installed in $((SECONDS - started)) s"
}

# cgroups: a minimal system may have none mounted, and no container starts without.
cgroups() {
	grep -qE ' cgroup2? ' /proc/mounts && return
	say "mounting cgroups"
	mount -t cgroup2 none /sys/fs/cgroup
}

# leftovers: after a crash or a copy of the disk a pid file may name another
# process, and dockerd believes it.
leftovers() {
	local f
	for f in docker.pid:dockerd docker/containerd/containerd.pid:containerd; do
		if [ -e "/var/run/${f%:*}" ] && ! running "/var/run/${f%:*}" "${f#*:}"; then
			rm -f "/var/run/${f%:*}"
		fi
	done
}

explain() { # why dockerd ended, where the log tells
	echo "engine: the end of $log:" >&2
	tail -n 25 "$log" >&2
	if grep -qE 'local-kv\.db|reservePools|invalid database|bbolt' "$log"; then
		local db=/var/lib/docker/network/files/local-kv.db
		cat >&2 <<-TEXT

			engine: the engine's network database is damaged (a power cut or a full disk does that).
			Set it aside and start again; images, volumes and containers stay, networks are made anew:
			  mv $db $db.damaged && $0 start
		TEXT
	elif grep -qiE 'iptables.*(failed|not found)|Failed to initialize nft' "$log"; then
		echo "engine: iptables does not work here: are you root, and is nf_tables in the kernel?" >&2
	fi
}

start() {
	local v started=$SECONDS
	if v=$(version); then
		command -v docker >/dev/null || install # an engine without its client
		say "found $v at ${DOCKER_HOST:-unix://$socket}"
		return
	fi
	case ${DOCKER_HOST:-unix://$socket} in
	"unix://$socket" | unix:///run/docker.sock) ;;
	*) die "nothing answers at DOCKER_HOST=$DOCKER_HOST: start that engine, or unset DOCKER_HOST" ;;
	esac
	install
	if v=$(version); then # installed with a service that started at once, or only the client was missing
		say "found $v"
		return
	fi
	[ "$(id -u)" = 0 ] || die "no engine answers, and only root can start one: sudo $0 start"
	mkdir -p "$state"
	exec 9>/var/run/tender-engine.lock
	flock 9 # two clones on one machine: one starts, the other finds
	if v=$(version); then
		say "found $v"
		return
	fi
	cgroups
	leftovers
	say "starting dockerd, log in $log"
	setsid dockerd --host "unix://$socket" >"$log" 2>&1 </dev/null 9>&- &
	echo $! >"$pidfile"
	while ! v=$(version); do
		running "$pidfile" dockerd || kill -0 "$(cat "$pidfile")" 2>/dev/null || {
			rm -f "$pidfile"
			explain
			die "dockerd ended after $((SECONDS - started)) s"
		}
		[ $((SECONDS - started)) -lt $patience ] || {
			explain
			die "dockerd does not answer after $patience s (it still runs: $0 stop)"
		}
		sleep 0.3
	done
	say "$v is ready after $((SECONDS - started)) s"
}

stop() {
	if ! running "$pidfile" dockerd; then
		rm -f "$pidfile"
		say "this clone started none"
		return
	fi
	local pid started=$SECONDS
	pid=$(cat "$pidfile")
	kill "$pid"
	while kill -0 "$pid" 2>/dev/null; do
		[ $((SECONDS - started)) -lt $patience ] || die "dockerd ($pid) does not end; see $log"
		sleep 0.3
	done
	rm -f "$pidfile"
	say "stopped after $((SECONDS - started)) s"
}

# current: the newest engine, with a network and data of its own; own.sh has the rest.
current() {
	local own=$root/e2e/own.sh images
	case ${1:-} in
	start)
		"$own" current start
		"$root/e2e/images.sh"
		read -ra images <<<"$("$root/e2e/images.sh" -n)"
		"$own" current images "${images[@]}"
		"$own" current env
		;;
	*) exec "$own" current "$@" ;;
	esac
}

case ${1:-} in
start | stop | status) "$1" ;;
current) [ $# -ge 2 ] || set -- "$1" help; "$@" ;;
*) sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
