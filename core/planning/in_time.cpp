#include "planning/in_time.h"

#include <algorithm>
#include <iterator>
#include <span>

namespace memscope::planning {
namespace {

// How many free ranges are passed over in the time of looking at a row.
constexpr std::int64_t kRangesPerWork = 4;
constexpr std::int64_t kEndless = std::int64_t{1} << 62;

struct FreeRange {
  std::int64_t start;
  std::int64_t end;

  std::int64_t size() const { return end - start; }
};

// Sorted free ranges that never touch; the last has no end.
class FreeRanges {
 public:
  std::size_t size() const { return ranges_.size(); }

  void give_back(std::int64_t start, std::int64_t end) {
    const auto right = std::ranges::lower_bound(ranges_, start, {}, &FreeRange::start);
    const bool joins_left = right != ranges_.begin() && std::prev(right)->end == start;
    const bool joins_right = right != ranges_.end() && right->start == end;
    if (joins_left) {
      std::prev(right)->end = joins_right ? right->end : end;
      if (joins_right) {
        ranges_.erase(right);
      }
    } else if (joins_right) {
      right->start = start;
    } else {
      ranges_.insert(right, {start, end});
    }
  }

  std::int64_t take(std::int64_t size, Fit fit) {
    const auto place = find(size, fit);
    const std::int64_t start = place->start;
    place->start += size;
    if (place->size() == 0) {
      ranges_.erase(place);
    }
    return start;
  }

 private:
  // The lowest range that is large enough, or the lowest of the smallest such ones.
  std::vector<FreeRange>::iterator find(std::int64_t size, Fit fit) {
    const auto last = std::prev(ranges_.end());
    if (fit == Fit::kFirst) {
      return std::find_if(ranges_.begin(), last, [=](const FreeRange& range) { return range.size() >= size; });
    }
    auto best = last;
    for (auto range = ranges_.begin(); range != last; ++range) {
      if (range->size() >= size && range->size() < best->size()) {
        best = range;
      }
    }
    return best;
  }

  std::vector<FreeRange> ranges_{{0, kEndless}};
};

// Calls visit(row) for every row that has ended when one starts, and forgets it.
class Ended {
 public:
  Ended(const std::vector<Lifetime>& rows, Int64s by_end) : rows_(std::span(rows)), by_end_(by_end) {}

  template <typename Visit>
  void until(std::int32_t start, Visit&& visit) {
    for (; rows_[by_end_[n_]].end <= start; ++n_) {
      visit(as_index(by_end_[n_]));
    }
  }

 private:
  Checked<const Lifetime> rows_;
  Int64s by_end_;
  std::size_t n_ = 0;
};

}  // namespace

Placement place_in_time(const std::vector<Lifetime>& rows, Int64s by_end, Fit fit, std::int64_t max_work) {
  Placement placement;
  placement.offset.assign(rows.size(), kNotPlaced);
  FreeRanges free;
  Ended ended(rows, by_end);
  for (Row row = 0; row < rows.size(); ++row) {
    ended.until(rows[row].start, [&](Row other) {
      free.give_back(placement.offset[other], placement.offset[other] + rows[other].size);
    });
    placement.work += 1 + static_cast<std::int64_t>(free.size()) / kRangesPerWork;
    if (placement.work > max_work) {
      placement.peak = kNotPlaced;
      return placement;
    }
    placement.offset[row] = free.take(rows[row].size, fit);
    placement.peak = std::max(placement.peak, placement.offset[row] + rows[row].size);
  }
  return placement;
}

Slots share_slots(const std::vector<Lifetime>& rows, Int64s by_end, Int64s size_class, std::size_t n_classes) {
  Slots slots{std::vector<std::int64_t>(rows.size()), std::vector<std::int64_t>(n_classes, 0)};
  std::vector<std::vector<std::int64_t>> free_slots(n_classes);  // of each class, the one freed last at the end
  Ended ended(rows, by_end);
  for (Row row = 0; row < rows.size(); ++row) {
    ended.until(rows[row].start,
                [&](Row other) { free_slots.at(as_index(size_class[other])).push_back(slots.slot[other]); });
    std::vector<std::int64_t>& free = free_slots.at(as_index(size_class[row]));
    if (free.empty()) {
      slots.slot[row] = slots.n_slots[as_index(size_class[row])]++;
    } else {
      slots.slot[row] = free.back();
      free.pop_back();
    }
  }
  return slots;
}

}  // namespace memscope::planning
