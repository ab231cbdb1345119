// absl::Status to gRPC, in one place. The codes of both are the same by definition; what differs is
// the text that leaves the process. Thread-safe.
#ifndef MILLRACE_SERVICE_STATUS_MAPPING_H_
#define MILLRACE_SERVICE_STATUS_MAPPING_H_

#include <grpcpp/support/status.h>

#include <string_view>

#include "absl/status/status.h"

namespace millrace {

// The message is cut to what fits a trailer: one line of at most 2 KiB.
grpc::Status ToGrpcStatus(const absl::Status& status);

// "OK", "INVALID_ARGUMENT"...: the label `code` of metrics.
std::string_view CodeName(grpc::StatusCode code);

}  // namespace millrace

#endif  // MILLRACE_SERVICE_STATUS_MAPPING_H_
