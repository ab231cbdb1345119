#include "base/channel.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <set>
#include <thread>
#include <vector>

namespace millrace {
namespace {

TEST(Channel, HandsOutInOrderWhatWasSent) {
  Channel<int> channel;
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(channel.Send(i));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(channel.Receive(), i);
  EXPECT_EQ(channel.TryReceive(), std::nullopt);
}

TEST(Channel, HandsOutWhatIsLeftAfterCloseAndThenEnds) {
  Channel<std::unique_ptr<int>> channel;
  EXPECT_TRUE(channel.Send(std::make_unique<int>(7)));
  channel.Close();
  EXPECT_FALSE(channel.Send(std::make_unique<int>(8)));
  EXPECT_FALSE(channel.exhausted());
  EXPECT_EQ(**channel.Receive(), 7);
  EXPECT_EQ(channel.Receive(), std::nullopt);
  EXPECT_TRUE(channel.exhausted());
}

TEST(Channel, ReturnsAtTheDeadline) {
  Channel<int> channel;
  const TimePoint deadline = SteadyClock().Now() + std::chrono::milliseconds(5);
  EXPECT_EQ(channel.ReceiveUntil(deadline), std::nullopt);
  EXPECT_GE(SteadyClock().Now(), deadline);
  EXPECT_FALSE(channel.exhausted());
}

TEST(Channel, WakesAReceiverByCloseAndBySend) {
  Channel<int> channel;
  std::optional<int> first;
  std::optional<int> second = 1;
  std::thread receiver([&] {
    first = channel.Receive();
    second = channel.Receive();
  });
  channel.Send(5);
  channel.Close();
  receiver.join();
  EXPECT_EQ(first, 5);
  EXPECT_EQ(second, std::nullopt);
}

TEST(Channel, LosesAndDoublesNothingBetweenManyThreads) {
  constexpr int kThreads = 3;
  constexpr int kEach = 2000;
  Channel<int> channel;
  std::vector<std::thread> senders;
  for (int t = 0; t < kThreads; ++t) {
    senders.emplace_back([&channel, t] {
      for (int i = 0; i < kEach; ++i) channel.Send(t * kEach + i);
    });
  }
  std::vector<std::vector<int>> received(kThreads);
  std::vector<std::thread> receivers;
  for (int t = 0; t < kThreads; ++t) {
    receivers.emplace_back([&channel, &mine = received[static_cast<std::size_t>(t)]] {
      while (auto item = channel.Receive()) mine.push_back(*item);
    });
  }
  for (std::thread& sender : senders) sender.join();
  channel.Close();
  for (std::thread& receiver : receivers) receiver.join();
  std::set<int> all;
  std::size_t count = 0;
  for (const auto& mine : received) {
    all.insert(mine.begin(), mine.end());
    count += mine.size();
    // What one receiver sees of one sender is in order.
    std::vector<int> last(kThreads, -1);
    for (const int item : mine) {
      EXPECT_GT(item, last[static_cast<std::size_t>(item / kEach)]);
      last[static_cast<std::size_t>(item / kEach)] = item;
    }
  }
  EXPECT_EQ(count, static_cast<std::size_t>(kThreads * kEach));
  EXPECT_EQ(all.size(), count);
}

}  // namespace
}  // namespace millrace
