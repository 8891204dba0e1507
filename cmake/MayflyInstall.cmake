# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The install rules, in two components:
#
#   development   what find_package(Mayfly) needs: libraries, headers, targets
#   runtime       mayfly-server, mayfly, the guest SDKs, completions, manual pages, the service and its configuration

# DEVELOPMENT

set(mayfly_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/Mayfly")

install(TARGETS mayfly mayfly_plugin mayfly_bridge EXPORT MayflyTargets COMPONENT development)
install(FILES "${mayfly_bridge_library}" DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT development)
install(DIRECTORY cpp/include/mayfly drogon-plugin/include/mayfly DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
  COMPONENT development)

install(EXPORT MayflyTargets NAMESPACE Mayfly:: DESTINATION "${mayfly_package_dir}" COMPONENT development)
configure_package_config_file(cmake/MayflyConfig.cmake.in "${PROJECT_BINARY_DIR}/MayflyConfig.cmake"
  INSTALL_DESTINATION "${mayfly_package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/MayflyConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/MayflyConfig.cmake" "${PROJECT_BINARY_DIR}/MayflyConfigVersion.cmake"
  DESTINATION "${mayfly_package_dir}" COMPONENT development)

# RUNTIME

if(MAYFLY_BUILD_SERVER)
  install(TARGETS mayfly-server COMPONENT runtime)
  install(FILES packaging/mayfly-server.8 DESTINATION "${CMAKE_INSTALL_MANDIR}/man8" COMPONENT runtime)
  # Where systemd looks, below /usr and /usr/local.
  install(FILES packaging/sysusers.conf DESTINATION lib/sysusers.d RENAME mayfly.conf COMPONENT runtime)
  # As for GNUInstallDirs, /usr has its configuration in /etc. A package's prefix is known only when it is made.
  install(CODE "
    set(mayfly_packaging \"${PROJECT_SOURCE_DIR}/packaging\")
    set(mayfly_sysconf \"${CMAKE_INSTALL_SYSCONFDIR}\")" COMPONENT runtime)
  install(CODE [[
    cmake_path(GET CMAKE_INSTALL_PREFIX FILENAME mayfly_prefix)
    if(NOT IS_ABSOLUTE "${mayfly_sysconf}")
      if(mayfly_prefix STREQUAL "usr")
        cmake_path(GET CMAKE_INSTALL_PREFIX PARENT_PATH mayfly_above)
        cmake_path(APPEND mayfly_above etc OUTPUT_VARIABLE mayfly_sysconf)
      else()
        set(mayfly_sysconf "${CMAKE_INSTALL_PREFIX}/${mayfly_sysconf}")
      endif()
    endif()
    # The files name the places of a package. Another prefix has its own.
    function(mayfly_install_text file destination)
      file(READ "${mayfly_packaging}/${file}" text)
      if(NOT mayfly_prefix STREQUAL "usr")
        string(REPLACE "/usr/bin/" "${CMAKE_INSTALL_PREFIX}/bin/" text "${text}")
        string(REPLACE "/etc/mayfly/" "${mayfly_sysconf}/mayfly/" text "${text}")
      endif()
      message(STATUS "Installing: $ENV{DESTDIR}${destination}/${file}")
      file(WRITE "$ENV{DESTDIR}${destination}/${file}" "${text}")
    endfunction()
    mayfly_install_text(mayfly.service "${CMAKE_INSTALL_PREFIX}/lib/systemd/system")
    foreach(file server.json tenants.json)
      # The operator's file stays.
      if(NOT EXISTS "$ENV{DESTDIR}${mayfly_sysconf}/mayfly/${file}")
        mayfly_install_text("${file}" "${mayfly_sysconf}/mayfly")
      endif()
    endforeach()]] COMPONENT runtime)
endif()

if(MAYFLY_BUILD_CLI)
  install(PROGRAMS "${mayfly_cli}" DESTINATION "${CMAKE_INSTALL_BINDIR}" COMPONENT runtime)
  install(DIRECTORY "${mayfly_cli_pages}/" DESTINATION "${CMAKE_INSTALL_MANDIR}/man1" COMPONENT runtime
    FILES_MATCHING PATTERN "*.1")
  install(FILES "${mayfly_cli_pages}/mayfly.bash" DESTINATION "${CMAKE_INSTALL_DATADIR}/bash-completion/completions"
    RENAME mayfly COMPONENT runtime)
  install(FILES "${mayfly_cli_pages}/_mayfly" DESTINATION "${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions"
    COMPONENT runtime)
  install(FILES "${mayfly_cli_pages}/mayfly.fish" DESTINATION "${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d"
    COMPONENT runtime)
endif()

install(FILES tenants/sdk/mayfly.h DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT runtime)
if(MAYFLY_BUILD_SDK)
  # One directory on every distribution, since programs see it by a mount. The modules look for the libraries beside
  # them.
  set(mayfly_sdk_dir lib/mayfly/sdk)
  install(TARGETS mayfly_guest mayfly_guest_fresh LIBRARY DESTINATION "${mayfly_sdk_dir}/lib" COMPONENT runtime)
  install(FILES tenants/sdk/mayfly.h DESTINATION "${mayfly_sdk_dir}" COMPONENT runtime)
  install(DIRECTORY tenants/sdk/deno tenants/sdk/js tenants/sdk/node tenants/sdk/python tenants/sdk/rust
    tenants/sdk/libmayfly DESTINATION "${mayfly_sdk_dir}" COMPONENT runtime
    PATTERN __pycache__ EXCLUDE PATTERN node_modules EXCLUDE PATTERN target EXCLUDE)
endif()
install(FILES LICENSE-APACHE LICENSE-MIT docs/tenants.schema.json DESTINATION "${CMAKE_INSTALL_DOCDIR}"
  COMPONENT runtime)
