// Plays every planted bug (plant_mutants.py) in a process of its own and says after how many events
// the simulation found it. Exit code 1 if one that stems from an issue, or more than one in twenty
// of all, is not found within a million events. The last line is the summary.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "tests/sim/mutant.h"
#include "tests/sim/simulation.h"

namespace millrace::sim {
namespace {

constexpr std::uint64_t kEvents = 1'000'000;
// Far more than a million events take: a bug that makes the scheduler go round in circles is found.
constexpr unsigned kSeconds = 60;

// Written by the child that plays a bug, also when it comes to a bad end.
struct Found {
  std::uint64_t events;
  char how[160];
};

[[noreturn]] void Play(int mutant, Found* found) {
  g_mutant = mutant;
  ::alarm(kSeconds);
  // What a CHECK says when it aborts belongs to nobody here.
  if (std::freopen("/dev/null", "w", stderr) == nullptr) std::_Exit(3);
  for (std::uint64_t seed = 1; found->events < kEvents; ++seed) {
    const EpisodeResult result = Simulation(DrawConfig(seed)).Run(UINT64_MAX);
    found->events += result.events;
    if (result.violation.empty()) continue;
    std::snprintf(found->how, sizeof(found->how), "%s", result.violation.c_str());
    std::_Exit(1);
  }
  std::_Exit(0);
}

// Whether the simulation found the bug.
bool RunOne(int mutant, Found* found) {
  *found = {};
  std::fflush(stdout);
  const pid_t child = ::fork();
  if (child < 0) {
    std::perror("fork");
    std::exit(3);
  }
  if (child == 0) Play(mutant, found);
  int status = 0;
  if (::waitpid(child, &status, 0) != child) return false;
  if (WIFSIGNALED(status)) {
    std::snprintf(found->how, sizeof(found->how), "%s", ::strsignal(WTERMSIG(status)));
    return true;
  }
  return WEXITSTATUS(status) != 0;
}

int RunAll() {
  auto* const found = static_cast<Found*>(
      ::mmap(nullptr, sizeof(Found), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  if (found == MAP_FAILED) {
    std::perror("mmap");
    return 3;
  }
  if (RunOne(0, found)) {
    std::printf("the copies without a bug break a promise: %s\nmutants: FAILED\n", found->how);
    return 1;
  }
  int all = 0;
  int issues = 0;
  int issues_found = 0;
  for (int mutant = 1; mutant <= kNumPlanted; ++mutant) {
    const Planted& planted = kPlanted[mutant - 1];
    const bool issue = std::string_view(planted.origin) != "own";
    const bool is_found = RunOne(mutant, found);
    all += is_found ? 1 : 0;
    issues += issue ? 1 : 0;
    issues_found += issue && is_found ? 1 : 0;
    std::printf("%2d %-9s %8llu steps  %s (%s): %s\n", mutant, is_found ? "found" : "NOT FOUND",
                static_cast<unsigned long long>(found->events), planted.name, planted.origin,
                found->how);
  }
  const bool ok = issues_found == issues && all * 20 >= kNumPlanted * 19;
  std::printf("mutants: %d of %d found, %d of %d of those that stem from issues: %s\n", all,
              kNumPlanted, issues_found, issues, ok ? "ok" : "FAILED");
  return ok ? 0 : 1;
}

}  // namespace
}  // namespace millrace::sim

int main(int argc, char** /*argv*/) {
  if (argc != 1) {
    std::fputs("usage: millrace_sim_mutants\n", stderr);
    return 2;
  }
  return millrace::sim::RunAll();
}
