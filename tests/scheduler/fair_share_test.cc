#include "scheduler/fair_share.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace millrace {
namespace {

TEST(FairShare, CountsTokensByTenant) {
  FairShare shares;
  const TenantId a = shares.Join("a");
  const TenantId b = shares.Join("b");
  shares.Charge(a, 5);
  shares.Charge(b, 2);
  EXPECT_EQ(shares.charged(a), 5);
  EXPECT_EQ(shares.charged(b), 2);
  EXPECT_EQ(shares.Join("a"), a);
}

TEST(FairShare, LiftsWhoComesBackToTheFewestOfThoseThatWait) {
  FairShare shares;
  const TenantId a = shares.Join("a");
  const TenantId b = shares.Join("b");
  const TenantId c = shares.Join("c");
  shares.BeginWait(a, 1);
  shares.Charge(a, 100);
  shares.BeginWait(b, 1);  // a alone waits: nothing is saved up
  EXPECT_EQ(shares.charged(b), 100);
  shares.Charge(b, 50);
  shares.BeginWait(c, 1);
  EXPECT_EQ(shares.charged(c), 100);
  EXPECT_EQ(shares.charged(b), 150) << "who waits is not lifted";
}

TEST(FairShare, KeepsTheLevelWhileNobodyWaits) {
  FairShare shares;
  const TenantId a = shares.Join("a");
  shares.BeginWait(a, 1);
  shares.EndWait(a, 1);
  shares.Charge(a, 100);  // it runs
  const TenantId b = shares.Join("b");
  shares.BeginWait(b, 1);
  EXPECT_EQ(shares.charged(b), 100);
}

TEST(FairShare, TellsWhatWaits) {
  FairShare shares;
  const TenantId a = shares.Join("a");
  shares.BeginWait(a, 7);
  shares.BeginWait(a, 5);
  EXPECT_EQ(shares.num_waiting(), 1);
  EXPECT_EQ(shares.waiting(a).sequences, 2);
  EXPECT_EQ(shares.waiting(a).prompt_tokens, 12);
  shares.EndWait(a, 7);
  shares.EndWait(a, 5);
  EXPECT_EQ(shares.num_waiting(), 0);
}

// Names are as many as callers like; what is kept is not.
TEST(FairShare, TellsAThousandTenantsApartAndNoMore) {
  FairShare shares;
  std::vector<TenantId> ids;
  for (std::size_t i = 0; i < FairShare::kMaxTenants; ++i) {
    ids.push_back(shares.Join(std::to_string(i)));
    shares.Charge(ids.back(), static_cast<std::int64_t>(1000 + i));
  }
  const TenantId one = shares.Join("one more");
  EXPECT_EQ(one.value(), FairShare::kMaxTenants);
  EXPECT_EQ(shares.Join("and another"), one) << "the rest share one place";
  shares.Leave(ids[3]);
  shares.Leave(ids[7]);
  EXPECT_EQ(shares.Join("late"), ids[3])
      << "the idle one with the fewest tokens gives its place up";
  EXPECT_EQ(shares.Join("7"), ids[7]) << "who is idle is known as long as there is room";
  EXPECT_EQ(shares.charged(ids[7]), 1007);
  for (int i = 0; i < 10000; ++i) {
    const TenantId id = shares.Join("passing " + std::to_string(i));
    EXPECT_LE(id.value(), FairShare::kMaxTenants);
    shares.Leave(id);
  }
}

}  // namespace
}  // namespace millrace
