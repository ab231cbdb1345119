// Tiny random models of every architecture against transformers, which ran on the same weights
// (tests/golden/make_goldens.py), and the demo model on a text of its own.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "tests/support/model_steps.h"

namespace millrace::testing {
namespace {

constexpr char kFolder[] = "tests/golden/models/";

struct Golden {
  std::string name;
  bool quantised = false;
  std::int32_t vocab = 0;
  std::vector<Tokens> sequences;
  std::vector<float> logits;  // [variant][sequence][position][vocab]
  Tokens greedy_prompt;
  Tokens greedy_tokens;

  // The rows of a sequence in a variant: 0 plain, 1 with int8 activations.
  std::span<const float> Rows(std::size_t variant, std::size_t sequence) const {
    const std::size_t rows = sequences[0].size() * static_cast<std::size_t>(vocab);
    return std::span(logits).subspan((variant * sequences.size() + sequence) * rows, rows);
  }
};

std::vector<float> ReadFloats(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<float> values(bytes.size() / sizeof(float));
  std::copy_n(bytes.data(), bytes.size(), reinterpret_cast<char*>(values.data()));
  return values;
}

std::vector<Golden> ReadGoldens() {
  std::ifstream file(std::string(kFolder) + "index.json");
  std::vector<Golden> goldens;
  const nlohmann::json index = nlohmann::json::parse(file);
  for (const nlohmann::json& entry : index["models"]) {
    Golden golden;
    golden.name = entry["name"];
    golden.quantised = entry["quantised"];
    golden.vocab = entry["vocab"];
    golden.sequences = entry["sequences"].get<std::vector<Tokens>>();
    golden.logits = ReadFloats(kFolder + golden.name + ".logits");
    if (entry.contains("greedy")) {
      golden.greedy_prompt = entry["greedy"]["prompt"].get<Tokens>();
      golden.greedy_tokens = entry["greedy"]["tokens"].get<Tokens>();
    }
    goldens.push_back(std::move(golden));
  }
  return goldens;
}

LoadedModel LoadGolden(const Golden& golden, const std::string& isa) {
  LoadOptions options = SmallOptions(kFolder + golden.name + ".gguf");
  options.kv_dtype = KvDType::kF32;  // transformers keeps keys and values as they are
  options.cpu_isa = isa;
  return MustLoad(options);
}

double RootMeanSquare(std::span<const float> row) {
  double sum = 0;
  for (const float x : row) sum += static_cast<double>(x) * x;
  return std::sqrt(sum / static_cast<double>(row.size()));
}

double Cosine(std::span<const float> a, std::span<const float> b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += static_cast<double>(a[i]) * b[i];
    aa += static_cast<double>(a[i]) * a[i];
    bb += static_cast<double>(b[i]) * b[i];
  }
  return ab / std::sqrt(aa * bb);
}

// How far the best logit leads.
double Margin(std::span<const float> row) {
  std::vector<float> sorted(row.begin(), row.end());
  std::partial_sort(sorted.begin(), sorted.begin() + 2, sorted.end(), std::greater<>());
  return static_cast<double>(sorted[0]) - sorted[1];
}

// What a comparison of all positions of a model found.
struct Agreement {
  std::vector<double> cosines;
  std::vector<double> errors;  // largest difference of a row, by the row's root mean square
  int positions = 0;
  int same_argmax = 0;
  int clear = 0;  // positions whose margin exceeds the bound
  int clear_same_argmax = 0;

  double ErrorPercentile(double share) const {
    std::vector<double> sorted = errors;
    std::sort(sorted.begin(), sorted.end());
    return sorted[static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1))];
  }
  // Of the cosines.
  double Percentile(double share) const {
    std::vector<double> sorted = cosines;
    std::sort(sorted.begin(), sorted.end());
    return sorted[static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1))];
  }
};

void Compare(std::span<const float> got, std::span<const float> want, std::int32_t vocab,
             double bound, Agreement* out) {
  const auto v = static_cast<std::size_t>(vocab);
  for (std::size_t at = 0; at + v <= got.size(); at += v) {
    const auto a = got.subspan(at, v);
    const auto b = want.subspan(at, v);
    const double scale = RootMeanSquare(b);
    double largest = 0;
    for (std::size_t i = 0; i < v; ++i) {
      largest = std::max(largest, std::fabs(static_cast<double>(a[i]) - b[i]));
    }
    out->cosines.push_back(Cosine(a, b));
    out->errors.push_back(largest / scale);
    const bool same = Argmax(a) == Argmax(b);
    ++out->positions;
    out->same_argmax += same ? 1 : 0;
    if (Margin(b) <= 2 * bound * scale) continue;
    ++out->clear;
    out->clear_same_argmax += same ? 1 : 0;
  }
}

Agreement CompareAll(const Golden& golden, ModelRunner* runner, std::size_t variant, double bound) {
  Agreement agreement;
  for (std::size_t s = 0; s < golden.sequences.size(); ++s) {
    const Logits logits = ForwardAlone(runner, golden.sequences[s]);
    Compare(logits, golden.Rows(variant, s), golden.vocab, bound, &agreement);
  }
  return agreement;
}

void Report(const Golden& golden, const char* what, const Agreement& a) {
  std::printf(
      "%-18s %-12s cosine min %.7f p10 %.7f median %.7f, argmax %d/%d, error median %.1e max "
      "%.1e\n",
      golden.name.c_str(), what, a.Percentile(0), a.Percentile(0.1), a.Percentile(0.5),
      a.same_argmax, a.positions, a.ErrorPercentile(0.5),
      *std::max_element(a.errors.begin(), a.errors.end()));
}

// Both sides compute in float32 and differ in the order of their sums. A sum of n products has an
// error of at most (n / 16 + 4) units of 2^-24 times the sum of magnitudes, which for random signs
// is about sqrt(n) times the result: for n up to 96, (6 + 4) * 2^-24 * 0.8 * 10 = 5e-6. A token
// passes seven of them a layer in two layers, keys and values of others as many, and norms scale
// errors with the values: 20 of them, and both sides have theirs, give 2e-4 of a typical logit; the
// largest of 259 logits may be off by three to four times a typical error.
constexpr double kFloatBound = 1e-3;

// FALSIFY-QW3-MOE-FORWARD-004: logits agree with transformers.
TEST(GoldenLogits, OfFloatModelsEqualThoseOfTransformersUpToRounding) {
  int models = 0;
  for (const Golden& golden : ReadGoldens()) {
    if (golden.quantised) continue;
    SCOPED_TRACE(golden.name);
    const LoadedModel model = LoadGolden(golden, "auto");
    ASSERT_TRUE(model.runner);
    const Agreement a = CompareAll(golden, model.runner.get(), 0, kFloatBound);
    Report(golden, "float", a);
    EXPECT_GT(a.Percentile(0), 0.9999);
    EXPECT_LT(*std::max_element(a.errors.begin(), a.errors.end()), kFloatBound);
    EXPECT_EQ(a.clear_same_argmax, a.clear);
    EXPECT_GE(a.clear, a.positions * 9 / 10);
    ++models;
  }
  EXPECT_EQ(models, 9);
}

// Activations are rounded to int8 here and not there: what that costs.
TEST(GoldenLogits, OfQuantisedModelsStayNearFloatActivations) {
  int models = 0;
  for (const Golden& golden : ReadGoldens()) {
    if (!golden.quantised) continue;
    SCOPED_TRACE(golden.name);
    const LoadedModel model = LoadGolden(golden, "auto");
    ASSERT_TRUE(model.runner);
    const Agreement a = CompareAll(golden, model.runner.get(), 0, 0);
    Report(golden, "int8 here", a);
    EXPECT_GT(a.Percentile(0.5), 0.995);
    EXPECT_GT(a.Percentile(0.1), 0.95);
    EXPECT_GE(a.same_argmax, a.positions * 7 / 10);
    ++models;
  }
  EXPECT_EQ(models, 8);
}

// With the same rounding on both sides only float32 sums differ, by about 5e-6 (above), and where a
// value lies that near the middle between two steps, its int8: with a probability of
// 2 * 5e-6 * 127 / 3 = 4e-4 for a value of a third of its block's largest. So
// - positions before the first flip agree like a float model's, those after it may carry it in
// their
//   keys and values. Sequences are independent, and a difference that is no accident would show at
//   every position: a quarter of all must be below kFloatBound;
// - after a flip everything that follows is rounded anew: as two runs with roundings of their own,
//   whose difference has at most twice the variance of one against none. 1 - cosine is half the
//   relative variance, so it is at most twice that of the comparison with float activations.
TEST(GoldenLogits, OfQuantisedModelsEqualTransformersWithTheSameInt8Activations) {
  for (const Golden& golden : ReadGoldens()) {
    if (!golden.quantised) continue;
    SCOPED_TRACE(golden.name);
    const LoadedModel model = LoadGolden(golden, "auto");
    ASSERT_TRUE(model.runner);
    const Agreement plain = CompareAll(golden, model.runner.get(), 0, 0);
    const Agreement same = CompareAll(golden, model.runner.get(), 1, kFloatBound);
    Report(golden, "int8 both", same);
    EXPECT_LT(same.ErrorPercentile(0.25), kFloatBound);
    EXPECT_LT(1 - same.Percentile(0.1), 2 * (1 - plain.Percentile(0.1)));
    EXPECT_GE(same.same_argmax, same.positions * 95 / 100);
  }
}

TEST(GoldenLogits, AreTheSameBitsOnEveryLevel) {
  for (const Golden& golden : ReadGoldens()) {
    SCOPED_TRACE(golden.name);
    std::vector<Logits> levels;
    for (const std::string& isa : IsaLevels()) {
      const LoadedModel model = LoadGolden(golden, isa);
      ASSERT_TRUE(model.runner);
      levels.push_back(ForwardAlone(model.runner.get(), golden.sequences[0]));
    }
    for (const Logits& logits : levels) EXPECT_TRUE(SameBits(logits, levels[0]));
  }
}

// The continuation that transformers chose, where every choice is clear.
TEST(DenseRegression, GreedyTokensAreThoseOfTransformers) {
  int models = 0;
  for (const Golden& golden : ReadGoldens()) {
    if (golden.greedy_tokens.empty()) continue;
    SCOPED_TRACE(golden.name);
    const LoadedModel model = LoadGolden(golden, "auto");
    ASSERT_TRUE(model.runner);
    Tokens tokens = golden.greedy_prompt;
    Tokens generated;
    while (generated.size() < golden.greedy_tokens.size()) {
      const Logits logits = ForwardAlone(model.runner.get(), tokens);
      generated.push_back(Argmax(Row(logits, tokens.size() - 1, golden.vocab)));
      tokens.push_back(generated.back());
    }
    EXPECT_EQ(generated, golden.greedy_tokens);
    ++models;
  }
  EXPECT_EQ(models, 7);
}

}  // namespace
}  // namespace millrace::testing
