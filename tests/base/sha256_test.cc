#include "base/sha256.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <string>

namespace millrace {
namespace {

std::string HashOf(const std::string& text, std::size_t piece) {
  Sha256 hash;
  const auto bytes = std::as_bytes(std::span(text));
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    hash.Add(bytes.subspan(at, std::min(piece, bytes.size() - at)));
  }
  return hash.Finish();
}

// The examples of FIPS 180-4.
TEST(Sha256, EqualsThePublishedDigests) {
  EXPECT_EQ(HashOf("", 1), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(HashOf("abc", 3), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(HashOf(std::string(1000000, 'a'), 4096),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, IsTheSameInPiecesOfAnySize) {
  const std::string text(1000, 'x');
  for (const std::size_t piece : {1, 63, 64, 65, 999}) {
    EXPECT_EQ(HashOf(text, piece), HashOf(text, 1000)) << piece;
  }
}

}  // namespace
}  // namespace millrace
