// One Generate call: writes what the pump delivers, one message at a time, and tells the engine how
// far the client has come.
//
// gRPC's reactions and the pump's deliveries meet under one mutex, which is never held while gRPC
// is called: gRPC may react on the same thread. The reactor owns itself until OnDone; who else
// needs it holds a shared pointer.
#ifndef MILLRACE_SERVICE_GENERATE_REACTOR_H_
#define MILLRACE_SERVICE_GENERATE_REACTOR_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "base/strong_id.h"
#include "millrace/v1/generation.grpc.pb.h"
#include "scheduler/engine.h"
#include "service/metrics.h"
#include "service/token_sink.h"

namespace millrace {

class GenerateReactor final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                              public TokenSink {
 public:
  // The call that `context` is of. `metrics` outlives it.
  static std::shared_ptr<GenerateReactor> Create(grpc::CallbackServerContext* context,
                                                 Metrics* metrics);

  // Ends a call that the engine never saw: trailers only, so that clients and proxies may retry.
  void Refuse(const absl::Status& status);
  // Puts what comes before the first token in line; nothing is written before Begin.
  void SetPrompt(const std::string& request_id, const std::vector<std::uint32_t>& tokens,
                 bool send_ids);
  // The engine has taken the request as `id`: from now on writes, credits and cancels flow.
  void Begin(Engine* engine, RequestId id);

  void Deliver(StreamDelta delta) override;

 private:
  GenerateReactor(grpc::CallbackServerContext* context, Metrics* metrics)
      : context_(context), metrics_(*metrics) {}

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  void AppendLocked(StreamDelta delta) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  v1::GenerateResponse* NextMessageLocked(std::uint32_t index)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Starts the next write, or the end, if it is time.
  void Advance() ABSL_LOCKS_EXCLUDED(mutex_);
  void End(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  // The status the client gets: its own deadline is named even if the cancel arrived first.
  absl::Status EndStatus(const absl::Status& status) const;

  grpc::CallbackServerContext* const context_;
  Metrics& metrics_;
  std::shared_ptr<GenerateReactor> self_;  // until OnDone

  Mutex mutex_;
  std::string request_id_ ABSL_GUARDED_BY(mutex_);
  Engine* engine_ ABSL_GUARDED_BY(mutex_) = nullptr;
  RequestId id_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::GenerateResponse> queue_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = true;  // held until Begin or Refuse
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::uint64_t delivered_ ABSL_GUARDED_BY(mutex_) = 0;
  std::uint64_t credited_ ABSL_GUARDED_BY(mutex_) = 0;
  v1::GenerateResponse current_;  // being written; touched only while nothing is
};

}  // namespace millrace

#endif  // MILLRACE_SERVICE_GENERATE_REACTOR_H_
