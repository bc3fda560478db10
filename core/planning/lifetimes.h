// What is to be placed: rows with a lifetime and a size, in order of their start.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "checked.h"

namespace memscope::planning {

using Row = std::size_t;

inline constexpr std::int64_t kNotPlaced = -1;

// One allocation: it needs `size` units of address space, not below `floor`, in the epochs [start, end).
struct Lifetime {
  std::int32_t start;
  std::int32_t end;
  std::int64_t size;
  std::int64_t floor = 0;
};

// All floors are 0 where none are given. Throws std::invalid_argument if the starts do not ascend, or an epoch does not
// fit.
std::vector<Lifetime> to_lifetimes(Int64s start, Int64s end, Int64s size, Int64s floor);

// A placement is valid by construction: a row is put where no placed row that lives at some time with it lies.
// Placements differ in the order of placing, and so in the space they need.
struct Placement {
  std::vector<std::int64_t> offset;  // by row, kNotPlaced where it was given up before
  std::int64_t peak = 0;             // the highest end, or kNotPlaced if it was given up
  std::int64_t work = 0;             // done, in rows looked at
};

}  // namespace memscope::planning
