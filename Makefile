# Everything a developer types. `make` lists the targets.

SHELL := /bin/bash
.DEFAULT_GOAL := help
TENDER_VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
export CGO_ENABLED ?= 0

# The race detector is the one thing that needs a C compiler. SQLite is left out
# of it: C made Go, whose memory is not Go's, so that the detector looks at none of
# it and three of four seconds of a test that commits went into passing it by. The
# driver above it stays in.
RACE = CGO_ENABLED=1
RACING = -race -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=modernc.org/libc=-race=false

.PHONY: help build test unit e2e e2e-current soak fixture peers loki cadvisor lint demo demo-down bench release fuzz tidy ci engine images cc sshd clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

build: ## build bin/tender
	@mkdir -p bin
	go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(TENDER_VERSION)' -o bin/tender ./cmd/tender

test: cc sshd engine images build ## all tests: unit, scripts, and behaviour on a real engine
	@echo "testing on $$(docker version -f '{{.Server.Version}}')"
	$(RACE) TENDER_E2E=1 go test $(RACING) -shuffle=on $$(go list ./... | grep -v "/e2e$$")
	TENDER_E2E=1 go test -count=1 -shuffle=on -parallel 4 -timeout 20m ./e2e

unit: cc ## the tests that need no engine
	$(RACE) go test $(RACING) -shuffle=on ./...

e2e: sshd engine images build ## the behaviour tests alone, one line per step
	TENDER_E2E=1 go test -count=1 -shuffle=on -parallel 4 -timeout 20m -v ./e2e/... ./internal/engine/docker/...

# What of ./e2e also runs on the current engine: what depends on the engine.
CURRENT = ^Test(UpMust|ARollout|ABad|WhatIsBroken|ASecret|AService|WhatDockerComposeRuns|Anonymous|UpgradeDay)

e2e-current: cc sshd engine images build ## the same on the current engine, which is built once (about 4 min)
	@e2e/engine.sh current start
	@bench/compose.sh >/dev/null
	TENDER_E2E=current go test -count=1 -timeout 4m -exec "$(CURDIR)/e2e/own.sh current run" ./internal/engine/docker
	TENDER_E2E=current go test -count=1 -timeout 8m -exec "$(CURDIR)/e2e/own.sh current run" -parallel 4 -run '$(CURRENT)' ./e2e

soak: engine images build ## kill -9 of serve at SOAK (100) random moments of rollouts, about 10 s each, and of collecting logs
	TENDER_E2E=1 TENDER_SOAK=$(or $(SOAK),100) go test -count=1 -v -timeout 60m -run '^TestKillNine|^TestNoLineMust' ./e2e

fixture: engine images ## keep the state of this release in e2e/testdata, for the tests of the next ones
	@last=$$(ls -d e2e/testdata/state-v* 2>/dev/null | sed 's/.*-v//' | sort -n | tail -1); \
		TENDER_E2E=1 TENDER_FIXTURE=state-v$$(($${last:-0} + 1)) go test -count=1 -v -run '^TestWriteState$$' ./e2e
	TENDER_E2E=1 go test -count=1 -v -run '^TestTheState' ./e2e

peers: ## logs against a real logcli and a real Loki, signatures against a real cosign, findings against a real grype; builds them (minutes, once)
	TENDER_LOGCLI=$$(e2e/loki.sh logcli) go test -count=1 -v -run '^TestLogcli$$' ./internal/logql
	TENDER_LOKI=$$(e2e/loki.sh loki) go test -count=1 -v -run '^TestARealLoki' ./internal/forward
	TENDER_COSIGN=$$(e2e/cosign.sh) go test -count=1 -v -run '^TestCosign$$' ./internal/registry
	TENDER_GRYPE=$$(e2e/peer.sh grype) TENDER_GRYPE_WRITER=$$(e2e/grype.sh) go test -count=1 -v -run '^TestGrype$$' ./internal/scan
	e2e/grafana.sh

cadvisor: ## build a cAdvisor (minutes, once), which go run ./bench sample then measures beside Tender
	@e2e/cadvisor.sh

loki: ## build a Loki (minutes, once), which make bench then measures beside Tender
	@e2e/loki.sh loki

lint: ## formatting, imports, vet, staticcheck, error wrapping
	@.ci/lint

demo: ## set everything up and run examples/shop; safe to run again
	@examples/shop/demo.sh

demo-down: ## remove the demo with its data
	@examples/shop/demo.sh down

bench: engine images build ## a table against docker compose v5 and the bare engine
	go run ./bench
	go run ./bench registry
	go run ./bench scan

release: ## static binaries, .deb, SBOM and checksums into dist/
	@release/build.sh

fuzz: ## every fuzz test for FUZZTIME (10s) each
	@.ci/fuzz $(or $(FUZZTIME),10s)

tidy: ## go.mod and go.sum as the imports need them
	go mod tidy

ci: ## what CI runs
	@bash .ci/run

engine: ## find a Docker Engine, else install Debian's and start it
	@e2e/engine.sh start

images: engine ## make sure that the images the tests need are there
	@e2e/images.sh

cc:
	@command -v gcc >/dev/null || { echo "installing gcc from Debian: the race detector needs it"; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null; }

# The tests start one of their own, with own keys; the machine's is not wanted.
sshd:
	@command -v /usr/sbin/sshd >/dev/null || { echo "installing openssh-server from Debian: the tests deploy over ssh"; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends openssh-server >/dev/null; \
		[ ! -d /run/systemd/system ] || systemctl disable --quiet --now ssh; }

clean: ## remove what was built here; engine, images and data stay
	rm -rf bin dist
