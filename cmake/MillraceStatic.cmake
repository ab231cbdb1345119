# MILLRACE_STATIC: Debian's packages name their shared libraries; here their static ones take their place.
# What is left to the machine is libc and its kin, which are older here than where programs travel to.

include_guard(GLOBAL)

if(NOT MILLRACE_STATIC)
  return()
endif()

add_link_options(-static-libstdc++ -static-libgcc)

get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
foreach(target ${targets})
  get_target_property(type ${target} TYPE)
  if(NOT target MATCHES "^absl::" OR NOT type STREQUAL "SHARED_LIBRARY")
    continue()
  endif()
  get_target_property(location ${target} IMPORTED_LOCATION_NONE)
  string(REGEX REPLACE "\\.so.*$" ".a" archive "${location}")
  if(NOT EXISTS "${archive}")
    message(FATAL_ERROR "MILLRACE_STATIC: ${target} has no ${archive}")
  endif()
  set_target_properties(${target} PROPERTIES IMPORTED_LOCATION_NONE "${archive}" IMPORTED_SONAME_NONE "")
endforeach()

find_library(MILLRACE_UTF8PROC_ARCHIVE NAMES libutf8proc.a REQUIRED)
set_property(TARGET PkgConfig::utf8proc PROPERTY INTERFACE_LINK_LIBRARIES "${MILLRACE_UTF8PROC_ARCHIVE}")
