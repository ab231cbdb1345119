#include "runtime/gguf/header_parser.h"

#include <bit>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/gguf/header_reader.h"
#include "runtime/gguf/metadata_parser.h"
#include "runtime/gguf/tensor_table.h"

namespace millrace {
namespace {

static_assert(std::endian::native == std::endian::little,
              "numbers are read as they lie in the file");

constexpr std::uint64_t kDefaultAlignment = 32;
constexpr std::uint64_t kMinAlignment = 8;     // of the format
constexpr std::uint64_t kMaxAlignment = 4096;  // a page; more only wastes the file

// Files of a split model; the largest open models come in a few dozen.
constexpr std::uint64_t kMaxParts = 512;

absl::StatusOr<std::uint32_t> ParseVersion(HeaderReader* reader) {
  const auto magic = reader->ReadBytes(4);
  if (!magic) return reader->EndStatus("its first 4 bytes, which should be 'GGUF'");
  if (*magic != "GGUF") return BadGguf("not a GGUF file: it does not begin with 'GGUF'");
  const auto version = reader->Read<std::uint32_t>();
  if (!version) return reader->EndStatus("the version");
  // A small number written in the other order of bytes.
  if (*version != 0 && (*version & 0xFFFFU) == 0) {
    return BadGguf("a big-endian file; only little-endian ones are supported");
  }
  if (*version != 2 && *version != 3) {
    return BadGguf(absl::StrCat("version ", *version, "; versions 2 and 3 are supported"));
  }
  return *version;
}

const GgufValue* FindValue(const GgufMetadata& metadata, std::string_view wanted) {
  for (const auto& [key, value] : metadata) {
    if (key == wanted) return &value;
  }
  return nullptr;
}

absl::StatusOr<std::uint64_t> Alignment(const GgufMetadata& metadata) {
  const GgufValue* value = FindValue(metadata, "general.alignment");
  if (value == nullptr) return kDefaultAlignment;
  const auto* number = std::get_if<std::uint64_t>(value);
  if (number == nullptr) return BadGguf("general.alignment: want an unsigned integer");
  if (!std::has_single_bit(*number) || *number < kMinAlignment || *number > kMaxAlignment) {
    return BadGguf(absl::StrCat("general.alignment is ", *number, "; want a power of two from ",
                                kMinAlignment, " to ", kMaxAlignment));
  }
  return *number;
}

// An unsigned integer, or a signed one that is not negative: writers differ.
absl::StatusOr<std::optional<std::uint64_t>> Natural(const GgufMetadata& metadata,
                                                     std::string_view key, std::uint64_t limit) {
  const GgufValue* value = FindValue(metadata, key);
  if (value == nullptr) return std::nullopt;
  std::uint64_t number = 0;
  if (const auto* found = std::get_if<std::uint64_t>(value)) {
    number = *found;
  } else if (const auto* found = std::get_if<std::int64_t>(value);
             found != nullptr && *found >= 0) {
    number = static_cast<std::uint64_t>(*found);
  } else {
    return BadGguf(absl::StrCat(std::string(key), ": want an unsigned integer"));
  }
  if (number > limit)
    return BadGguf(absl::StrCat(std::string(key), " is ", number, "; want at most ", limit));
  return number;
}

absl::StatusOr<GgufSplit> ReadSplit(const GgufMetadata& metadata) {
  GgufSplit split;
  MILLRACE_ASSIGN_OR_RETURN(const auto count, Natural(metadata, "split.count", kMaxParts));
  if (!count || *count <= 1) return split;
  MILLRACE_ASSIGN_OR_RETURN(const auto number, Natural(metadata, "split.no", *count - 1));
  if (!number)
    return BadGguf(absl::StrCat("split.count is ", *count, ", but there is no split.no"));
  MILLRACE_ASSIGN_OR_RETURN(split.tensors, Natural(metadata, "split.tensors.count", UINT32_MAX));
  split.count = static_cast<std::uint32_t>(*count);
  split.number = static_cast<std::uint32_t>(*number);
  return split;
}

}  // namespace

absl::StatusOr<GgufHeader> ParseGgufHeader(const ByteSource& file) {
  HeaderReader reader(file);
  GgufHeader header;
  MILLRACE_ASSIGN_OR_RETURN(header.version, ParseVersion(&reader));
  const auto tensor_count = reader.Read<std::uint64_t>();
  const auto key_count = reader.Read<std::uint64_t>();
  if (!tensor_count || !key_count) return reader.EndStatus("the counts of keys and tensors");
  // Both before the first entry is read, so that a wrong one costs nothing.
  MILLRACE_RETURN_IF_ERROR(CheckKeyCount(reader, *key_count));
  MILLRACE_RETURN_IF_ERROR(CheckTensorCount(reader, *tensor_count));
  MILLRACE_ASSIGN_OR_RETURN(header.metadata, ParseMetadata(&reader, *key_count));
  MILLRACE_ASSIGN_OR_RETURN(header.split, ReadSplit(header.metadata));
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t alignment, Alignment(header.metadata));
  MILLRACE_ASSIGN_OR_RETURN(header.tensors, ParseTensorTable(&reader, *tensor_count, alignment));
  header.bytes = reader.TakeBytes();
  return header;
}

}  // namespace millrace
