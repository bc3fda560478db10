// Placing by known lifetimes in any order: each row at the lowest offset that is free in its whole lifetime.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "planning/lifetimes.h"

namespace memscope::planning {

// Places the same rows in one order after another. Which rows live at some time with a given one is found from those
// that are alive when every `stride`-th row starts, and those that start from there to the row's end.
class OrderedPlacer {
 public:
  // O(rows + remembered).
  OrderedPlacer(std::vector<Lifetime> rows, std::size_t stride);

  // How many rows alive are remembered, over all strides.
  std::size_t n_remembered() const { return alive_.size(); }

  // For a row that lives with k others the cost is O(k), and O(log k) for each that lies below the place found. It ends
  // with the first row that ends above `max_offset`, or when the work exceeds `max_work`; `n_placed` counts the rows
  // that have a place.
  struct Result {
    Placement placement;
    std::int64_t n_placed = 0;
  };
  Result place(Int64s order, std::int64_t max_offset, std::int64_t max_work) const;

 private:
  std::vector<Lifetime> rows_;
  std::size_t stride_;
  std::vector<Row> alive_;          // those alive at row c * stride, without those that start with it or after, are
  std::vector<std::size_t> first_;  // from first_[c] to first_[c + 1]
};

}  // namespace memscope::planning
