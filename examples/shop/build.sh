#!/usr/bin/env bash
# Builds the image shop/web:VERSION (default 1.0.0) from web/, without a registry.
set -euo pipefail

version=${1:-${VERSION:-1.0.0}}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

cd "$here"
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$version" -o "$context/web" ./web
cp web/Dockerfile "$context"
# A fixed time, so that the same sources are the same image and nothing restarts.
touch -d @0 "$context/web" "$context/Dockerfile"
docker build -q -t "shop/web:$version" "$context" >"$context.log" 2>&1 || {
	cat "$context.log" >&2
	rm -f "$context.log"
	exit 1
}
rm -f "$context.log"
echo "shop/web:$version"
