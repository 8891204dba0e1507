# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The target mayfly_cli: the command `mayfly`, which cargo builds, and the completions and manual pages that it writes.

set(mayfly_cli "${MAYFLY_CARGO_TARGET_DIR}/release/mayfly")
set(mayfly_cli_pages "${PROJECT_BINARY_DIR}/cli")

add_custom_target(mayfly_cli ALL
  COMMAND "${CMAKE_COMMAND}" -E env "CARGO_TARGET_DIR=${MAYFLY_CARGO_TARGET_DIR}"
          "${MAYFLY_CARGO}" build --release --locked --package mayfly-bridge --package mayfly
  COMMAND "${CMAKE_COMMAND}" -E rm -rf "${mayfly_cli_pages}"
  COMMAND "${mayfly_cli}" generate "${mayfly_cli_pages}"
  WORKING_DIRECTORY "${MAYFLY_CARGO_WORKSPACE}"
  BYPRODUCTS "${mayfly_cli}"
  COMMENT "cargo build --release --package mayfly"
  USES_TERMINAL VERBATIM)
# One cargo at a time. Both packages are named, so that cargo gives their crates the same features, and finds them built.
add_dependencies(mayfly_cli mayfly_cargo)
