# Everything from outside, as Debian 12 ships it; tools/setup installs it.

include_guard(GLOBAL)

find_package(Threads REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(GTest CONFIG REQUIRED)
find_package(nlohmann_json CONFIG REQUIRED)
if(MILLRACE_STATIC)
  set(OPENSSL_USE_STATIC_LIBS TRUE)
endif()
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
find_package(PkgConfig REQUIRED)
pkg_check_modules(utf8proc REQUIRED IMPORTED_TARGET libutf8proc)
find_package(benchmark CONFIG)
find_package(CLI11 CONFIG REQUIRED)
if(MILLRACE_SERVICE)
  find_package(Protobuf REQUIRED)  # module mode: Debian ships no protobuf-config.cmake
  find_package(gRPC CONFIG REQUIRED)
  find_package(prometheus-cpp CONFIG REQUIRED COMPONENTS core)
  pkg_check_modules(httplib REQUIRED IMPORTED_TARGET cpp-httplib)
endif()
