// Where `millrace top` knows it from: asks a server over gRPC, and its metrics page over HTTP.
// Driven by one thread.
#ifndef MILLRACE_CLI_TOP_SOURCE_H_
#define MILLRACE_CLI_TOP_SOURCE_H_

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "cli/metrics_page.h"
#include "cli/top_view.h"
#include "millrace/v1/generation.grpc.pb.h"

namespace millrace::cli {

class TopSource {
 public:
  // `metrics` is the HOST:PORT of the page; empty: none. `patience` is what each of a poll's
  // questions may take: the load, the model when that is not known yet, the page.
  TopSource(std::string target, std::string metrics, Duration patience);

  // Asks once. What could not be had stays as it was, and `trouble` says why.
  const TopState& Poll();

 private:
  struct Scrape {
    TimePoint at;
    MetricsPage page;
  };

  void AskLoad();
  bool AskModel();
  void AskMetrics();
  void ShowMetrics();

  const SteadyClock clock_;
  const Duration patience_;
  const std::string metrics_;
  std::unique_ptr<v1::GenerationService::Stub> stub_;
  TopState state_;
  std::optional<TimePoint> silent_since_;
  bool model_known_ = false;
  std::deque<Scrape> scrapes_;  // the oldest first
};

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_TOP_SOURCE_H_
