// The simulator itself: the same seed gives the same episode.
#include <gtest/gtest.h>

#include <cstdint>
#include <set>

#include "tests/sim/simulation.h"

namespace millrace::sim {
namespace {

TEST(Simulation, GivesTheSameEpisodeForTheSameSeed) {
  std::set<std::uint64_t> fingerprints;
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    const EpisodeResult first = Simulation(DrawConfig(seed)).Run(UINT64_MAX);
    const EpisodeResult again = Simulation(DrawConfig(seed)).Run(UINT64_MAX);
    EXPECT_EQ(first.violation, "");
    EXPECT_EQ(first.fingerprint, again.fingerprint) << "seed " << seed;
    EXPECT_EQ(first.events, again.events);
    fingerprints.insert(first.fingerprint);
  }
  EXPECT_GT(fingerprints.size(), 45U) << "seeds differ";
}

}  // namespace
}  // namespace millrace::sim
