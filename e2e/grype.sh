#!/usr/bin/env bash
# Builds what writes OSV's advisories into a database of grype's (e2e/grype), once, and prints where it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$PWD/.cache/tools/grype-writer-$(cat e2e/grype/main.go e2e/grype/go.sum | sha256sum | cut -c1-12)
if [ ! -x "$out" ]; then
	mkdir -p "$(dirname "$out")"
	CGO_ENABLED=0 go -C e2e/grype build -o "$out.new" . >&2
	mv "$out.new" "$out"
fi
echo "$out"
