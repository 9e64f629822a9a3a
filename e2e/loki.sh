#!/usr/bin/env bash
# Builds Loki's logcli or Loki itself out of e2e/loki, once, and prints where it is:
#   e2e/loki.sh logcli|loki
# They are AGPL and run as processes of their own. A build takes minutes, and 2 GB of modules.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
what=${1:?logcli or loki}
version=$(sed -n 's|.*github.com/grafana/loki/v3 \(v[0-9.]*\).*|\1|p' e2e/loki/go.mod)
out=$PWD/.cache/tools/$what-$version
if [ ! -x "$out" ]; then
	mkdir -p "$(dirname "$out")"
	CGO_ENABLED=0 go -C e2e/loki build -o "$out.new" "github.com/grafana/loki/v3/cmd/$what" >&2
	mv "$out.new" "$out"
fi
echo "$out"
