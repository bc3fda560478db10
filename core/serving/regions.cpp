#include "serving/regions.h"

#include <utility>

namespace memscope::serving {

Regions::Regions(Rules rules, std::int64_t capacity, bool is_padded, Sizes sizes)
    : Manager(std::move(rules), capacity, is_padded),
      sizes_(std::move(sizes)),
      buddies_(capacity / sizes_.granule_units),
      addresses_(sizes_.region_units.size()) {}

std::int64_t Regions::region_units(const Request& request) const { return sizes_.region_units.at(request.number); }

int Regions::order_of(const Request& request) const {
  return Buddies::order_of((region_units(request) + sizes_.granule_units - 1) / sizes_.granule_units);
}

// Units that the blocks of a request's regions have on top of them.
std::int64_t Regions::slack_units(const Request& request) const {
  const std::int64_t block = (std::int64_t{1} << order_of(request)) * sizes_.granule_units;
  return request.n_samples * (block - region_units(request));
}

bool Regions::admit(Request& request, const Start&) {
  if (!place(request)) {
    return false;
  }
  usage_.taken += request.n_samples * region_units(request);
  usage_.slack += slack_units(request);
  usage_.future += rules().held_units(request, request.final_tokens());
  return true;
}

// Place a region for each sample; false, and nothing is taken, if there are not blocks enough.
bool Regions::place(const Request& request) {
  const int order = order_of(request);
  std::vector<std::int64_t>& addresses = addresses_.at(request.number);
  for (std::int64_t sample = 0; sample < request.n_samples; ++sample) {
    const auto address = buddies_.take(order);
    if (!address) {
      for (const std::int64_t taken : addresses) {
        buddies_.give_back(order, taken);
      }
      addresses.clear();
      return false;
    }
    addresses.push_back(*address);
  }
  return true;
}

void Regions::give_back(const Request& request) {
  usage_.taken -= request.n_samples * region_units(request);
  usage_.slack -= slack_units(request);
  for (const std::int64_t address : addresses_.at(request.number)) {
    buddies_.give_back(order_of(request), address);
  }
  addresses_[request.number].clear();
}

}  // namespace memscope::serving
