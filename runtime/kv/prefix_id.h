// The name of a prefix: all tokens, and the salt, up to the end of a full block. Two prefixes have
// one name iff they are equal while both are known. A value.
#ifndef MILLRACE_RUNTIME_KV_PREFIX_ID_H_
#define MILLRACE_RUNTIME_KV_PREFIX_ID_H_

#include <cstdint>

#include "base/strong_id.h"

namespace millrace {

using PrefixId = StrongId<struct PrefixIdTag, std::uint64_t>;
inline constexpr PrefixId kNoPrefix{0};  // of no block

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_KV_PREFIX_ID_H_
