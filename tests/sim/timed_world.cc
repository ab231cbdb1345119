#include "tests/sim/timed_world.h"

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/check.h"
#include "base/token_bytes.h"

namespace millrace::sim {
namespace {

constexpr std::int32_t kVocab = 97;

std::shared_ptr<const TokenBytes> Bytes() {
  return std::make_shared<TokenBytes>(std::vector<std::string>(kVocab, "x"),
                                      std::vector<bool>(kVocab, false));
}

}  // namespace

TimedWorld::TimedWorld(const StepTimes& times, Duration itl_target, std::int32_t kv_blocks)
    : times_(times),
      options_{.max_num_seqs = 64,
               .max_num_batched_tokens = 2048,
               .max_queue_tokens = 1 << 30,
               .itl_target = itl_target,
               .output_window_tokens = 1 << 30},
      runner_{.vocab = kVocab,
              .max_context = 100'000,
              .block_size = 32,
              .num_kv_blocks = kv_blocks,
              .max_step_tokens = 2048,
              .max_step_seqs = 64,
              .max_in_flight = 1},
      device_(runner_),
      scheduler_(options_, runner_, Bytes()) {}

Request TimedWorld::MakeRequest(std::int32_t prompt, std::uint32_t output) {
  Request request;
  request.id = RequestId(++submitted_);
  for (std::int32_t i = 0; i < prompt; ++i) request.prompt_tokens.push_back(rng_.Below(kVocab));
  request.stopping.max_new_tokens = output;
  request.arrival = now_;
  return request;
}

RequestId TimedWorld::Submit(Request request) {
  const RequestId id = request.id;
  scheduler_.Submit(std::move(request), now_);
  return id;
}

StepPlan TimedWorld::Step() {
  StepPlan plan = scheduler_.Schedule(now_);
  if (plan.empty()) return plan;
  const auto ticket = device_.Launch(plan.batch);
  MILLRACE_CHECK(ticket.ok(), "this device is never lost");
  scheduler_.Launched(plan, *ticket);
  const Duration exact = times_.step + plan.decode_tokens * times_.decode_token +
                         plan.prefill_tokens * times_.prefill_token;
  const Duration took = exact * rng_.Between(85, 115) / 100;
  now_ += took;
  scheduler_.Commit(plan, *device_.Await(*ticket), took, now_);
  MILLRACE_CHECK(device_.violation().empty(), "steps are what a device can run");
  for (const TokenEvent& event : scheduler_.TakeEvents()) {
    if (std::holds_alternative<TokensEvent>(event.what)) OnTokens(event.id);
    if (const auto* finished = std::get_if<FinishedEvent>(&event.what)) {
      OnFinished(event.id, finished->usage);
    }
  }
  return plan;
}

}  // namespace millrace::sim
