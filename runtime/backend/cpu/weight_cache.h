// The laid-out weights of one model at one level, kept in a file from one start to the next: the
// first start writes them while it loads, later ones map them instead of reading the model.
//
// The file is a page that names what it was made from, then the weights in the order in which they
// are loaded: a page that says which one it is, and its bytes on a boundary that may be mapped. It
// has no name while it is written, and is synchronised before it gets one: what is found under its
// name is whole, and an end at any time leaves nothing behind (where the file system knows files
// without names). A file that cannot be used or written costs a line in the log, never the start.
//
// Driven by the loading thread; several processes may share a folder. Owns the open file; maps
// outlive it. Whoever may write to the folder decides what the model computes.
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

  // The next weight, of `bytes`, mapped; nullopt where there is no file, or it does not hold what
  // `what` says: name, type and layout, in one line.
  std::optional<HugeBuffer> Map(std::string_view what, std::int64_t bytes);
  // Keeps the next weight, unless the last ones came from the file or could not be written.
  void Append(std::string_view what, std::span<const std::byte> bytes);
  // All weights were appended: the file takes its name.
  void Finish();

 private:
  bool OpenExisting();
  void BeginNew();
  bool Write(std::span<const std::byte> bytes, std::int64_t offset) const;
  bool WriteText(std::string_view text, std::int64_t offset) const;
  bool HasText(std::string_view text, std::int64_t offset) const;
  // Gives the finished file its name, in place of one that is there.
  bool TakeName();
  // Goes on without a file; says why, with `error` as errno has it.
  void GiveUp(std::string_view what, int error);
  // Removes the file under our name if it is the open one.
  void RemoveOpenFile() const;
  // Where a weight of `bytes` begins, behind the page that describes it; moves the cursor.
  std::int64_t Place(std::int64_t bytes);

  const std::string title_;  // what the file was made from: its first page, without the padding
  const std::string path_;
  std::string temporary_;  // the name of a file that is being written, where it must have one
  int fd_ = -1;
  bool mapped_ = false;  // the file was found
  std::int64_t cursor_;
};

}  // namespace millrace::cpu

#endif  // MILLRACE_RUNTIME_BACKEND_CPU_WEIGHT_CACHE_H_
