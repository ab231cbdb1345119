#include "cli/top_source.h"

#include <grpcpp/grpcpp.h>
#include <httplib.h>

#include <array>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "service/status_mapping.h"

namespace millrace::cli {
namespace {

// A server that comes back is found within a second, not after gRPC's two minutes.
constexpr int kReconnectMs = 500;
// As many seconds as the widest terminals have columns.
constexpr std::size_t kHistory = 300;
// Quantiles are of what came within it: long enough for some calls, short enough to be of now.
constexpr double kWindowSeconds = 60;
// Of the metrics page: another value is another process.
constexpr char kStarted[] = "process_start_time_seconds";

struct Histogram {
  const char* title;
  const char* name;
};
constexpr std::array<Histogram, 3> kHistograms = {
    Histogram{"first token", "millrace_time_to_first_token_seconds"},
    Histogram{"between tokens", "millrace_inter_token_latency_seconds"},
    Histogram{"whole request", "millrace_request_e2e_seconds"},
};

std::shared_ptr<grpc::Channel> Connect(const std::string& target) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectMs);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kReconnectMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectMs);
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
}

const char* StateName(v1::ServerState state) {
  switch (state) {
    case v1::SERVER_STATE_LOADING:
      return "loading";
    case v1::SERVER_STATE_SERVING:
      return "serving";
    case v1::SERVER_STATE_DRAINING:
      return "draining";
    default:
      return "";
  }
}

}  // namespace

TopSource::TopSource(std::string target, std::string metrics, Duration patience)
    : patience_(patience),
      metrics_(std::move(metrics)),
      stub_(v1::GenerationService::NewStub(Connect(target))) {
  state_.target = std::move(target);
  state_.with_metrics = !metrics_.empty();
}

const TopState& TopSource::Poll() {
  AskLoad();
  if (!metrics_.empty()) AskMetrics();
  return state_;
}

void TopSource::AskLoad() {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + patience_);
  v1::Load load;
  const grpc::Status status = stub_->GetLoad(&context, v1::GetLoadRequest(), &load);
  if (!status.ok()) {
    if (!silent_since_) silent_since_ = clock_.Now();
    state_.silent_seconds = ToSeconds(clock_.Now() - *silent_since_);
    state_.trouble =
        absl::StrFormat("%s does not answer (%s: %s)", state_.target,
                        std::string(CodeName(status.error_code())), status.error_message());
    // Another one may come back.
    model_known_ = false;
    state_.history.push_back(0);
  } else {
    silent_since_.reset();
    state_.trouble.clear();
    state_.state = StateName(load.state());
    state_.running = load.running();
    state_.waiting = load.waiting();
    state_.kv_blocks_total = load.kv_blocks_total();
    state_.kv_blocks_used = load.kv_blocks_used();
    state_.kv_blocks_cached = load.kv_blocks_cached();
    state_.kv_usage = load.kv_usage();
    state_.oldest_wait_seconds = load.oldest_wait_seconds();
    state_.tokens_per_second = load.tokens_per_second();
    state_.history.push_back(load.tokens_per_second());
    if (!model_known_) model_known_ = AskModel();
  }
  if (state_.history.size() > kHistory) state_.history.erase(state_.history.begin());
}

bool TopSource::AskModel() {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + patience_);
  v1::ModelInfo info;
  // While it loads there is none.
  if (!stub_->GetModelInfo(&context, v1::GetModelInfoRequest(), &info).ok()) return false;
  state_.model =
      absl::StrCat(info.name(), ", ", info.quantisation(), ", context ", info.context_length());
  state_.device = info.device();
  state_.version = info.version();
  return true;
}

void TopSource::AskMetrics() {
  httplib::Client client("http://" + metrics_);
  client.set_connection_timeout(patience_);
  client.set_read_timeout(patience_);
  const httplib::Result answer = client.Get("/metrics");
  if (!answer || answer->status != 200) {
    state_.metrics_trouble = absl::StrCat(
        metrics_, " has no metrics (",
        answer ? absl::StrCat("HTTP ", answer->status) : httplib::to_string(answer.error()), ")");
    return;
  }
  state_.metrics_trouble.clear();
  MetricsPage page = MetricsPage::Parse(answer->body);
  // Another run of the server counts from 0 again: nothing is compared with the run before.
  if (!scrapes_.empty() && page.Value(kStarted) != scrapes_.back().page.Value(kStarted)) {
    scrapes_.clear();
  }
  scrapes_.push_back({clock_.Now(), std::move(page)});
  // The first stays until the second is as old as the window.
  while (scrapes_.size() > 2 && ToSeconds(scrapes_.back().at - scrapes_[1].at) >= kWindowSeconds) {
    scrapes_.pop_front();
  }
  ShowMetrics();
}

void TopSource::ShowMetrics() {
  const Scrape& now = scrapes_.back();
  const double seconds = ToSeconds(now.at - scrapes_.front().at);
  // A single scrape is shown against nothing: since the server's start.
  const bool alone = scrapes_.size() == 1;
  const MetricsPage none;
  const MetricsPage& earlier = alone ? none : scrapes_.front().page;
  state_.window = alone ? std::string("since its start") : absl::StrFormat("last %.0f s", seconds);
  state_.latencies.clear();
  for (const Histogram& h : kHistograms) {
    state_.latencies.push_back({h.title, now.page.Quantile(h.name, 0.5, earlier),
                                now.page.Quantile(h.name, 0.95, earlier),
                                now.page.Quantile(h.name, 0.99, earlier)});
  }
  state_.errors = now.page.ErrorsSince(earlier);
}

}  // namespace millrace::cli
