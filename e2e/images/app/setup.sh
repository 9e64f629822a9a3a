# One static binary and nothing else: even the /usr links go.
(cd "$here/app" && CGO_ENABLED=0 GOFLAGS='' go build -trimpath -buildvcs=false -ldflags='-s -w' -o "$root/app" .)
rm bin sbin lib lib64; rm -rf usr
