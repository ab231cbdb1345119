// From the values of the engine to messages of the wire. Thread-safe (pure functions).
#ifndef MILLRACE_SERVICE_RESPONSE_BUILDER_H_
#define MILLRACE_SERVICE_RESPONSE_BUILDER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "millrace/v1/generation.pb.h"
#include "scheduler/engine.h"
#include "service/token_sink.h"

namespace millrace {

// What comes before the first token, split so that no message passes 1 MiB; each repeats the number
// of tokens.
std::vector<v1::GenerateResponse> PromptMessages(const std::string& request_id,
                                                 const std::vector<std::uint32_t>& tokens,
                                                 bool send_ids);

// Adds a delta to a message of the same index.
void AppendDelta(const StreamDelta& delta, v1::GenerateResponse* message);

v1::Load LoadMessage(const LoadSnapshot& load, v1::ServerState state);

}  // namespace millrace

#endif  // MILLRACE_SERVICE_RESPONSE_BUILDER_H_
