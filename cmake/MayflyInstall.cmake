# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The install rules, so that find_package(Mayfly) works.

set(mayfly_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/Mayfly")

install(TARGETS mayfly mayfly_plugin mayfly_bridge EXPORT MayflyTargets)
install(FILES "${mayfly_bridge_library}" DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(DIRECTORY cpp/include/mayfly drogon-plugin/include/mayfly DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
if(MAYFLY_BUILD_SERVER)
  install(TARGETS mayfly-server)
endif()

install(EXPORT MayflyTargets NAMESPACE Mayfly:: DESTINATION "${mayfly_package_dir}")
configure_package_config_file(cmake/MayflyConfig.cmake.in "${PROJECT_BINARY_DIR}/MayflyConfig.cmake"
  INSTALL_DESTINATION "${mayfly_package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/MayflyConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/MayflyConfig.cmake" "${PROJECT_BINARY_DIR}/MayflyConfigVersion.cmake"
  DESTINATION "${mayfly_package_dir}")
