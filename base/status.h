// Status helpers: every fallible path returns absl::Status or absl::StatusOr, and these two macros
// are the only way errors travel upwards. The mapping to gRPC is in service/status_mapping.h.
#ifndef MILLRACE_BASE_STATUS_H_
#define MILLRACE_BASE_STATUS_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#define MILLRACE_STATUS_CONCAT_INNER(a, b) a##b
#define MILLRACE_STATUS_CONCAT(a, b) MILLRACE_STATUS_CONCAT_INNER(a, b)

// Returns the status of `expr` from the enclosing function unless it is OK.
#define MILLRACE_RETURN_IF_ERROR(expr)                                  \
  do {                                                                  \
    if (absl::Status millrace_status = (expr); !millrace_status.ok()) { \
      return millrace_status;                                           \
    }                                                                   \
  } while (false)

// Assigns the value of the StatusOr `expr` to `lhs` (which may declare a variable), or returns its
// status from the enclosing function.
#define MILLRACE_ASSIGN_OR_RETURN(lhs, expr) \
  MILLRACE_ASSIGN_OR_RETURN_INNER(MILLRACE_STATUS_CONCAT(millrace_statusor_, __LINE__), lhs, expr)
#define MILLRACE_ASSIGN_OR_RETURN_INNER(var, lhs, expr) \
  auto var = (expr);                                    \
  if (!var.ok()) return std::move(var).status();        \
  lhs = std::move(var).value()

namespace millrace {

// `status` with "CONTEXT: " in front of its message; OK stays OK.
inline absl::Status WithContext(const std::string& context, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(context, ": ", status.message()));
}

}  // namespace millrace

#endif  // MILLRACE_BASE_STATUS_H_
