#include "serving/buddies.h"

#include <algorithm>
#include <bit>
#include <cstddef>

namespace memscope::serving {

Buddies::Buddies(std::int64_t n_granules) {
  std::int64_t address = 0;
  for (int order = kMaxOrders - 1; order >= 0; --order) {
    const std::int64_t size = std::int64_t{1} << order;
    if (n_granules & size) {
      free_.at(static_cast<std::size_t>(order)).insert(address);
      address += size;
    }
  }
}

int Buddies::order_of(std::int64_t n_granules) {
  return n_granules <= 1 ? 0 : static_cast<int>(std::bit_width(static_cast<std::uint64_t>(n_granules - 1)));
}

std::optional<std::int64_t> Buddies::take(int order) {
  const auto wanted = static_cast<std::size_t>(order);
  std::size_t found = wanted;
  while (found < free_.size() && free_[found].empty()) {
    ++found;
  }
  if (found >= free_.size()) {
    return std::nullopt;
  }
  const std::int64_t address = *free_[found].begin();
  free_[found].erase(free_[found].begin());
  while (found > wanted) {
    --found;
    free_.at(found).insert(address + (std::int64_t{1} << found));
  }
  return address;
}

void Buddies::give_back(int order, std::int64_t address) {
  for (auto blocks = free_.begin() + order;; ++blocks, ++order) {
    const std::int64_t buddy = address ^ (std::int64_t{1} << order);
    if (blocks->erase(buddy) == 0) {
      blocks->insert(address);
      return;
    }
    address = std::min(address, buddy);
  }
}

}  // namespace memscope::serving
