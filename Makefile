# Everything runs from a clean clone; tools/setup.sh installs what is missing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: build test bench soak lint generate dev format setup

MODULES := $(shell go list -m -f '{{.Dir}}')
GOFUMPT := GOWORK=off go -C tools tool gofumpt

# Every test of every module, against real brokers and foreign clients. Nothing is taken
# from the test cache: it does not see the binaries that the tests build and run. All but
# e2e runs under the race detector; what counts allocations, which that adds to, runs
# without it.
test: setup
	go test -count=1 -timeout 60m ./e2e/...
	go test -count=1 -timeout 60m -race $(addsuffix /...,$(filter-out %/e2e,$(MODULES)))
	files=$$(grep -rlx --include=*_test.go '//go:build !race' $(MODULES)); \
	go test -count=1 -timeout 60m -run "^($$(sed -n 's/^func \(Test[A-Za-z0-9_]*\).*/\1/p' $$files | paste -sd'|'))$$" $$(dirname $$files | sort -u)

setup:
	@tools/setup.sh

# The programs, in bin/, with the release or the commit that they are made of.
RELEASE ?= $(shell git describe --tags --always --dirty --abbrev=12)
build:
	go build -trimpath -ldflags '-X tollgate.internal/pkg/version.release=$(RELEASE)' -o bin/ ./cmd/tollgate ./services/proxy/cmd/proxy ./services/portal/cmd/portal

# What the gateway costs beside HAProxy and beside no proxy, into docs/performance.md.
# BENCH=produce-1k runs one part and prints it; BENCH=-help says the rest.
bench: setup
	go run ./e2e/cmd/bench -out docs/performance.md $(BENCH)

# Clients of every kind through rounds of faults, checked against what Kafka promises:
# docs/soak.md. ROUNDS=100 takes longer; SEED=N repeats what an earlier run did; FLEET=1
# has a fleet with a control plane in place of two nodes.
soak: setup
	go run ./e2e/cmd/soak -rounds $(or $(ROUNDS),30) $(if $(SEED),-seed $(SEED)) $(if $(FLEET),-fleet)

# Its own dependencies are many: it is built once for each version, not for each run.
LINT := bin/golangci-lint
$(LINT): tools/go.mod tools/go.sum
	GOWORK=off GOBIN=$(CURDIR)/bin go -C tools install github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

lint: $(LINT)
	@unformatted=$$($(GOFUMPT) -l $(MODULES)); \
	if [ -n "$$unformatted" ]; then echo "gofumpt would change:"; echo "$$unformatted"; exit 1; fi
	$(LINT) run $(addsuffix /...,$(MODULES))

format:
	@$(GOFUMPT) -w $(MODULES)

generate:
	go generate $(addsuffix /...,$(MODULES))

# Everything on one machine: embedded clusters, proxies, seeded tenants. ARGS are flags.
dev:
	go run ./cmd/tollgate dev $(ARGS)
