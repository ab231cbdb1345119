// What `millrace top` shows, as lines of text: a pure function of what is known. Thread-safe.
#ifndef MILLRACE_CLI_TOP_VIEW_H_
#define MILLRACE_CLI_TOP_VIEW_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace millrace::cli {

struct LatencyRow {
  std::string name;
  std::optional<double> p50, p95, p99;  // seconds; none: nothing was measured
};

// Everything that is known of a server at a moment.
struct TopState {
  std::string target;
  std::string state;          // serving, loading, draining
  std::string trouble;        // that it does not answer, and why; empty: it does
  double silent_seconds = 0;  // since it answered last
  std::string model;          // with its quantisation
  std::string device;
  std::string version;
  std::uint32_t running = 0;
  std::uint32_t waiting = 0;
  std::uint64_t kv_blocks_total = 0;
  std::uint64_t kv_blocks_used = 0;
  std::uint64_t kv_blocks_cached = 0;
  double kv_usage = 0;
  double oldest_wait_seconds = 0;
  double tokens_per_second = 0;
  std::vector<double> history;  // of tokens a second, the newest last
  // Of --metrics.
  bool with_metrics = false;
  std::string metrics_trouble;
  std::string window;  // what the rows below are of: "last 60 s"
  std::vector<LatencyRow> latencies;
  std::map<std::string, double> errors;  // by code
};

enum class Ink : std::uint8_t { kPlain, kTitle, kGood, kWarning, kBad };

struct TopLine {
  std::string text;
  Ink ink = Ink::kPlain;
};

struct TopSize {
  std::size_t columns = 80;
  std::size_t rows = 24;
  bool utf8 = true;  // else all is ASCII
};

// At most rows lines, each of at most columns characters, none of which controls a terminal.
std::vector<TopLine> DrawTop(const TopState& state, const TopSize& size);

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_TOP_VIEW_H_
