# Everything here runs with the Go toolchain alone; the race detector needs a C compiler too.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.release=$(VERSION)

.PHONY: build test lint check bench demo image generate

build: ## one static binary, bin/syncd
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/syncd ./cmd/syncd

test: ## all tests, with the race detector, in random order
	go test -race -shuffle=on -timeout 20m ./...

lint: ## formatting, vet, staticcheck, tidiness; staticcheck.conf says what is on and why
	@out=$$(gofmt -l cmd internal); if [ -n "$$out" ]; then echo "not gofmt'd:"; echo "$$out"; exit 1; fi
	go vet ./...
	go tool staticcheck ./...
	go mod tidy -diff

check: lint test ## what a change has to pass

bench: ## speed from the API to a file and to webhooks, in about a minute; quote ratios and counts, not absolute times
	go test -run '^$$' -bench '^BenchmarkPipeline$$' -benchtime 3x ./cmd/syncd

demo: ## everything at once against the built-in sandbox
	go run ./cmd/syncd demo

image: ## a container image
	docker build --build-arg VERSION=$(VERSION) -t syncd:$(VERSION) .

generate: ## configs/syncd.schema.json, from the code
	go test ./cmd/syncd -run TestSchemaFile -update
