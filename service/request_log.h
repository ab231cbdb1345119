// The line of log that a request leaves when it has ended. It says how the request went, and
// nothing of what was asked or answered: no text, no token, no message of an error (which may quote
// the prompt), and of a tenant only a digest. Thread-safe (pure functions on values).
#ifndef MILLRACE_SERVICE_REQUEST_LOG_H_
#define MILLRACE_SERVICE_REQUEST_LOG_H_

#include <grpcpp/support/status.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/token_event.h"
#include "service/trace_context.h"

namespace millrace {

// What is known of a request when it ends.
struct RequestRecord {
  std::string_view method;  // a constant
  grpc::StatusCode code = grpc::StatusCode::OK;
  std::string reason;      // of ErrorInfo; "": the code says it all
  std::string request_id;  // "": refused before it had one
  std::string tenant;      // as the gateway named it; "": none
  std::optional<TraceContext> trace;
  std::optional<std::uint32_t> prompt_tokens;  // nullopt: refused before they were counted
  std::optional<RequestUsage> usage;           // nullopt: the engine never took it
  std::string_view finish_reason;              // stop, length, mixed; "": did not finish
  Duration duration{};                         // arrival to the end
};

// "mixed" once the answers of a request ended for different reasons.
std::string_view JoinFinishReasons(std::string_view so_far, FinishReason next);

// The fields that are known, in the order of docs/operations.md.
std::vector<LogField> RequestFields(const RequestRecord& record);

// Writes the line, if `level` is on.
void LogRequest(LogLevel level, const RequestRecord& record);

}  // namespace millrace

#endif  // MILLRACE_SERVICE_REQUEST_LOG_H_
