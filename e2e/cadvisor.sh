#!/usr/bin/env bash
# Builds cAdvisor out of e2e/cadvisor, once, and prints where it is. A build takes minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$(sed -n 's|.*github.com/google/cadvisor \(v[0-9.]*\).*|\1|p' e2e/cadvisor/go.mod)
out=$PWD/.cache/tools/cadvisor-$version
if [ ! -x "$out" ]; then
	mkdir -p "$(dirname "$out")"
	CGO_ENABLED=0 go -C e2e/cadvisor build -o "$out.new" . >&2
	mv "$out.new" "$out"
fi
echo "$out"
