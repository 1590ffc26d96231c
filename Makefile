# make help lists the targets.

GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := .tools/golangci-lint-$(GOLANGCI_LINT_VERSION)
MODULES := ./... ./examples/... ./examples/compare/...
# Tests that break whole servers: they want the machine for themselves, so they run after the others.
FAULTS := ./delivery/rabbitmq/faults
# What the coverage bound holds for: everything but examples, suites and servers.
CORE := ./retry ./retry/lastfault ./breaker ./breaker/redisstate ./idempotency ./idempotency/redisstore ./metrics \
	./dlq ./dlq/redisstore ./delivery ./delivery/memory ./delivery/rabbitmq ./delivery/sqlstore
COVERAGE := 85

# SQLite is C code that was translated to Go. It works on memory that it maps itself, which the race detector does not
# watch. Instrumenting it finds nothing, and makes the tests that use SQLite twice as slow. Its driver is instrumented, as
# is everything else.
RACE := -race '-gcflags=modernc.org/sqlite/lib=-race=false'

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## build and run the quickstart: the whole pipeline on a SQLite file, no server, killed in the middle
	@echo "building; SQLite takes a minute the first time"
	@go run ./examples/quickstart

.PHONY: test
test: servers ## run all tests with the race detector, on real servers
	go test $(RACE) -timeout 15m $(MODULES)
	go test $(RACE) -timeout 15m $(FAULTS)

.PHONY: short
short: ## run the tests that need no server
	go test $(RACE) -short $(MODULES)

.PHONY: servers
servers: ## install rabbitmq-server, redis-server and postgresql if they are missing
	@.ci/servers

.PHONY: matrix
matrix: servers ## run the adapters' tests on servers of several versions, into delivery/rabbitmq/VERSIONS.md
	@go build -o .tools/matrix ./delivery/deliverytest/servers/matrix
	@.tools/matrix -o delivery/rabbitmq/VERSIONS.md $(MATRIX)

.PHONY: lint
lint: $(GOLANGCI_LINT) ## check style, vet and the import directions
	$(GOLANGCI_LINT) run $(MODULES) $(FAULTS)/...

$(GOLANGCI_LINT):
	GOBIN=$(CURDIR)/.tools go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv .tools/golangci-lint $@

.PHONY: cover
cover: servers ## measure coverage, and fail below the bound
	@go test -cover $(CORE) | tee /dev/stderr | awk -v bound=$(COVERAGE) ' \
		/coverage:/ { for (i = 1; i <= NF; i++) if ($$i == "coverage:") { value = $$(i+1); sub("%", "", value); n++; if (value + 0 < bound) low = low "\n  " $$2 " " value "%" } } \
		/^FAIL/ { failed = 1 } \
		END { if (failed || !n) { print "cover: tests failed"; exit 1 } \
			if (low) { print "cover: below " bound "%:" low; exit 1 } \
			print "cover: " n " packages at " bound "% or more" }'

.PHONY: bench
bench: servers ## compare with the bare client, Watermill and River, into examples/compare/RESULTS.md
	go run ./examples/compare -o examples/compare/RESULTS.md

.PHONY: microbench
microbench: ## run the Go benchmarks of the pieces
	go test -run '^$$' -bench . -benchmem ./...

.tools/faults.test: FORCE
	@go test -c -o $@ $(FAULTS)

.PHONY: FORCE
FORCE:

.PHONY: faults
faults: servers .tools/faults.test ## break servers and networks under load, and settle the ledger; into delivery/rabbitmq/FAULTS.md
	@cd $(FAULTS) && $(CURDIR)/.tools/faults.test -test.timeout 40m -faults.all -faults.out=../FAULTS.md

# Far from their servers, tests wait most of the time, so many of them run at once.
FAR := BARID_TEST_DISTANCE=50ms go test $(RACE) -timeout 15m -parallel 64

.PHONY: far
far: servers ## run the adapters' conformance suites with 50 ms each way between them and their servers
	$(FAR) -p 4 -run 'TestTransport$$|TestStoreIsAStore|TestPostgresStore|TestKeys$$|TestDeadLetters$$|TestJobs$$' \
		-skip './SQLite' ./delivery/rabbitmq ./delivery/sqlstore ./idempotency/redisstore ./dlq/redisstore
	$(FAR) ./breaker/redisstate -rapid.checks 20

.PHONY: soak
soak: servers .tools/faults.test ## 20 minutes of random faults, every 20 s one
	@cd $(FAULTS) && $(CURDIR)/.tools/faults.test -test.timeout 40m -test.run Soak -faults.soak=20m
