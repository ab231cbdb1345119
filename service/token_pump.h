// The one thread between the engine and the streams: takes events from the token channel, turns
// bytes into whole UTF-8 and hands each request's deltas to its sink; counts what there is to
// count. It ends when the channel is closed and drained.
//
// Start and Join are called by one thread; everything else happens on the pump's own.
#ifndef MILLRACE_SERVICE_TOKEN_PUMP_H_
#define MILLRACE_SERVICE_TOKEN_PUMP_H_

#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/strong_id.h"
#include "runtime/tokenizer/stream_decoder.h"
#include "scheduler/token_event.h"
#include "service/live_requests.h"
#include "service/metrics.h"

namespace millrace {

class TokenPump {
 public:
  // All outlive the pump. `load_changed`, if given, is called on the pump's thread after everything
  // that the engine publishes with a step or an event, and must not wait.
  TokenPump(TokenChannel* channel, LiveRequests* live, Metrics* metrics,
            std::function<void()> load_changed = nullptr)
      : channel_(*channel),
        live_(*live),
        metrics_(*metrics),
        load_changed_(std::move(load_changed)) {}
  ~TokenPump() { Join(); }

  // `at_end` is called once, on the pump's thread, when the channel has ended.
  void Start(std::function<void()> at_end);
  void Join();

 private:
  // One sequence of a request.
  struct Answer {
    StreamDecoder decoder;
    std::uint64_t tokens = 0;
    TimePoint last_token;
  };
  struct Stream {
    LiveRequest request;
    std::vector<Answer> answers;  // by index, as far as heard of
    std::uint64_t tokens = 0;     // of all

    Answer* At(std::uint32_t index) {
      if (index >= answers.size()) answers.resize(index + 1);
      return &answers[index];
    }
  };

  void Handle(EngineOutput output);
  void Handle(Stream* stream, TokenEvent event);
  void ObserveTimes(Stream* stream, Answer* answer, std::uint64_t count, TimePoint at);
  void OnTokens(Stream* stream, TokensEvent event, TimePoint at);
  void OnFinished(Stream* stream, FinishedEvent event, TimePoint at);
  void OnFailed(Stream* stream, absl::Status status, const std::string& cause,
                const RequestUsage& usage);
  Stream* Find(RequestId id);

  TokenChannel& channel_;
  LiveRequests& live_;
  Metrics& metrics_;
  const std::function<void()> load_changed_;
  std::thread thread_;
  std::unordered_map<RequestId, Stream> streams_;  // pump thread only
};

}  // namespace millrace

#endif  // MILLRACE_SERVICE_TOKEN_PUMP_H_
