// Where the token pump delivers the output of one request: a protocol's stream. Values go in, text
// is whole UTF-8 already, so every wire protocol does the same with it.
#ifndef MILLRACE_SERVICE_TOKEN_SINK_H_
#define MILLRACE_SERVICE_TOKEN_SINK_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/sampling.h"
#include "scheduler/token_event.h"

namespace millrace {

struct StreamDelta {
  std::uint32_t index = 0;
  std::string text;  // UTF-8; may lag behind the tokens
  std::vector<SampledToken> tokens;
  // The end of an index that ended well, with what it used.
  std::optional<FinishedEvent> finish;
  // The end of the stream; OK after the last finish.
  std::optional<absl::Status> end;
  // What the request used; with an `end`.
  std::optional<RequestUsage> usage;
};

// Thread-safe: the pump delivers while the protocol's own threads write.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  // Never blocks. Nothing follows a delta with an `end`.
  virtual void Deliver(StreamDelta delta) = 0;
};

}  // namespace millrace

#endif  // MILLRACE_SERVICE_TOKEN_SINK_H_
