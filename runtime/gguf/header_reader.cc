#include "runtime/gguf/header_reader.h"

#include <span>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

// More than the largest header within the limits of metadata_parser.cc and tensor_table.cc. The
// memory is reserved, and only what is read of the file is ever touched.
constexpr std::uint64_t kMaxHeaderBytes = std::uint64_t{192} << 20;

// Read ahead by this much: few calls for a header of megabytes, little memory for a small one.
constexpr std::uint64_t kChunkBytes = std::uint64_t{256} << 10;

}  // namespace

absl::Status BadGguf(const std::string& what) {
  return absl::InvalidArgumentError("GGUF: " + what);
}

HeaderReader::HeaderReader(const ByteSource& file)
    : file_(file),
      capacity_(std::min(file.size_bytes(), kMaxHeaderBytes)),
      bytes_(std::make_unique_for_overwrite<std::byte[]>(capacity_)) {}

bool HeaderReader::Fill(std::uint64_t count) {
  if (count > capacity_ - position_ || !read_status_.ok()) return false;
  if (position_ + count <= filled_) return true;
  const std::uint64_t end = std::min(capacity_, std::max(position_ + count, filled_ + kChunkBytes));
  read_status_ = file_.Read(filled_, std::span(bytes_.get() + filled_, end - filled_));
  if (!read_status_.ok()) return false;
  filled_ = end;
  return true;
}

std::optional<std::string_view> HeaderReader::ReadBytes(std::uint64_t count) {
  if (!Fill(count)) return std::nullopt;
  const std::string_view out(reinterpret_cast<const char*>(bytes_.get()) + position_, count);
  position_ += count;
  return out;
}

absl::StatusOr<std::string_view> HeaderReader::ReadString(const std::string& what,
                                                          std::uint64_t limit) {
  const auto length = Read<std::uint64_t>();
  if (!length) return EndStatus(what);
  if (*length > limit) {
    return BadGguf(
        absl::StrCat(what, " claims ", *length, " bytes; at most ", limit, " are supported"));
  }
  const auto text = ReadBytes(*length);
  if (!text) return EndStatus(what);
  return *text;
}

absl::Status HeaderReader::CheckCount(const std::string& what, std::uint64_t count,
                                      std::uint64_t limit, std::uint64_t smallest_bytes) const {
  if (count > limit) {
    return BadGguf(
        absl::StrCat(what, ": the file claims ", count, "; at most ", limit, " are supported"));
  }
  if (count > remaining() / smallest_bytes) {
    return BadGguf(absl::StrCat(what, ": the file claims ", count, "; its remaining ", remaining(),
                                " bytes hold at most ", remaining() / smallest_bytes));
  }
  return absl::OkStatus();
}

absl::Status HeaderReader::EndStatus(const std::string& what) const {
  if (!read_status_.ok()) {
    return absl::Status(read_status_.code(),
                        absl::StrCat("GGUF: ", what, ": ", read_status_.message()));
  }
  if (capacity_ < file_.size_bytes()) {
    return BadGguf(absl::StrCat(what, " ends beyond the first ", capacity_,
                                " bytes; larger headers are not supported"));
  }
  return BadGguf(absl::StrCat("the file of ", file_.size_bytes(), " bytes ends inside ", what));
}

}  // namespace millrace
