#include "runtime/tokenizer/jinja/value.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace millrace::jinja {
namespace {

// Python's repr of a string: single quotes unless it has some and no double ones.
Text QuotedText(const Text& text) {
  const std::string& bytes = text.bytes();
  const bool has_single = bytes.find('\'') != std::string::npos;
  const char quote = has_single && bytes.find('"') == std::string::npos ? '"' : '\'';
  Text out(std::string(1, quote), true);
  std::size_t offset = 0;
  for (const Text::Run& run : text.runs()) {
    std::string escaped;
    for (const char c : std::string_view(bytes).substr(offset, run.length)) {
      const auto byte = static_cast<unsigned char>(c);
      if (c == quote || c == '\\') {
        escaped += '\\';
        escaped += c;
      } else if (c == '\n') {
        escaped += "\\n";
      } else if (c == '\t') {
        escaped += "\\t";
      } else if (c == '\r') {
        escaped += "\\r";
      } else if (byte < 0x20 || byte == 0x7F) {
        std::array<char, 8> hex{};
        std::snprintf(hex.data(), hex.size(), "\\x%02x", byte);
        escaped += hex.data();
      } else {
        escaped += c;
      }
    }
    out.Append(escaped, run.trusted);
    offset += run.length;
  }
  out.Append(std::string(1, quote), true);
  return out;
}

Text ListText(const List& list) {
  Text out("[", true);
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (i > 0) out.Append(", ", true);
    out.Append(Repr(list[i]));
  }
  out.Append("]", true);
  return out;
}

Text DictText(const Dict& dict) {
  Text out("{", true);
  for (std::size_t i = 0; i < dict.size(); ++i) {
    if (i > 0) out.Append(", ", true);
    out.Append(QuotedText(dict[i].first));
    out.Append(": ", true);
    out.Append(Repr(dict[i].second));
  }
  out.Append("}", true);
  return out;
}

}  // namespace

std::optional<double> Value::AsNumber() const {
  if (const bool* b = AsBool()) return *b ? 1.0 : 0.0;
  if (const std::int64_t* i = AsInt()) return static_cast<double>(*i);
  if (const double* d = AsFloat()) return *d;
  return std::nullopt;
}

std::optional<std::int64_t> Value::AsInteger() const {
  if (const bool* b = AsBool()) return *b ? 1 : 0;
  if (const std::int64_t* i = AsInt()) return *i;
  return std::nullopt;
}

std::string_view Value::kind() const {
  static constexpr std::array<std::string_view, 10> kNames = {
      "undefined", "none",   "a boolean", "an integer",  "a float",
      "a string",  "a list", "a mapping", "a namespace", "a function"};
  return kNames[data_.index()];
}

bool Truthy(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (const auto number = value.AsNumber()) return *number != 0.0;
  if (const Text* text = value.AsText()) return !text->empty();
  if (const List* list = value.AsList()) return !list->empty();
  if (const Dict* dict = value.AsDict()) return !dict->empty();
  return true;
}

bool Equal(const Value& a, const Value& b) {
  if (a.AsInteger() && b.AsInteger()) return *a.AsInteger() == *b.AsInteger();
  if (a.AsNumber() && b.AsNumber()) return *a.AsNumber() == *b.AsNumber();
  if (a.data().index() != b.data().index()) return false;
  if (a.is_undefined() || a.is_none()) return true;
  if (a.AsText() != nullptr) return a.AsText()->bytes() == b.AsText()->bytes();
  if (const List* list = a.AsList()) {
    const List& other = *b.AsList();
    if (list->size() != other.size()) return false;
    for (std::size_t i = 0; i < list->size(); ++i) {
      if (!Equal((*list)[i], other[i])) return false;
    }
    return true;
  }
  if (const Dict* dict = a.AsDict()) {
    const Dict& other = *b.AsDict();
    if (dict->size() != other.size()) return false;
    for (const auto& [key, item] : *dict) {
      const Value* match = FindItem(other, key.bytes());
      if (match == nullptr || !Equal(item, *match)) return false;
    }
    return true;
  }
  return a.AsNamespace() == b.AsNamespace() && a.AsCallable() == b.AsCallable();
}

const Value* FindItem(const Dict& dict, std::string_view key) {
  for (const auto& [name, item] : dict) {
    if (name.bytes() == key) return &item;
  }
  return nullptr;
}

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  const double magnitude = std::fabs(value);
  // Python switches to exponents outside [1e-4, 1e16).
  const bool exponent = magnitude != 0 && (magnitude < 1e-4 || magnitude >= 1e16);
  std::array<char, 64> text{};
  const auto format = exponent ? std::chars_format::scientific : std::chars_format::fixed;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value, format).ptr;
  std::string out(text.data(), end);
  if (!exponent && out.find('.') == std::string::npos) out += ".0";
  return out;
}

Text ToText(const Value& value) {
  if (const Text* text = value.AsText()) return *text;
  if (value.is_undefined()) return Text();
  return Repr(value);
}

Text Repr(const Value& value) {
  if (const Text* text = value.AsText()) return QuotedText(*text);
  if (value.is_none()) return Text("None", true);
  if (value.is_undefined()) return Text("Undefined", true);
  if (const bool* b = value.AsBool()) return Text(*b ? "True" : "False", true);
  if (const std::int64_t* i = value.AsInt()) return Text(std::to_string(*i), true);
  if (const double* d = value.AsFloat()) return Text(FloatRepr(*d), true);
  if (const List* list = value.AsList()) return ListText(*list);
  if (const Dict* dict = value.AsDict()) return DictText(*dict);
  return Text(value.kind(), true);
}

}  // namespace millrace::jinja
