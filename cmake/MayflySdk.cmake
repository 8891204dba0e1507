# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The guest SDK's libraries, which programs inside load: libmayfly.so, for languages with a foreign function interface,
# and libmayfly-fresh.so, for LD_PRELOAD. They run in machines with the host's C library.

set(mayfly_sdk_source "${PROJECT_SOURCE_DIR}/tenants/sdk")

function(mayfly_guest_library target source name)
  add_library(${target} MODULE "${mayfly_sdk_source}/libmayfly/${source}")
  target_include_directories(${target} PRIVATE "${mayfly_sdk_source}" "${mayfly_sdk_source}/libmayfly")
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic)
  set_target_properties(${target} PROPERTIES
    C_STANDARD 11 C_EXTENSIONS OFF C_VISIBILITY_PRESET hidden PREFIX "" OUTPUT_NAME "${name}"
    LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/sdk")
endfunction()

mayfly_guest_library(mayfly_guest libmayfly.c libmayfly)
target_link_libraries(mayfly_guest PRIVATE Threads::Threads)
mayfly_guest_library(mayfly_guest_fresh fresh.c libmayfly-fresh)
