#include "service/generate_reactor.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <span>
#include <string>
#include <utility>

#include "base/error_details.h"
#include "service/response_builder.h"
#include "service/status_mapping.h"

namespace millrace {
namespace {

// The engine hears of every so many delivered tokens: few of its 1 024 tokens of window, and far
// fewer submissions than tokens.
constexpr std::uint64_t kCreditTokens = 128;

// Deltas that wait behind a write travel in one message, up to so many tokens: the most that
// 20 logprobs each leave far below a message of 1 MiB.
constexpr int kMaxMessageTokens = 256;

// What the call's metadata says, if it says it once and well.
std::optional<TraceContext> TraceOf(const grpc::CallbackServerContext& context) {
  const auto& metadata = context.client_metadata();
  const auto [begin, end] = metadata.equal_range(kTraceparent);
  if (begin == end || std::next(begin) != end) return std::nullopt;
  return ParseTraceparent({begin->second.data(), begin->second.size()});
}

}  // namespace

std::shared_ptr<GenerateReactor> GenerateReactor::Create(grpc::CallbackServerContext* context,
                                                         const CallObservers& observers) {
  std::shared_ptr<GenerateReactor> reactor(new GenerateReactor(context, observers));
  reactor->self_ = reactor;
  observers.metrics->ledger().Received(Method::kGenerate);
  MutexLock lock(&reactor->mutex_);
  reactor->record_.method = "Generate";
  reactor->record_.trace = TraceOf(*context);
  return reactor;
}

void GenerateReactor::Refuse(const absl::Status& status) {
  {
    MutexLock lock(&mutex_);
    queue_.clear();
    ended_ = true;
  }
  End(status);
}

void GenerateReactor::SetName(const std::string& request_id) {
  MutexLock lock(&mutex_);
  record_.request_id = request_id;
}

void GenerateReactor::SetRequest(const std::string& request_id, const Request& request,
                                 bool send_ids) {
  MutexLock lock(&mutex_);
  request_id_ = record_.request_id = request_id;
  record_.tenant = request.tenant;
  record_.prompt_tokens = static_cast<std::uint32_t>(request.prompt_tokens.size());
  for (v1::GenerateResponse& message :
       PromptMessages(request_id, request.prompt_tokens, send_ids)) {
    queue_.push_back(std::move(message));
  }
}

void GenerateReactor::Begin(Engine* engine, RequestId id) {
  bool cancelled;
  {
    MutexLock lock(&mutex_);
    engine_ = engine;
    id_ = id;
    writing_ = false;
    cancelled = cancelled_;
  }
  if (cancelled) engine->Cancel(id);
  Advance();
}

void GenerateReactor::Deliver(StreamDelta delta) {
  {
    MutexLock lock(&mutex_);
    AppendLocked(std::move(delta));
  }
  Advance();
}

v1::GenerateResponse* GenerateReactor::NextMessageLocked(std::uint32_t index) {
  if (!queue_.empty()) {
    v1::GenerateResponse& last = queue_.back();
    const bool open = !last.has_prompt() && !last.has_finish() && last.index() == index;
    if (open && last.token_ids_size() < kMaxMessageTokens) return &last;
  }
  queue_.emplace_back();
  queue_.back().set_request_id(request_id_);
  queue_.back().set_index(index);
  return &queue_.back();
}

void GenerateReactor::AppendLocked(StreamDelta delta) {
  if (delta.end) {
    end_ = *delta.end;
    record_.usage = delta.usage;
  }
  if (delta.finish) {
    record_.finish_reason = JoinFinishReasons(record_.finish_reason, delta.finish->reason);
  }
  if (!delta.text.empty() || !delta.tokens.empty() || delta.finish) {
    AppendDelta(delta, NextMessageLocked(delta.index));
  }
}

void GenerateReactor::Advance() {
  std::optional<absl::Status> end;
  bool write = false;
  {
    MutexLock lock(&mutex_);
    if (writing_ || ended_) return;
    // Nobody reads what a cancelled call writes.
    if (cancelled_) queue_.clear();
    if (!queue_.empty()) {
      current_ = std::move(queue_.front());
      queue_.pop_front();
      writing_ = write = true;
    }
    if (queue_.empty() && end_ && (!write || end_->ok())) {
      end = end_;
      ended_ = true;
    }
  }
  if (write && end) {
    CountEnd(absl::OkStatus());
    StartWriteAndFinish(&current_, grpc::WriteOptions(), grpc::Status::OK);
  } else if (write) {
    StartWrite(&current_);
  } else if (end) {
    End(EndStatus(*end));
  }
}

void GenerateReactor::End(const absl::Status& status) {
  CountEnd(status);
  Finish(ToGrpcStatus(status));
}

void GenerateReactor::CountEnd(const absl::Status& status) {
  const auto code = static_cast<grpc::StatusCode>(status.code());
  // Before the client can know: whoever has seen the end finds it in the metrics.
  observers_.metrics->ledger().Answered(Method::kGenerate, code);
  observers_.load->CountEnded(code);
  context_->AddTrailingMetadata(kLoadTrailer, SerializeForTrailer(observers_.load->Report()));
  if (const auto after = RetryAfter(status)) {
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(*after).count();
    context_->AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(ms));
  }
  MutexLock lock(&mutex_);
  record_.code = code;
  record_.reason = Reason(status);
  record_.duration = observers_.clock->Now() - arrival_;
}

absl::Status GenerateReactor::EndStatus(const absl::Status& status) const {
  if (status.code() == absl::StatusCode::kCancelled &&
      context_->deadline() <= std::chrono::system_clock::now()) {
    return absl::DeadlineExceededError("the request's deadline passed");
  }
  return status;
}

void GenerateReactor::OnWriteDone(bool ok) {
  Engine* engine = nullptr;
  RequestId id;
  std::uint64_t credit = 0;
  {
    MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) cancelled_ = true;  // OnCancel has told the engine, or is about to
    delivered_ += static_cast<std::uint64_t>(current_.token_ids_size());
    if (delivered_ - credited_ >= kCreditTokens) {
      credited_ = credit = delivered_;
      engine = engine_;
      id = id_;
    }
  }
  if (engine != nullptr) engine->Credit(id, credit);
  Advance();
}

void GenerateReactor::OnCancel() {
  Engine* engine;
  RequestId id;
  {
    MutexLock lock(&mutex_);
    cancelled_ = true;
    engine = engine_;
    id = id_;
  }
  // The call ends when the engine has answered.
  if (engine != nullptr) engine->Cancel(id);
}

void GenerateReactor::OnDone() {
  // Here and not at the end: a log that is slow must hold up neither the pump nor the client.
  RequestRecord record;
  {
    MutexLock lock(&mutex_);
    record = std::move(record_);
  }
  LogRequest(LogLevel::kInfo, record);
  // The last act: the pump may hold the reactor a moment longer.
  const std::shared_ptr<GenerateReactor> self = std::move(self_);
}

}  // namespace millrace
