#!/usr/bin/env bash
# Reads the dashboards that Tender writes with Grafana's own types, which are built once into .cache/tools.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$(sed -n 's|^require github.com/grafana/grafana-foundation-sdk/go \(v[0-9.]*\).*|\1|p' e2e/grafana/go.mod)
out=$PWD/.cache/tools/grafana-$version
if [ ! -x "$out" ] || [ e2e/grafana/main.go -nt "$out" ]; then
	mkdir -p "$(dirname "$out")"
	CGO_ENABLED=0 go -C e2e/grafana build -o "$out.new" . >&2
	mv "$out.new" "$out"
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
go run ./cmd/tender metrics grafana "$dir" >/dev/null
"$out" "$dir"/dashboards/tender/*.json
