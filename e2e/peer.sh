#!/usr/bin/env bash
# Builds a program that Tender is measured against out of its folder here, once, and
# prints where it is. A build takes minutes:
#   e2e/peer.sh distribution|grype|syft
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
what=${1:?the name of a folder of e2e}
package=$(sed -n 's|^tool ||p' "e2e/$what/go.mod")
# The module of the package is the longest path that it begins with.
version=$(while read -r module version _; do
	case $package/ in "$module"/*) echo "${#module} $version" ;; esac
done < <(sed -n 's|^\t||p' "e2e/$what/go.mod") | sort -n | tail -1 | cut -d' ' -f2)
out=$PWD/.cache/tools/$what-${version:?$package is in no module of e2e/$what/go.mod}
if [ ! -x "$out" ]; then
	mkdir -p "$(dirname "$out")"
	CGO_ENABLED=0 go -C "e2e/$what" build -o "$out.new" "$package" >&2
	mv "$out.new" "$out"
fi
echo "$out"
