// The demo model teacher-forced on what transformers says with it in F16
// (tests/golden/make_demo_golden.py).
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/model_steps.h"

namespace millrace::testing {
namespace {

struct Deviation {
  int choices = 0;
  int same = 0;
  double largest = 0;  // difference of one of the best logits
};

void CompareTop(std::span<const float> row, const nlohmann::json& top, Deviation* out) {
  for (const nlohmann::json& entry : top) {
    const auto token = entry[0].get<std::size_t>();
    out->largest = std::max(out->largest, std::fabs(row[token] - entry[1].get<double>()));
  }
}

Deviation TeacherForce(const std::string& path, KvDType kv = KvDType::kF32) {
  LoadOptions options = SmallOptions(path);
  options.kv_dtype = kv;
  const LoadedModel model = MustLoad(options);
  Deviation out;
  if (!model.runner) return out;
  std::ifstream file("tests/golden/demo/reference.json");
  const nlohmann::json reference = nlohmann::json::parse(file);
  for (const nlohmann::json& prompt : reference["prompts"]) {
    auto tokens = prompt["prompt"].get<Tokens>();
    const std::size_t begin = tokens.size();
    const auto answer = prompt["tokens"].get<Tokens>();
    tokens.insert(tokens.end(), answer.begin(), answer.end());
    const Logits logits = ForwardAlone(model.runner.get(), tokens);
    const std::int32_t vocab = model.runner->info().vocab;
    for (std::size_t i = 0; i < answer.size(); ++i) {
      ++out.choices;
      out.same += Argmax(Row(logits, begin - 1 + i, vocab)) == answer[i] ? 1 : 0;
    }
    CompareTop(Row(logits, begin - 1, vocab), prompt["top_of_first"], &out);
    CompareTop(Row(logits, begin + answer.size() - 2, vocab), prompt["top_of_last"], &out);
  }
  std::printf("%s: %d of %d choices, largest difference %.4f\n", path.c_str(), out.same,
              out.choices, out.largest);
  return out;
}

TEST(DemoModel, InFourBitsMakesNearlyAllTheChoicesOfItsOriginal) {
  const Deviation deviation = TeacherForce("models/story-moe-q4_k_m.gguf");
  EXPECT_EQ(deviation.choices, 3 * 48);
  // Weights of 4 bits move logits by about half a unit; the original's choices that lead by less
  // may fall otherwise. The bar for random models is 70 %; a trained one is surer of itself.
  EXPECT_GE(deviation.same, deviation.choices * 9 / 10);
}

// What a cache of 8 bits costs beside weights of 4: less than they do.
TEST(DemoModel, WithACacheOf8BitsMakesNearlyAllTheChoicesOfItsOriginal) {
  for (const KvDType kv : {KvDType::kQ8_0, KvDType::kFp8}) {
    const Deviation deviation = TeacherForce("models/story-moe-q4_k_m.gguf", kv);
    EXPECT_EQ(deviation.choices, 3 * 48);
    EXPECT_GE(deviation.same, deviation.choices * 9 / 10);
  }
}

TEST(DemoModel, InHalfPrecisionMakesTheChoicesOfTransformers) {
  const char* data = std::getenv("MILLRACE_TEST_DATA");
  if (data == nullptr) GTEST_SKIP() << "MILLRACE_TEST_DATA is unset: no story-moe-f16.gguf";
  const std::string path = std::string(data) + "/demo-model/story-moe-f16.gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  const Deviation deviation = TeacherForce(path);
  EXPECT_EQ(deviation.same, deviation.choices);
  // The bound of golden_logits_test, 1e-3 of a typical logit, for three times as many layers;
  // logits of this model are about 5.
  EXPECT_LT(deviation.largest, 3 * 1e-3 * 5);
}

}  // namespace
}  // namespace millrace::testing
