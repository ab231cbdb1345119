#include "tests/sim/replay.h"

#include <deque>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/token_bytes.h"
#include "scheduler/fingerprint.h"
#include "scheduler/scheduler.h"
#include "scheduler/trace.h"

namespace millrace::sim {
namespace {

using Json = nlohmann::json;

TimePoint Time(const Json& json) { return TimePoint(Duration(json.get<std::int64_t>())); }
std::string Bytes(const Json& json) { return absl::HexStringToBytes(json.get<std::string>()); }

SchedulerOptions ReadOptions(const Json& json) {
  return {.max_num_seqs = json.at("max_num_seqs"),
          .max_num_batched_tokens = json.at("max_num_batched_tokens"),
          .max_queue = json.at("max_queue"),
          .max_queue_tokens = json.at("max_queue_tokens"),
          .itl_target = Duration(json.at("itl_target").get<std::int64_t>()),
          .output_window_tokens = json.at("output_window_tokens"),
          .max_pause = Duration(json.at("max_pause").get<std::int64_t>()),
          .max_preemptions = json.at("max_preemptions")};
}

RunnerInfo ReadRunner(const Json& json) {
  RunnerInfo runner;
  runner.vocab = json.at("vocab");
  runner.max_context = json.at("max_context");
  runner.block_size = json.at("block_size");
  runner.num_kv_blocks = json.at("num_kv_blocks");
  runner.max_step_tokens = json.at("max_step_tokens");
  runner.max_step_seqs = json.at("max_step_seqs");
  runner.max_in_flight = json.at("max_in_flight");
  return runner;
}

Request ReadRequest(const Json& json) {
  Request request;
  request.id = RequestId(json.at("id").get<std::uint64_t>());
  request.prompt_tokens = json.at("prompt").get<std::vector<std::uint32_t>>();
  const Json& sampling = json.at("sampling");
  SamplerParams& sampler = request.sampling.sampler;
  sampler.temperature = sampling.at("temperature");
  sampler.repetition_penalty = sampling.at("repetition_penalty");
  sampler.presence_penalty = sampling.at("presence_penalty");
  sampler.frequency_penalty = sampling.at("frequency_penalty");
  const Json& stopping = json.at("stopping");
  request.stopping.max_new_tokens = stopping.at("max_new_tokens");
  request.stopping.min_new_tokens = stopping.at("min_new_tokens");
  request.stopping.end_token_ids = stopping.at("end_token_ids").get<std::vector<std::uint32_t>>();
  request.stopping.stop_token_ids = stopping.at("stop_token_ids").get<std::vector<std::uint32_t>>();
  std::vector<std::string> strings;
  for (const Json& text : stopping.at("stop_strings")) strings.push_back(Bytes(text));
  request.stopping.stop_matcher =
      StopMatcher(std::move(strings), stopping.at("include_stop_string"));
  request.skip_special_tokens = json.at("skip_special_tokens");
  request.cache_salt = Bytes(json.at("salt"));
  request.bypass_prefix_cache = json.at("bypass_prefix_cache");
  request.num_sequences = json.at("num_sequences");
  request.priority = json.at("priority");
  request.tenant = Bytes(json.at("tenant"));
  request.arrival = Time(json.at("arrival"));
  request.deadline = Time(json.at("deadline"));
  return request;
}

// All lines, each an array that begins with its kind.
absl::StatusOr<std::vector<Json>> ReadLines(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  std::vector<Json> lines;
  for (std::string text; std::getline(file, text);) {
    Json line = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    const bool ok = line.is_array() && !line.empty() && line[0].is_string();
    if (!ok && file.peek() == std::ifstream::traits_type::eof() && !lines.empty()) break;
    if (!ok) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", lines.size() + 1, ": no line of a record"));
    }
    lines.push_back(std::move(line));
  }
  if (lines.empty() || lines[0].size() != 3 || lines[0][0] != kTraceName ||
      lines[0][1] != kTraceVersion) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": no record of this version, as of serve --record"));
  }
  return lines;
}

// What the tokens that were sampled stand for; the others never matter.
std::shared_ptr<const TokenBytes> ReadTokens(const std::vector<Json>& lines, std::int32_t vocab) {
  std::vector<std::string> bytes(static_cast<std::size_t>(vocab));
  std::vector<bool> special(static_cast<std::size_t>(vocab), false);
  for (const Json& line : lines) {
    if (line[0] != "token") continue;
    bytes.at(line.at(1)) = Bytes(line.at(2));
    special.at(line.at(1)) = line.at(3);
  }
  return std::make_shared<TokenBytes>(std::move(bytes), std::move(special));
}

class Player {
 public:
  explicit Player(const std::vector<Json>& lines)
      : runner_(ReadRunner(lines[0].at(2))),
        scheduler_(ReadOptions(lines[0].at(2)), runner_, ReadTokens(lines, runner_.vocab)) {}

  // False at the first difference.
  bool Play(const Json& line) {
    const std::string kind = line[0];
    if (kind == "submit") {
      ++result_.requests;
      scheduler_.Submit(ReadRequest(line.at(2)), Time(line.at(1)));
    } else if (kind == "cancel") {
      scheduler_.Cancel(RequestId(line.at(1).get<std::uint64_t>()), Time(line.at(2)));
    } else if (kind == "credit") {
      scheduler_.Credit(RequestId(line.at(1).get<std::uint64_t>()), line.at(2));
    } else if (kind == "flush") {
      scheduler_.FlushPrefixCache();
    } else if (kind == "schedule") {
      Schedule(line);
    } else if (kind == "launched") {
      Launched(line);
    } else if (kind == "commit") {
      Commit(line);
    } else if (kind == "fail") {
      in_flight_.clear();
      scheduler_.FailAll(absl::Status(static_cast<absl::StatusCode>(line.at(2).get<int>()),
                                      line.at(3).get<std::string>()),
                         Time(line.at(1)));
    } else if (kind == "shutdown") {
      scheduler_.ShutDownAll(Time(line.at(1)));
    } else if (kind == "events") {
      Expect(line.at(1) == Fingerprint(TakeEvents()), "other events came out");
    } else {
      Expect(kind == "token", "no line of a record");
    }
    scheduler_.CheckInvariants();
    return result_.difference.empty();
  }

  const ReplayResult& result() const { return result_; }

 private:
  struct InFlight {
    StepPlan plan;
    StepTicket ticket;
  };

  void Expect(bool condition, const char* what) {
    if (!condition && result_.difference.empty()) result_.difference = what;
  }

  void Schedule(const Json& line) {
    next_ = scheduler_.Schedule(Time(line.at(1)));
    Expect(line.at(2) == (next_.empty() ? 0 : Fingerprint(next_)), "another plan was made");
    if (!next_.empty()) ++result_.plans;
  }

  void Launched(const Json& line) {
    const StepTicket ticket(line.at(1).get<std::uint64_t>());
    scheduler_.Launched(next_, ticket);
    in_flight_.push_back({std::move(next_), ticket});
    next_ = {};
  }

  void Commit(const Json& line) {
    Expect(!in_flight_.empty(), "a step ended that nobody launched");
    if (in_flight_.empty()) return;
    const InFlight step = std::move(in_flight_.front());
    in_flight_.pop_front();
    ForwardResult result{.ticket = step.ticket};
    for (const Json& token : line.at(3)) {
      const std::int64_t id = token;
      result.sampled.push_back(
          {.token = static_cast<std::uint32_t>(std::max<std::int64_t>(0, id)), .finite = id >= 0});
    }
    Expect(result.sampled.size() == step.plan.batch.logit_rows.size(), "another number of rows");
    if (!result_.difference.empty()) return;
    result_.tokens += result.sampled.size();
    scheduler_.Commit(step.plan, result, Duration(line.at(2).get<std::int64_t>()),
                      Time(line.at(1)));
  }

  std::vector<TokenEvent> TakeEvents() { return scheduler_.TakeEvents(); }

  const RunnerInfo runner_;
  Scheduler scheduler_;
  StepPlan next_;  // decided, not yet launched
  std::deque<InFlight> in_flight_;
  ReplayResult result_;
};

}  // namespace

absl::StatusOr<ReplayResult> Replay(const std::string& path) {
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<Json> lines, ReadLines(path));
  std::size_t at = 0;
  try {
    Player player(lines);
    for (at = 1; at < lines.size(); ++at) {
      if (player.Play(lines[at])) continue;
      ReplayResult result = player.result();
      result.difference = absl::StrCat(path, ":", at + 1, ": ", result.difference);
      return result;
    }
    return player.result();
  } catch (const std::exception& error) {  // of the JSON library: a field that is not there
    return absl::InvalidArgumentError(absl::StrCat(path, ":", at + 1, ": ", error.what()));
  }
}

}  // namespace millrace::sim
