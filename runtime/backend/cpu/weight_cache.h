// The laid-out weights of one model at one level, kept in a file from one start to the next: the
// first start writes them while it loads, later ones map them instead of reading the model.
//
// The file is a page that names what it was made from, then the weights in the order in which they
// are loaded, each on a boundary that may be mapped. Which weights these are, and how large,
// follows from the model's header, which the name covers; so there is no table. It is written under
// another name, synchronised, then renamed: what is found under its name is whole. A cache that
// cannot be written costs a line in the log, never the start.
//
// Driven by the loading thread. Owns the open file; maps outlive it.
#ifndef MILLRACE_RUNTIME_BACKEND_CPU_WEIGHT_CACHE_H_
#define MILLRACE_RUNTIME_BACKEND_CPU_WEIGHT_CACHE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "kernels/cpu/isa.h"
#include "runtime/backend/cpu/huge_buffer.h"
#include "runtime/backend/weight_cache_options.h"

namespace millrace::cpu {

class WeightCache {
 public:
  // Finds the file of the model and level, or begins a new one; `options.directory` is not empty.
  WeightCache(const WeightCacheOptions& options, Isa isa);
  ~WeightCache();
  WeightCache(const WeightCache&) = delete;
  WeightCache& operator=(const WeightCache&) = delete;

  // The next weight, of `bytes`, mapped; nullopt where there is no file, or it does not hold it.
  std::optional<HugeBuffer> Map(std::int64_t bytes, std::string_view name);
  // Keeps the next weight, unless the last ones came from the file or could not be written.
  void Append(std::span<const std::byte> bytes);
  // All weights were appended: the file takes its name.
  void Finish();

 private:
  bool OpenExisting();
  void BeginNew();
  bool Write(std::span<const std::byte> bytes, std::int64_t offset) const;
  void GiveUp(std::string_view what);
  // Where a weight of `bytes` begins; moves the cursor behind it.
  std::int64_t Place(std::int64_t bytes);

  const std::string title_;  // what the file was made from: its first page, without the padding
  const std::string path_;
  std::string temporary_;  // of a file that is being written
  int fd_ = -1;
  bool mapped_ = false;  // the file was found
  std::int64_t file_bytes_ = 0;
  std::int64_t cursor_;
};

}  // namespace millrace::cpu

#endif  // MILLRACE_RUNTIME_BACKEND_CPU_WEIGHT_CACHE_H_
