# Dotring. `make` alone prints the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

MODULES := loadtest storagenode ringsvc proto openapi gateway
PACKAGES := $(foreach m,$(MODULES),./$(m)/...)
TOOLS := $(CURDIR)/bin/tools
NODES ?= 3
GATEWAYS ?= 2
DATA ?= .data
FUZZTIME ?= 10s
BENCHTIME ?= 1s

.PHONY: help
help: ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build all programs into bin/
	@mkdir -p bin
	@go build -o bin/ ./storagenode/cmd/... ./gateway/cmd/... ./loadtest/cmd/...

.PHONY: run
run: build ## start a local cluster (NODES=3 GATEWAYS=2 SECURE=1 ZONES=a,b,c), stop it with Ctrl-C
	@exec bin/dotring-load up --nodes $(NODES) --gateways $(GATEWAYS) --data $(DATA)$(if $(SECURE),-secure --secure)$(if $(ZONES), --zones $(ZONES)) --bin bin

.PHONY: first-hour
first-hour: ## run a new user's first hour as the README prints it, from a clone (needs curl; takes the ports of make run)
	@loadtest/first-hour README.md $(CURDIR)

.PHONY: clean-data
clean-data: ## delete the local cluster's data
	@rm -rf $(DATA) $(DATA)-secure

.PHONY: test
test: ## run all tests (needs Go and make alone)
	@go test -timeout 7m $(PACKAGES)

.PHONY: test-build
test-build: ## compile all tests, and run none
	@go test -run '^$$' $(PACKAGES) >/dev/null

.PHONY: race-build
race-build: ## compile all tests with the race detector, and run none
	@CGO_ENABLED=1 go test -race -run '^$$' $(PACKAGES) >/dev/null

.PHONY: race
race: ## run all tests under the race detector, random histories in fewer numbers (needs a C compiler)
	@CGO_ENABLED=1 go test -race -short -timeout 11m $(PACKAGES)

.PHONY: check
check: format vet lint generated standalone ## format, vet, lint, generated code current, each module builds alone

.PHONY: format
format: ## fail on files that gofmt would change
	@bad=$$(git ls-files '*.go' | grep -v '^proto/gen/' | xargs gofmt -l); \
	if [ -n "$$bad" ]; then echo "not formatted:"; echo "$$bad"; exit 1; fi

.PHONY: vet
vet: ## go vet
	@go vet $(PACKAGES)

.PHONY: lint
lint: $(TOOLS)/staticcheck ## staticcheck
	@for m in $(filter-out proto,$(MODULES)); do (cd $$m && $(TOOLS)/staticcheck ./...); done
	@cd proto && $(TOOLS)/staticcheck ./wire/...

.PHONY: standalone
standalone: ## each module builds without the workspace
	@for m in $(MODULES); do (cd $$m && GOWORK=off go build ./... && GOWORK=off go vet ./... >/dev/null); done

.PHONY: generate
generate: $(TOOLS)/buf ## regenerate proto/gen
	@cd proto && rm -rf gen && PATH=$(TOOLS):$$PATH buf generate . && \
	PATH=$(TOOLS):$$PATH buf generate --template buf.gen.storage.yaml --path storage .

.PHONY: generated
generated: $(TOOLS)/buf ## fail when proto/gen is not what the .proto files give
	@cd proto && PATH=$(TOOLS):$$PATH buf lint .
	@tmp=$$(mktemp -d); trap 'rm -rf $$tmp' EXIT; cp -r proto/*.yaml proto/kv proto/cluster proto/storage $$tmp/ && cd $$tmp && \
	PATH=$(TOOLS):$$PATH buf generate . && PATH=$(TOOLS):$$PATH buf generate --template buf.gen.storage.yaml --path storage . && \
	diff -r gen $(CURDIR)/proto/gen || { echo "generated code is stale: run make generate"; exit 1; }

.PHONY: sdk
sdk: ## regenerate what the SDKs take from the OpenAPI document (needs npm and python3 for theirs)
	@openapi/sdk/generate openapi/sdk $(TOOLS)

.PHONY: sdk-check
sdk-check: ## fail when that is stale
	@tmp=$$(mktemp -d); trap 'rm -rf $$tmp' EXIT; CHECK=1 openapi/sdk/generate $$tmp $(TOOLS)

$(TOOLS)/buf $(TOOLS)/staticcheck: proto/tools/go.mod proto/tools/go.sum
	@mkdir -p $(TOOLS)
	@cd proto/tools && GOWORK=off GOBIN=$(TOOLS) go install tool
	@touch $(TOOLS)/buf $(TOOLS)/staticcheck

EXAMPLES ?= 5

.PHONY: schemathesis
schemathesis: ## let schemathesis try the API of a local cluster against its document (needs python3; EXAMPLES=5 for each operation)
	@if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then echo "SKIPPED: schemathesis needs python3 with venv"; exit 0; fi; \
	wants=$(CURDIR)/loadtest/e2e/testdata/schemathesis.txt; \
	if ! cmp -s $$wants $(TOOLS)/schemathesis/wants.txt; then \
	  rm -rf $(TOOLS)/schemathesis && python3 -m venv $(TOOLS)/schemathesis; \
	  $(TOOLS)/schemathesis/bin/pip install --quiet --disable-pip-version-check -r $$wants || \
	    { echo "SKIPPED: schemathesis cannot be installed"; exit 0; }; \
	  cp $$wants $(TOOLS)/schemathesis/wants.txt; \
	fi; \
	DOTRING_SCHEMATHESIS=$(TOOLS)/schemathesis/bin/schemathesis DOTRING_EXAMPLES=$(EXAMPLES) go test -count=1 -run TestSchemathesis ./loadtest/e2e

.PHONY: bench
bench: ## run the benchmarks (BENCHTIME=1s)
	@go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) $(PACKAGES)

.PHONY: fuzz
fuzz: ## fuzz every decoder in turn (FUZZTIME=10s each)
	@grep -rlE '^func Fuzz' --include='*_test.go' $(MODULES) | while read -r f; do \
	  for name in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' $$f); do \
	    echo "$$f $$name"; go test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) ./$$(dirname $$f); \
	  done; done

SEEDS ?= 200

.PHONY: sim
sim: ## simulate clusters under faults, and all that ever failed (SEEDS=200, the same each time)
	@go run ./loadtest/cmd/dotring-load sim --seeds $(SEEDS)

.PHONY: sim-fresh
sim-fresh: ## simulate clusters that were never simulated before (SEEDS=200)
	@go run ./loadtest/cmd/dotring-load sim --fresh --seeds $(SEEDS)

SIM_SOAK ?= 1000

.PHONY: soak-sim
soak-sim: ## simulate a thousand clusters of the usual mix and of each kind of swarm (SIM_SOAK=1000)
	@go build -o bin/dotring-load ./loadtest/cmd/dotring-load
	@for p in "" standing proposals hasty rollbacks leftovers leavers members collection actors; do \
		echo "profile $${p:-usual}"; bin/dotring-load sim --profile "$$p" --seeds $(SIM_SOAK) || exit; done

CHAOS ?= 90s

.PHONY: chaos
chaos: build ## break a cluster of real processes, one fault at a time (CHAOS=90s)
	@bin/dotring-load chaos --duration $(CHAOS)

.PHONY: soak-tombstones
soak-tombstones: ## delete 100,000 keys while nodes restart and one is away; all tombstones must leave
	@DOTRING_TOMBSTONES=100000 go test -count=1 -v -timeout 60m -run TestTombstonesLeaveByProof ./loadtest/e2e

.PHONY: soak-transfer
soak-transfer: ## a node joins 2 GB while it and a source are killed by turns, twenty times; at most a fifth may be sent again (MIB=2000)
	@DOTRING_TRANSFER_MIB=$(or $(MIB),2000) go test -count=1 -v -timeout 60m -run TestJoinWhileEitherEndIsKilled ./loadtest/e2e

.PHONY: growth
growth: build ## nodes join and leave under a checked load: nothing lost, stale or failed (a minute)
	@bin/dotring-load chaos --first 3 --nodes 5 --duration 40s --ballast 500 --rate 300

.PHONY: soak-growth
soak-growth: build ## from 3 nodes to 6 and back with 256 MiB; fails above twice the p99 of six idle nodes, too (five minutes)
	@bin/dotring-load chaos --first 3 --nodes 6 --duration 5m --ballast 16000 --rate 600 --calm 2

.PHONY: soak-chaos
soak-chaos: build ## thirty minutes of that; fails unless 99.99 % of a million requests are served within a second
	@bin/dotring-load chaos --duration 30m --good 0.9999

.PHONY: soak-allocs
soak-allocs: build ## what a put of 10 KiB allocates in each process; fails above 1.5 KiB
	@bin/dotring-load soak allocs

# Figures mean something where the servers have a processor of their own: make soak-overload PIN=1 on two.
PIN ?=
PINNED_LOAD = $(if $(PIN),taskset -c 1) bin/dotring-load
PINNED_SERVERS = $(if $(PIN),--servers-wrap 'taskset -c 0')

.PHONY: soak-overload
soak-overload: build ## half of capacity to five times as much, a minute each, and the time to recover (PIN=1; TURN=60s)
	@$(PINNED_LOAD) soak overload $(PINNED_SERVERS) --turn $(or $(TURN),60s) --json .data/overload.json

.PHONY: soak-size
soak-size: build ## single nodes with 1, 4 and 10 million keys of 1 KiB (half an hour, 20 GiB of disk)
	@bin/dotring-load soak size --keys 1000000,4000000,10000000 --json .data/size.json

.PHONY: size
size: build ## single nodes with 100 thousand and a million keys: rate kept, memory bounded (four minutes)
	@bin/dotring-load soak size --json .data/size.json

.PHONY: soak-compaction
soak-compaction: build ## compact 2 GiB at 16 MiB a second under load (MIB=2048)
	@bin/dotring-load soak compaction --mib $(or $(MIB),2048) --json .data/compaction.json

.PHONY: soak-latency
soak-latency: build ## open loops of gets and puts at 1 and 10 KiB while copies are compared (five minutes)
	@bin/dotring-load soak latency --json .data/latency.json

.PHONY: soak-hotkey
soak-hotkey: build ## Zipf 1.2 with and without a key that takes 30 % of the reads: p99 of the others (TURN=20s PIN=1; five minutes)
	@$(PINNED_LOAD) soak hotkey $(PINNED_SERVERS) --turn $(or $(TURN),20s) --json .data/hotkey.json

.PHONY: soak-kill
soak-kill: build ## kill nodes under load, one after the other; fails unless every request is served within a second
	@bin/dotring-load chaos --faults kill --duration 3m --good 1

.PHONY: soak-sets
soak-sets: build ## add to shared sets under overlapping faults: siblings lose nothing, and what lww loses is printed
	@bin/dotring-load chaos --duration 2m --mixed --workload set
	@bin/dotring-load chaos --duration 2m --mixed --workload set-lww

.PHONY: soak-antientropy
soak-antientropy: ## one in a thousand of a million keys differs: what is moved, and what a round without difference moves
	@DOTRING_TEST_KEYS=1000000 go test ./storagenode/node -run TestTrafficIsProportional -count=1 -timeout 20m -v

.PHONY: soak-upkeep
soak-upkeep: build ## what comparing copies costs nodes at full load, six pairs of runs; fails above 5 % of their processor time (four minutes)
	@bin/dotring-load soak anti-entropy

.PHONY: soak-planner
soak-planner: ## plan 10,000 random cluster histories, and 300 members that join one, five and twenty at a time and leave
	@go test -timeout 60m -v -run Histories ./ringsvc/planner -args -histories 10000 | grep -v '^=== '
	@go test -timeout 10m -v -run Large ./ringsvc/planner -args -nodes 300 | grep -v '^=== '

SCALE_NODES ?= 300
SCALE_GATEWAYS ?= 50

.PHONY: soak-scale
soak-scale: ## 300 nodes and 50 gateways in one process, in fake time: convergence and traffic (12 GiB of memory)
	@GOGC=25 go test -count=1 -timeout 120m -v -run TestScale ./loadtest/scale -args -nodes $(SCALE_NODES) -gateways $(SCALE_GATEWAYS) -runs 3 | grep -v '^=== '
