#include "service/generate_reactor.h"

#include <algorithm>
#include <chrono>
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

}  // namespace

std::shared_ptr<GenerateReactor> GenerateReactor::Create(grpc::CallbackServerContext* context,
                                                         Metrics* metrics) {
  std::shared_ptr<GenerateReactor> reactor(new GenerateReactor(context, metrics));
  reactor->self_ = reactor;
  metrics->ledger().Received(Method::kGenerate);
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

void GenerateReactor::SetPrompt(const std::string& request_id,
                                const std::vector<std::uint32_t>& tokens, bool send_ids) {
  MutexLock lock(&mutex_);
  request_id_ = request_id;
  for (v1::GenerateResponse& message : PromptMessages(request_id, tokens, send_ids)) {
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
  if (delta.end) end_ = *delta.end;
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
    metrics_.ledger().Answered(Method::kGenerate, grpc::StatusCode::OK);
    StartWriteAndFinish(&current_, grpc::WriteOptions(), grpc::Status::OK);
  } else if (write) {
    StartWrite(&current_);
  } else if (end) {
    End(EndStatus(*end));
  }
}

void GenerateReactor::End(const absl::Status& status) {
  const grpc::Status sent = ToGrpcStatus(status);
  // Before the client can know: whoever has seen the end finds it in the metrics.
  metrics_.ledger().Answered(Method::kGenerate, sent.error_code());
  if (const auto after = RetryAfter(status)) {
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(*after).count();
    context_->AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(ms));
  }
  Finish(sent);
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
  // The last act: the pump may hold the reactor a moment longer.
  const std::shared_ptr<GenerateReactor> self = std::move(self_);
}

}  // namespace millrace
