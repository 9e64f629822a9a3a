#!/usr/bin/env bash
# Makes Docker Compose v5, the yardstick, in .cache/tools and prints its path.
# Built from source by the Go module proxy, once per clone (about a minute).
set -euo pipefail

version=v5.6.0
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$root/.cache/tools
binary=$tools/docker-compose-$version

if [ ! -x "$binary" ]; then
	mkdir -p "$tools"
	work=$(mktemp -d "$tools/compose.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	echo "building docker compose $version (about a minute)" >&2
	start=$SECONDS
	(
		cd "$work"
		go mod init yardstick 2>/dev/null
		go get "github.com/docker/compose/v5/cmd@$version" 2>/dev/null
		CGO_ENABLED=0 go build -trimpath -ldflags "-X github.com/docker/compose/v5/internal.Version=$version" \
			-o docker-compose github.com/docker/compose/v5/cmd
	) >&2
	mv "$work/docker-compose" "$binary"
	echo "built in $((SECONDS - start)) s" >&2
fi
ln -sfn "$(basename "$binary")" "$tools/docker-compose"
echo "$tools/docker-compose"
