// Where laid-out weights are kept from one start to the next. A value.
#ifndef MILLRACE_RUNTIME_BACKEND_WEIGHT_CACHE_OPTIONS_H_
#define MILLRACE_RUNTIME_BACKEND_WEIGHT_CACHE_OPTIONS_H_

#include <string>

namespace millrace {

struct WeightCacheOptions {
  std::string directory;  // empty: nowhere
  std::string model;      // digits that change when the model's file does; REQUIRES: at least 16
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_BACKEND_WEIGHT_CACHE_OPTIONS_H_
