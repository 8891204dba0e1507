# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What the tenants' Makefiles share. Each sets NAME and includes this file.
#
#   OUT       where programs go: OUT/NAME/NAME (default: build/tenants of this repository)
#   WARNINGS  CI adds -Werror

TENANTS := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
OUT ?= $(TENANTS)/../build/tenants
override OUT := $(abspath $(OUT))
BIN := $(OUT)/$(NAME)
PROGRAM ?= $(BIN)/$(NAME)
SDK := $(TENANTS)/sdk/mayfly.h

WARNINGS ?= -Wall -Wextra -Wpedantic -Wconversion
# The usual flags, and none for Mayfly: any static program works.
CFLAGS ?= -O2
CXXFLAGS ?= -O2
COMPILE.tenant.c = $(CC) -std=c11 $(CFLAGS) $(WARNINGS) -I$(TENANTS)/sdk
COMPILE.tenant.cc = $(CXX) -std=c++17 $(CXXFLAGS) $(WARNINGS) -I$(TENANTS)/sdk
MUSL_CC ?= musl-gcc
COMPILE.tenant.musl = $(MUSL_CC) -std=c11 $(CFLAGS) $(WARNINGS) -I$(TENANTS)/sdk

.PHONY: all clean
.DELETE_ON_ERROR:

all: $(PROGRAM)

clean:
	rm -rf $(BIN)

$(BIN):
	mkdir -p $@

# For downloads, once for all clones. The lockfile beside each package.json has the checksums; no downloaded script is
# run.
CACHE := $(or $(MAYFLY_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mayfly)
NPM_CI := npm ci --cache $(CACHE)/npm --prefer-offline --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error
UNPACK_DEBIAN := $(TENANTS)/../scripts/unpack-debian
