# The commands of this project. CONTRIBUTING.md says when to use which.

GO       ?= go
DIST     ?= dist
# A release is a tag; between releases the count of commits makes versions rise.
NEXT     := 0.1.0
VERSION  ?= $(shell git describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null | sed 's/^v//' | grep . || \
	echo $(NEXT)-dev.$$(git rev-list --count HEAD 2>/dev/null || echo 0))
# Every time in a package is that of the last commit, so that it can be built again to the byte.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH

TOOL     := $(GO) tool -modfile=tools/go.mod
GOBUILD  := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)'
# The race detector needs a C compiler; without one the tests run without it.
RACE     ?= $(shell command -v $$($(GO) env CC) >/dev/null && echo -race)
# Further flags of go test, as -v or -run.
TESTFLAGS ?=

PACKAGED := amd64 arm64
BUILT    := $(PACKAGED) 386

.PHONY: build
build: ## the program for this machine: dist/amiagent
	$(GOBUILD) -o $(DIST)/amiagent ./cmd/amiagent

.PHONY: binaries $(BUILT:%=binary-%)
binaries: $(BUILT:%=binary-%) ## static programs for every architecture
$(BUILT:%=binary-%): binary-%:
	GOOS=linux GOARCH=$* $(GOBUILD) -o $(DIST)/amiagent-linux-$* ./cmd/amiagent

.PHONY: share
share: ## man pages and completions, out of the command's own definition
	$(GO) run ./packaging/gen -version '$(VERSION)' $(DIST)/share
	gzip -9 -n -c CHANGELOG.md >$(DIST)/share/changelog.gz

.PHONY: package
package: $(PACKAGED:%=binary-%) share ## deb and rpm for every packaged architecture, in dist
	rm -f $(DIST)/*.deb $(DIST)/*.rpm
	set -e; for arch in $(PACKAGED); do for format in deb rpm; do \
		ARCH=$$arch VERSION='$(VERSION)' DIST='$(DIST)' \
			$(TOOL) nfpm package --config nfpm.yaml --packager $$format --target $(DIST)/; \
	done; done

.PHONY: package-check
package-check: binaries ## the packages built twice are the same bytes, and hold what they should
	packaging/reproduce.sh '$(VERSION)'
	$(GO) test -tags system -count=1 -run '^TestPackage' ./packaging

.PHONY: lint
lint: ## gofmt, vet, staticcheck, errcheck, govulncheck, tidy
	tools/lint.sh

.PHONY: test
test: ## all tests that need Go only
	$(GO) test $(RACE) -shuffle=on $(TESTFLAGS) ./...

# Only packages that have such tests: the others' tests are in `make test`.
.PHONY: test-system
test-system: ## tests with real package managers, boots and servers; needs root on Debian
	tools/system-deps.sh
	$(GO) test -tags system -count=1 -timeout 25m -p 1 $(TESTFLAGS) \
		$$(grep -rl --include='*_test.go' '^//go:build system' . | xargs -n1 dirname | sort -u)

.PHONY: demo
demo: build ## a launch against a local EC2, as a plain user
	$(GO) run ./cmd/demo $(DIST)/amiagent

# In a folder: go test then prints as it goes.
.PHONY: bench
bench: binaries package ## start to READY, memory, sizes, each beside its aim; needs root on Debian
	tools/system-deps.sh
	cd internal/bench && DIST='$(abspath $(DIST))' $(GO) test -tags 'bench system' -count=1 -timeout 20m -run '^TestBench$$'

.PHONY: clean
clean: ## remove what was built
	rm -rf $(DIST)

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16
