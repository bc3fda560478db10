#include "serving/on_demand.h"

namespace memscope::serving {

bool OnDemand::admit(Request& request, const Start&) {
  return rules().taken_units(request, request.known_tokens()) <= free_units();
}

bool OnDemand::take(const Request& request, std::int64_t n_tokens) {
  const std::int64_t more =
      rules().taken_units(request, n_tokens) - rules().taken_units(request, request.computed_tokens);
  if (more > free_units()) {
    return false;
  }
  usage_.taken += more;
  return true;
}

void OnDemand::give_back(const Request& request) {
  usage_.taken -= rules().taken_units(request, request.computed_tokens);
}

}  // namespace memscope::serving
