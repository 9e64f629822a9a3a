#!/usr/bin/env bash
# Makes local stand-ins for well-known container images, from Debian packages
# only: no registry, no chroot, no network inside containers.
#
#   build.sh [-f] [-l] [image ...]      default: every image
#     -f  make the image again even if it is already in the engine
#     -l  list the images and the names they get
#
# One image is one directory next to this script:
#   from         the image it stands on ("scratch" or another directory)
#   packages     Debian packages, one per line; "-name" leaves a dependency out
#   rootfs/      files of our own (entrypoints, configuration), copied on top
#   setup.sh     optional; sourced in the new root directory (users, links)
#   config.json  Docker's image configuration (Env, Entrypoint, User, ...)
#   tags         the names the image gets, one per line
#
# How: apt resolves and downloads with a private state directory in which only
# the packages of the parent image count as installed; every package is
# unpacked with dpkg-deb (no maintainer scripts run); the tree becomes one tar,
# which "docker load" puts on top of the parent's layers.
#
# A name that already belongs to an image from elsewhere (a pulled one) stays
# with it: only free names and names of our own older images are given out.
#
# Environment: DOCKER (default "docker"), DOCKER_HOST, TENDER_IMAGES_CACHE
# (downloads and layers, default ~/.cache/tender/images, shared by all clones).
# Needs root, apt-get, dpkg-deb, GNU tar; "app" needs Go. Sources, keys and
# proxies are the host's own.
set -euo pipefail
umask 022
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${TENDER_IMAGES_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/tender/images}
docker=${DOCKER:-docker}
arch=$(dpkg --print-architecture)
label=dev.tender.recipe             # holds the recipe's hash: "is it up to date?"
force=

# Never unpacked, whoever depends on them: only maintainer scripts and service
# managers need these.
never="adduser debconf dpkg init-system-helpers lsb-base perl-base perl
  sensible-utils sysvinit-utils ucf usrmerge"

# Never packed: nobody reads manuals in a container.
skip=(./usr/share/{doc,man,info,locale,lintian,bash-completion,doc-base,gcc,zsh}
      ./lib/systemd ./usr/lib/systemd ./etc/{init.d,cron.d,logrotate.d,apparmor.d}
      ./usr/lib/x86_64-linux-gnu/gconv ./lib/x86_64-linux-gnu/gconv
      ./usr/share/initramfs-tools)

die() { echo "build.sh: $*" >&2; exit 1; }
ms() { echo $(($(date +%s%N) / 1000000)); }
words() { sed 's/#.*//' "$1" 2>/dev/null | tr -s ' \n' '\n\n' | sed '/^$/d' || true; }
parent() { cat "$here/$1/from"; }

# --- recipe hash: the recipe itself, this script and everything below it ------
hash() {
	[ "$1" = scratch ] && { echo scratch; return; }
	local d=$here/$1
	{ hash "$(parent "$1")"; echo "$arch"; sha256sum <"${BASH_SOURCE[0]}"
	  (cd "$d" && find . -type f -print0 | sort -z | xargs -0 sha256sum
	   find . -type f -perm -1 | sort); } | sha256sum | cut -c1-16
}

# --- apt with a state of its own: the host's is neither used nor touched -------
# (but for the update hooks in /etc/apt). A private status file alone would not
# keep "install" off the host: dpkg would unpack there. Debug::pkgDPkgPM makes
# apt print dpkg's command lines instead of running them, whatever the command.
# $1: the dpkg status file that says what counts as installed; the rest: apt-get
apt() {
	local status=$1; shift
	apt-get -qq -y --no-install-recommends \
		-o Dir::State::status="$status" -o Dir::State::lists="$cache/apt/lists" \
		-o Dir::Cache="$cache/apt" -o Dir::Cache::archives="$cache/apt/debs" \
		-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=srcpkgcache.bin \
		-o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3 \
		-o APT::Keep-Downloaded-Packages=true -o APT::Get::List-Cleanup=0 \
		-o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
		-o Debug::pkgDPkgPM=true -o Dir::Log="$cache/apt" "$@"
}

apt_update() { # at most once a day; "apt_update now" when a download failed
	local stamp=$cache/apt/updated
	[ "${1:-}" = now ] || [ -z "$(find "$stamp" -mmin -1440 2>/dev/null)" ] || return 0
	apt /dev/null update >"$cache/apt/log" 2>&1 || die "apt-get update failed: see $cache/apt/log"
	touch "$stamp"
}

# $1: status file, $2: where to write the list of .deb files; the rest: packages
fetch() {
	local status=$1 list=$2; shift 2
	: >"$list"
	[ $# = 0 ] && return 0
	apt_update
	apt "$status" --download-only install "$@" >"$cache/apt/log" 2>&1 || {
		apt_update now
		apt "$status" --download-only install "$@" >"$cache/apt/log" 2>&1
	} || die "cannot download $*: see $cache/apt/log"
	# "Inst libc6 (2.36-9 Debian:12/stable [amd64])" names libc6_2.36-9_amd64.deb
	apt "$status" -s install "$@" | sed -n \
		's/^Inst \([^ ]*\) \(\[[^]]*\] \)\{0,1\}(\([^ ]*\) .*\[\([a-z0-9]*\)\]).*/\1 \3 \4/p' |
		while read -r p v a; do
			f=$cache/apt/debs/${p}_${v//:/%3a}_$a.deb
			[ -s "$f" ] || die "$f is missing"
			echo "$f"
		done >"$list"
}

# --- one layer: prints nothing, leaves layer.tar, diffid and status -----------
layer() { # $1: image  $2: directory for the result
	local d=$here/$1 out=$2 from root=$2/root deb p
	from=$(parent "$1")
	rm -rf "$out"; mkdir -p "$root"

	# What counts as installed: the parent's packages, and those left out.
	: >"$out/status"
	[ "$from" = scratch ] || cp "$(dirof "$from")/status" "$out/status"
	cp "$out/status" "$out/assumed"
	for p in $never $(words "$d/packages" | sed -n 's/^-//p'); do
		printf 'Package: %s\nStatus: install ok installed\nVersion: 9999\nArchitecture: %s\nMulti-Arch: allowed\n\n' "$p" "$arch"
	done >>"$out/assumed"
	# shellcheck disable=SC2046
	fetch "$out/assumed" "$out/debs" $(words "$d/packages" | grep -v '^-' || true)

	# Merged /usr first, so that no package makes a real /bin over the link.
	for p in bin sbin lib lib64; do mkdir -p "$root/usr/$p"; ln -s "usr/$p" "$root/$p"; done
	while read -r deb; do
		dpkg-deb --fsys-tarfile "$deb" |
			tar -C "$root" -xf - --keep-directory-symlink "${skip[@]/#/--exclude=}"
		dpkg-deb -f "$deb" Package Version Architecture Multi-Arch Provides >>"$out/status"
		printf 'Status: install ok installed\n\n' >>"$out/status"
	done <"$out/debs"
	[ ! -d "$d/rootfs" ] || cp -a --no-preserve=ownership "$d/rootfs/." "$root/"
	[ ! -f "$d/setup.sh" ] || (cd "$root" && set -eu && . "$d/setup.sh") || die "$1: setup.sh failed"
	if [ "$from" != scratch ]; then # these are the parent's
		for p in bin sbin lib lib64; do rm "$root/$p"; rmdir "$root/usr/$p" 2>/dev/null || true; done
		rmdir "$root/usr" 2>/dev/null || true
	fi

	tar -C "$root" --sort=name --numeric-owner --mtime=@1704067200 -cf "$out/layer.tar" .
	sha256sum "$out/layer.tar" | cut -d' ' -f1 >"$out/diffid"
	rm -rf "$root" "$out/assumed"
	touch "$out/done"
}
# For setup.sh: an account, as useradd would make it (no tools of the image run).
user() { # name uid home
	for f in passwd group; do [ -f etc/$f ] || install -D -m644 "$here/busybox/rootfs/etc/$f" etc/$f; done
	echo "$1:x:$2:$2::$3:/sbin/nologin" >>etc/passwd
	echo "$1:x:$2:" >>etc/group
}
# For setup.sh: a directory with an owner and a mode.
owned() { # uid mode directory...
	local u=$1 m=$2; shift 2
	install -d -o "$u" -g "$u" -m "$m" "$@"
}

dirof() { echo "$cache/layers/$1-$(hash "$1")"; }

# --- image: layers + configuration -> docker load -----------------------------
image() {
	local name=$1 h dir t0 note=cached tag have ids='' files=() layers='' n part
	[ -d "$here/$name" ] || die "no such image: $name (see $0 -l)"
	h=$(hash "$name") t0=$(ms)
	# Which names are free, or belong to an older image of this recipe?
	local give=()
	for tag in $(words "$here/$name/tags"); do
		have=$("$docker" image inspect -f "{{index .Config.Labels \"$label\"}}" "$tag" 2>/dev/null || echo none)
		case $have in
		"$h") [ -z "$force" ] || give+=("$tag") ;;
		'' | '<no value>') ;; # from elsewhere
		*) give+=("$tag") ;;
		esac
	done
	if [ ${#give[@]} = 0 ]; then report "$name" "$t0" present; return; fi
	# The chain of images down to scratch, lowest first.
	local chain=$name
	while n=$(parent "${chain%% *}"); [ "$n" != scratch ]; do chain="$n $chain"; done
	for n in $chain; do
		dir=$(dirof "$n")
		if [ ! -f "$dir/done" ]; then
			rm -rf "$cache/layers/$n"-* # older versions of the same recipe
			layer "$n" "$dir.tmp$$"
			mv "$dir.tmp$$" "$dir"
			note=made
		fi
		ids+="${ids:+,}\"sha256:$(cat "$dir/diffid")\""
		part=$(basename "$dir")/layer.tar
		layers+="${layers:+,}\"$part\""
		files+=("$part")
	done
	local work; work=$(mktemp -d "$cache/work.XXXXXX")
	local config; config=$(cat "$here/$name/config.json")
	cat >"$work/config.json" <<-JSON
		{"architecture":"$arch","os":"linux","created":"2024-01-01T00:00:00Z",
		 "config":{"Labels":{"$label":"$h"},${config#\{},
		 "rootfs":{"type":"layers","diff_ids":[$ids]},
		 "history":[$(for n in $chain; do printf '%s{"created":"2024-01-01T00:00:00Z","created_by":"build.sh %s"}' "${sep:-}" "$n"; sep=,; done)]}
	JSON
	printf '[{"Config":"config.json","RepoTags":[%s],"Layers":[%s]}]' \
		"$(printf '%s\n' "${give[@]}" | sed 's/.*/"&"/' | paste -sd,)" "$layers" >"$work/manifest.json"
	# The engine takes layers it already has without looking at the archive: send
	# only our own layer first, and all of them when that was not enough.
	local old; old=$("$docker" image inspect -f '{{.Id}}' "${give[0]}" 2>/dev/null || true)
	send() { tar -cf - -C "$work" config.json manifest.json -C "$cache/layers" "$@" | "$docker" load -q; }
	send "${files[-1]}" >"$work/log" 2>&1 || send "${files[@]}" >"$work/log" 2>&1 ||
		die "$name: docker load: $(cat "$work/log")"
	# A version that this one replaced and that has no other name goes.
	[ -z "$old" ] || [ "$("$docker" image inspect -f '{{len .RepoTags}}' "$old" 2>/dev/null)" != 0 ] ||
		"$docker" image rm "$old" >/dev/null 2>&1 || true
	rm -rf "$work"
	report "$name" "$t0" "$note"
}

report() { # name start note
	local tag size own
	tag=$(words "$here/$1/tags" | head -1)
	size=$("$docker" image inspect -f '{{.Size}}' "$tag")
	own=$(stat -c %s "$(dirof "$1")/layer.tar" 2>/dev/null || echo 0)
	awk -v n="$1" -v t="$tag" -v ms=$(($(ms) - $2)) -v s="$size" -v o="$own" -v how="$3" 'BEGIN {
		printf "  %-13s %-30s %-8s %6.2fs %7.1f MB (own layer %.1f MB)\n", n, t, how, ms/1000, s/1e6, o/1e6 }'
}

all() { (cd "$here" && ls -d */from | sed 's#/from##'); }

main() {
	while getopts fl o; do
		case $o in
		f) force=1 ;;
		l) for n in $(all); do echo "$n: $(words "$here/$n/tags" | paste -sd' ')"; done; exit ;;
		*) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
		esac
	done
	shift $((OPTIND - 1))
	[ "$(id -u)" = 0 ] || die "must run as root"
	"$docker" version >/dev/null 2>&1 || die "no Docker engine answers (DOCKER_HOST?)"
	mkdir -p "$cache"/{layers,apt/{lists,debs}/partial}
	exec 9>"$cache/lock"; flock 9 # one at a time: the cache is shared
	rm -rf "$cache"/work.* "$cache"/layers/*.tmp*
	[ $# -gt 0 ] || set -- $(all)
	local t0; t0=$(ms)
	for n in "$@"; do image "$n"; done
	echo "  total $(awk -v ms=$(($(ms) - t0)) 'BEGIN { printf "%.1f s", ms/1000 }'); cache $(du -sh "$cache" | cut -f1)"
}
main "$@"
