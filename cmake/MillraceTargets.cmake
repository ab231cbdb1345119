# How every target of the project is declared: one block with NAME, SRCS and DEPS, so that the whole
# dependency graph can be read from the CMakeLists.txt beside the code.

include_guard(GLOBAL)

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}")
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()
# Asserts of the standard library stay out, our own checks stay in (base/check.h).
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")

find_program(MILLRACE_CCACHE ccache)
if(MILLRACE_CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER "${MILLRACE_CCACHE}")
  set(CMAKE_CXX_COMPILER_LAUNCHER "${MILLRACE_CCACHE}")
endif()
# gold comes with ld and links the 103 programs of a build in 6 seconds. mold 1.10 (Debian 12) makes
# programs that cannot be loaded ("cannot apply additional memory protection") where .tbss happens to
# end with a page, and with -z norelro, which would prevent that, it does not always end.
find_program(MILLRACE_GOLD ld.gold)
if(MILLRACE_GOLD AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_link_options(-fuse-ld=gold)
endif()

# No contraction: the numerics are defined to the bit and say themselves where they fuse
# (docs/numerics.md).
# Designated initializers leave the rest at its defaults on purpose.
# Of nvcc's options: cmake/MillraceCuda.cmake.
add_compile_options(
  "$<$<COMPILE_LANGUAGE:C,CXX>:-Wall;-Wextra;-Werror;-Wno-unused-parameter;-Wno-missing-field-initializers;-ffp-contract=off>")
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  add_compile_options(-Wthread-safety)
else()
  # gcc 12 reports false positives of this one from std::variant and absl::StatusOr at -O2.
  add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-Wno-maybe-uninitialized>)
endif()
if(MILLRACE_SANITIZE)
  add_compile_options(-fsanitize=${MILLRACE_SANITIZE} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${MILLRACE_SANITIZE})
endif()
# What a server that strangers can reach is compiled with, for the images of deploy/docker: overflows of
# buffers whose size is known and of the stack end the process, addresses are random, and tables of
# functions are read-only once the program runs.
if(MILLRACE_HARDEN)
  include(CheckPIESupported)
  check_pie_supported(LANGUAGES CXX)  # makes CMake link with -pie what it compiles with -fPIE
  add_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -fstack-protector-strong)
  add_link_options(-Wl,-z,relro -Wl,-z,now)
endif()

# millrace_library(NAME base SRCS a.cc DEPS absl::status [FLAGS -mavx2])
# Includes are written from the root of the repository: #include "base/check.h".
function(millrace_library)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS;FLAGS" ${ARGN})
  set(target millrace_${ARG_NAME})
  if(ARG_SRCS)
    add_library(${target} STATIC ${ARG_SRCS})
    target_include_directories(${target} PUBLIC "${PROJECT_SOURCE_DIR}")
    target_link_libraries(${target} PUBLIC ${ARG_DEPS})
    if(ARG_FLAGS)
      target_compile_options(${target} PRIVATE ${ARG_FLAGS})
    endif()
  else()
    add_library(${target} INTERFACE)
    target_include_directories(${target} INTERFACE "${PROJECT_SOURCE_DIR}")
    target_link_libraries(${target} INTERFACE ${ARG_DEPS})
  endif()
  add_library(millrace::${ARG_NAME} ALIAS ${target})
endfunction()

# millrace_test(NAME channel_test SRCS channel_test.cc DEPS millrace::base [LABELS unit] [ARGS ...])
# One ctest a binary; its name is the target's.
function(millrace_test)
  cmake_parse_arguments(ARG "" "NAME;TIMEOUT" "SRCS;DEPS;LABELS;ARGS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE ${ARG_DEPS} GTest::gmock_main)
  add_test(NAME ${ARG_NAME} COMMAND ${ARG_NAME} ${ARG_ARGS} WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
  set_tests_properties(${ARG_NAME} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()

# millrace_binary(NAME millrace SRCS main.cc DEPS ...)
function(millrace_binary)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_include_directories(${ARG_NAME} PRIVATE "${PROJECT_SOURCE_DIR}")
  target_link_libraries(${ARG_NAME} PRIVATE ${ARG_DEPS})
endfunction()
