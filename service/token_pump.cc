#include "service/token_pump.h"

#include <utility>
#include <variant>

#include "base/check.h"

namespace millrace {
namespace {

std::string CauseOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kDeadlineExceeded:
      return "deadline";
    case absl::StatusCode::kAborted:
      return "slow_reader";
    default:
      return "failure";
  }
}

}  // namespace

void TokenPump::Start(std::function<void()> at_end) {
  thread_ = std::thread([this, at_end = std::move(at_end)] {
    while (auto output = channel_.Receive()) Handle(*std::move(output));
    at_end();
  });
}

void TokenPump::Join() {
  if (thread_.joinable()) thread_.join();
}

void TokenPump::Handle(EngineOutput output) {
  // Counted first: whoever has seen the last message of a stream finds its tokens in the metrics.
  if (output.has_step) metrics_.CountStep(output.step);
  for (TokenEvent& event : output.events) {
    Stream* stream = Find(event.id);
    const RequestId id = event.id;
    const bool last = event.terminal();
    if (last) live_.Remove(id);  // the name is free before the caller learns of the end
    Handle(stream, std::move(event));
    if (last) streams_.erase(id);
  }
}

TokenPump::Stream* TokenPump::Find(RequestId id) {
  const auto [at, added] = streams_.try_emplace(id);
  if (added) {
    std::optional<LiveRequest> request = live_.Find(id);
    MILLRACE_CHECK(request.has_value(), "a request lives until its terminal event");
    at->second.request = *std::move(request);
  }
  return &at->second;
}

void TokenPump::Handle(Stream* stream, TokenEvent event) {
  if (auto* tokens = std::get_if<TokensEvent>(&event.what)) {
    OnTokens(stream, std::move(*tokens), event.at);
  } else if (auto* finished = std::get_if<FinishedEvent>(&event.what)) {
    OnFinished(stream, std::move(*finished), event.at);
  } else if (auto* failed = std::get_if<FailedEvent>(&event.what)) {
    const std::string cause = CauseOf(failed->status);
    OnFailed(stream, std::move(failed->status), cause);
  } else if (std::holds_alternative<CancelledEvent>(event.what)) {
    OnFailed(stream, absl::CancelledError("the client cancelled"), "cancel");
  } else {
    OnFailed(stream, absl::UnavailableError("the server stopped before the end"), "shutdown");
  }
}

void TokenPump::OnTokens(Stream* stream, TokensEvent event, TimePoint at) {
  const std::uint64_t count = event.tokens.size();
  metrics_.CountGenerated(count);
  if (count > 0) {
    std::uint64_t between = count;
    if (stream->tokens == 0) {
      metrics_.ObserveFirstToken(at - stream->request.arrival);
      stream->last_token = at;
      --between;
    }
    if (between > 0) {
      const Duration each = (at - stream->last_token) / static_cast<std::int64_t>(between);
      metrics_.ObserveBetweenTokens(each, between);
    }
    stream->tokens += count;
    stream->last_token = at;
  }
  StreamDelta delta;
  delta.index = event.index;
  delta.text = stream->decoder.Push(event.released_bytes);
  delta.tokens = std::move(event.tokens);
  stream->request.sink->Deliver(std::move(delta));
}

void TokenPump::OnFinished(Stream* stream, FinishedEvent event, TimePoint at) {
  metrics_.ObserveFinished(event.usage, at - stream->request.arrival);
  StreamDelta delta;
  delta.index = event.index;
  delta.text = stream->decoder.Finish();
  delta.finish = std::move(event);
  delta.end = absl::OkStatus();
  stream->request.sink->Deliver(std::move(delta));
}

void TokenPump::OnFailed(Stream* stream, absl::Status status, const std::string& cause) {
  if (stream->tokens > 0) metrics_.CountWasted(cause, stream->tokens);
  StreamDelta delta;
  delta.end = std::move(status);
  stream->request.sink->Deliver(std::move(delta));
}

}  // namespace millrace
