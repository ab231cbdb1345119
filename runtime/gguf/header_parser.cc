#include "runtime/gguf/header_parser.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <string>
#include <unordered_set>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/gguf/checked_math.h"

namespace millrace {
namespace {

static_assert(std::endian::native == std::endian::little,
              "values are read as they lie in the file");

// What a real model needs with room to spare; the bounds by remaining bytes below do the rest.
constexpr std::uint64_t kMaxKeys = 4096;
constexpr std::uint64_t kMaxTensors = 16384;
constexpr std::uint64_t kMaxKeyBytes = 256;
constexpr std::uint64_t kMaxTensorNameBytes = 63;      // GGML_MAX_NAME with its terminator is 64
constexpr std::uint64_t kMaxStringBytes = 1U << 20;    // chat templates are some KiB
constexpr std::uint64_t kMaxArrayElements = 1U << 20;  // vocabularies are some 150 000
constexpr std::uint64_t kMaxDims = 4;
constexpr std::uint64_t kDefaultAlignment = 32;
constexpr std::uint64_t kMinAlignment = 8;
constexpr std::uint64_t kMaxAlignment = 4096;

enum ValueType : std::uint32_t {
  kUint8 = 0,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};
constexpr std::uint32_t kValueTypes = 13;

// Bytes of a fixed-size value; a string has at least its length.
constexpr std::array<std::uint64_t, kValueTypes> kValueBytes = {1, 1, 2,  2, 4, 4, 4,
                                                                1, 8, 12, 8, 8, 8};

// Names of tensor types by their number, so that an error can say what a file has.
constexpr std::array<std::string_view, 40> kGgmlTypeNames = {
    "F32",   "F16",        "Q4_0",       "Q4_1",       "Q4_2",     "Q4_3",     "Q5_0",
    "Q5_1",  "Q8_0",       "Q8_1",       "Q2_K",       "Q3_K",     "Q4_K",     "Q5_K",
    "Q6_K",  "Q8_K",       "IQ2_XXS",    "IQ2_XS",     "IQ3_XXS",  "IQ1_S",    "IQ4_NL",
    "IQ3_S", "IQ2_S",      "IQ4_XS",     "I8",         "I16",      "I32",      "I64",
    "F64",   "IQ1_M",      "BF16",       "Q4_0_4_4",   "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",
    "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4"};

absl::Status Bad(std::string what) {
  return absl::InvalidArgumentError("GGUF: " + std::move(what));
}

// A name from the file, safe to print on one line.
std::string Quoted(std::string_view name) {
  return absl::StrCat("'", absl::Utf8SafeCEscape(std::string(name.substr(0, kMaxKeyBytes))), "'");
}

bool IsUtf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (lead >= 0x80 && (lead < 0xC2 || lead > 0xF4)) return false;
    if (i + length > text.size()) return false;
    for (std::size_t j = 1; j < length; ++j) {
      if ((static_cast<unsigned char>(text[i + j]) & 0xC0) != 0x80) return false;
    }
    i += length;
  }
  return true;
}

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  std::uint64_t remaining() const { return bytes_.size() - at_; }
  std::uint64_t position() const { return at_; }

  template <typename T>
  std::optional<T> Read() {
    if (remaining() < sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }

  std::optional<std::string_view> ReadBytes(std::uint64_t count) {
    if (count > remaining()) return std::nullopt;
    const std::string_view out = bytes_.substr(at_, count);
    at_ += count;
    return out;
  }

 private:
  const std::string_view bytes_;
  std::uint64_t at_ = 0;
};

class HeaderParser {
 public:
  HeaderParser(std::string_view bytes, std::uint64_t file_bytes)
      : reader_(bytes), file_bytes_(file_bytes) {}

  absl::StatusOr<GgufHeader> Parse() {
    MILLRACE_RETURN_IF_ERROR(ParseMagic());
    const auto tensor_count = reader_.Read<std::uint64_t>();
    const auto key_count = reader_.Read<std::uint64_t>();
    if (!tensor_count || !key_count) return Bad("the file ends in its first 24 bytes");
    // Smallest entries: a key of 8 + 0 bytes, 4 of type and 1 of value; a tensor of 8 + 4 + 8 + 4
    // + 8.
    MILLRACE_RETURN_IF_ERROR(CheckCount("metadata keys", *key_count, kMaxKeys, 13));
    MILLRACE_RETURN_IF_ERROR(CheckCount("tensors", *tensor_count, kMaxTensors, 32));
    for (std::uint64_t i = 0; i < *key_count; ++i) MILLRACE_RETURN_IF_ERROR(ParseKey(i));
    MILLRACE_RETURN_IF_ERROR(ReadSettings());
    for (std::uint64_t i = 0; i < *tensor_count; ++i) MILLRACE_RETURN_IF_ERROR(ParseTensor(i));
    MILLRACE_RETURN_IF_ERROR(PlaceTensors());
    return std::move(header_);
  }

 private:
  absl::Status ParseMagic() {
    const auto magic = reader_.ReadBytes(4);
    if (!magic || *magic != "GGUF") return Bad("not a GGUF file: it does not begin with 'GGUF'");
    const auto version = reader_.Read<std::uint32_t>();
    if (!version) return Bad("the file ends in its first 24 bytes");
    header_.version = *version;
    if (*version == 0x02000000U || *version == 0x03000000U) {
      return Bad("a big-endian file; only little-endian ones are supported");
    }
    if (*version != 2 && *version != 3) {
      return Bad(absl::StrCat("version ", *version, "; versions 2 and 3 are supported"));
    }
    return absl::OkStatus();
  }

  absl::Status CheckCount(std::string_view what, std::uint64_t count, std::uint64_t limit,
                          std::uint64_t smallest) const {
    const std::uint64_t possible = std::min(limit, reader_.remaining() / smallest);
    if (count <= possible) return absl::OkStatus();
    return Bad(absl::StrCat("claims ", count, " ", std::string(what), "; at most ", possible,
                            count > limit ? " are supported" : " fit into the file"));
  }

  absl::StatusOr<std::string_view> ReadString(const std::string& what, std::uint64_t limit) {
    const auto length = reader_.Read<std::uint64_t>();
    if (!length) return Bad("the file ends inside " + what);
    if (*length > std::min(limit, reader_.remaining())) {
      return Bad(absl::StrCat(what, " claims ", *length, " bytes; at most ",
                              std::min(limit, reader_.remaining()), " are possible"));
    }
    return *reader_.ReadBytes(*length);
  }

  absl::Status ParseKey(std::uint64_t i) {
    MILLRACE_ASSIGN_OR_RETURN(
        const std::string_view key,
        ReadString(absl::StrCat("the name of metadata key ", i), kMaxKeyBytes));
    if (key.empty() || !IsUtf8(key)) {
      return Bad(absl::StrCat("the name of metadata key ", i, ", ", Quoted(key),
                              ", is empty or not UTF-8"));
    }
    if (!names_.insert(key).second)
      return Bad("metadata key " + Quoted(key) + " stands in the file twice");
    const std::string what = "metadata key " + Quoted(key);
    const auto type = reader_.Read<std::uint32_t>();
    if (!type) return Bad("the file ends inside " + what);
    MILLRACE_ASSIGN_OR_RETURN(GgufValue value,
                              *type == kArray ? ParseArray(what) : ParseScalar(what, *type));
    header_.metadata.emplace_back(key, std::move(value));
    return absl::OkStatus();
  }

  template <typename T, typename Wide>
  absl::StatusOr<GgufValue> ReadNumber(const std::string& what) {
    const auto value = reader_.Read<T>();
    if (!value) return Bad("the file ends inside " + what);
    return GgufValue(static_cast<Wide>(*value));
  }

  absl::StatusOr<GgufValue> ParseScalar(const std::string& what, std::uint32_t type) {
    switch (type) {
      case kUint8:
        return ReadNumber<std::uint8_t, std::uint64_t>(what);
      case kUint16:
        return ReadNumber<std::uint16_t, std::uint64_t>(what);
      case kUint32:
        return ReadNumber<std::uint32_t, std::uint64_t>(what);
      case kUint64:
        return ReadNumber<std::uint64_t, std::uint64_t>(what);
      case kInt8:
        return ReadNumber<std::int8_t, std::int64_t>(what);
      case kInt16:
        return ReadNumber<std::int16_t, std::int64_t>(what);
      case kInt32:
        return ReadNumber<std::int32_t, std::int64_t>(what);
      case kInt64:
        return ReadNumber<std::int64_t, std::int64_t>(what);
      case kFloat32:
        return ReadNumber<float, double>(what);
      case kFloat64:
        return ReadNumber<double, double>(what);
      case kBool: {
        const auto value = reader_.Read<std::uint8_t>();
        if (!value) return Bad("the file ends inside " + what);
        if (*value > 1)
          return Bad(absl::StrCat(what, " is a boolean of ", *value, "; want 0 or 1"));
        return GgufValue(*value == 1);
      }
      case kString: {
        MILLRACE_ASSIGN_OR_RETURN(const std::string_view text, ReadString(what, kMaxStringBytes));
        return GgufValue(text);
      }
      default:
        return Bad(absl::StrCat(what, " has value type ", type, "; types 0 to 12 exist"));
    }
  }

  template <typename T, typename Wide>
  absl::StatusOr<GgufValue> ReadNumbers(std::uint64_t count) {
    std::vector<Wide> out;
    out.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) out.push_back(static_cast<Wide>(*reader_.Read<T>()));
    return GgufValue(GgufArray(std::move(out)));
  }

  absl::StatusOr<GgufValue> ParseArray(const std::string& what) {
    const auto type = reader_.Read<std::uint32_t>();
    const auto count = reader_.Read<std::uint64_t>();
    if (!type || !count) return Bad("the file ends inside " + what);
    if (*type == kArray) return Bad(what + " is an array of arrays, which is not supported");
    if (*type >= kValueTypes) {
      return Bad(absl::StrCat(what, " is an array of value type ", *type, "; types 0 to 12 exist"));
    }
    MILLRACE_RETURN_IF_ERROR(
        CheckCount("elements in " + what, *count, kMaxArrayElements, kValueBytes[*type]));
    switch (*type) {
      case kUint8:
        return ReadNumbers<std::uint8_t, std::uint64_t>(*count);
      case kUint16:
        return ReadNumbers<std::uint16_t, std::uint64_t>(*count);
      case kUint32:
        return ReadNumbers<std::uint32_t, std::uint64_t>(*count);
      case kUint64:
        return ReadNumbers<std::uint64_t, std::uint64_t>(*count);
      case kInt8:
        return ReadNumbers<std::int8_t, std::int64_t>(*count);
      case kInt16:
        return ReadNumbers<std::int16_t, std::int64_t>(*count);
      case kInt32:
        return ReadNumbers<std::int32_t, std::int64_t>(*count);
      case kInt64:
        return ReadNumbers<std::int64_t, std::int64_t>(*count);
      case kFloat32:
        return ReadNumbers<float, double>(*count);
      case kFloat64:
        return ReadNumbers<double, double>(*count);
      case kBool:
        return ParseBools(what, *count);
      default:
        return ParseStrings(what, *count);
    }
  }

  absl::StatusOr<GgufValue> ParseBools(const std::string& what, std::uint64_t count) {
    std::vector<bool> out;
    out.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint8_t value = *reader_.Read<std::uint8_t>();
      if (value > 1)
        return Bad(absl::StrCat(what, "[", i, "] is a boolean of ", value, "; want 0 or 1"));
      out.push_back(value == 1);
    }
    return GgufValue(GgufArray(std::move(out)));
  }

  absl::StatusOr<GgufValue> ParseStrings(const std::string& what, std::uint64_t count) {
    std::vector<std::string_view> out;
    out.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto length = reader_.Read<std::uint64_t>();
      const auto text =
          length && *length <= kMaxStringBytes ? reader_.ReadBytes(*length) : std::nullopt;
      if (!text) return Bad(absl::StrCat(what, "[", i, "] does not fit into the file"));
      out.push_back(*text);
    }
    return GgufValue(GgufArray(std::move(out)));
  }

  // Keys that say how the rest of the file is to be read.
  absl::Status ReadSettings() {
    for (const auto& [key, value] : header_.metadata) {
      const auto* number = std::get_if<std::uint64_t>(&value);
      if (key == "general.alignment") {
        if (number == nullptr || !std::has_single_bit(*number) || *number < kMinAlignment ||
            *number > kMaxAlignment) {
          return Bad("general.alignment: want an unsigned power of two from 8 to 4096");
        }
        alignment_ = *number;
      } else if (key == "split.count" && number != nullptr && *number > 1) {
        return absl::UnimplementedError(
            absl::StrCat("GGUF: split.count is ", *number,
                         "; split files are not supported yet, merge them into one"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status ParseTensor(std::uint64_t i) {
    GgufTensor tensor;
    MILLRACE_ASSIGN_OR_RETURN(
        tensor.name, ReadString(absl::StrCat("the name of tensor ", i), kMaxTensorNameBytes));
    const std::string what = "tensor " + Quoted(tensor.name);
    if (tensor.name.empty() || !IsUtf8(tensor.name))
      return Bad(what + ": the name is empty or not UTF-8");
    if (!tensor_names_.insert(tensor.name).second) return Bad(what + " stands in the file twice");
    MILLRACE_ASSIGN_OR_RETURN(tensor.shape, ParseShape(what));
    const auto type = reader_.Read<std::uint32_t>();
    const auto offset = reader_.Read<std::uint64_t>();
    if (!type || !offset) return Bad("the file ends inside " + what);
    MILLRACE_ASSIGN_OR_RETURN(tensor.dtype, SupportedType(what, *type));
    MILLRACE_ASSIGN_OR_RETURN(tensor.size_bytes, SizeBytes(what, tensor));
    if (*offset % alignment_ != 0) {
      return Bad(absl::StrCat(what, ": offset ", *offset, " is no multiple of the alignment ",
                              alignment_));
    }
    tensor.offset_bytes = *offset;  // from the start of the data; PlaceTensors makes it the file's
    header_.tensors.push_back(std::move(tensor));
    return absl::OkStatus();
  }

  // The file has the fastest dimension first; ours has it last.
  absl::StatusOr<std::vector<std::int64_t>> ParseShape(const std::string& what) {
    const auto dims = reader_.Read<std::uint32_t>();
    if (!dims) return Bad("the file ends inside " + what);
    if (*dims < 1 || *dims > kMaxDims) {
      return Bad(absl::StrCat(what, " has ", *dims, " dimensions; 1 to 4 are supported"));
    }
    std::vector<std::int64_t> shape;
    for (std::uint32_t d = 0; d < *dims; ++d) {
      const auto size = reader_.Read<std::uint64_t>();
      if (!size) return Bad("the file ends inside " + what);
      if (*size == 0 || *size > static_cast<std::uint64_t>(INT64_MAX)) {
        return Bad(absl::StrCat(what, ": dimension ", d, " is ", *size, "; want at least 1"));
      }
      shape.push_back(static_cast<std::int64_t>(*size));
    }
    std::reverse(shape.begin(), shape.end());
    return shape;
  }

  static absl::StatusOr<DType> SupportedType(const std::string& what, std::uint32_t type) {
    if (const auto dtype = DTypeFromGgml(type)) return *dtype;
    std::string supported;
    for (const DTypeInfo& info : kDTypes) {
      absl::StrAppend(&supported, supported.empty() ? "" : ", ", std::string(info.name));
    }
    const std::string name =
        type < kGgmlTypeNames.size() ? " (" + std::string(kGgmlTypeNames[type]) + ")" : "";
    return absl::UnimplementedError(
        absl::StrCat("GGUF: ", what, " has type ", type, name, "; supported are ", supported));
  }

  static absl::StatusOr<std::uint64_t> SizeBytes(const std::string& what,
                                                 const GgufTensor& tensor) {
    const DTypeInfo& info = Info(tensor.dtype);
    if (tensor.shape.back() % info.block_values != 0) {
      return Bad(absl::StrCat(what, ": rows of ", tensor.shape.back(),
                              " values are no multiple of ", info.block_values, ", the block of ",
                              std::string(info.name)));
    }
    std::optional<std::uint64_t> bytes = 1;
    for (const std::int64_t d : tensor.shape) {
      bytes = bytes ? CheckedMultiply(*bytes, static_cast<std::uint64_t>(d)) : bytes;
    }
    // Blocks first: the product with block_bytes must not wrap either.
    if (bytes)
      bytes = CheckedMultiply(*bytes / static_cast<std::uint64_t>(info.block_values),
                              static_cast<std::uint64_t>(info.block_bytes));
    if (!bytes) return Bad(what + ": its dimensions multiply to more than 64 bits can hold");
    return *bytes;
  }

  absl::Status PlaceTensors() {
    const auto data_begin = CheckedAlign(reader_.position(), alignment_);
    std::vector<const GgufTensor*> order;
    for (GgufTensor& tensor : header_.tensors) {
      const auto begin = CheckedAdd(*data_begin, tensor.offset_bytes);
      const auto end = begin ? CheckedAdd(*begin, tensor.size_bytes) : std::nullopt;
      if (!end || *end > file_bytes_) {
        return Bad(absl::StrCat("tensor ", Quoted(tensor.name), " of ", tensor.size_bytes,
                                " bytes at offset ", tensor.offset_bytes,
                                " lies beyond the end of the file (", file_bytes_, " bytes)"));
      }
      tensor.offset_bytes = *begin;
      order.push_back(&tensor);
    }
    std::sort(order.begin(), order.end(), [](const GgufTensor* a, const GgufTensor* b) {
      return a->offset_bytes < b->offset_bytes;
    });
    for (std::size_t i = 1; i < order.size(); ++i) {
      if (order[i - 1]->offset_bytes + order[i - 1]->size_bytes > order[i]->offset_bytes) {
        return Bad(absl::StrCat("tensors ", Quoted(order[i - 1]->name), " and ",
                                Quoted(order[i]->name), " overlap"));
      }
    }
    return absl::OkStatus();
  }

  Reader reader_;
  const std::uint64_t file_bytes_;
  std::uint64_t alignment_ = kDefaultAlignment;
  std::unordered_set<std::string_view> names_;
  std::unordered_set<std::string_view> tensor_names_;
  GgufHeader header_;
};

}  // namespace

absl::StatusOr<GgufHeader> ParseGgufHeader(std::string_view bytes, std::uint64_t file_bytes) {
  return HeaderParser(bytes, file_bytes).Parse();
}

}  // namespace millrace
