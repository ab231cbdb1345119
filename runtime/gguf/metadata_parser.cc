#include "runtime/gguf/metadata_parser.h"

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/gguf/gguf_text.h"

namespace millrace {
namespace {

// What real models need with room to spare; the checks against the remaining bytes do the rest.
constexpr std::uint64_t kMaxKeys = 4096;
constexpr std::uint64_t kMaxKeyBytes = 256;
constexpr std::uint64_t kMaxStringBytes = std::uint64_t{1} << 20;        // chat templates: KiB
constexpr std::uint64_t kMaxTotalStringBytes = std::uint64_t{64} << 20;  // vocabularies: 6 MiB
constexpr std::uint64_t kMaxTokenizerElements = std::uint64_t{1} << 20;  // vocabularies: 152 k
constexpr std::uint64_t kMaxElements = std::uint64_t{1} << 16;           // all other arrays
constexpr std::uint64_t kMaxTotalElements = std::uint64_t{1} << 22;      // of all arrays
constexpr std::uint64_t kSmallestKeyBytes = 8 + 1 + 4 + 1;  // length, name, type, value

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

// Bytes of a value of each type; of a string its length, which is the least it can have.
constexpr std::array<std::uint64_t, 13> kSmallestValueBytes = {1, 1, 2, 2, 4, 4, 4,
                                                               1, 8, 0, 8, 8, 8};

class MetadataParser {
 public:
  explicit MetadataParser(HeaderReader* reader) : reader_(*reader) {}

  absl::StatusOr<GgufMetadata> Parse(std::uint64_t count) {
    GgufMetadata metadata;
    metadata.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) {
      MILLRACE_ASSIGN_OR_RETURN(const std::string_view key, ParseName(i));
      key_ = key;
      MILLRACE_ASSIGN_OR_RETURN(GgufValue value, ParseValue());
      metadata.emplace_back(key, std::move(value));
    }
    return metadata;
  }

 private:
  std::string Key() const { return "metadata key " + Quoted(key_); }
  absl::Status EndOfFile() const { return reader_.EndStatus(Key()); }

  absl::StatusOr<std::string_view> ParseName(std::uint64_t index) {
    const std::string what = absl::StrCat("the name of metadata key number ", index);
    MILLRACE_ASSIGN_OR_RETURN(const std::string_view name, reader_.ReadString(what, kMaxKeyBytes));
    if (name.empty() || !IsPrintableUtf8(name)) {
      return BadGguf(absl::StrCat(what, ", ", Quoted(name), ", is empty or not printable UTF-8"));
    }
    if (!names_.insert(name).second) {
      return BadGguf(absl::StrCat("metadata key ", Quoted(name), " stands in the file twice"));
    }
    return name;
  }

  absl::StatusOr<GgufValue> ParseValue() {
    const auto type = reader_.Read<std::uint32_t>();
    if (!type) return EndOfFile();
    switch (*type) {
      case kUint8:
        return ParseNumber<std::uint8_t, std::uint64_t>();
      case kUint16:
        return ParseNumber<std::uint16_t, std::uint64_t>();
      case kUint32:
        return ParseNumber<std::uint32_t, std::uint64_t>();
      case kUint64:
        return ParseNumber<std::uint64_t, std::uint64_t>();
      case kInt8:
        return ParseNumber<std::int8_t, std::int64_t>();
      case kInt16:
        return ParseNumber<std::int16_t, std::int64_t>();
      case kInt32:
        return ParseNumber<std::int32_t, std::int64_t>();
      case kInt64:
        return ParseNumber<std::int64_t, std::int64_t>();
      case kFloat32:
        return ParseNumber<float, double>();
      case kFloat64:
        return ParseNumber<double, double>();
      case kBool: {
        MILLRACE_ASSIGN_OR_RETURN(const bool value, ParseBool());
        return GgufValue(value);
      }
      case kString: {
        MILLRACE_ASSIGN_OR_RETURN(const std::string_view value, ParseString());
        return GgufValue(value);
      }
      case kArray:
        return ParseArray();
      default:
        return UnknownType("", *type);
    }
  }

  absl::StatusOr<GgufValue> ParseArray() {
    const auto type = reader_.Read<std::uint32_t>();
    const auto count = reader_.Read<std::uint64_t>();
    if (!type || !count) return EndOfFile();
    MILLRACE_RETURN_IF_ERROR(CheckElements(*type, *count));
    switch (*type) {
      case kUint8:
        return ParseNumbers<std::uint8_t, std::uint64_t>(*count);
      case kUint16:
        return ParseNumbers<std::uint16_t, std::uint64_t>(*count);
      case kUint32:
        return ParseNumbers<std::uint32_t, std::uint64_t>(*count);
      case kUint64:
        return ParseNumbers<std::uint64_t, std::uint64_t>(*count);
      case kInt8:
        return ParseNumbers<std::int8_t, std::int64_t>(*count);
      case kInt16:
        return ParseNumbers<std::int16_t, std::int64_t>(*count);
      case kInt32:
        return ParseNumbers<std::int32_t, std::int64_t>(*count);
      case kInt64:
        return ParseNumbers<std::int64_t, std::int64_t>(*count);
      case kFloat32:
        return ParseNumbers<float, double>(*count);
      case kFloat64:
        return ParseNumbers<double, double>(*count);
      case kBool:
        return ParseElements<bool>(*count, [this] { return ParseBool(); });
      default:  // kString: CheckElements let nothing else through
        return ParseElements<std::string_view>(*count, [this] { return ParseString(); });
    }
  }

  absl::Status CheckElements(std::uint32_t type, std::uint64_t count) {
    if (type == kArray) {
      return BadGguf(Key() + " is an array of arrays, which is not supported");
    }
    if (type >= kSmallestValueBytes.size()) return UnknownType("an array of ", type);
    const bool of_tokenizer = key_.substr(0, 10) == "tokenizer.";
    MILLRACE_RETURN_IF_ERROR(reader_.CheckCount("elements of " + Key(), count,
                                                of_tokenizer ? kMaxTokenizerElements : kMaxElements,
                                                kSmallestValueBytes[type]));
    total_elements_ += count;  // cannot wrap: each count is checked, and there are few keys
    if (total_elements_ <= kMaxTotalElements) return absl::OkStatus();
    return BadGguf(absl::StrCat(Key(), " brings the elements of all arrays to ", total_elements_,
                                "; at most ", kMaxTotalElements, " are supported"));
  }

  template <typename T, typename Wide>
  absl::StatusOr<GgufValue> ParseNumber() {
    const auto value = reader_.Read<T>();
    if (!value) return EndOfFile();
    return GgufValue(static_cast<Wide>(*value));
  }

  template <typename T, typename Wide>
  absl::StatusOr<GgufValue> ParseNumbers(std::uint64_t count) {
    std::vector<Wide> out;
    out.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto value = reader_.Read<T>();
      if (!value) return EndOfFile();
      out.push_back(static_cast<Wide>(*value));
    }
    return GgufValue(GgufArray(std::move(out)));
  }

  template <typename T, typename ParseOne>
  absl::StatusOr<GgufValue> ParseElements(std::uint64_t count, ParseOne parse_one) {
    std::vector<T> out;
    out.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) {
      MILLRACE_ASSIGN_OR_RETURN(const T value, parse_one());
      out.push_back(value);
    }
    return GgufValue(GgufArray(std::move(out)));
  }

  absl::StatusOr<bool> ParseBool() {
    const auto value = reader_.Read<std::uint8_t>();
    if (!value) return EndOfFile();
    if (*value > 1) {
      return BadGguf(absl::StrCat(Key(), " holds a boolean of ", *value, "; want 0 or 1"));
    }
    return *value == 1;
  }

  // Names the key only in errors: a vocabulary is a hundred thousand strings.
  absl::StatusOr<std::string_view> ParseString() {
    const auto length = reader_.Read<std::uint64_t>();
    if (!length) return EndOfFile();
    if (*length > kMaxStringBytes) {
      return BadGguf(absl::StrCat(Key(), " holds a string of ", *length, " bytes; at most ",
                                  kMaxStringBytes, " are supported"));
    }
    const auto text = reader_.ReadBytes(*length);
    if (!text) return EndOfFile();
    total_string_bytes_ += *length;  // cannot wrap: these are bytes of the file
    if (total_string_bytes_ <= kMaxTotalStringBytes) return *text;
    return BadGguf(absl::StrCat(Key(), " brings the bytes of all strings to ", total_string_bytes_,
                                "; at most ", kMaxTotalStringBytes, " are supported"));
  }

  absl::Status UnknownType(const std::string& of, std::uint32_t type) const {
    return BadGguf(absl::StrCat(Key(), " is ", of, "value type ", type, "; types 0 to ",
                                kSmallestValueBytes.size() - 1, " exist"));
  }

  HeaderReader& reader_;
  std::string_view key_;
  std::unordered_set<std::string_view> names_;
  std::uint64_t total_elements_ = 0;
  std::uint64_t total_string_bytes_ = 0;
};

}  // namespace

absl::Status CheckKeyCount(const HeaderReader& reader, std::uint64_t count) {
  return reader.CheckCount("metadata keys", count, kMaxKeys, kSmallestKeyBytes);
}

absl::StatusOr<GgufMetadata> ParseMetadata(HeaderReader* reader, std::uint64_t count) {
  return MetadataParser(reader).Parse(count);
}

}  // namespace millrace
