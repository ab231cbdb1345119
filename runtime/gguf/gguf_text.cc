#include "runtime/gguf/gguf_text.h"

#include <array>
#include <cstddef>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "kernels/dtype.h"

namespace millrace {
namespace {

// In the order of their numbers; the blanks were used by older files and removed.
constexpr std::array<std::string_view, 42> kGgmlTypes = {
    "F32",   "F16",        "Q4_0",       "Q4_1",       "Q4_2",     "Q4_3",     "Q5_0",
    "Q5_1",  "Q8_0",       "Q8_1",       "Q2_K",       "Q3_K",     "Q4_K",     "Q5_K",
    "Q6_K",  "Q8_K",       "IQ2_XXS",    "IQ2_XS",     "IQ3_XXS",  "IQ1_S",    "IQ4_NL",
    "IQ3_S", "IQ2_S",      "IQ4_XS",     "I8",         "I16",      "I32",      "I64",
    "F64",   "IQ1_M",      "BF16",       "Q4_0_4_4",   "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",
    "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4",    "NVFP4",    "Q1_0"};

// Bytes of the sequence that `lead` begins and the smallest code point it may stand for; 0 bytes if
// it begins none.
struct Sequence {
  int bytes;
  std::uint32_t min;
  std::uint32_t bits;
};

Sequence SequenceOf(unsigned char lead) {
  if (lead < 0x80) return {1, 0, lead};
  if (lead >= 0xC2 && lead < 0xE0) return {2, 0x80, lead & 0x1FU};
  if (lead >= 0xE0 && lead < 0xF0) return {3, 0x800, lead & 0x0FU};
  if (lead >= 0xF0 && lead < 0xF5) return {4, 0x10000, lead & 0x07U};
  return {0, 0, 0};
}

bool IsPrintable(std::uint32_t code_point) {
  if (code_point < 0x20 || (code_point >= 0x7F && code_point < 0xA0)) return false;
  if (code_point >= 0xD800 && code_point < 0xE000) return false;
  return code_point <= 0x10FFFF;
}

}  // namespace

std::string Quoted(std::string_view text) {
  constexpr std::size_t kMaxBytes = 80;
  const std::string_view shown = text.substr(0, kMaxBytes);
  return absl::StrCat("'", absl::CHexEscape(absl::string_view(shown.data(), shown.size())),
                      shown.size() < text.size() ? "..." : "", "'");
}

bool IsPrintableUtf8(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size()) {
    const Sequence sequence = SequenceOf(static_cast<unsigned char>(text[i]));
    if (sequence.bytes == 0 || text.size() - i < static_cast<std::size_t>(sequence.bytes)) {
      return false;
    }
    std::uint32_t code_point = sequence.bits;
    for (int j = 1; j < sequence.bytes; ++j) {
      const auto next = static_cast<unsigned char>(text[i + static_cast<std::size_t>(j)]);
      if ((next & 0xC0U) != 0x80U) return false;
      code_point = code_point << 6U | (next & 0x3FU);
    }
    if (code_point < sequence.min || !IsPrintable(code_point)) return false;
    i += static_cast<std::size_t>(sequence.bytes);
  }
  return true;
}

std::string_view GgmlTypeName(std::uint32_t ggml_type) {
  return ggml_type < kGgmlTypes.size() ? kGgmlTypes[ggml_type] : "unknown";
}

std::string SupportedTypes() {
  std::string names;
  for (const DTypeInfo& info : kDTypes) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", std::string(info.name));
  }
  return names;
}

}  // namespace millrace
