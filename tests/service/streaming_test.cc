// Engine, channels and pump with everything that is concurrent in service, and a transport in the
// process instead of gRPC (which is not instrumented): callers on threads of their own submit,
// read, credit, stop reading and cancel, while others scrape the metrics. Meant for
// ThreadSanitizer; the promises hold without it too.
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "scheduler/engine.h"
#include "service/live_requests.h"
#include "service/metrics.h"
#include "service/token_pump.h"
#include "tests/scheduler/scheduler_driver.h"

namespace millrace::testing {
namespace {

constexpr int kCallers = 4;
constexpr int kRequestsEach = 60;
constexpr std::uint32_t kMaxSequences = 3;

// One call's stream: the pump delivers, the caller's thread takes.
class Stream final : public TokenSink {
 public:
  void Deliver(StreamDelta delta) override {
    {
      MutexLock lock(&mutex_);
      deltas_.push_back(std::move(delta));
    }
    changed_.NotifyOne();
  }
  StreamDelta Take() {
    MutexLock lock(&mutex_);
    while (deltas_.empty()) changed_.Wait(&mutex_);
    StreamDelta delta = std::move(deltas_.front());
    deltas_.pop_front();
    return delta;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::deque<StreamDelta> deltas_ ABSL_GUARDED_BY(mutex_);
};

class Service {
 public:
  explicit Service(std::int32_t in_flight) : runner_(Runner(in_flight)), metrics_("test") {
    SchedulerOptions options = SmallOptions();
    options.max_queue = 1000;
    options.output_window_tokens = 8;
    auto engine = Engine::Create(options, &runner_, Letters(), &clock_, &channel_);
    EXPECT_TRUE(engine.ok());
    engine_ = *std::move(engine);
    pump_ = std::make_unique<TokenPump>(&channel_, &live_, &metrics_);
    engine_->Start();
    pump_->Start([this] { ended_ = true; });
  }

  // One call from its start to its end, as a caller with these habits.
  void Call(std::mt19937* rng, int number) {
    const auto stream = std::make_shared<Stream>();
    const RequestId id = *live_.Add({std::to_string(number), clock_.Now(), stream});
    Request request = MakeRequest(id.value(), 1 + (*rng)() % 30, (*rng)() % 20);
    request.num_sequences = 1 + (*rng)() % kMaxSequences;
    request.tenant = std::string(1, static_cast<char>('a' + (*rng)() % 3));
    request.priority = static_cast<std::int32_t>((*rng)() % 3);
    request.arrival = clock_.Now();
    const std::uint32_t answers = request.num_sequences;
    const std::uint64_t cancel_after = (*rng)() % 3 == 0 ? (*rng)() % 10 : UINT64_MAX;
    ASSERT_TRUE(engine_->Submit(std::move(request)).ok());
    Read(id, stream.get(), answers, cancel_after);
  }

  void Scrape() {
    EXPECT_FALSE(metrics_.Scrape().empty());
    EXPECT_GE(engine_->snapshot().kv_blocks_total, 0);
  }

  void Stop() {
    engine_->BeginDrain(clock_.Now());
    engine_->Join();
    pump_->Join();
    EXPECT_TRUE(ended_);
    EXPECT_EQ(engine_->snapshot().kv_blocks_used, 0);
  }

 private:
  static RunnerInfo Runner(std::int32_t in_flight) {
    RunnerInfo info = SmallRunner();
    info.max_in_flight = in_flight;
    return info;
  }

  void Read(RequestId id, Stream* stream, std::uint32_t answers, std::uint64_t cancel_after) {
    std::uint64_t tokens = 0;
    std::uint32_t finishes = 0;
    for (;;) {
      const StreamDelta delta = stream->Take();
      tokens += delta.tokens.size();
      finishes += delta.finish ? 1 : 0;
      if (delta.end) {
        EXPECT_TRUE(absl::IsCancelled(*delta.end) || finishes == answers) << *delta.end;
        return;
      }
      engine_->Credit(id, tokens);
      if (tokens >= cancel_after) engine_->Cancel(id);
    }
  }

  SteadyClock clock_;
  TokenChannel channel_;
  FakeRunner runner_;
  LiveRequests live_;
  Metrics metrics_;
  bool ended_ = false;  // written by the pump's thread, read after it has joined
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<TokenPump> pump_;
};

TEST(Streaming, ManyCallersAtOnceEachHaveOneEnd) {
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  for (const std::int32_t in_flight : {1, 2}) {
    Service service(in_flight);
    std::atomic<int> calls{0};
    std::atomic<bool> done{false};
    std::vector<std::thread> callers;
    for (std::uint32_t t = 0; t < kCallers; ++t) {
      callers.emplace_back([&, t] {
        std::mt19937 rng(seed + t);
        for (int i = 0; i < kRequestsEach; ++i) service.Call(&rng, ++calls);
      });
    }
    std::thread scraper([&] {
      while (!done) service.Scrape();
    });
    for (std::thread& caller : callers) caller.join();
    done = true;
    scraper.join();
    service.Stop();
  }
}

}  // namespace
}  // namespace millrace::testing
