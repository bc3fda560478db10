#include "lifetimes/ranges.h"

#include <iterator>
#include <utility>

namespace memscope::lifetimes {

bool Ranges::insert(const Range& added) {
  const auto right = by_start_.lower_bound(added.start);
  const auto left = right == by_start_.begin() ? by_start_.end() : std::prev(right);
  const bool has_left = left != by_start_.end(), has_right = right != by_start_.end();
  if (added.end <= added.start || (has_left && left->second.end > added.start) ||
      (has_right && right->second.start < added.end)) {
    return false;
  }
  const bool joins_left = has_left && left->second.end == added.start && left->second.key == added.key;
  const bool joins_right = has_right && right->second.start == added.end && right->second.key == added.key;
  if (joins_left) {
    left->second.end = joins_right ? right->second.end : added.end;
    if (joins_right) {
      by_start_.erase(right);
    }
  } else if (joins_right) {
    begin_at(right, added.start);
  } else {
    by_start_.emplace_hint(right, added.start, added);
  }
  return true;
}

bool Ranges::remove(Address start, Address end) {
  auto place = by_start_.upper_bound(start);
  if (place == by_start_.begin()) {
    return false;
  }
  --place;
  Range& range = place->second;
  if (start >= range.end || range.end < end || end <= start) {
    return false;
  }
  const Range rest{end, range.end, range.key};
  if (range.start == start) {
    if (rest.size() == 0) {
      by_start_.erase(place);
    } else {
      begin_at(place, end);
    }
    return true;
  }
  range.end = start;
  if (rest.size() > 0) {
    by_start_.emplace_hint(std::next(place), end, rest);
  }
  return true;
}

void Ranges::begin_at(Places::iterator place, Address start) {
  const auto next = std::next(place);
  auto node = by_start_.extract(place);
  node.key() = node.mapped().start = start;
  by_start_.insert(next, std::move(node));
}

}  // namespace memscope::lifetimes
