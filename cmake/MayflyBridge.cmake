# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The target mayfly_bridge: the staticlib of rust/bridge, which cargo builds, with the headers that cxx generates.

find_program(MAYFLY_CARGO cargo HINTS "$ENV{HOME}/.cargo/bin" REQUIRED)
set(MAYFLY_CARGO_WORKSPACE "${PROJECT_SOURCE_DIR}" CACHE PATH "The cargo workspace that has mayfly-bridge")
mark_as_advanced(MAYFLY_CARGO MAYFLY_CARGO_WORKSPACE)

set(mayfly_bridge_library "${MAYFLY_CARGO_TARGET_DIR}/release/libmayfly_bridge.a")

# Cargo itself finds what is out of date, so it runs each time.
add_custom_target(mayfly_cargo
  COMMAND "${CMAKE_COMMAND}" -E env "CARGO_TARGET_DIR=${MAYFLY_CARGO_TARGET_DIR}"
          "${MAYFLY_CARGO}" build --release --locked --package mayfly-bridge
  WORKING_DIRECTORY "${MAYFLY_CARGO_WORKSPACE}"
  BYPRODUCTS "${mayfly_bridge_library}"
  COMMENT "cargo build --release --package mayfly-bridge"
  USES_TERMINAL VERBATIM)

add_library(mayfly_bridge INTERFACE)
add_dependencies(mayfly_bridge mayfly_cargo)
target_include_directories(mayfly_bridge INTERFACE $<BUILD_INTERFACE:${MAYFLY_CARGO_TARGET_DIR}/cxxbridge>)
target_link_libraries(mayfly_bridge INTERFACE
  $<BUILD_INTERFACE:${mayfly_bridge_library}>
  $<INSTALL_INTERFACE:$<INSTALL_PREFIX>/${CMAKE_INSTALL_LIBDIR}/libmayfly_bridge.a>
  Threads::Threads ${CMAKE_DL_LIBS})
