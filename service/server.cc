#include "service/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "service/generation_service.h"
#include "service/health_service.h"
#include "service/http_server.h"
#include "service/live_requests.h"
#include "service/load_reporter.h"
#include "service/metrics.h"
#include "service/orca_service.h"
#include "service/scaler_service.h"
#include "service/token_pump.h"

namespace millrace {
namespace {

// After the engine has ended there is nothing left to wait for but writes on their way.
constexpr auto kGrpcGrace = std::chrono::seconds(5);

// Prompts of the longest contexts stay far below; a message beyond is refused by the library.
constexpr int kMaxReceiveBytes = 16 << 20;

class GrpcServer final : public Server {
 public:
  GrpcServer(const ServerOptions& options, const Clock* clock)
      : clock_(*clock),
        metrics_(options.version),
        load_(clock),
        generation_(&live_, &metrics_, &load_, clock, options.gateways) {}

  ~GrpcServer() override { ShutDown(Duration::zero()); }

  absl::Status Start(const ServerOptions& options) {
    MILLRACE_ASSIGN_OR_RETURN(HostPort wanted, ParseHostPort(options.listen));
    MILLRACE_ASSIGN_OR_RETURN(
        http_, HttpServer::Listen(
                   options.metrics,
                   {.metrics = [this] { return metrics_.Scrape(); },
                    .ready = [this] { return generation_.state() == v1::SERVER_STATE_SERVING; }}));
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(FormatHostPort(wanted), grpc::InsecureServerCredentials(), &port);
    // A second server on the same port must fail to start, not take half of the calls.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.SetMaxReceiveMessageSize(kMaxReceiveBytes);
    builder.RegisterService(&generation_);
    builder.RegisterService(&health_);
    builder.RegisterService(&scaler_);
    builder.RegisterService(&orca_);
    grpc_ = builder.BuildAndStart();
    if (grpc_ == nullptr || port == 0) {
      return absl::UnavailableError(
          absl::StrCat("cannot listen on ", FormatHostPort(wanted),
                       ": is it in use, or not an address of this machine?"));
    }
    wanted.port = port;
    grpc_address_ = FormatHostPort(wanted);
    return absl::OkStatus();
  }

  const std::string& grpc_address() const override { return grpc_address_; }
  const std::string& metrics_address() const override { return http_->address(); }

  void Serve(std::shared_ptr<const ServedModel> model, Engine* engine, TokenChannel* channel,
             std::int32_t block_size, std::function<void()> at_end) override {
    engine_ = engine;
    load_.Serve(engine);
    pump_ =
        std::make_unique<TokenPump>(channel, &live_, &metrics_, [this] { scaler_.LoadChanged(); });
    pump_->Start(std::move(at_end));
    metrics_.SetModel(model->info, engine, block_size);
    generation_.Serve(std::move(model), engine);
    health_.SetReady(true);
  }

  void ShutDown(Duration drain) override {
    if (grpc_ == nullptr) return;
    health_.SetReady(false);
    generation_.StopAccepting();
    if (engine_ != nullptr) {
      engine_->BeginDrain(clock_.Now() + drain);
      engine_->Join();
      pump_->Join();
    }
    health_.EndWatches();
    scaler_.EndStreams();
    orca_.EndStreams();
    grpc_->Shutdown(std::chrono::system_clock::now() + kGrpcGrace);
    grpc_->Wait();
    grpc_.reset();
    http_.reset();
  }

 private:
  const Clock& clock_;
  LiveRequests live_;
  Metrics metrics_;
  LoadReporter load_;
  HealthService health_;
  ScalerService scaler_{&load_};
  OrcaService orca_{&load_};
  GenerationService generation_;
  std::unique_ptr<TokenPump> pump_;
  Engine* engine_ = nullptr;
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<grpc::Server> grpc_;
  std::string grpc_address_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Listen(const ServerOptions& options,
                                                       const Clock* clock) {
  auto server = std::make_unique<GrpcServer>(options, clock);
  MILLRACE_RETURN_IF_ERROR(server->Start(options));
  return server;
}

}  // namespace millrace
