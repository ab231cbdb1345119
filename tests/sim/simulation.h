// One episode: the scheduler, pool, prefix cache and admission that serve, under a simulated clock,
// device and callers. After every event the promises are checked (docs/reliability.md lists them).
// The same configuration gives the same episode.
//
// Single-threaded. A broken CHECK of the code under test aborts the process, as it does in service.
#ifndef MILLRACE_TESTS_SIM_SIMULATION_H_
#define MILLRACE_TESTS_SIM_SIMULATION_H_

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "scheduler/admission.h"
#include "scheduler/scheduler.h"
#include "tests/sim/client.h"
#include "tests/sim/hash_device.h"
#include "tests/sim/order_oracle.h"
#include "tests/sim/rng.h"
#include "tests/sim/sim_config.h"

namespace millrace::sim {

// Rare things that a long run must have met.
enum class Rare : std::uint8_t {
  kPreempted,
  kPreemptedInFlight,  // while a step computed it
  kResumedFromCache,   // a preempted sequence found some of what it had
  kHitOnRunning,       // a block of a sequence that still runs
  kHitOnFree,          // a block of one that has ended
  kHitForAllButOne,    // all of a prompt but its last block
  kEvicted,
  kCancelledInFlight,
  kCancelledWaiting,
  kStopToken,
  kExpiredWaiting,
  kExpiredRunning,
  kAborted,  // its reader was too slow
  kNotFinite,
  kQueueFull,
  kDeviceLostInFlight,
  kCutOffByDrain,
  kTwoInFlight,
  kDisplaced,  // by a tenant with less in the queue
  kRefusedForDeadline,
  kDoomed,       // ended before a deadline that it could not meet
  kAgedFirst,    // a lower class before a higher one
  kTenantFirst,  // a later arrival of a tenant with fewer tokens
  kSiblingHit,   // an answer began with blocks of another one to the same prompt
  kLateStep,
  kEndedWhileGone,     // before the cancel of a lost connection came
  kFlushedRunning,     // with sequences that hold known blocks
  kMostPreemptions,    // a sequence has come to the limit
  kDeviceOutOfMemory,  // with requests to answer
  kProbe,              // let in after a silence, by a lower price
};
inline constexpr std::size_t kNumRare = 30;
extern const std::array<const char*, kNumRare> kRareNames;

struct EpisodeResult {
  std::uint64_t events = 0;
  std::uint64_t steps = 0;        // of the scheduler: plans that were launched
  std::string violation;          // empty while all is well
  std::uint64_t fingerprint = 0;  // of all plans
  std::array<std::uint64_t, kNumRare> rare{};
};

class Simulation {
 public:
  explicit Simulation(const SimConfig& config);

  // At most `max_events` events.
  EpisodeResult Run(std::uint64_t max_events);

  // One event after the other, as a test wants them; each checks all promises.
  void Submit(Request request);
  void Launch();
  void Commit();
  void Cancel(RequestId id);
  void FailCommit();
  // All that is left runs to its end.
  const EpisodeResult& Finish();

  const EpisodeResult& result() const { return result_; }
  bool over() const { return over_; }
  bool live(RequestId id) const { return callers_.contains(id); }
  bool anything_live() const { return !callers_.empty(); }
  bool anything_in_flight() const { return !in_flight_.empty(); }

 private:
  using Key = std::pair<RequestId, std::uint32_t>;  // a request and an index

  struct InFlight {
    StepPlan plan;
    StepTicket ticket;
  };

  void Require(bool condition, const std::string& what);
  void Met(Rare rare) { ++result_.rare[static_cast<std::size_t>(rare)]; }

  Event DrawEvent();
  void Do(Event event);
  void AfterEvent();
  void Arrive();
  Request DrawRequest();
  void DrawTightDeadline(LoadSnapshot load, const QueueView& queue, Request* request);
  void TakeRequest(Request request);
  void LaunchStep();
  void CommitStep();
  void CancelAny();
  void CancelCaller(Caller* caller);
  void Disconnect();
  void CancelTheGone();
  void Flush();
  void Stall();
  void LoseDevice(const absl::Status& why);
  void CutOff();
  void RunToTheEnd();

  void CheckPlan(const StepPlan& plan);
  void CheckPlanned(const StepPlan& plan, std::size_t i);
  void CheckAdmission(Client* client, const StepPlan& plan, std::size_t i, std::int32_t begin);
  void CheckOrder(const Client& client);
  void CheckBegin(Client* client, std::int32_t begin);
  void CheckNobodyWaitsInVain();
  void NoteComputed(const StepPlan& plan);
  void TakeEvents();
  void TakeTokens(Client* client, const TokensEvent& event);
  void TakeFinish(const TokenEvent& event, const FinishedEvent& finished);
  void CheckDisplaced(const Request& request);
  void TakeFailure(const Caller& caller, const absl::Status& status);
  void TakeEnd(const TokenEvent& event);
  void CheckUsage(const Caller& caller, const RequestUsage& usage);
  void EndAnswer(const Key& key);
  // The request has come to its end. False if it had no answer left.
  bool EndCaller(RequestId id);
  void CreditReaders();
  bool InFlightHas(RequestId id) const;
  Caller* AnyCaller();
  Client* FindClient(RequestId id, std::uint32_t index);
  bool NeverAdmitted(RequestId id) const;

  const SimConfig config_;
  Rng rng_;
  HashDevice device_;
  Scheduler scheduler_;
  TimePoint now_;
  TimePoint last_step_{};
  std::map<RequestId, Caller> callers_;  // those without an end
  std::map<Key, Client> clients_;        // their answers without an end
  TenantOracle tenants_;
  const bool room_;          // requests wait for their turn, never for memory
  bool level_known_ = true;  // that tenants are lifted to while nobody waits
  const bool turns_alone_;   // requests wait for their turn, never for memory, and in one class
  std::deque<InFlight> in_flight_;
  // Prefixes that somebody computed and may be found: of salt and hash at the end of a block.
  std::unordered_set<std::uint64_t> known_prefixes_;
  std::uint64_t arrivals_ = 0;
  bool draining_ = false;
  std::int32_t flushes_ = 0;
  bool over_ = false;
  std::uint64_t doomed_ = 0;        // ended before their deadlines
  std::int64_t spoiled_ = 0;        // rows that may have been made not finite
  std::int64_t hits_seen_ = 0;      // positions that sequences began after
  std::int64_t hits_reported_ = 0;  // by plans
  EpisodeResult result_;
};

}  // namespace millrace::sim

#endif  // MILLRACE_TESTS_SIM_SIMULATION_H_
