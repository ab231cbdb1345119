// What a hostile text may cost: time linear in its bytes and a small stack.
#include <gtest/gtest.h>
#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "runtime/tokenizer/tokenizer.h"
#include "tests/runtime/tokenizer/own_vocabulary.h"

namespace millrace {
namespace {

constexpr std::size_t kTextBytes = 1 << 20;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::size_t kStackBytes = 1 << 20;  // the sanitizers' own frames and redzones
constexpr bool kMeasureTime = false;          // what they add is not ours
#else
constexpr std::size_t kStackBytes = 64 << 10;
constexpr bool kMeasureTime = true;
#endif

struct Pattern {
  const char* name;
  std::string unit;  // repeated to the wanted size
};

std::string RandomBytes() {
  std::mt19937_64 random(5);
  std::string bytes(1 << 16, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random() & 0xFF);
  return bytes;
}

std::vector<Pattern> Patterns() {
  return {{"A", "A"},
          {"newlines", "\n"},
          {"spaces", " "},
          {"spaces and newlines", "   \n \r\n"},
          {"digits", "0123456789"},
          {"CJK", "世界你好"},
          {"marks in order", "\u0316\u0301"},
          {"marks of descending class", "\u0345\u0301\u0316\u0334"},
          {"emoji joined", "👩‍👩‍👧‍👦"},
          {"contractions", "'s"},
          {"starts of added tokens", "<|im_"},
          {"random bytes", RandomBytes()}};
}

std::string Repeat(const std::string& unit, std::size_t size) {
  std::string text;
  text.reserve(size + unit.size());
  while (text.size() < size) text += unit;
  text.resize(size);  // may cut a character: then the end is repaired
  return text;
}

struct Job {
  const Tokenizer* tokenizer;
  const std::string* text;
  std::size_t ids = 0;
  double seconds = 0;  // of this thread's processor time: other processes do not count
};

double ThreadSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void* EncodeInThread(void* argument) {
  Job* job = static_cast<Job*>(argument);
  const double begin = ThreadSeconds();
  job->ids =
      job->tokenizer->Encode(*job->text, {.parse_special = true, .add_special = false}).size();
  job->seconds = ThreadSeconds() - begin;
  return nullptr;
}

// Overflowing the stack ends the process: returning is the proof that it fits.
Job EncodeOnASmallStack(const Tokenizer& tokenizer, const std::string& text) {
  Job job = {.tokenizer = &tokenizer, .text = &text};
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  EXPECT_EQ(pthread_attr_setstacksize(&attributes, kStackBytes), 0);
  pthread_t thread;
  EXPECT_EQ(pthread_create(&thread, &attributes, EncodeInThread, &job), 0);
  EXPECT_EQ(pthread_join(thread, nullptr), 0);
  pthread_attr_destroy(&attributes);
  return job;
}

// How many times as long twice the bytes may take: linear is 2 and quadratic is 4; caches that
// overflow in between take the rest.
constexpr double kLinear = 3.0;

struct Times {
  double half = 1e9;
  double whole = 1e9;
};

// The best of some turns for half of `text` and all of it: at least three, and more while another
// process seems to have disturbed one of the two.
Times BestTimes(const Tokenizer& tokenizer, const std::string& text) {
  const std::string half = text.substr(0, text.size() / 2);
  Times best;
  for (int turn = 0; turn < 3 || (turn < 20 && best.whole > kLinear * best.half); ++turn) {
    best.half = std::min(best.half, EncodeOnASmallStack(tokenizer, half).seconds);
    best.whole = std::min(best.whole, EncodeOnASmallStack(tokenizer, text).seconds);
  }
  return best;
}

class TokenizerLimits : public ::testing::TestWithParam<const char*> {};

TEST_P(TokenizerLimits, EncodesAMebibyteOfEachPatternOnASmallStackInLinearTime) {
  const auto tokenizer = OwnTokenizer(GetParam());
  for (const Pattern& pattern : Patterns()) {
    SCOPED_TRACE(pattern.name);
    const std::string text = Repeat(pattern.unit, kTextBytes);
    EXPECT_GT(EncodeOnASmallStack(*tokenizer, text).ids, 0U);
    if (!kMeasureTime) continue;
    const auto [half, whole] = BestTimes(*tokenizer, text);
    std::printf("%-8s %-26s %6.1f MB/s, twice the bytes: %.2f times the time\n", GetParam(),
                pattern.name, static_cast<double>(kTextBytes) / whole / 1e6, whole / half);
    EXPECT_LE(whole / half, kLinear);
  }
}

INSTANTIATE_TEST_SUITE_P(EachPreTokenizer, TokenizerLimits,
                         ::testing::Values("qwen2", "smollm", "llama-bpe", "gpt-2"));

}  // namespace
}  // namespace millrace
