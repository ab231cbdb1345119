// SHA-256 of bytes that come piece by piece. Not thread-safe; a value that owns its state.
#ifndef MILLRACE_BASE_SHA256_H_
#define MILLRACE_BASE_SHA256_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace millrace {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Add(std::span<const std::byte> bytes);
  // The digest of all that was added, as 64 hexadecimal digits; once, at the end.
  std::string Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace millrace

#endif  // MILLRACE_BASE_SHA256_H_
