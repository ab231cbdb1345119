#include "runtime/tokenizer/jinja/json.h"

#include <array>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace millrace::jinja {
namespace {

// Builds values from the parser's events, so that nesting is bounded while it is read.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Builder(std::int32_t max_depth) : max_depth_(static_cast<std::size_t>(max_depth)) {}

  Value result() { return std::move(result_); }
  const std::string& error() const { return error_; }

  bool null() override { return Add(Value::OfNone()); }
  bool boolean(bool b) override { return Add(Value::OfBool(b)); }
  bool number_integer(std::int64_t i) override { return Add(Value::OfInt(i)); }
  bool number_unsigned(std::uint64_t u) override {
    if (u <= static_cast<std::uint64_t>(INT64_MAX)) {
      return Add(Value::OfInt(static_cast<std::int64_t>(u)));
    }
    return Add(Value(Value::Data(static_cast<double>(u))));
  }
  bool number_float(double d, const std::string&) override { return Add(Value(Value::Data(d))); }
  bool string(std::string& s) override { return Add(Value::OfString(s, false)); }
  bool binary(nlohmann::json::binary_t&) override { return false; }
  bool start_object(std::size_t) override { return Open(false); }
  bool start_array(std::size_t) override { return Open(true); }
  bool key(std::string& s) override {
    open_.back().key = Text(s, false);
    return true;
  }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    error_ = absl::StrCat("not JSON at byte ", position);
    return false;
  }

 private:
  struct Level {
    bool array;
    List list;
    Dict dict;
    Text key;
  };

  bool Open(bool array) {
    if (open_.size() >= max_depth_) {
      error_ = absl::StrCat("nested deeper than ", max_depth_);
      return false;
    }
    open_.push_back({array, {}, {}, {}});
    return true;
  }

  bool Close() {
    Level level = std::move(open_.back());
    open_.pop_back();
    return Add(level.array ? Value::OfList(std::move(level.list))
                           : Value::OfDict(std::move(level.dict)));
  }

  bool Add(Value value) {
    if (open_.empty()) {
      result_ = std::move(value);
    } else if (open_.back().array) {
      open_.back().list.push_back(std::move(value));
    } else {
      AddItem(&open_.back(), std::move(value));
    }
    return true;
  }

  // The last of equal keys counts, at the place of the first, as in a Python dict.
  static void AddItem(Level* level, Value value) {
    for (auto& [key, item] : level->dict) {
      if (key.bytes() == level->key.bytes()) {
        item = std::move(value);
        return;
      }
    }
    level->dict.emplace_back(level->key, std::move(value));
  }

  const std::size_t max_depth_;
  std::vector<Level> open_;
  Value result_;
  std::string error_;
};

void DumpString(const Text& text, Text* out) {
  out->Append("\"", true);
  std::size_t offset = 0;
  for (const Text::Run& run : text.runs()) {
    std::string escaped;
    for (const char c : std::string_view(text.bytes()).substr(offset, run.length)) {
      const auto byte = static_cast<unsigned char>(c);
      switch (c) {
        case '"':
          escaped += "\\\"";
          break;
        case '\\':
          escaped += "\\\\";
          break;
        case '\n':
          escaped += "\\n";
          break;
        case '\r':
          escaped += "\\r";
          break;
        case '\t':
          escaped += "\\t";
          break;
        case '\f':
          escaped += "\\f";
          break;
        case '\b':
          escaped += "\\b";
          break;
        default:
          if (byte < 0x20) {
            std::array<char, 8> hex{};
            std::snprintf(hex.data(), hex.size(), "\\u%04x", byte);
            escaped += hex.data();
          } else {
            escaped += c;
          }
      }
    }
    out->Append(escaped, run.trusted);
    offset += run.length;
  }
  out->Append("\"", true);
}

void NewLine(std::int64_t indent, std::int64_t depth, Text* out) {
  out->Append("\n" + std::string(static_cast<std::size_t>(indent * depth), ' '), true);
}

absl::Status Dump(const Value& value, std::optional<std::int64_t> indent, std::int64_t depth,
                  Text* out);

absl::Status DumpDict(const Dict& dict, std::optional<std::int64_t> indent, std::int64_t depth,
                      Text* out) {
  if (dict.empty()) {
    out->Append("{}", true);
    return absl::OkStatus();
  }
  out->Append("{", true);
  for (std::size_t i = 0; i < dict.size(); ++i) {
    if (i > 0) out->Append(indent ? "," : ", ", true);
    if (indent) NewLine(*indent, depth + 1, out);
    DumpString(dict[i].first, out);
    out->Append(": ", true);
    MILLRACE_RETURN_IF_ERROR(Dump(dict[i].second, indent, depth + 1, out));
  }
  if (indent) NewLine(*indent, depth, out);
  out->Append("}", true);
  return absl::OkStatus();
}

absl::Status DumpList(const List& list, std::optional<std::int64_t> indent, std::int64_t depth,
                      Text* out) {
  if (list.empty()) {
    out->Append("[]", true);
    return absl::OkStatus();
  }
  out->Append("[", true);
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (i > 0) out->Append(indent ? "," : ", ", true);
    if (indent) NewLine(*indent, depth + 1, out);
    MILLRACE_RETURN_IF_ERROR(Dump(list[i], indent, depth + 1, out));
  }
  if (indent) NewLine(*indent, depth, out);
  out->Append("]", true);
  return absl::OkStatus();
}

std::string FloatJson(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return FloatRepr(value);
}

absl::Status Dump(const Value& value, std::optional<std::int64_t> indent, std::int64_t depth,
                  Text* out) {
  if (const Text* text = value.AsText()) {
    DumpString(*text, out);
  } else if (value.is_none()) {
    out->Append("null", true);
  } else if (const bool* b = value.AsBool()) {
    out->Append(*b ? "true" : "false", true);
  } else if (const std::int64_t* i = value.AsInt()) {
    out->Append(std::to_string(*i), true);
  } else if (const double* d = value.AsFloat()) {
    out->Append(FloatJson(*d), true);
  } else if (const List* list = value.AsList()) {
    return DumpList(*list, indent, depth, out);
  } else if (const Dict* dict = value.AsDict()) {
    return DumpDict(*dict, indent, depth, out);
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("tojson of ", std::string(value.kind()), ": JSON cannot say that"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Value> ParseJson(std::string_view json, std::string_view what,
                                std::int32_t max_depth) {
  Builder builder(max_depth);
  if (!nlohmann::json::sax_parse(json, &builder)) {
    return absl::InvalidArgumentError(absl::StrCat(
        std::string(what), ": ", builder.error().empty() ? "not JSON" : builder.error()));
  }
  return builder.result();
}

absl::StatusOr<Text> DumpJson(const Value& value, std::optional<std::int64_t> indent) {
  Text out;
  MILLRACE_RETURN_IF_ERROR(Dump(value, indent, 0, &out));
  return out;
}

}  // namespace millrace::jinja
