#include "base/sha256.h"

#include <openssl/evp.h>

#include <array>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "base/check.h"

namespace millrace {

struct Sha256::State {
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context{EVP_MD_CTX_new(),
                                                                  EVP_MD_CTX_free};
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  MILLRACE_CHECK(EVP_DigestInit_ex(state_->context.get(), EVP_sha256(), nullptr) == 1,
                 "libcrypto has SHA-256");
}

Sha256::~Sha256() = default;

void Sha256::Add(std::span<const std::byte> bytes) {
  MILLRACE_CHECK(EVP_DigestUpdate(state_->context.get(), bytes.data(), bytes.size()) == 1,
                 "a digest takes bytes until it is finished");
}

std::string Sha256::Finish() {
  std::array<unsigned char, 32> digest{};
  MILLRACE_CHECK(EVP_DigestFinal_ex(state_->context.get(), digest.data(), nullptr) == 1,
                 "a digest is finished once");
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

}  // namespace millrace
