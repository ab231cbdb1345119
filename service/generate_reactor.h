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
#include "scheduler/request.h"
#include "service/load_reporter.h"
#include "service/metrics.h"
#include "service/request_log.h"
#include "service/token_sink.h"

namespace millrace {

// Whom every call tells of itself. All outlive the calls.
struct CallObservers {
  Metrics* metrics;
  LoadReporter* load;
  const Clock* clock;
};

class GenerateReactor final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                              public TokenSink {
 public:
  // The call that `context` is of, which arrived just now.
  static std::shared_ptr<GenerateReactor> Create(grpc::CallbackServerContext* context,
                                                 const CallObservers& observers);

  TimePoint arrival() const { return arrival_; }

  // Ends a call that the engine never saw: trailers only, so that clients and proxies may retry.
  void Refuse(const absl::Status& status);
  // The caller's name for the request, "" for none.
  void SetName(const std::string& request_id);
  // Puts what comes before the first token in line; nothing is written before Begin.
  void SetRequest(const std::string& request_id, const Request& request, bool send_ids);
  // The engine has taken the request as `id`: from now on writes, credits and cancels flow.
  void Begin(Engine* engine, RequestId id);

  void Deliver(StreamDelta delta) override;

 private:
  GenerateReactor(grpc::CallbackServerContext* context, const CallObservers& observers)
      : context_(context), observers_(observers), arrival_(observers.clock->Now()) {}

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  void AppendLocked(StreamDelta delta) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  v1::GenerateResponse* NextMessageLocked(std::uint32_t index)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Starts the next write, or the end, if it is time.
  void Advance() ABSL_LOCKS_EXCLUDED(mutex_);
  void End(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  // Counts the end and adds the trailers; right before the status is sent.
  void CountEnd(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  // The status the client gets: its own deadline is named even if the cancel arrived first.
  absl::Status EndStatus(const absl::Status& status) const;

  grpc::CallbackServerContext* const context_;
  const CallObservers observers_;
  const TimePoint arrival_;
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
  RequestRecord record_ ABSL_GUARDED_BY(mutex_);
  v1::GenerateResponse current_;  // being written; touched only while nothing is
};

}  // namespace millrace

#endif  // MILLRACE_SERVICE_GENERATE_REACTOR_H_
