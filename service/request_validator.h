// From a message of the wire to an immutable, validated, tokenized Request: every range of the
// interface is checked here, and what is not built yet is refused by its field's name.
// Thread-safe (pure functions on immutable values).
#ifndef MILLRACE_SERVICE_REQUEST_VALIDATOR_H_
#define MILLRACE_SERVICE_REQUEST_VALIDATOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "millrace/v1/generation.pb.h"
#include "scheduler/request.h"
#include "service/served_model.h"

namespace millrace {

// NOT_FOUND when `name` is given and is not the served model's.
absl::Status CheckModelName(const std::string& name, const ServedModel& model);

// The request without its id. INVALID_ARGUMENT naming the field, NOT_FOUND for another model,
// UNIMPLEMENTED naming a field of a later version.
absl::StatusOr<Request> ValidateRequest(const v1::GenerateRequest& message,
                                        const ServedModel& model, TimePoint arrival,
                                        TimePoint deadline);

// A rendered chat with its tokens.
struct TokenizedChat {
  std::string text;
  std::vector<std::uint32_t> tokens;
};

// INVALID_ARGUMENT for a chat the template refuses; the template's own problem if it cannot be run.
absl::StatusOr<TokenizedChat> TokenizeChat(const v1::Chat& chat, const ServedModel& model,
                                           bool add_special);

// INVALID_ARGUMENT naming the first id that is no token, under the name of `field`.
absl::Status CheckTokenIds(const std::string& field, const std::vector<std::uint32_t>& ids,
                           std::uint32_t vocab_size);

}  // namespace millrace

#endif  // MILLRACE_SERVICE_REQUEST_VALIDATOR_H_
