// Files that are wrong by chance: an error or a file, never a crash, and memory in proportion to
// what the file has.
#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>
#include <random>
#include <string>

#include "tests/runtime/gguf/small_file.h"

// Counts what is allocated at once. Sanitizers have allocators of their own.
#ifndef __SANITIZE_ADDRESS__
namespace {
std::atomic<std::int64_t> allocated{0};
std::atomic<std::int64_t> peak{0};
}  // namespace

void* operator new(std::size_t size) {
  void* pointer = std::malloc(size);
  if (pointer == nullptr) throw std::bad_alloc();
  const std::int64_t now = allocated += static_cast<std::int64_t>(malloc_usable_size(pointer));
  if (now > peak) peak = now;
  return pointer;
}
void operator delete(void* pointer) noexcept {
  allocated -= static_cast<std::int64_t>(malloc_usable_size(pointer));
  std::free(pointer);
}
void operator delete(void* pointer, std::size_t) noexcept { operator delete(pointer); }
void* operator new[](std::size_t size) { return operator new(size); }
void operator delete[](void* pointer) noexcept { operator delete(pointer); }
void operator delete[](void* pointer, std::size_t) noexcept { operator delete(pointer); }
#endif

namespace millrace::testing {
namespace {

// Uses what was parsed, so that a wrong offset is noticed by the sanitizers.
void Use(const GgufFile& file) {
  for (const auto& [key, value] : file.metadata()) ASSERT_EQ(file.Find(key), &value);
  for (const GgufTensor& tensor : file.tensors()) {
    ASSERT_LE(tensor.offset_bytes + tensor.size_bytes, file.file_bytes());
    std::vector<std::byte> bytes(tensor.size_bytes);
    ASSERT_TRUE(file.Source(tensor)->Read(0, bytes).ok());
  }
}

void ParseAndUse(const std::string& bytes) {
#ifndef __SANITIZE_ADDRESS__
  peak = allocated.load();
  const std::int64_t before = allocated;
#endif
  const auto file = Parse(bytes);
  if (file.ok()) {
    Use(**file);
  } else {
    ASSERT_EQ(std::string(file.status().message()).find('\n'), std::string::npos);
  }
#ifndef __SANITIZE_ADDRESS__
  // The bar of the threat model: twice the file and 16 MiB.
  ASSERT_LE(peak - before, static_cast<std::int64_t>(2 * bytes.size()) + (16 << 20));
#endif
}

TEST(GgufMutation, EveryFlippedBitOfAHeaderIsAnErrorOrAFile) {
  const std::string whole = SmallFile().Build();
  const std::size_t header = SmallFile().BuildHeader().size();
  for (std::size_t bit = 0; bit < header * 8; ++bit) {
    std::string bytes = whole;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1U << bit % 8));
    ParseAndUse(bytes);
    if (HasFatalFailure()) FAIL() << "bit " << bit;
  }
}

TEST(GgufMutation, RandomDamageIsAnErrorOrAFile) {
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 rng(seed);
  const std::string whole = SmallFile().Build();
  const std::size_t header = SmallFile().BuildHeader().size();
  const std::string extremes[] = {std::string(8, '\xFF'),           std::string(8, '\0'),
                                  BytesOf(std::uint64_t{1} << 63U), BytesOf(INT64_MAX),
                                  BytesOf(std::uint64_t{1} << 32U), BytesOf(UINT32_MAX)};
  const int count = std::getenv("MILLRACE_LONG") != nullptr ? 1000000 : 100000;
  for (int i = 0; i < count; ++i) {
    std::string bytes = whole;
    for (std::uint32_t change = 0; change <= rng() % 4; ++change) {
      const std::size_t at = rng() % header;
      switch (rng() % 4) {
        case 0:
          bytes[at] = static_cast<char>(rng());
          break;
        case 1:
          bytes.replace(at, 8, extremes[rng() % std::size(extremes)]);
          break;
        case 2:
          bytes.erase(at, rng() % 9);
          break;
        default:
          bytes.insert(at, bytes.substr(rng() % header, rng() % 40));
      }
    }
    ParseAndUse(bytes);
    if (HasFatalFailure()) FAIL() << "round " << i;
  }
}

}  // namespace
}  // namespace millrace::testing
