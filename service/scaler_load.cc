#include "service/scaler_load.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "service/load_reporter.h"

namespace millrace {
namespace {

struct Key {
  std::string_view name;
  double most;
  std::optional<double> ScalerTargets::*target;
};

// More waiting sequences than any queue holds.
constexpr double kMostQueue = 100000;
constexpr std::array<Key, 3> kKeys = {
    Key{"targetQueue", kMostQueue, &ScalerTargets::queue},
    Key{"targetKvPercent", 100, &ScalerTargets::kv_percent},
    Key{"targetRunningPercent", 100, &ScalerTargets::running_percent},
};

absl::StatusOr<double> ParseTarget(const Key& key, const std::string& text) {
  double value = 0;
  // Not a number compares false.
  if (absl::SimpleAtod(text, &value) && value > 0 && value <= key.most) return value;
  return absl::InvalidArgumentError(absl::StrCat(std::string(key.name), " is '", text,
                                                 "'; want a number above 0, at most ", key.most));
}

// nullptr: there is none of that name.
const Key* FindKey(const std::string& name) {
  const auto* const key =
      std::find_if(kKeys.begin(), kKeys.end(), [&name](const Key& k) { return k.name == name; });
  return key == kKeys.end() ? nullptr : key;
}

}  // namespace

absl::StatusOr<ScalerTargets> ParseScalerTargets(
    const std::map<std::string, std::string>& metadata) {
  ScalerTargets targets;
  for (const auto& [name, text] : metadata) {
    const Key* const key = FindKey(name);
    if (key != nullptr) {
      MILLRACE_ASSIGN_OR_RETURN(targets.*(key->target), ParseTarget(*key, text));
    } else if (name.starts_with("target")) {
      // A slip of the pen must not leave a default in place.
      return absl::InvalidArgumentError(absl::StrCat(
          name, " is no target; there are targetQueue, targetKvPercent, targetRunningPercent"));
    }
  }
  return targets;
}

double ScalerLoad(const LoadSnapshot& load, const ScalerTargets& targets) {
  constexpr double kPercent = 100;
  double most = 0;
  const auto look = [&most](double value, const std::optional<double>& target) {
    if (target) most = std::max(most, value / *target);
  };
  look(load.waiting, targets.queue);
  look(KvUse(load) * kPercent, targets.kv_percent);
  if (load.max_running > 0) {
    look(kPercent * load.running / load.max_running, targets.running_percent);
  }
  return most * kPercent;
}

}  // namespace millrace
