// The one number that says whether there should be more servers, or fewer: how far this one is from
// its targets, 100 being just there (docs/adr/0016-one-load-for-the-scaler.md). Pure functions.
#ifndef MILLRACE_SERVICE_SCALER_LOAD_H_
#define MILLRACE_SERVICE_SCALER_LOAD_H_

#include <map>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "scheduler/engine.h"

namespace millrace {

// What a server should have at most; what is nullopt is not looked at.
struct ScalerTargets {
  // Waiting sequences. An eighth of the default places: gone with the next few that end.
  std::optional<double> queue = 8;
  // Used part of the KV cache in percent. Above it little is left for what runs to grow into.
  std::optional<double> kv_percent = 80;
  // Taken places in percent.
  std::optional<double> running_percent;
};

// From the metadata of a ScaledObject's trigger: targetQueue, targetKvPercent and
// targetRunningPercent, numbers; keys of KEDA's own are passed over. INVALID_ARGUMENT names the key
// that is out of range or, beginning with "target", unknown.
absl::StatusOr<ScalerTargets> ParseScalerTargets(
    const std::map<std::string, std::string>& metadata);

// The most that any of `load` is of its target, in percent.
double ScalerLoad(const LoadSnapshot& load, const ScalerTargets& targets);

}  // namespace millrace

#endif  // MILLRACE_SERVICE_SCALER_LOAD_H_
