// The cache of laid-out weights: what is mapped at a later start is what the first one laid out,
// and nothing that may not be used is.
#include "runtime/backend/cpu/weight_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "tests/support/gguf_builder.h"

namespace millrace::cpu {
namespace {

using ::testing::SizeIs;

class WeightCacheTest : public ::testing::Test {
 protected:
  ~WeightCacheTest() override { std::filesystem::remove_all(folder_); }

  WeightCacheOptions Options() const { return {.directory = folder_.string(), .model = model_}; }
  void Keep(Isa isa = Isa::kScalar) const {
    WeightCache cache(Options(), isa);
    for (const auto& weight : weights_) cache.Append(What(weight), weight);
    cache.Finish();
  }
  std::vector<std::filesystem::path> Files() const {
    std::vector<std::filesystem::path> out;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      out.push_back(entry.path());
    }
    return out;
  }
  // How many of the weights a new start maps; each must have the bytes that were kept.
  std::size_t Mapped(Isa isa = Isa::kScalar) const {
    WeightCache cache(Options(), isa);
    std::size_t count = 0;
    for (const auto& weight : weights_) {
      const auto found = cache.Map(What(weight), static_cast<std::int64_t>(weight.size()));
      if (!found) break;
      EXPECT_TRUE(std::equal(weight.begin(), weight.end(), found->data())) << count;
      ++count;
    }
    return count;
  }

  static std::string What(const std::vector<std::byte>& weight) {
    return "weight of " + std::to_string(weight.size()) + " bytes\n";
  }

  static std::vector<std::byte> Random(std::size_t bytes) {
    std::mt19937 random(static_cast<unsigned>(bytes));
    std::vector<std::byte> out(bytes);
    for (std::byte& byte : out) byte = static_cast<std::byte>(random());
    return out;
  }

  // One below and one above the size of a huge page, none a multiple of a page.
  const std::vector<std::vector<std::byte>> weights_ = {Random(100), Random(3'000'001), Random(64)};
  std::string model_ = std::string(64, 'a');
  const std::filesystem::path folder_ = millrace::testing::MakeTempFolder();
};

TEST_F(WeightCacheTest, MapsWhatAnEarlierStartKept) {
  Keep();
  EXPECT_THAT(Files(), SizeIs(1));
  EXPECT_EQ(Mapped(), weights_.size());
}

TEST_F(WeightCacheTest, LeavesNothingBehindWhenLoadingEndsEarly) {
  {
    WeightCache cache(Options(), Isa::kScalar);
    cache.Append("0", weights_[0]);
  }
  EXPECT_THAT(Files(), SizeIs(0));
  EXPECT_EQ(Mapped(), 0U);
}

TEST_F(WeightCacheTest, IsNotSharedByLevelsOrModels) {
  Keep(Isa::kScalar);
  EXPECT_EQ(Mapped(Isa::kAvx2), 0U);
  model_.back() = 'b';  // the same file name, another title
  EXPECT_EQ(Mapped(), 0U);
}

TEST_F(WeightCacheTest, ReplacesAFileOfAnotherModelUnderItsName) {
  Keep();
  model_.back() = 'b';
  Keep();
  EXPECT_THAT(Files(), SizeIs(1));
  EXPECT_EQ(Mapped(), weights_.size());
}

TEST_F(WeightCacheTest, DoesNotMapBeyondAFileThatGotShorterAndRemovesIt) {
  Keep();
  const auto file = Files().front();
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  EXPECT_EQ(Mapped(), weights_.size() - 1);
  EXPECT_FALSE(std::filesystem::exists(file));
}

TEST_F(WeightCacheTest, TakesNoFileThatIsNotOurs) {
  Keep();
  const auto file = Files().front();
  std::ofstream(file, std::ios::binary | std::ios::trunc) << "something else";
  EXPECT_EQ(Mapped(), 0U);
}

TEST_F(WeightCacheTest, DoesNotTakeOneWeightForAnotherOfItsSize) {
  Keep();
  {
    WeightCache cache(Options(), Isa::kScalar);
    EXPECT_FALSE(cache.Map("another\n", static_cast<std::int64_t>(weights_[0].size())));
  }
  EXPECT_THAT(Files(), SizeIs(0));
}

TEST_F(WeightCacheTest, LetsTwoStartsWriteAtOnce) {
  WeightCache first(Options(), Isa::kScalar);
  WeightCache second(Options(), Isa::kScalar);
  for (WeightCache* cache : {&first, &second}) {
    for (const auto& weight : weights_) cache->Append(What(weight), weight);
  }
  first.Finish();
  EXPECT_EQ(Mapped(), weights_.size());
  second.Finish();
  EXPECT_THAT(Files(), SizeIs(1));
  EXPECT_EQ(Mapped(), weights_.size());
}

TEST_F(WeightCacheTest, DoesNotRemoveAFileThatAnotherStartPutInPlaceOfABadOne) {
  Keep();
  WeightCache bad(Options(), Isa::kScalar);
  std::filesystem::remove(Files().front());
  Keep();
  EXPECT_FALSE(bad.Map("another\n", 1));
  EXPECT_EQ(Mapped(), weights_.size());
}

// A disk that is full, as a limit of this process on the size of files.
TEST_F(WeightCacheTest, LeavesNothingBehindWhenTheDiskIsFull) {
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 1'000'000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  Keep();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(Files(), SizeIs(0));
}

TEST_F(WeightCacheTest, DoesNotWaitAtAPipeInItsPlace) {
  Keep();
  const auto file = Files().front();
  std::filesystem::remove(file);
  ASSERT_EQ(::mkfifo(file.c_str(), 0600), 0);
  EXPECT_EQ(Mapped(), 0U);
}

TEST_F(WeightCacheTest, GoesOnWhereItCannotWrite) {
  std::filesystem::remove_all(folder_);
  Keep();
  EXPECT_EQ(Mapped(), 0U);
}

}  // namespace
}  // namespace millrace::cpu
