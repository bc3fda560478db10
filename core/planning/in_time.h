// Placing by lifetimes in the order of time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "planning/lifetimes.h"

namespace memscope::planning {

enum class Fit : std::uint8_t { kFirst, kBest };

// Put each row where an allocator that sees only the past would: first fit or best fit in one address range. `by_end`
// are the rows in order of their end. Linear in the free ranges for each row. Floors are not regarded. The peak is
// kNotPlaced if the work exceeded `max_work`.
Placement place_in_time(const std::vector<Lifetime>& rows, Int64s by_end, Fit fit, std::int64_t max_work);

struct Slots {
  std::vector<std::int64_t> slot;     // by row: the slot within its class
  std::vector<std::int64_t> n_slots;  // by class
};

// Give rows of one size class the fewest slots such that those in one slot never live together. O(rows).
Slots share_slots(const std::vector<Lifetime>& rows, Int64s by_end, Int64s size_class, std::size_t n_classes);

}  // namespace memscope::planning
