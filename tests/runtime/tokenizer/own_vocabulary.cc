#include "tests/runtime/tokenizer/own_vocabulary.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace millrace {

TokenizerSpec OwnVocabulary(const std::string& pre) {
  std::ifstream file("tests/golden/tokenizer/vocabulary.json");
  const nlohmann::json json = nlohmann::json::parse(file);
  TokenizerSpec spec;
  spec.pre = pre;
  spec.tokens = json["tokens"].get<std::vector<std::string>>();
  spec.merges = json["merges"].get<std::vector<std::string>>();
  for (const int type : json["types"]) spec.types.push_back(static_cast<TokenType>(type));
  return spec;
}

std::unique_ptr<const Tokenizer> OwnTokenizer(const std::string& pre) {
  auto tokenizer = Tokenizer::Create(OwnVocabulary(pre));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? std::move(*tokenizer) : nullptr;
}

}  // namespace millrace
