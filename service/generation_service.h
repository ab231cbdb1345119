// millrace.v1.GenerationService over gRPC's callback API: checks, tokenizes and submits on the
// library's threads, and answers nothing itself that the engine should. Thread-safe.
//
// Life: constructed LOADING -> Serve -> StopAccepting (DRAINING).
#ifndef MILLRACE_SERVICE_GENERATION_SERVICE_H_
#define MILLRACE_SERVICE_GENERATION_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "millrace/v1/generation.grpc.pb.h"
#include "scheduler/engine.h"
#include "service/live_requests.h"
#include "service/load_reporter.h"
#include "service/metrics.h"
#include "service/served_model.h"
#include "service/trusted_gateways.h"

namespace millrace {

class GenerationService final : public v1::GenerationService::CallbackService {
 public:
  // All outlive the service.
  GenerationService(LiveRequests* live, Metrics* metrics, LoadReporter* load, const Clock* clock,
                    TrustedGateways gateways)
      : live_(*live),
        metrics_(*metrics),
        load_(*load),
        clock_(*clock),
        gateways_(std::move(gateways)) {}

  // From now on requests are taken. `engine` outlives the service.
  void Serve(std::shared_ptr<const ServedModel> model, Engine* engine);
  // From now on new requests are refused; the engine finishes what it has.
  void StopAccepting();

  v1::ServerState state() const;

 private:
  // What a call needs, as of its start.
  struct Serving {
    std::shared_ptr<const ServedModel> model;
    Engine* engine = nullptr;
  };

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerWriteReactor<v1::GenerateResponse>* Resume(grpc::CallbackServerContext* context,
                                                         const v1::ResumeRequest* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const v1::GetModelInfoRequest* request,
                                         v1::ModelInfo* response) override;
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context,
                                    const v1::GetLoadRequest* request, v1::Load* response) override;

  // UNAVAILABLE while there is no model.
  absl::StatusOr<Serving> Current() const;
  absl::Status Submit(const v1::GenerateRequest& message, grpc::CallbackServerContext* context,
                      const std::shared_ptr<class GenerateReactor>& reactor);
  // Whom the call is for, and how urgent it may be.
  absl::Status ReadTrust(const grpc::CallbackServerContext& context, Request* request) const;
  absl::Status DoTokenize(const v1::TokenizeRequest& request, v1::TokenizeResponse* response) const;
  absl::Status DoDetokenize(const v1::DetokenizeRequest& request,
                            v1::DetokenizeResponse* response) const;
  absl::Status DoGetModelInfo(const v1::GetModelInfoRequest& request,
                              v1::ModelInfo* response) const;

  LiveRequests& live_;
  Metrics& metrics_;
  LoadReporter& load_;
  const Clock& clock_;
  const TrustedGateways gateways_;

  mutable Mutex mutex_;
  Serving serving_ ABSL_GUARDED_BY(mutex_);
  v1::ServerState state_ ABSL_GUARDED_BY(mutex_) = v1::SERVER_STATE_LOADING;
};

}  // namespace millrace

#endif  // MILLRACE_SERVICE_GENERATION_SERVICE_H_
