#include "planning/lifetimes.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace memscope::planning {

std::vector<Lifetime> to_lifetimes(Int64s start, Int64s end, Int64s size, Int64s floor) {
  std::vector<Lifetime> rows;
  rows.reserve(start.size());
  for (Row row = 0; row < start.size(); ++row) {
    if (!std::in_range<std::int32_t>(start[row]) || !std::in_range<std::int32_t>(end[row])) {
      throw std::invalid_argument("more epochs than 32 bits can number");
    }
    rows.push_back({static_cast<std::int32_t>(start[row]), static_cast<std::int32_t>(end[row]), size[row],
                    floor.empty() ? 0 : floor[row]});
  }
  if (!std::ranges::is_sorted(rows, {}, &Lifetime::start)) {
    throw std::invalid_argument("rows must be in order of their start");
  }
  return rows;
}

}  // namespace memscope::planning
