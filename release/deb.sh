#!/usr/bin/env bash
# deb.sh ROOT VERSION ARCH OUT: makes OUT/tender_VERSION_ARCH.deb of an
# installation's files below ROOT.
set -euo pipefail
root=$1 version=$2 arch=$3 out=$4
compress=${DEB_COMPRESS:-xz} # none is quick, for tests
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# A Debian version begins with a digit; a bare commit does not have to.
case $version in [0-9]*) deb=$version ;; *) deb=0~$version ;; esac
mkdir -p "$root/DEBIAN"
chmod 0755 "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<EOF
Package: tender
Version: $deb
Architecture: $arch
Maintainer: The Tender authors <tender@users.noreply.github.com>
Section: admin
Priority: optional
Installed-Size: $(du -sk "$root/usr" | cut -f1)
Recommends: docker.io | docker-ce
Homepage: https://github.com/tenderhq/tender
Description: runs Compose files as a managed system
 Tender takes standard Compose files and keeps what they describe running on
 Docker Engine: deploys without downtime, repairs what breaks, and goes back by
 itself when a new revision does not become healthy.
EOF
for script in postinst prerm postrm; do install -m 0755 "$here/debian/$script" "$root/DEBIAN/$script"; done
(cd "$root" && find usr -type f -printf '%P\0' | sort -z | (cd usr && xargs -0 md5sum) | sed 's|  |  usr/|' >DEBIAN/md5sums)
dpkg-deb --root-owner-group "-Z$compress" --build "$root" "$out/tender_${version}_$arch.deb" >/dev/null
rm -r "$root/DEBIAN"
