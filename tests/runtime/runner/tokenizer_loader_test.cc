#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "runtime/gguf/gguf_file.h"
#include "runtime/runner/model_loader.h"
#include "tests/support/gguf_builder.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<std::uint32_t>;

// Keys of a vocabulary of five tokens; a test leaves out or replaces what it is about.
struct Vocabulary {
  std::vector<std::pair<std::string, std::string>> strings = {{"tokenizer.ggml.model", "gpt2"},
                                                              {"tokenizer.ggml.pre", "qwen2"}};
  std::vector<std::string> tokens = {"a", "b", "ab", "<|im_end|>", "<stop>"};
  std::vector<std::int32_t> types = {1, 1, 1, 3, 3};
  std::vector<std::string> merges = {"a b"};
  std::vector<std::pair<std::string, std::uint32_t>> ids;
  std::vector<std::string> flags;  // keys that are true

  absl::StatusOr<std::shared_ptr<const Tokenizer>> Load() const {
    millrace::testing::GgufBuilder builder;
    for (const auto& [key, value] : strings) builder.Add(key, value);
    builder.Add("tokenizer.ggml.tokens", tokens);
    if (!types.empty()) builder.Add("tokenizer.ggml.token_type", types);
    if (!merges.empty()) builder.Add("tokenizer.ggml.merges", merges);
    for (const auto& [key, value] : ids) builder.Add(key, value);
    for (const std::string& key : flags) builder.Add(key, true);
    const millrace::testing::TempFile file(builder.Build());
    const auto opened = GgufFile::Open(file.path());
    if (!opened.ok()) return opened.status();
    return LoadTokenizer(**opened);
  }
};

void ExpectRefused(const Vocabulary& vocabulary, absl::StatusCode code, const std::string& what) {
  const auto loaded = vocabulary.Load();
  ASSERT_FALSE(loaded.ok()) << what;
  EXPECT_EQ(loaded.status().code(), code);
  const std::string message(loaded.status().message().data(), loaded.status().message().size());
  EXPECT_THAT(message, HasSubstr(what));
}

TEST(LoadTokenizer, ReadsTheVocabularyOfAFile) {
  Vocabulary vocabulary;
  vocabulary.ids = {{"tokenizer.ggml.bos_token_id", 0},
                    {"tokenizer.ggml.eos_token_id", 1},
                    {"tokenizer.ggml.eot_token_id", 4}};
  vocabulary.flags = {"tokenizer.ggml.add_bos_token"};
  const auto tokenizer = vocabulary.Load();
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 5U);
  EXPECT_THAT((*tokenizer)->Encode("ab<|im_end|>", {}), ElementsAre(0, 2, 3));
  const auto ends = (*tokenizer)->end_tokens();
  EXPECT_THAT(Ids(ends.begin(), ends.end()), ElementsAre(1, 3, 4));
}

TEST(LoadTokenizer, AddsNothingAndEndsAtKnownTokensOnlyWhenTheFileSaysNothing) {
  const auto tokenizer = Vocabulary().Load();
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT((*tokenizer)->Encode("ab", {}), ElementsAre(2));
  EXPECT_FALSE((*tokenizer)->bos().has_value());
  EXPECT_FALSE((*tokenizer)->eos().has_value());
  const auto ends = (*tokenizer)->end_tokens();
  EXPECT_THAT(Ids(ends.begin(), ends.end()), ElementsAre(3));
}

TEST(LoadTokenizer, RefusesKindsOfVocabularyItDoesNotKnowByName) {
  Vocabulary vocabulary;
  vocabulary.strings[0].second = "llama";
  ExpectRefused(vocabulary, absl::StatusCode::kUnimplemented, "'llama'");
  vocabulary = {};
  vocabulary.strings[1].second = "tekken";
  ExpectRefused(vocabulary, absl::StatusCode::kUnimplemented, "'tekken'");
}

TEST(LoadTokenizer, NamesTheKeyThatIsMissingOrWrong) {
  Vocabulary vocabulary;
  vocabulary.strings.erase(vocabulary.strings.begin());
  ExpectRefused(vocabulary, absl::StatusCode::kInvalidArgument, "tokenizer.ggml.model");
  vocabulary = {};
  vocabulary.strings.pop_back();
  ExpectRefused(vocabulary, absl::StatusCode::kInvalidArgument, "tokenizer.ggml.pre");
  vocabulary = {};
  vocabulary.types.clear();
  ExpectRefused(vocabulary, absl::StatusCode::kInvalidArgument, "tokenizer.ggml.token_type");
  vocabulary = {};
  vocabulary.types[2] = 7;
  ExpectRefused(vocabulary, absl::StatusCode::kInvalidArgument, "token_type[2] is 7");
  vocabulary = {};
  vocabulary.merges.clear();
  ExpectRefused(vocabulary, absl::StatusCode::kInvalidArgument, "tokenizer.ggml.merges");
  vocabulary = {};
  vocabulary.ids = {{"tokenizer.ggml.eos_token_id", 5}};
  ExpectRefused(vocabulary, absl::StatusCode::kInvalidArgument, "tokenizer.ggml.eos_token_id");
}

// The text parts of an .inp file, each followed by its own separator line.
std::vector<std::string> ReadInputs(const std::filesystem::path& path) {
  std::ostringstream all;
  all << std::ifstream(path).rdbuf();
  constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";
  const std::string text = all.str();
  std::vector<std::string> inputs;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(kSeparator, begin), text.size());
    inputs.push_back(text.substr(begin, end - begin));
    begin = end + kSeparator.size();
  }
  return inputs;
}

std::vector<Ids> ReadOutputs(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::vector<Ids> outputs;
  for (std::string line; std::getline(file, line);) {
    std::istringstream numbers(line);
    outputs.emplace_back(std::istream_iterator<std::uint32_t>(numbers),
                         std::istream_iterator<std::uint32_t>());
  }
  return outputs;
}

TEST(LoadTokenizer, EqualsThePublishedVectorsOfQwen2) {
  const char* data = std::getenv("MILLRACE_TEST_DATA");
  if (data == nullptr) GTEST_SKIP() << "MILLRACE_TEST_DATA is not set";
  const std::string base =
      (std::filesystem::path(data) / "tokenizer-vectors/ggml-vocab-qwen2.gguf").string();
  if (!std::filesystem::exists(base)) GTEST_SKIP() << "no tokenizer-vectors/ggml-vocab-qwen2.gguf";
  const auto file = GgufFile::Open(base);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto tokenizer = LoadTokenizer(**file);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::vector<std::string> inputs = ReadInputs(base + ".inp");
  const std::vector<Ids> outputs = ReadOutputs(base + ".out");
  ASSERT_EQ(inputs.size(), outputs.size());
  ASSERT_GT(inputs.size(), 40U);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ((*tokenizer)->Encode(inputs[i], {.parse_special = false, .add_special = false}),
              outputs[i])
        << inputs[i];
  }
}

}  // namespace
}  // namespace millrace
