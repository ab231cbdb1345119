// The gauges that are read from the engine's snapshot at the scrape: one snapshot for all, so that
// free + used + cached blocks are the total at every scrape. Thread-safe.
#ifndef MILLRACE_SERVICE_LOAD_COLLECTOR_H_
#define MILLRACE_SERVICE_LOAD_COLLECTOR_H_

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "millrace/v1/generation.pb.h"
#include "scheduler/engine.h"

namespace millrace {

class LoadCollector final : public prometheus::Collectable {
 public:
  // Made when the process starts: it remembers the time.
  explicit LoadCollector(std::string version);

  // From now on there is a model. `engine` outlives the scrapes.
  void SetModel(const v1::ModelInfo& model, const Engine* engine, std::int32_t block_size)
      ABSL_LOCKS_EXCLUDED(mutex_);

  std::vector<prometheus::MetricFamily> Collect() const override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const std::string version_;
  const double started_;  // seconds since 1970
  mutable Mutex mutex_;
  const Engine* engine_ ABSL_GUARDED_BY(mutex_) = nullptr;
  v1::ModelInfo model_ ABSL_GUARDED_BY(mutex_);
  std::int32_t block_size_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace millrace

#endif  // MILLRACE_SERVICE_LOAD_COLLECTOR_H_
