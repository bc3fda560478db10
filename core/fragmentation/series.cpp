#include "fragmentation/series.h"

#include <algorithm>
#include <array>
#include <optional>
#include <stdexcept>
#include <utility>

#include "lifetimes/placing.h"

namespace memscope::fragmentation {
namespace {

using lifetimes::kNone;
using lifetimes::Range;
using lifetimes::Ranges;
using Row = std::int64_t;

// The free ranges of a group, the largest first. Ranges that have gone since stay until they come to the top, or
// outnumber the others: taking each out at once would need a second ordered set.
class LargestFree {
 public:
  void push(const Range& range) {
    heap_.push_back({range.size(), range.start});
    std::push_heap(heap_.begin(), heap_.end());
  }

  template <typename IsThere>
  Bytes largest(std::size_t n_free, IsThere&& is_there) {
    if (heap_.size() > kMostGone * (n_free + 1)) {
      std::erase_if(heap_, [&](const Free& free) { return !is_there(free.start, free.size); });
      std::make_heap(heap_.begin(), heap_.end());
    }
    while (!heap_.empty() && !is_there(heap_.front().start, heap_.front().size)) {
      std::pop_heap(heap_.begin(), heap_.end());
      heap_.pop_back();
    }
    return heap_.empty() ? 0 : heap_.front().size;
  }

 private:
  static constexpr std::size_t kMostGone = 8;

  struct Free {
    Bytes size;
    Address start;

    friend bool operator<(const Free& a, const Free& b) { return a.size < b.size; }
  };

  std::vector<Free> heap_;
};

struct Group {
  Metrics now;
  LargestFree by_size;
};

class Follower {
 public:
  Follower(const Events& events, Int64s segment_key, const lifetimes::RangeColumns& start_segments,
           const KeyTable& keys, const Blocks& blocks, std::int64_t first_event)
      : events_(events),
        segment_key_(segment_key),
        keys_(keys),
        blocks_(blocks),
        first_event_(first_event),
        segments_(lifetimes::to_ranges(start_segments)),
        free_(segments_),
        groups_(n_groups(keys)),
        key_of_row_(blocks.alloc_event.size(), kNone),
        born_(events.size(), kNone),
        died_(events.size(), kNone) {
    series_.groups.resize(groups_.size());
    const Checked<Row> born(born_), died(died_);
    for (std::size_t row = 0; row < key_of_row_.size(); ++row) {
      if (blocks.alloc_event[row] >= 0) {
        born[blocks.alloc_event[row] - first_event] = static_cast<Row>(row);
      } else {
        key_of_row_[row] = lifetimes::carve_block(free_, blocks.address[row], blocks.block_bytes[row]);
      }
      if (blocks.free_event[row] >= 0) {
        died[blocks.free_event[row] - first_event] = static_cast<Row>(row);
      }
    }
  }

  FragmentationSeries follow() {
    begin();
    for (std::size_t event = 0; event < events_.size(); ++event) {
      step(event);
    }
    return std::move(series_);
  }

 private:
  static std::size_t n_groups(const KeyTable& keys) {
    std::int64_t n = 0;
    for (const std::int64_t group : keys.group) {
      n = std::max(n, group + 1);
    }
    if (as_index(n) > keys.group.size()) {
      throw std::invalid_argument("more groups than keys");
    }
    return as_index(n);
  }

  // Count what stands before the first event.
  void begin() {
    segments_.for_each([&](const Range& segment) {
      for (Metrics* metrics : metrics_of(segment.key)) {
        metrics->reserved += segment.size();
        metrics->n_segments += 1;
      }
    });
    free_.for_each([&](const Range& range) { count_in(range); });
    for (std::size_t row = 0; row < key_of_row_.size(); ++row) {
      if (key_of_row_[row] != kNone) {
        count_block(row, 1);
      }
    }
    for (std::size_t group = 0; group < groups_.size(); ++group) {
      settle(group);
      series_.groups[group].append(kNone, groups_[group].now);
    }
    series_.overall.append(kNone, overall_);
  }

  void step(std::size_t event) {
    std::optional<std::size_t> changed;
    if (died_[event] != kNone) {
      changed = give_back(static_cast<std::size_t>(died_[event]));
    }
    if (born_[event] != kNone) {
      if (changed) {
        settle(*changed);
      }
      const std::optional<std::size_t> given = hand_out(static_cast<std::size_t>(born_[event]));
      changed = given ? given : changed;
    } else if (makes_segment(events_.action(event)) || ends_segment(events_.action(event))) {
      changed = change_segments(event);
    }
    if (changed) {
      settle(*changed);
      const std::int64_t at = first_event_ + static_cast<std::int64_t>(event);
      series_.groups[*changed].append(at, groups_[*changed].now);
      series_.overall.append(at, overall_);
    }
  }

  // The group whose block was freed.
  std::optional<std::size_t> give_back(std::size_t row) {
    const Key key = key_of_row_[row];
    if (key == kNone) {
      return std::nullopt;
    }
    const Address start = blocks_.address[row];
    series_.n_misfits += !make_free({start, start + blocks_.block_bytes[row], key});
    return count_block(row, -1);
  }

  // The group whose block was handed out, none if it is not all free.
  std::optional<std::size_t> hand_out(std::size_t row) {
    const Address start = blocks_.address[row];
    key_of_row_[row] = take(start, wrapping_add(start, blocks_.block_bytes[row]));
    if (key_of_row_[row] == kNone) {
      ++series_.n_misfits;
      return std::nullopt;
    }
    return count_block(row, 1);
  }

  // The group whose memory changed, none if the event does not fit.
  std::optional<std::size_t> change_segments(std::size_t event) {
    Range range{events_.address[event], events_.end(event), segment_key_[event]};
    const auto n_before = static_cast<std::int64_t>(segments_.size());
    const bool grows = makes_segment(events_.action(event));
    bool fits = false;
    if (grows) {
      fits = segments_.insert(range) && make_free(range);
    } else {
      range.key = take(range.start, range.end);
      fits = range.key != kNone && segments_.remove(range.start, range.end);
    }
    if (!fits) {
      ++series_.n_misfits;
      return std::nullopt;
    }
    for (Metrics* metrics : metrics_of(range.key)) {
      metrics->reserved += grows ? range.size() : -range.size();
      metrics->n_segments += static_cast<std::int64_t>(segments_.size()) - n_before;
    }
    return group_of(range.key);
  }

  // False if a part of it is free already.
  bool make_free(const Range& range) {
    const Range* const left = free_.find(range.start - 1);
    if (left != nullptr && left->end == range.start && left->key == range.key) {
      count_out(*left);
    }
    const Range* const right = free_.find(range.end);
    if (right != nullptr && right->start == range.end && right->key == range.key) {
      count_out(*right);
    }
    if (!free_.insert(range)) {
      return false;
    }
    count_in(*free_.find(range.start));
    return true;
  }

  // Take addresses out of what is free; the key of the range that held them, -1 if they were not all free.
  Key take(Address start, Address end) {
    const Range* const found = free_.find(start);
    if (found == nullptr || found->end < end) {
      return kNone;
    }
    const Range old = *found;
    count_out(old);
    free_.remove(start, end);
    if (old.start < start) {
      count_in({old.start, start, old.key});
    }
    if (end < old.end) {
      count_in({end, old.end, old.key});
    }
    return old.key;
  }

  void count_in(const Range& free) {
    count_free(free, 1);
    groups_[group_of(free.key)].by_size.push(free);
  }
  void count_out(const Range& free) { count_free(free, -1); }

  void count_free(const Range& free, std::int64_t sign) {
    const Bytes releasable = sign * releasable_bytes(free);
    for (Metrics* metrics : metrics_of(free.key)) {
      metrics->n_free += sign;
      metrics->releasable += releasable;
    }
  }

  std::size_t count_block(std::size_t row, std::int64_t sign) {
    for (Metrics* metrics : metrics_of(key_of_row_[row])) {
      metrics->active += sign * blocks_.block_bytes[row];
      metrics->requested += sign * blocks_.requested_bytes[row];
      metrics->n_active += sign;
    }
    return group_of(key_of_row_[row]);
  }

  // Bytes of a free range that empty_cache would give back.
  Bytes releasable_bytes(const Range& free) const {
    const Bytes rule = keys_.release_rule[free.key];
    const Range* const segment = rule == kNever ? nullptr : segments_.find(free.start);
    if (segment == nullptr) {
      return 0;
    }
    if (rule == kWhole) {
      return segment->start == free.start && segment->end == free.end ? free.size() : 0;
    }
    const std::int64_t first_handle = (free.start - segment->start + rule - 1) / rule;
    const std::int64_t last_handle = (free.end - segment->start) / rule;
    return std::max<std::int64_t>(last_handle - first_handle, 0) * rule;
  }

  // Find the largest free range of a group that changed, and that of all.
  void settle(std::size_t group) {
    Metrics& metrics = groups_[group].now;
    const Bytes before = std::exchange(metrics.largest_free, largest_free(group));
    if (metrics.largest_free >= overall_.largest_free) {
      overall_.largest_free = metrics.largest_free;
    } else if (before == overall_.largest_free) {
      overall_.largest_free = 0;
      for (const Group& other : groups_) {
        overall_.largest_free = std::max(overall_.largest_free, other.now.largest_free);
      }
    }
  }

  Bytes largest_free(std::size_t group) {
    const auto is_there = [&](Address start, Bytes size) {
      const Range* const range = free_.find(start);
      return range != nullptr && range->start == start && range->size() == size && group_of(range->key) == group;
    };
    return groups_[group].by_size.largest(as_index(std::max<std::int64_t>(groups_[group].now.n_free, 0)), is_there);
  }

  std::size_t group_of(Key key) const { return as_index(keys_.group[key]); }
  std::array<Metrics*, 2> metrics_of(Key key) { return {&groups_[group_of(key)].now, &overall_}; }

  const Events& events_;
  const Int64s segment_key_;
  const KeyTable& keys_;
  const Blocks& blocks_;
  const std::int64_t first_event_;
  Ranges segments_;
  Ranges free_;
  std::vector<Group> groups_;
  Metrics overall_;
  std::vector<Key> key_of_row_;  // of the segment that holds its block, -1 where it has none
  std::vector<Row> born_;        // the row whose block is handed out at an event, and
  std::vector<Row> died_;        // whose block is given back
  FragmentationSeries series_;
};

}  // namespace

void MetricsSeries::append(std::int64_t at_event, const Metrics& metrics) {
  event.push_back(at_event);
  reserved.push_back(metrics.reserved);
  active.push_back(metrics.active);
  requested.push_back(metrics.requested);
  releasable.push_back(metrics.releasable);
  largest_free.push_back(metrics.largest_free);
  n_segments.push_back(metrics.n_segments);
  n_active.push_back(metrics.n_active);
  n_free.push_back(metrics.n_free);
}

FragmentationSeries follow(const Events& events, Int64s segment_key, const lifetimes::RangeColumns& start_segments,
                           const KeyTable& keys, const Blocks& blocks, std::int64_t first_event) {
  return Follower(events, segment_key, start_segments, keys, blocks, first_event).follow();
}

}  // namespace memscope::fragmentation
