#!/usr/bin/env bash
# tree.sh ROOT BINARY MAN COMPLETIONS: lays the files of an installation out below ROOT.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$1 binary=$2 man=$3 completions=$4
put() { install -D -m "$1" "$2" "$root/$3"; }
put 0755 "$binary" usr/bin/tender
put 0644 "$here/systemd/tender.service" usr/lib/systemd/system/tender.service
put 0644 "$here/systemd/tender-edge.service" usr/lib/systemd/system/tender-edge.service
put 0644 "$here/systemd/tender-secrets.service" usr/lib/systemd/system/tender-secrets.service
for page in "$man"/*.1.gz; do put 0644 "$page" "usr/share/man/man1/$(basename "$page")"; done
put 0644 "$completions/bash" usr/share/bash-completion/completions/tender
put 0644 "$completions/zsh" usr/share/zsh/vendor-completions/_tender
put 0644 "$completions/fish" usr/share/fish/vendor_completions.d/tender.fish
put 0644 "$here/../LICENSE" usr/share/doc/tender/copyright
