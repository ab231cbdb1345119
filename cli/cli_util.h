// What every command shares: reading flags, saying what went wrong, a progress bar. Used by the
// main thread only.
#ifndef MILLRACE_CLI_CLI_UTIL_H_
#define MILLRACE_CLI_CLI_UTIL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace CLI {
class App;
}

namespace millrace::cli {

inline constexpr char kWeightCacheHelp[] =
    "A folder that keeps the weights as they lie in memory, as large as the model: the next start "
    "maps them";

// Parses the command's flags into `app`. Returns the exit code when there is nothing left to do
// (--help: 0, bad usage: 2, after one line on stderr), nullopt to go on.
std::optional<int> ParseFlags(CLI::App* app, int argc, char** argv);

// `millrace COMMAND: message` on stderr, in one line without control characters, whoever the
// message is of; returns `exit_code`.
int Fail(std::string_view command, std::string_view message, int exit_code = 1);
int Fail(std::string_view command, const absl::Status& status);

// INVALID_ARGUMENT: "FLAG VALUE: want WANT".
absl::Status Wrong(std::string_view flag, std::string_view value, std::string_view want);

// "auto" is 0; else a number, with a suffix K, M, G or T where `suffixes`.
absl::StatusOr<std::int64_t> ParseAmount(std::string_view flag, const std::string& text,
                                         bool suffixes);

// Whether WriteFile could write: to know before the work and not after it. Makes the file, if it is
// not there, and changes nothing of one that is.
absl::Status CheckWritable(const char* flag, const std::string& path);

// Writes `text` to the file that the flag names; does nothing without a path.
absl::Status WriteFile(const char* flag, const std::string& path, const std::string& text);

// "2.50 GB", "7.31 MB".
std::string Sized(std::uint64_t bytes);

// A progress bar on stderr while it is a terminal; silent otherwise.
class ProgressBar {
 public:
  explicit ProgressBar(std::string label);
  ~ProgressBar();
  void Update(std::uint64_t done, std::uint64_t total);

 private:
  std::string label_;
  int last_permille_ = -1;
};

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_CLI_UTIL_H_
