// The committed vocabulary of 1,000 tokens that make_vectors.py trained, as a TokenizerSpec. Paths
// are from the root of the repository, where tests run.
#ifndef MILLRACE_TESTS_RUNTIME_TOKENIZER_OWN_VOCABULARY_H_
#define MILLRACE_TESTS_RUNTIME_TOKENIZER_OWN_VOCABULARY_H_

#include <memory>
#include <string>

#include "runtime/tokenizer/tokenizer.h"

namespace millrace {

TokenizerSpec OwnVocabulary(const std::string& pre);

// Fails the test and returns null if it cannot be built.
std::unique_ptr<const Tokenizer> OwnTokenizer(const std::string& pre);

}  // namespace millrace

#endif  // MILLRACE_TESTS_RUNTIME_TOKENIZER_OWN_VOCABULARY_H_
