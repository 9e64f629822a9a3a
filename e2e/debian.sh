#!/usr/bin/env bash
# Gets a Debian package, once, and prints the folder in which it lies unpacked:
#   e2e/debian.sh prometheus
# Nothing is installed and no service starts. Several may call it at the same time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
package=${1:?the name of a package}
out=$PWD/.cache/debian/$package
if [ ! -d "$out" ]; then
	mkdir -p .cache/debian
	exec 9>".cache/debian/$package.lock"
	flock 9
	if [ ! -d "$out" ]; then
		work=$(mktemp -d ".cache/debian/$package.XXXXXX")
		trap 'rm -rf "$work"' EXIT
		(cd "$work" && { apt-get download -qq "$package" || { apt-get update -qq && apt-get download -qq "$package"; }; }) >&2
		dpkg-deb -x "$work"/*.deb "$work/tree" >&2
		mv "$work/tree" "$out"
	fi
fi
echo "$out"
