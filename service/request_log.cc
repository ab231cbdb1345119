#include "service/request_log.h"

#include <span>

#include "base/sha256.h"
#include "service/status_mapping.h"

namespace millrace {
namespace {

// Of SHA-256: enough to tell 1 024 tenants apart, short enough to read.
constexpr std::size_t kTenantDigits = 12;

// The same for the same name everywhere, so that whoever knows a name finds its lines.
std::string TenantDigest(const std::string& tenant) {
  Sha256 sha;
  sha.Add(std::as_bytes(std::span(tenant)));
  return sha.Finish().substr(0, kTenantDigits);
}

}  // namespace

std::string_view JoinFinishReasons(std::string_view so_far, FinishReason next) {
  const std::string_view name = next == FinishReason::kStop ? "stop" : "length";
  return so_far.empty() || so_far == name ? name : "mixed";
}

std::vector<LogField> RequestFields(const RequestRecord& record) {
  std::vector<LogField> fields;
  constexpr std::size_t kMost = 16;
  fields.reserve(kMost);
  const auto add = [&fields](std::string_view name, auto value) {
    fields.emplace_back(name, std::move(value));
  };
  if (!record.request_id.empty()) add("request_id", record.request_id);
  add("method", std::string(record.method));
  add("code", std::string(CodeName(record.code)));
  if (!record.reason.empty()) add("reason", record.reason);
  if (record.trace) {
    add("trace_id", record.trace->trace_id);
    add("parent_span_id", record.trace->parent_id);
  }
  if (!record.tenant.empty()) add("tenant", TenantDigest(record.tenant));
  if (record.prompt_tokens) add("prompt_tokens", *record.prompt_tokens);
  if (record.usage) {
    const RequestUsage& usage = *record.usage;
    add("cached_tokens", usage.cached_tokens);
    add("generated_tokens", usage.completion_tokens);
    add("preemptions", usage.preemptions);
    add("queue_seconds", ToSeconds(usage.queue));
    // Arrival to the first token.
    if (usage.completion_tokens > 0) {
      add("time_to_first_token_seconds", ToSeconds(usage.queue + usage.prefill));
    }
  }
  add("duration_seconds", ToSeconds(record.duration));
  if (!record.finish_reason.empty()) add("finish_reason", std::string(record.finish_reason));
  return fields;
}

void LogRequest(LogLevel level, const RequestRecord& record) {
  if (LogEnabled(level)) LogFields(level, "request", RequestFields(record));
}

}  // namespace millrace
