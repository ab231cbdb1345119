#include "cli/top_view.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/utf8.h"

namespace millrace::cli {
namespace {

constexpr std::array<std::string_view, 8> kBlocks = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr std::array<std::string_view, 8> kAsciiBlocks = {"_", ".", "-", "=", "+", "*", "%", "#"};
constexpr std::size_t kLabel = 11;  // columns before a value
// Of the KV cache in use: from here on sequences are soon preempted, and here they are.
constexpr double kKvWarning = 0.8;
constexpr double kKvBad = 0.95;
constexpr double kPercent = 100;

// Of the two ranges of control characters, and the one between.
bool Controls(char32_t c) { return c < U' ' || (c >= U'\x7F' && c < U'\xA0'); }

// What fits the width. What a server sends must not reach the terminal as commands: neither as
// control characters nor as bytes that are no UTF-8, or are none to this terminal.
std::string Cut(std::string_view text, const TopSize& size) {
  const std::string valid = ReplaceInvalidUtf8(text);
  std::string out;
  std::size_t at = 0;
  for (std::size_t characters = 0; at < valid.size() && characters < size.columns; ++characters) {
    const char32_t c = NextCodePoint(valid, &at);
    const bool shown = !Controls(c) && (size.utf8 || c < U'\x7F');
    AppendUtf8(shown ? c : U'?', &out);
  }
  return out;
}

std::string Sparkline(const TopState& state, std::size_t columns, bool utf8) {
  const auto& blocks = utf8 ? kBlocks : kAsciiBlocks;
  const std::size_t shown = std::min(columns, state.history.size());
  const std::vector<double> recent(state.history.end() - static_cast<std::ptrdiff_t>(shown),
                                   state.history.end());
  const double most = recent.empty() ? 0 : *std::max_element(recent.begin(), recent.end());
  std::string line;
  for (const double value : recent) {
    const double share = most > 0 ? value / most : 0;
    line += blocks[std::min(blocks.size() - 1,
                            static_cast<std::size_t>(share * static_cast<double>(blocks.size())))];
  }
  return line;
}

std::string Bar(double share, std::size_t columns, bool utf8) {
  const auto full = static_cast<std::size_t>(
      std::lround(std::clamp(share, 0.0, 1.0) * static_cast<double>(columns)));
  std::string bar;
  for (std::size_t i = 0; i < columns; ++i) {
    bar += i < full ? (utf8 ? "█" : "#") : (utf8 ? "░" : ".");
  }
  return bar;
}

std::string Labelled(std::string_view label, const std::string& value) {
  std::string line(label);
  line.resize(kLabel, ' ');
  return line + value;
}

Ink KvInk(double usage) {
  return usage >= kKvBad ? Ink::kBad : usage >= kKvWarning ? Ink::kWarning : Ink::kGood;
}

std::string SecondsText(const std::optional<double>& seconds) {
  if (!seconds) return "-";
  return *seconds < 1 ? absl::StrFormat("%.1f ms", 1e3 * *seconds)
                      : absl::StrFormat("%.2f s", *seconds);
}

void AddLoad(const TopState& state, const TopSize& size, std::vector<TopLine>* lines) {
  // A number of ten columns and two spaces stand before the picture.
  constexpr std::size_t kNumber = 12;
  const std::size_t picture = size.columns > kLabel + kNumber ? size.columns - kLabel - kNumber : 0;
  lines->push_back({Labelled("tok/s", absl::StrFormat("%-10.1f  ", state.tokens_per_second) +
                                          Sparkline(state, picture, size.utf8))});
  lines->push_back({Labelled("running", absl::StrCat(state.running))});
  lines->push_back({Labelled("waiting", absl::StrFormat("%-10u  oldest %.1f s", state.waiting,
                                                        state.oldest_wait_seconds)),
                    state.waiting > 0 ? Ink::kWarning : Ink::kPlain});
  constexpr std::size_t kWidestBar = 40;
  lines->push_back(
      {Labelled("KV cache", absl::StrFormat("%5.1f %%     ", kPercent * state.kv_usage) +
                                Bar(state.kv_usage, std::min(picture, kWidestBar), size.utf8)),
       KvInk(state.kv_usage)});
  lines->push_back(
      {Labelled("blocks", absl::StrCat(state.kv_blocks_used, " used, ", state.kv_blocks_cached,
                                       " cached, of ", state.kv_blocks_total))});
}

void AddMetrics(const TopState& state, std::vector<TopLine>* lines) {
  lines->push_back({});
  if (!state.metrics_trouble.empty()) {
    lines->push_back({state.metrics_trouble, Ink::kBad});
    return;
  }
  lines->push_back({absl::StrFormat("%-20s %10s %10s %10s", state.window, "p50", "p95", "p99")});
  for (const LatencyRow& row : state.latencies) {
    lines->push_back({absl::StrFormat("%-20s %10s %10s %10s", row.name, SecondsText(row.p50),
                                      SecondsText(row.p95), SecondsText(row.p99))});
  }
  std::string errors;
  for (const auto& [code, count] : state.errors) {
    absl::StrAppend(&errors, errors.empty() ? "" : ", ", code, " ", std::llround(count));
  }
  lines->push_back({Labelled("errors", errors.empty() ? "none" : errors),
                    errors.empty() ? Ink::kPlain : Ink::kBad});
}

}  // namespace

std::vector<TopLine> DrawTop(const TopState& state, const TopSize& size) {
  std::vector<TopLine> lines;
  lines.push_back({absl::StrCat("millrace ", state.version, state.version.empty() ? "" : "  ",
                                state.target, "  ", state.state),
                   Ink::kTitle});
  if (!state.trouble.empty()) {
    lines.push_back({absl::StrFormat("%s, for %.0f s; trying again each second", state.trouble,
                                     state.silent_seconds),
                     Ink::kBad});
  }
  lines.push_back({Labelled("model", state.model)});
  lines.push_back({Labelled("device", state.device)});
  lines.push_back({});
  AddLoad(state, size, &lines);
  if (state.with_metrics) AddMetrics(state, &lines);
  if (lines.size() > size.rows) lines.resize(size.rows);
  for (TopLine& line : lines) line.text = Cut(line.text, size);
  return lines;
}

}  // namespace millrace::cli
