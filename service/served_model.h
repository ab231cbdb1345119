// The model that a server answers for, as the service sees it: facts, tokenizer, chat template.
// Immutable once built and shared by all calls; thread-safe.
#ifndef MILLRACE_SERVICE_SERVED_MODEL_H_
#define MILLRACE_SERVICE_SERVED_MODEL_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "millrace/v1/generation.pb.h"
#include "runtime/tokenizer/chat_template.h"
#include "runtime/tokenizer/tokenizer.h"

namespace millrace {

struct ServedModel {
  v1::ModelInfo info;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const ChatTemplate> chat_template;  // null: why is in chat_status
  absl::Status chat_status;
};

}  // namespace millrace

#endif  // MILLRACE_SERVICE_SERVED_MODEL_H_
