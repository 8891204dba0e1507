# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The front door. Each target prepares what it needs; the work is done in scripts/.

export CARGO_TARGET_DIR ?= $(CURDIR)/build/cargo

.DEFAULT_GOAL := help
.PHONY: help packages setup build tenants runtimes run run-runtimes test test-tenants test-rust test-kvm test-svm test-kernels test-container test-cmake test-bench test-conformance test-e2e conformance bench lint format audit clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

packages:
	@scripts/setup

setup: packages ## Install what is missing: packages, Drogon
	@scripts/build-drogon

build: packages ## Build the server and the command line into build/bin
	@scripts/build

tenants: packages ## Build the sample tenants into build/tenants
	@$(MAKE) --no-print-directory -C tenants

# The tenants of `make run-runtimes`, without those of tests alone.
runtimes: packages
	@$(MAKE) --no-print-directory -C tenants $@

# It installs and builds only what the sample server needs (docs/decisions/0261-make-run-on-a-bare-machine.md).
run: ## Start the server on 127.0.0.1:8080 (or PORT=) with the sample tenants
	@scripts/setup server
	@scripts/build server
	@scripts/run

run-runtimes: build runtimes ## The same with Deno, Node.js, Python, Go, Rust and lighttpd for tenants
	@scripts/run runtimes

test: build tenants ## Run every test: on processes, on this machine's KVM if it has one, in the emulated lanes
	@scripts/test

test-tenants: tenants ## Test the guest SDK and the sample tenants natively
	@scripts/test tenants

test-rust: tenants ## Run the Rust tests on the process engine
	@scripts/test rust

test-kvm: tenants ## Run them on this machine's KVM
	@scripts/test kvm

test-svm: tenants ## Run the machine's tests on hardware virtualisation, emulated
	@scripts/test svm

test-kernels: packages ## Test processes on older kernels, emulated
	@scripts/test kernels

test-container: build tenants ## Run what needs no KVM in a container without privilege
	@scripts/test container

test-cmake: build ## Run the C++ tests and build the consumer project
	@scripts/test cmake

test-bench: packages ## Run the benchmark's own tests
	@scripts/test bench

test-conformance: packages ## Run a few modules of other projects' test suites inside, and the tests of what runs them
	@scripts/test conformance

test-e2e: build tenants ## Run the end-to-end tests
	@scripts/test e2e

bench: build tenants ## Compare vanilla and sandboxed; writes bench/out/report.{json,html}
	@/usr/bin/python3 bench/run

# It takes most of an hour, and goes on where it was stopped.
conformance: packages ## Run the test suites of CPython and Go inside, beside native (docs/conformance.md)
	@scripts/conformance

lint: packages ## Check formats, lints and scripts
	@scripts/lint

format: packages ## Format Rust and C++
	@scripts/lint --fix

audit: ## Check the dependencies' licences, bans and sources
	@scripts/audit

clean: ## Remove what was built; the cache stays
	rm -rf build bench/out
