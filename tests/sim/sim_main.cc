// Runs episodes of the simulation, one seed after the other, until so many events are done; a
// violated promise is shrunk and printed as a command to run it again. Exit code 1 for a violation
// or a rare state that was never met, 2 for bad usage. The last line is the summary.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "tests/sim/replay.h"
#include "tests/sim/simulation.h"

namespace millrace::sim {
namespace {

constexpr char kUsage[] =
    "usage: tools/sim [--steps N] [--seed S]          episodes from seed S on (1) until N events "
    "are done (1e7)\n"
    "       tools/sim --episode S [--events N] [--without KIND,...]   one episode, as far as told\n"
    "       tools/sim --replay FILE                   the record of a server (serve --record) "
    "again\n"
    "       tools/sim --mutants                       how many planted bugs are found\n"
    "A step is an event: an arrival, a cancel, a launch, a commit, ...; after each all promises "
    "are "
    "checked.\n";
// A run that is shorter may miss rare states by chance.
constexpr std::uint64_t kEventsForRareStates = 5'000'000;

struct Options {
  std::uint64_t steps = 10'000'000;
  std::uint64_t seed = 1;
  bool one = false;
  bool aborted = false;  // the episode, in a process before this one
  std::uint64_t events = UINT64_MAX;
  std::vector<Event> without;
  std::string replay;  // a file; "": none
};

bool ParseNumber(std::string_view text, std::uint64_t* out) {
  double value = 0;  // 1e7 is a number too
  if (!absl::SimpleAtod(std::string(text), &value) || value < 0 || value > 1e18) return false;
  *out = static_cast<std::uint64_t>(value);
  return true;
}

bool ParseWithout(std::string_view text, std::vector<Event>* out) {
  for (const auto name : absl::StrSplit(std::string(text), ',')) {
    const auto event = ParseEvent(std::string(name));
    if (!event) return false;
    out->push_back(*event);
  }
  return true;
}

std::string Names() {
  std::string out;
  for (const std::string_view name : kEventNames) {
    absl::StrAppend(&out, out.empty() ? "" : ",", std::string(name));
  }
  return out;
}

// What is wrong with the flags; empty if nothing is.
std::string Parse(int argc, char** argv, Options* options) {
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const bool number =
        flag == "--steps" || flag == "--seed" || flag == "--episode" || flag == "--events";
    if (!number && flag != "--without" && flag != "--replay" && flag != "--aborted") {
      return absl::StrCat(flag, ": no such flag");
    }
    if (i + 1 == argc) return absl::StrCat(flag, ": want a value");
    const std::string value = argv[++i];
    if (flag == "--replay") {
      options->replay = value;
      continue;
    }
    if (flag == "--without") {
      if (ParseWithout(value, &options->without)) continue;
      return absl::StrCat("--without ", value, ": want some of ", Names());
    }
    std::uint64_t* const out = flag == "--steps"    ? &options->steps
                               : flag == "--events" ? &options->events
                                                    : &options->seed;
    if (!ParseNumber(value, out)) return absl::StrCat(flag, " ", value, ": want a number, as 1e7");
    if (flag == "--episode") options->one = true;
    if (flag == "--aborted") options->aborted = true;
  }
  return {};
}

EpisodeResult RunEpisode(std::uint64_t seed, std::uint64_t events,
                         const std::vector<Event>& without) {
  SimConfig config = DrawConfig(seed);
  for (const Event event : without) config.weight[static_cast<std::size_t>(event)] = 0;
  return Simulation(config).Run(events);
}

std::string Command(std::uint64_t seed, std::uint64_t events, const std::vector<Event>& without) {
  std::string command = absl::StrCat("tools/sim --episode ", seed, " --events ", events);
  std::vector<std::string> names;
  for (const Event event : without) {
    names.emplace_back(kEventNames[static_cast<std::size_t>(event)]);
  }
  if (!names.empty()) absl::StrAppend(&command, " --without ", absl::StrJoin(names, ","));
  return command;
}

// Kinds of events that the violation does not need are left out.
void Shrink(std::uint64_t seed, EpisodeResult failed) {
  std::vector<Event> without;
  for (std::size_t kind = 0; kind < kNumEvents; ++kind) {
    std::vector<Event> fewer = without;
    fewer.push_back(static_cast<Event>(kind));
    EpisodeResult result = RunEpisode(seed, UINT64_MAX, fewer);
    if (result.violation.empty() || result.events > failed.events) continue;
    failed = std::move(result);
    without = std::move(fewer);
  }
  std::printf("violated after %llu events: %s\nagain: %s\n",
              static_cast<unsigned long long>(failed.events), failed.violation.c_str(),
              Command(seed, failed.events, without).c_str());
}

// A CHECK of the code under test aborts the process. The handler may do little, so it begins the
// program again, to look for what the abort needs: every try is a process of its own.
char g_aborted_seed[24];
void OnAbort(int) {
  char program[] = "/proc/self/exe";
  char flag[] = "--aborted";
  char* const arguments[] = {program, flag, g_aborted_seed, nullptr};
  ::execv(program, arguments);
  std::_Exit(3);
}
void NoteSeed(std::uint64_t seed) {
  std::snprintf(g_aborted_seed, sizeof(g_aborted_seed), "%llu",
                static_cast<unsigned long long>(seed));
}

// Whether the episode aborts, tried in a child.
bool Aborts(std::uint64_t seed, std::uint64_t events, const std::vector<Event>& without) {
  std::fflush(stdout);
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGABRT, SIG_DFL);
    // What the CHECK says was said before.
    if (std::freopen("/dev/null", "w", stderr) == nullptr) std::_Exit(3);
    RunEpisode(seed, events, without);
    std::_Exit(0);
  }
  int status = 0;
  return child > 0 && ::waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
         WTERMSIG(status) == SIGABRT;
}

// Leaves out kinds of events, then events from the end, as long as it still aborts.
int ShrinkAbort(std::uint64_t seed) {
  std::vector<Event> without;
  for (std::size_t kind = 0; kind < kNumEvents; ++kind) {
    std::vector<Event> fewer = without;
    fewer.push_back(static_cast<Event>(kind));
    if (Aborts(seed, UINT64_MAX, fewer)) without = std::move(fewer);
  }
  std::uint64_t low = 0;  // does not abort
  std::uint64_t high = 1;
  while (!Aborts(seed, high, without) && high < (1ULL << 40U)) high *= 2;
  while (high - low > 1) {
    const std::uint64_t middle = low + (high - low) / 2;
    (Aborts(seed, middle, without) ? high : low) = middle;
  }
  std::printf("aborted after %llu events\nagain: %s\nsim: FAILED\n",
              static_cast<unsigned long long>(high), Command(seed, high, without).c_str());
  return 1;
}

bool ReportRareStates(const std::array<std::uint64_t, kNumRare>& rare) {
  bool all = true;
  for (std::size_t i = 0; i < kNumRare; ++i) {
    std::printf("%12llu  %s\n", static_cast<unsigned long long>(rare[i]), kRareNames[i]);
    all = all && rare[i] > 0;
  }
  return all;
}

int RunMany(const Options& options) {
  const auto begin = std::chrono::steady_clock::now();
  std::array<std::uint64_t, kNumRare> rare{};
  std::uint64_t events = 0;
  std::uint64_t plans = 0;
  std::uint64_t seed = options.seed;
  const bool bar = ::isatty(STDERR_FILENO) != 0;
  for (; events < options.steps; ++seed) {
    NoteSeed(seed);
    const EpisodeResult result = RunEpisode(seed, UINT64_MAX, options.without);
    if (!result.violation.empty()) {
      Shrink(seed, result);
      std::puts("sim: FAILED");
      return 1;
    }
    events += result.events;
    plans += result.steps;
    for (std::size_t i = 0; i < kNumRare; ++i) rare[i] += result.rare[i];
    if (bar && seed % 64 == 0) {
      std::fprintf(stderr, "\r%llu of %llu steps", static_cast<unsigned long long>(events),
                   static_cast<unsigned long long>(options.steps));
    }
  }
  if (bar) std::fputs("\r\033[K", stderr);
  const bool all = ReportRareStates(rare);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  const bool ok = all || events < kEventsForRareStates;
  std::printf(
      "sim: %llu steps, %llu of them plans, in %llu episodes from seed %llu, %.0f a second: %s\n",
      static_cast<unsigned long long>(events), static_cast<unsigned long long>(plans),
      static_cast<unsigned long long>(seed - options.seed),
      static_cast<unsigned long long>(options.seed), static_cast<double>(events) / took.count(),
      ok ? "no promise was broken" : "FAILED, a rare state was never met");
  return ok ? 0 : 1;
}

int RunReplay(const std::string& path) {
  const absl::StatusOr<ReplayResult> result = Replay(path);
  if (!result.ok()) {
    std::fprintf(stderr, "sim: %s\n", std::string(result.status().message()).c_str());
    return absl::IsNotFound(result.status()) ? 2 : 1;
  }
  if (!result->difference.empty()) std::printf("%s\n", result->difference.c_str());
  std::printf("sim: replayed %llu requests, %llu plans, %llu tokens: %s\n",
              static_cast<unsigned long long>(result->requests),
              static_cast<unsigned long long>(result->plans),
              static_cast<unsigned long long>(result->tokens),
              result->difference.empty() ? "the same actions" : "FAILED");
  return result->difference.empty() ? 0 : 1;
}

int RunOne(const Options& options) {
  NoteSeed(options.seed);
  const EpisodeResult result = RunEpisode(options.seed, options.events, options.without);
  if (!result.violation.empty()) {
    std::printf("violated after %llu events: %s\nsim: FAILED\n",
                static_cast<unsigned long long>(result.events), result.violation.c_str());
    return 1;
  }
  std::printf(
      "sim: episode %llu, %llu steps, %llu of them plans, fingerprint %016llx: no promise "
      "was broken\n",
      static_cast<unsigned long long>(options.seed), static_cast<unsigned long long>(result.events),
      static_cast<unsigned long long>(result.steps),
      static_cast<unsigned long long>(result.fingerprint));
  return 0;
}

}  // namespace
}  // namespace millrace::sim

int main(int argc, char** argv) {
  millrace::sim::Options options;
  if (argc == 2 && std::string_view(argv[1]) == "--help") {
    std::fputs(millrace::sim::kUsage, stdout);
    return 0;
  }
  if (const std::string wrong = millrace::sim::Parse(argc, argv, &options); !wrong.empty()) {
    std::fprintf(stderr, "sim: %s; see tools/sim --help\n", wrong.c_str());
    return 2;
  }
  std::signal(SIGABRT, millrace::sim::OnAbort);
  if (options.aborted) return millrace::sim::ShrinkAbort(options.seed);
  if (!options.replay.empty()) return millrace::sim::RunReplay(options.replay);
  return options.one ? millrace::sim::RunOne(options) : millrace::sim::RunMany(options);
}
