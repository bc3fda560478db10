#include "lifetimes/ranges.h"

#include <iterator>
#include <utility>

namespace memscope::lifetimes {

std::optional<Ranges::Merged> Ranges::merge(const Range& added) {
  const auto right = by_start_.lower_bound(added.start);
  const auto left = right == by_start_.begin() ? by_start_.end() : std::prev(right);
  const bool has_left = left != by_start_.end(), has_right = right != by_start_.end();
  if (added.end <= added.start || (has_left && left->second.end > added.start) ||
      (has_right && right->second.start < added.end)) {
    return std::nullopt;
  }
  Merged merged{{}, {}, added};
  if (has_left && left->second.end == added.start && left->second.key == added.key) {
    merged.left = left->second;
    merged.whole.start = left->second.start;
  }
  if (has_right && right->second.start == added.end && right->second.key == added.key) {
    merged.right = right->second;
    merged.whole.end = right->second.end;
  }
  if (merged.left) {
    left->second.end = merged.whole.end;
    if (merged.right) {
      by_start_.erase(right);
    }
  } else if (merged.right) {
    begin_at(right, added.start);
  } else {
    by_start_.emplace_hint(right, added.start, added);
  }
  return merged;
}

std::optional<Range> Ranges::cut(Address start, Address end) {
  auto place = by_start_.upper_bound(start);
  if (place == by_start_.begin()) {
    return std::nullopt;
  }
  --place;
  Range& range = place->second;
  if (start >= range.end || range.end < end || end <= start) {
    return std::nullopt;
  }
  const Range whole = range;
  if (whole.start == start) {
    if (whole.end == end) {
      by_start_.erase(place);
    } else {
      begin_at(place, end);
    }
    return whole;
  }
  range.end = start;
  if (end < whole.end) {
    by_start_.emplace_hint(std::next(place), end, Range{end, whole.end, whole.key});
  }
  return whole;
}

void Ranges::begin_at(Places::iterator place, Address start) {
  const auto next = std::next(place);
  auto node = by_start_.extract(place);
  node.key() = node.mapped().start = start;
  by_start_.insert(next, std::move(node));
}

}  // namespace memscope::lifetimes
