#include "planning/epochs.h"

#include <algorithm>

namespace memscope::planning {

Epochs number_epochs(Int64s start, Int64s end, std::size_t n_positions) {
  struct Position {
    bool has_start = false;
    bool has_end = false;
    std::int32_t start_epoch = 0;
    std::int32_t end_epoch = 0;
  };
  std::vector<Position> positions(n_positions);
  const Checked<Position> position(positions);
  for (std::size_t row = 0; row < start.size(); ++row) {
    position[start[row]].has_start = true;
    position[end[row]].has_end = true;
  }
  std::int32_t n_epochs = 0;
  bool is_after_free = true;
  for (Position& here : positions) {
    if (here.has_end) {
      here.end_epoch = n_epochs;
      is_after_free = true;
    }
    if (here.has_start) {
      n_epochs += is_after_free ? 1 : 0;
      is_after_free = false;
      here.start_epoch = n_epochs - 1;
    }
  }
  Epochs epochs;
  epochs.n_epochs = n_epochs;
  for (std::size_t row = 0; row < start.size(); ++row) {
    epochs.start.push_back(position[start[row]].start_epoch);
    epochs.end.push_back(position[end[row]].end_epoch);
  }
  return epochs;
}

std::vector<std::int64_t> load_of_epochs(Int64s start, Int64s end, Int64s size, std::size_t n_epochs) {
  std::vector<std::int64_t> loads(n_epochs + 1, 0);
  const Checked<std::int64_t> load(loads);
  for (std::size_t row = 0; row < start.size(); ++row) {
    load[start[row]] += size[row];
    load[end[row]] -= size[row];
  }
  for (std::size_t epoch = 1; epoch < n_epochs; ++epoch) {
    load[epoch] += load[epoch - 1];
  }
  loads.pop_back();
  return loads;
}

std::vector<std::int64_t> peak_load_of_rows(Int64s load, Int64s start, Int64s end) {
  // A tree of maxima: the leaves from n on, the root at 1.
  const std::size_t n = load.size();
  std::vector<std::int64_t> nodes(2 * n);
  const Checked<std::int64_t> tree(nodes);
  std::copy(load.begin(), load.end(), nodes.begin() + static_cast<std::ptrdiff_t>(n));
  for (std::size_t node = n; node-- > 1;) {
    tree[node] = std::max(tree[2 * node], tree[2 * node + 1]);
  }
  std::vector<std::int64_t> peaks;
  peaks.reserve(start.size());
  for (std::size_t row = 0; row < start.size(); ++row) {
    std::int64_t highest = 0;
    std::size_t left = as_index(start[row]) + n, right = as_index(end[row]) + n;
    for (; left < right; left >>= 1, right >>= 1) {
      if (left & 1) {
        highest = std::max(highest, tree[left++]);
      }
      if (right & 1) {
        highest = std::max(highest, tree[--right]);
      }
    }
    peaks.push_back(highest);
  }
  return peaks;
}

}  // namespace memscope::planning
