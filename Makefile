# Tools are pinned here and run through the Go module cache; nothing is installed.
STATICCHECK  := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOLANGCILINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

# The race detector needs a C compiler. Go leaves cgo on only where it finds one.
RACE := $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)

# A module of its own: two services that are not Perdure, and a database that its users need not download.
ORDERS := examples/orders

# The longest that the tests of one package may take on two cores.
TIMEOUT := 15m

# How often `make race` repeats the tests.
COUNT := 5

# How long `make soak` churns.
FOR := 3m

# What `make torture` does: kills of the real binary, faults of clusters for so long, power cuts, histories over a journal in memory.
KILLS := 1000
DISTURB := 10m
CUTS := 200
HISTORIES := 20000

.DEFAULT_GOAL := help
.PHONY: help run cluster cluster-stop test race torture sim mutants model soak bench gobench lint fmt check

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## start everything in one process; data in ./data
	go run ./cmd/perdure dev $(ARGS)

cluster: ## three NATS servers, two workers and two gateways as processes of this machine; data in ./data/cluster
	go build -o bin/perdure ./cmd/perdure
	bin/perdure cluster start $(ARGS)

cluster-stop: ## end what make cluster started
	bin/perdure cluster stop $(ARGS)

test: ## vet and test everything, with the race detector where there is a C compiler
	$(if $(RACE),,@echo "no C compiler found: the tests run without the race detector")
	go vet ./...
	go test $(RACE) -timeout $(TIMEOUT) ./...
	cd $(ORDERS) && go vet ./... && go test $(RACE) -timeout $(TIMEOUT) ./...
	go test -timeout $(TIMEOUT) -run 'TestSimulation$$|TestTheSameSeed|TestAPowerCut' ./engine ./internal/blocksync # ten times as fast without the race detector

race: ## look for flaky tests: shuffled, COUNT times (5), under the race detector
	go test -race -shuffle=on -count=$(COUNT) -timeout $(TIMEOUT) ./...
	cd $(ORDERS) && go test -race -shuffle=on -count=$(COUNT) -timeout $(TIMEOUT) ./...

torture: ## 1,000 kills, 10 minutes of faults, 200 power cuts, 20,000 histories (KILLS=, DISTURB=, CUTS=, HISTORIES=; SEED= repeats); an hour each at most
	KILLS=$(KILLS) go test -count=1 -v -timeout 1h -run '^TestKillNineLosesNothingAcknowledged$$' ./cmd
	DISTURB=$(DISTURB) go test -count=1 -v -timeout 1h -run '^(TestFaultsOfACluster|TestCutsBetweenWorkers)' ./cmd
	CUTS=$(CUTS) go test -count=1 -v -timeout 1h -run '^TestAPowerCutTakesNothingThatWasAnswered$$' ./internal/blocksync
	JEPSEN=1 go test -count=1 -v -timeout 1h -run '^Test(PowerCutsOfServers|FilesOfOneOfThreeServersAreDamaged|MembersOfTheClusterChange)$$' ./cmd
	HISTORIES=$(HISTORIES) go test -count=1 -v -timeout 1h -run '^TestHistoriesAreThoseOfOneObject$$' ./engine

bench: ## how fast it is, each figure beside a yardstick; both cores, some minutes
	go run ./cmd/perdure bench $(ARGS)

soak: ## churn over a million names for a while (FOR=3m), print what it takes, and hold that against bounds
	SOAK=$(FOR) go test -count=1 -v -timeout 0 -run '^TestSoak$$' ./cmd

sim: ## tell N simulated stories (100000); SEED=n tells one of them, and why it fails
	$(if $(SEED),SEED=$(SEED),N=$(or $(N),100000)) go test ./engine -count=1 -timeout 0 -v -run 'TestSimulation$$'

mutants: ## break the program line by line, and see that the tests notice (ONLY=text, PART=1/3: some; N=stories: 5000)
	go run ./internal/mutants -n $(or $(N),5000) -only '$(ONLY)' -part '$(or $(PART),1/1)'

model: ## the protocol in a model checker, with broken variants (docs/model; ONLY=word: some); needs spin and gcc
	@docs/model/check.sh '$(ONLY)'

# Only packages that have benchmarks, so that the others are not built for nothing.
gobench: ## the Go benchmarks of each step, with allocations
	@packages=$$(grep -rl --include='*_test.go' '^func Benchmark' . | xargs -r -n1 dirname | sort -u); \
	if [ -z "$$packages" ]; then echo "no benchmarks"; exit 0; fi; \
	go test -run='^$$' -bench=. -benchmem $$packages

# Without ST1005: an error about a field of a Config begins with the field's name, as it is written.
lint: ## gofmt, vet, staticcheck, golangci-lint (the first time it builds them, which takes minutes)
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "not formatted (make fmt does it):"; echo "$$unformatted"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) -checks inherit,-ST1005 ./...
	go run $(GOLANGCILINT) run
	cd $(ORDERS) && go vet ./... && go run $(STATICCHECK) -checks inherit,-ST1005 ./... && go run $(GOLANGCILINT) run

fmt: ## format all Go files
	gofmt -w .

check: lint test ## everything that has to pass before a commit
	go mod tidy -diff
	cd $(ORDERS) && go mod tidy -diff
