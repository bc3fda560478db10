#include "planning/overlap.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <numeric>
#include <vector>

namespace memscope::planning {
namespace {

using Row = std::int64_t;

std::vector<Row> in_order_of(Int64s key) {
  std::vector<Row> rows(key.size());
  std::iota(rows.begin(), rows.end(), Row{0});
  std::stable_sort(rows.begin(), rows.end(), [&](Row a, Row b) { return key[a] < key[b]; });
  return rows;
}

}  // namespace

std::optional<Overlap> find_overlap(Int64s start, Int64s end, Int64s low, Int64s high) {
  const std::vector<Row> by_end = in_order_of(end);
  auto next_to_end = by_end.begin();
  // As long as no two rows alive overlap, a new one can overlap only with its nearest neighbours.
  std::map<std::int64_t, Row> alive_by_low;
  for (const Row row : in_order_of(start)) {
    for (; next_to_end != by_end.end() && end[*next_to_end] <= start[row]; ++next_to_end) {
      alive_by_low.erase(low[*next_to_end]);
    }
    const auto above = alive_by_low.lower_bound(low[row]);
    if (above != alive_by_low.begin() && high[std::prev(above)->second] > low[row]) {
      return Overlap{row, std::prev(above)->second};
    }
    if (above != alive_by_low.end() && above->first < high[row]) {
      return Overlap{row, above->second};
    }
    alive_by_low.emplace_hint(above, low[row], row);
  }
  return std::nullopt;
}

}  // namespace memscope::planning
