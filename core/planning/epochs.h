// Lifetimes in epochs, and how much is alive in each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "checked.h"

namespace memscope::planning {

struct Epochs {
  std::vector<std::int64_t> start;  // by row, as end
  std::vector<std::int64_t> end;
  std::int64_t n_epochs = 0;
};

// Number the runs of allocs that frees separate: the only moments at which usage can peak. `start` and `end` are
// positions in [0, n_positions). At one position, frees come before allocs. Two lifetimes overlap in positions exactly
// if they overlap in epochs. O(rows + positions).
Epochs number_epochs(Int64s start, Int64s end, std::size_t n_positions);

// Sum of the sizes alive in each epoch.
std::vector<std::int64_t> load_of_epochs(Int64s start, Int64s end, Int64s size, std::size_t n_epochs);

// Highest load in each row's lifetime. O(log epochs) a row.
std::vector<std::int64_t> peak_load_of_rows(Int64s load, Int64s start, Int64s end);

}  // namespace memscope::planning
