// Whether any two of many placed lifetimes meet in both time and address. Shares nothing with the planner.
#pragma once

#include <cstdint>
#include <optional>

#include "checked.h"

namespace memscope::planning {

// Two rows that are alive together and have addresses in common.
struct Overlap {
  std::int64_t later;
  std::int64_t earlier;
};

// Rows live in [start, end) and occupy [low, high), neither of them empty. O(n log n).
std::optional<Overlap> find_overlap(Int64s start, Int64s end, Int64s low, Int64s high);

}  // namespace memscope::planning
