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
  if (load_changed_) load_changed_();
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
    OnFailed(stream, std::move(failed->status), cause, failed->usage);
  } else if (const auto* cancelled = std::get_if<CancelledEvent>(&event.what)) {
    OnFailed(stream, absl::CancelledError("the client cancelled"), "cancel", cancelled->usage);
  } else {
    OnFailed(stream, absl::UnavailableError("the server stopped before the end"), "shutdown",
             std::get<ShutDownEvent>(event.what).usage);
  }
}

void TokenPump::ObserveTimes(Stream* stream, Answer* answer, std::uint64_t count, TimePoint at) {
  std::uint64_t between = count;
  if (answer->tokens == 0) {
    if (stream->tokens == 0) metrics_.ObserveFirstToken(at - stream->request.arrival);
    answer->last_token = at;
    --between;
  }
  if (between > 0) {
    const Duration each = (at - answer->last_token) / static_cast<std::int64_t>(between);
    metrics_.ObserveBetweenTokens(each, between);
  }
  answer->last_token = at;
}

void TokenPump::OnTokens(Stream* stream, TokensEvent event, TimePoint at) {
  const std::uint64_t count = event.tokens.size();
  Answer* const answer = stream->At(event.index);
  metrics_.CountGenerated(count);
  if (count > 0) ObserveTimes(stream, answer, count, at);
  answer->tokens += count;
  stream->tokens += count;
  StreamDelta delta;
  delta.index = event.index;
  delta.text = answer->decoder.Push(event.released_bytes);
  delta.tokens = std::move(event.tokens);
  stream->request.sink->Deliver(std::move(delta));
}

void TokenPump::OnFinished(Stream* stream, FinishedEvent event, TimePoint at) {
  if (event.last) metrics_.ObserveFinished(event.usage, at - stream->request.arrival);
  StreamDelta delta;
  delta.index = event.index;
  delta.text = stream->At(event.index)->decoder.Finish();
  if (event.last) {
    delta.end = absl::OkStatus();
    delta.usage = event.usage;
  }
  delta.finish = std::move(event);
  stream->request.sink->Deliver(std::move(delta));
}

void TokenPump::OnFailed(Stream* stream, absl::Status status, const std::string& cause,
                         const RequestUsage& usage) {
  if (stream->tokens > 0) metrics_.CountWasted(cause, stream->tokens);
  // Somebody with less in the queue took its place.
  if (absl::IsResourceExhausted(status)) metrics_.CountShed("displaced");
  StreamDelta delta;
  delta.end = std::move(status);
  delta.usage = usage;
  stream->request.sink->Deliver(std::move(delta));
}

}  // namespace millrace
