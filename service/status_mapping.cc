#include "service/status_mapping.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/error_details.h"
#include "millrace/internal/rpc_status.pb.h"

namespace millrace {
namespace {

// Metadata of a call is limited to 8 KiB by most peers, and trailers are percent-encoded.
constexpr std::size_t kMaxMessageBytes = 2048;

constexpr std::array<std::string_view, 17> kCodeNames = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

std::string OneLine(absl::string_view message) {
  std::string line(message.substr(0, kMaxMessageBytes));
  // Not in the middle of a character.
  if (line.size() < message.size()) {
    while (!line.empty() && (static_cast<unsigned char>(line.back()) & 0xC0U) == 0x80U) {
      line.pop_back();
    }
    if (!line.empty() && static_cast<unsigned char>(line.back()) >= 0xC0U) line.pop_back();
    line += "...";
  }
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20U) c = ' ';
  }
  return line;
}

template <typename Message>
void AddDetail(const char* name, const Message& detail, internal::RpcStatus* status) {
  google::protobuf::Any* const any = status->add_details();
  any->set_type_url(std::string("type.googleapis.com/google.rpc.") + name);
  any->set_value(detail.SerializeAsString());
}

// google.rpc.Status with the reason, and when to come again if that is known.
std::string Details(const absl::Status& status, const grpc::Status& sent) {
  internal::RpcStatus out;
  out.set_code(static_cast<int>(sent.error_code()));
  out.set_message(sent.error_message());
  internal::ErrorInfo info;
  const std::string reason = Reason(status);
  info.set_reason(reason.empty() ? std::string(CodeName(sent.error_code())) : reason);
  info.set_domain("millrace");
  AddDetail("ErrorInfo", info, &out);
  if (const auto after = RetryAfter(status)) {
    internal::RetryInfo retry;
    const auto ns = after->count();
    retry.mutable_retry_delay()->set_seconds(ns / 1'000'000'000);
    retry.mutable_retry_delay()->set_nanos(static_cast<std::int32_t>(ns % 1'000'000'000));
    AddDetail("RetryInfo", retry, &out);
  }
  return out.SerializeAsString();
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const grpc::Status plain(static_cast<grpc::StatusCode>(status.code()), OneLine(status.message()));
  return grpc::Status(plain.error_code(), plain.error_message(), Details(status, plain));
}

std::string_view CodeName(grpc::StatusCode code) {
  const auto index = static_cast<std::size_t>(code);
  return index < kCodeNames.size() ? kCodeNames[index] : "UNKNOWN";
}

}  // namespace millrace
