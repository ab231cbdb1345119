// The version of this build, as `millrace --version` and the service report it.
#ifndef MILLRACE_CLI_VERSION_H_
#define MILLRACE_CLI_VERSION_H_

namespace millrace::cli {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_VERSION_H_
