#include "service/generation_service.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error_details.h"
#include "base/status.h"
#include "base/utf8.h"
#include "service/generate_reactor.h"
#include "service/request_validator.h"
#include "service/response_builder.h"
#include "service/status_mapping.h"

namespace millrace {
namespace {

constexpr std::size_t kMaxRequestIdBytes = 256;
constexpr std::size_t kMaxTenantBytes = 256;
// Of the Gateway API inference extension: whose share a call is served from.
constexpr char kFairnessHeader[] = "x-gateway-inference-fairness-id";

// 128 random bits in hexadecimal.
std::string MakeRequestId() {
  std::random_device device;
  std::string id;
  for (int i = 0; i < 4; ++i) {
    absl::StrAppend(&id, absl::Hex(device(), absl::kZeroPad8));
  }
  return id;
}

// The call's deadline on the monotonic clock.
TimePoint DeadlineOf(const grpc::CallbackServerContext& context, TimePoint now) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return kNoDeadline;
  const auto left = deadline - std::chrono::system_clock::now();
  // Far beyond any generation, and far from the end of the clock.
  constexpr auto kForever = std::chrono::hours(24 * 365);
  if (left > kForever) return kNoDeadline;
  return now + std::chrono::duration_cast<Duration>(left);
}

// Counts a unary call and ends it.
template <typename Work>
grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, RequestLedger* ledger,
                                 Method method, Work work) {
  ledger->Received(method);
  const grpc::Status status = ToGrpcStatus(work());
  ledger->Answered(method, status.error_code());
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

// A streaming call that ends at once.
class RefusingReactor final : public grpc::ServerWriteReactor<v1::GenerateResponse> {
 public:
  explicit RefusingReactor(const grpc::Status& status) { Finish(status); }

 private:
  void OnDone() override { delete this; }
};

}  // namespace

void GenerationService::Serve(std::shared_ptr<const ServedModel> model, Engine* engine) {
  MutexLock lock(&mutex_);
  serving_ = {std::move(model), engine};
  if (state_ == v1::SERVER_STATE_LOADING) state_ = v1::SERVER_STATE_SERVING;
}

void GenerationService::StopAccepting() {
  MutexLock lock(&mutex_);
  state_ = v1::SERVER_STATE_DRAINING;
}

v1::ServerState GenerationService::state() const {
  MutexLock lock(&mutex_);
  return state_;
}

absl::StatusOr<GenerationService::Serving> GenerationService::Current() const {
  MutexLock lock(&mutex_);
  if (serving_.engine == nullptr) return absl::UnavailableError("the model is still loading");
  return serving_;
}

grpc::ServerWriteReactor<v1::GenerateResponse>* GenerationService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  const std::shared_ptr<GenerateReactor> reactor =
      GenerateReactor::Create(context, {.metrics = &metrics_, .load = &load_, .clock = &clock_});
  const absl::Status status = Submit(*request, context, reactor);
  if (!status.ok()) reactor->Refuse(status);
  return reactor.get();
}

absl::Status GenerationService::Submit(const v1::GenerateRequest& message,
                                       grpc::CallbackServerContext* context,
                                       const std::shared_ptr<GenerateReactor>& reactor) {
  const TimePoint arrival = reactor->arrival();
  if (message.request_id().size() <= kMaxRequestIdBytes) reactor->SetName(message.request_id());
  if (state() == v1::SERVER_STATE_DRAINING) {
    metrics_.CountShed("draining");
    return absl::UnavailableError("the server is draining");
  }
  MILLRACE_ASSIGN_OR_RETURN(const Serving serving, Current());
  if (message.request_id().size() > kMaxRequestIdBytes) {
    return absl::InvalidArgumentError(absl::StrCat("request_id has ", message.request_id().size(),
                                                   " bytes; want at most ", kMaxRequestIdBytes));
  }
  MILLRACE_ASSIGN_OR_RETURN(Request request, ValidateRequest(message, *serving.model, arrival,
                                                             DeadlineOf(*context, arrival)));
  MILLRACE_RETURN_IF_ERROR(ReadTrust(*context, &request));
  const std::string name = message.request_id().empty() ? MakeRequestId() : message.request_id();
  const std::optional<RequestId> id = live_.Add({name, arrival, reactor});
  if (!id) {
    return absl::AlreadyExistsError(
        absl::StrCat("request_id '", name, "' belongs to a request that still runs"));
  }
  reactor->SetRequest(name, request, message.output().prompt_token_ids());
  request.id = *id;
  const std::uint64_t prompt_tokens = request.prompt_tokens.size();
  const absl::Status status = serving.engine->Submit(std::move(request));
  if (!status.ok()) {
    live_.Remove(*id);
    if (absl::IsResourceExhausted(status)) {
      metrics_.CountShed(Reason(status) == kDeadlineUnreachable ? "deadline" : "queue_full");
    }
    return status;
  }
  metrics_.CountAccepted(prompt_tokens);
  reactor->Begin(serving.engine, *id);
  return absl::OkStatus();
}

absl::Status GenerationService::ReadTrust(const grpc::CallbackServerContext& context,
                                          Request* request) const {
  if (!gateways_.Trusts(context.peer())) {
    request->priority = std::min(request->priority, 0);
    return absl::OkStatus();
  }
  const auto& metadata = context.client_metadata();
  const auto header = metadata.find(kFairnessHeader);
  if (header == metadata.end()) return absl::OkStatus();
  // A gateway that adds its own leaves the client's beside it.
  if (metadata.count(kFairnessHeader) > 1) {
    return absl::InvalidArgumentError(absl::StrCat(kFairnessHeader, " is there more than once"));
  }
  if (header->second.size() > kMaxTenantBytes) {
    return absl::InvalidArgumentError(absl::StrCat(kFairnessHeader, " has ", header->second.size(),
                                                   " bytes; want at most ", kMaxTenantBytes));
  }
  request->tenant = std::string(header->second.data(), header->second.size());
  return absl::OkStatus();
}

grpc::ServerWriteReactor<v1::GenerateResponse>* GenerationService::Resume(
    grpc::CallbackServerContext*, const v1::ResumeRequest*) {
  metrics_.ledger().Received(Method::kResume);
  metrics_.ledger().Answered(Method::kResume, grpc::StatusCode::UNIMPLEMENTED);
  return new RefusingReactor(
      grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "Resume: not built yet in this version"));
}

grpc::ServerUnaryReactor* GenerationService::Tokenize(grpc::CallbackServerContext* context,
                                                      const v1::TokenizeRequest* request,
                                                      v1::TokenizeResponse* response) {
  return Answer(context, &metrics_.ledger(), Method::kTokenize,
                [&] { return DoTokenize(*request, response); });
}

absl::Status GenerationService::DoTokenize(const v1::TokenizeRequest& request,
                                           v1::TokenizeResponse* response) const {
  MILLRACE_ASSIGN_OR_RETURN(const Serving serving, Current());
  MILLRACE_RETURN_IF_ERROR(CheckModelName(request.model(), *serving.model));
  std::vector<std::uint32_t> tokens;
  switch (request.input_case()) {
    case v1::TokenizeRequest::kText:
      tokens = serving.model->tokenizer->Encode(
          request.text(), {.parse_special = !request.has_parse_special() || request.parse_special(),
                           .add_special = !request.has_add_special() || request.add_special()});
      break;
    case v1::TokenizeRequest::kChat: {
      MILLRACE_ASSIGN_OR_RETURN(
          TokenizedChat chat, TokenizeChat(request.chat(), *serving.model, request.add_special()));
      tokens = std::move(chat.tokens);
      response->set_text(ReplaceInvalidUtf8(chat.text));  // a template may hold anything
      break;
    }
    case v1::TokenizeRequest::INPUT_NOT_SET:
      return absl::InvalidArgumentError("input: none is set; want text or chat");
  }
  response->mutable_token_ids()->Add(tokens.begin(), tokens.end());
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* GenerationService::Detokenize(grpc::CallbackServerContext* context,
                                                        const v1::DetokenizeRequest* request,
                                                        v1::DetokenizeResponse* response) {
  return Answer(context, &metrics_.ledger(), Method::kDetokenize,
                [&] { return DoDetokenize(*request, response); });
}

absl::Status GenerationService::DoDetokenize(const v1::DetokenizeRequest& request,
                                             v1::DetokenizeResponse* response) const {
  MILLRACE_ASSIGN_OR_RETURN(const Serving serving, Current());
  MILLRACE_RETURN_IF_ERROR(CheckModelName(request.model(), *serving.model));
  const std::vector<std::uint32_t> ids(request.token_ids().begin(), request.token_ids().end());
  MILLRACE_RETURN_IF_ERROR(CheckTokenIds("token_ids", ids, serving.model->tokenizer->vocab_size()));
  const bool skip = !request.has_skip_special_tokens() || request.skip_special_tokens();
  MILLRACE_ASSIGN_OR_RETURN(std::string text, serving.model->tokenizer->Decode(ids, skip));
  response->set_text(std::move(text));
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* GenerationService::GetModelInfo(grpc::CallbackServerContext* context,
                                                          const v1::GetModelInfoRequest* request,
                                                          v1::ModelInfo* response) {
  return Answer(context, &metrics_.ledger(), Method::kGetModelInfo,
                [&] { return DoGetModelInfo(*request, response); });
}

absl::Status GenerationService::DoGetModelInfo(const v1::GetModelInfoRequest& request,
                                               v1::ModelInfo* response) const {
  MILLRACE_ASSIGN_OR_RETURN(const Serving serving, Current());
  MILLRACE_RETURN_IF_ERROR(CheckModelName(request.model(), *serving.model));
  *response = serving.model->info;
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* GenerationService::GetLoad(grpc::CallbackServerContext* context,
                                                     const v1::GetLoadRequest*,
                                                     v1::Load* response) {
  return Answer(context, &metrics_.ledger(), Method::kGetLoad, [&] {
    const absl::StatusOr<Serving> serving = Current();
    const LoadSnapshot load = serving.ok() ? serving->engine->snapshot() : LoadSnapshot{};
    *response = LoadMessage(load, state());
    return absl::OkStatus();
  });
}

}  // namespace millrace
