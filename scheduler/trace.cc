#include "scheduler/trace.h"

#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "scheduler/fingerprint.h"

namespace millrace {
namespace {

using Json = nlohmann::ordered_json;

std::int64_t Nanoseconds(TimePoint at) { return at.time_since_epoch().count(); }

// A message of the library or the device need not be UTF-8.
std::string Line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json ToJson(const SchedulerOptions& options, const RunnerInfo& runner) {
  return {{"max_num_seqs", options.max_num_seqs},
          {"max_num_batched_tokens", options.max_num_batched_tokens},
          {"max_queue", options.max_queue},
          {"max_queue_tokens", options.max_queue_tokens},
          {"itl_target", options.itl_target.count()},
          {"output_window_tokens", options.output_window_tokens},
          {"max_pause", options.max_pause.count()},
          {"max_preemptions", options.max_preemptions},
          {"vocab", runner.vocab},
          {"max_context", runner.max_context},
          {"block_size", runner.block_size},
          {"num_kv_blocks", runner.num_kv_blocks},
          {"max_step_tokens", runner.max_step_tokens},
          {"max_step_seqs", runner.max_step_seqs},
          {"max_in_flight", runner.max_in_flight}};
}

Json ToJson(const SamplingParams& params) {
  const SamplerParams& s = params.sampler;
  return {{"temperature", s.temperature},
          {"top_k", s.top_k},
          {"top_p", s.top_p},
          {"min_p", s.min_p},
          {"repetition_penalty", s.repetition_penalty},
          {"presence_penalty", s.presence_penalty},
          {"frequency_penalty", s.frequency_penalty},
          {"seed", s.seed},
          {"logit_bias", params.logit_bias},
          {"allowed", params.allowed_token_ids},
          {"num_logprobs", params.num_logprobs}};
}

Json ToJson(const StoppingParams& params) {
  Json strings = Json::array();
  for (const std::string& text : params.stop_matcher.stop_strings()) strings.push_back(ToHex(text));
  return {{"max_new_tokens", params.max_new_tokens},
          {"min_new_tokens", params.min_new_tokens},
          {"end_token_ids", params.end_token_ids},
          {"stop_token_ids", params.stop_token_ids},
          {"stop_strings", std::move(strings)},
          {"include_stop_string", params.stop_matcher.include_stop_string()}};
}

Json ToJson(const Request& request) {
  return {{"id", request.id.value()},
          {"prompt", request.prompt_tokens},
          {"sampling", ToJson(request.sampling)},
          {"stopping", ToJson(request.stopping)},
          {"skip_special_tokens", request.skip_special_tokens},
          {"salt", ToHex(request.cache_salt)},
          {"bypass_prefix_cache", request.bypass_prefix_cache},
          {"num_sequences", request.num_sequences},
          {"priority", request.priority},
          {"tenant", ToHex(request.tenant)},
          {"arrival", Nanoseconds(request.arrival)},
          {"deadline", Nanoseconds(request.deadline)}};
}

}  // namespace

std::string ToHex(std::string_view bytes) {
  return absl::BytesToHexString(absl::string_view(bytes.data(), bytes.size()));
}

absl::StatusOr<std::unique_ptr<TraceWriter>> TraceWriter::Create(
    const std::string& path, const SchedulerOptions& options, const RunnerInfo& runner,
    std::shared_ptr<const TokenBytes> token_bytes) {
  std::unique_ptr<TraceWriter> writer(new TraceWriter(path, std::move(token_bytes)));
  writer->Write(Line({kTraceName, kTraceVersion, ToJson(options, runner)}));
  if (!writer->file_)
    return absl::UnavailableError(absl::StrCat("--record ", path, ": cannot be written"));
  return writer;
}

void TraceWriter::Write(const std::string& line) {
  if (!file_) return;
  file_ << line << '\n';
  file_.flush();  // a process that is killed leaves whole lines
  if (!file_)
    Log(LogLevel::kWarning, "the record ends here: it cannot be written", {{"file", path_}});
}

void TraceWriter::Submit(const Request& request, TimePoint now) {
  Write(Line({"submit", Nanoseconds(now), ToJson(request)}));
}

void TraceWriter::Cancel(RequestId id, TimePoint now) {
  Write(Line({"cancel", id.value(), Nanoseconds(now)}));
}

void TraceWriter::Credit(RequestId id, std::uint64_t tokens) {
  Write(Line({"credit", id.value(), tokens}));
}

void TraceWriter::Flush() { Write(Line(Json::array({"flush"}))); }

void TraceWriter::Schedule(TimePoint now, const StepPlan& plan) {
  Write(Line({"schedule", Nanoseconds(now), plan.empty() ? 0 : Fingerprint(plan)}));
}

void TraceWriter::Launched(StepTicket ticket) { Write(Line({"launched", ticket.value()})); }

void TraceWriter::Commit(const ForwardResult& result, Duration duration, TimePoint now) {
  Json tokens = Json::array();
  for (const SampledToken& sampled : result.sampled) {
    tokens.push_back(sampled.finite ? std::int64_t{sampled.token} : -1);
    if (!sampled.finite || !known_tokens_.insert(sampled.token).second) continue;
    Write(Line({"token", sampled.token, ToHex(token_bytes_->bytes(sampled.token)),
                token_bytes_->is_special(sampled.token)}));
  }
  Write(Line({"commit", Nanoseconds(now), duration.count(), std::move(tokens)}));
}

void TraceWriter::Fail(const absl::Status& why, TimePoint now) {
  Write(Line({"fail", Nanoseconds(now), static_cast<int>(why.code()), std::string(why.message())}));
}

void TraceWriter::ShutDown(TimePoint now) { Write(Line({"shutdown", Nanoseconds(now)})); }

void TraceWriter::Events(const std::vector<TokenEvent>& events) {
  if (!events.empty()) Write(Line({"events", Fingerprint(events)}));
}

}  // namespace millrace
