#include "runtime/runner/model_digest.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/sha256.h"
#include "base/status.h"

namespace millrace {
namespace {

constexpr std::uint64_t kChunkBytes = std::uint64_t{1} << 20;

// Where the bytes of the first tensor begin; a part without tensors is all header.
std::uint64_t HeaderBytes(const GgufFile& file, std::size_t part) {
  std::uint64_t bytes = file.PartSource(part)->size_bytes();
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.part == part) bytes = std::min(bytes, tensor.offset_bytes);
  }
  return bytes;
}

absl::Status AddHeader(const GgufFile& file, std::size_t part, Sha256* hash) {
  const std::shared_ptr<const ByteSource> source = file.PartSource(part);
  const std::uint64_t end = HeaderBytes(file, part);
  std::vector<std::byte> chunk(std::min(end, kChunkBytes));
  for (std::uint64_t begin = 0; begin < end; begin += kChunkBytes) {
    const std::span<std::byte> piece(chunk.data(), std::min(kChunkBytes, end - begin));
    MILLRACE_RETURN_IF_ERROR(source->Read(begin, piece));
    hash->Add(piece);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ModelDigest(const GgufFile& file) {
  Sha256 hash;
  for (std::size_t part = 0; part < file.paths().size(); ++part) {
    const std::string stamp = file.PartSource(part)->Stamp() + "\n";
    hash.Add(std::as_bytes(std::span(stamp)));
    MILLRACE_RETURN_IF_ERROR(WithContext(file.paths()[part], AddHeader(file, part, &hash)));
  }
  return hash.Finish();
}

}  // namespace millrace
