#!/usr/bin/env bash
# Builds a release into dist/: static binaries, packages for Debian, archives,
# the list of what is in them (CycloneDX) and checksums over everything.
#
#   release/build.sh                      amd64 and arm64
#   RELEASE_ARCHS=amd64 release/build.sh  one of them
#
# The same commit gives the same bytes: dates are those of the commit.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=${TENDER_VERSION:-$(git describe --tags --always --dirty)}
version=${version#v}
archs=${RELEASE_ARCHS:-amd64 arm64}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH CGO_ENABLED=0
dist=$PWD/dist
rm -rf "$dist"
mkdir -p "$dist"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { echo "release: $*"; }

go run ./release man "$work/man" "$version"
gzip -9n "$work"/man/*.1
own=$work/tender
go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$version" -o "$own" ./cmd/tender
for shell in bash zsh fish; do "$own" completion $shell >"$work/$shell"; done

for arch in $archs; do
	binary=$dist/tender_${version}_linux_$arch
	GOOS=linux GOARCH=$arch go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$version" -o "$binary" ./cmd/tender
	if command -v file >/dev/null && ! file "$binary" | grep -q 'statically linked'; then
		say "$binary is not static"
		exit 1
	fi
	go run ./release sbom "$binary" "$version" >"$binary.cdx.json"
	release/tree.sh "$work/$arch" "$binary" "$work/man" "$work"
	tar -C "$work/$arch" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - usr | gzip -9n >"$binary.tar.gz"
	release/deb.sh "$work/$arch" "$version" "$arch" "$dist"
	say "$arch: $(du -h "$binary" | cut -f1)"
done
(cd "$dist" && sha256sum -- * >SHA256SUMS)
say "$version is in dist/"
ls -l "$dist"
