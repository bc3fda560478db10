#include "fragmentation/series.h"

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "lifetimes/placing.h"

namespace memscope::fragmentation {
namespace {

using lifetimes::kNone;
using lifetimes::Range;
using lifetimes::Ranges;
using Row = std::int32_t;

// The sizes of a group's free ranges, the largest first. A size that no range has any more stays in the heap until it comes
// to the top: few sizes are had by many ranges.
class FreeSizes {
 public:
  void add(Bytes size) {
    Count& count = counts_[size];
    ++count.n_ranges;
    if (!count.is_in_heap) {
      count.is_in_heap = true;
      heap_.push_back(size);
      std::push_heap(heap_.begin(), heap_.end());
    }
  }

  void remove(Bytes size) { --counts_[size].n_ranges; }

  Bytes largest() {
    while (!heap_.empty()) {
      const auto top = counts_.find(heap_.front());
      if (top->second.n_ranges > 0) {
        return top->first;
      }
      counts_.erase(top);
      std::pop_heap(heap_.begin(), heap_.end());
      heap_.pop_back();
    }
    return 0;
  }

 private:
  struct Count {
    std::int64_t n_ranges = 0;
    bool is_in_heap = false;
  };

  std::unordered_map<Bytes, Count> counts_;
  std::vector<Bytes> heap_;
};

struct Group {
  Metrics now;
  FreeSizes free_sizes;
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
        segment_bytes_(keys.group.size(), 0),
        key_of_row_(blocks.alloc_event.size(), kNone),
        born_(events.size(), kNone),
        died_(events.size(), kNone) {
    if (!std::in_range<Row>(key_of_row_.size()) ||
        !std::in_range<std::int32_t>(first_event + static_cast<std::int64_t>(events.size()))) {
      throw std::invalid_argument("more events than 32 bits can number");
    }
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
      segment_bytes_.at(as_index(segment.key)) += segment.size();
      Metrics& metrics = metrics_of(segment.key);
      metrics.reserved += segment.size();
      metrics.n_segments += 1;
    });
    free_.for_each([&](const Range& range) { count_free(range, 1); });
    for (std::size_t row = 0; row < key_of_row_.size(); ++row) {
      if (key_of_row_[row] != kNone) {
        count_block(row, 1);
      }
    }
    for (std::size_t group = 0; group < groups_.size(); ++group) {
      note(group, kNone);
    }
  }

  // An event that hands out where a block still stood gives that one back first, which may be another group's.
  void step(std::size_t event) {
    std::optional<std::size_t> freed, changed;
    if (died_[event] != kNone) {
      freed = give_back(static_cast<std::size_t>(died_[event]));
    }
    if (born_[event] != kNone) {
      changed = hand_out(static_cast<std::size_t>(born_[event]));
    } else if (makes_segment(events_.action(event)) || ends_segment(events_.action(event))) {
      changed = change_segments(event);
    }
    const std::int64_t at_event = first_event_ + static_cast<std::int64_t>(event);
    if (freed && freed != changed) {
      note(*freed, at_event);
    }
    if (changed) {
      note(*changed, at_event);
    }
  }

  void note(std::size_t group, std::int64_t at_event) {
    Metrics& now = groups_[group].now;
    now.largest_free = groups_[group].free_sizes.largest();
    series_.groups[group].append(at_event, now);
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
      fits = segments_.insert(range);
      if (fits) {
        segment_bytes_.at(as_index(range.key)) += range.size();
        fits = make_free(range);
      }
    } else {
      range.key = take(range.start, range.end);
      fits = range.key != kNone && segments_.remove(range.start, range.end);
      if (fits) {
        segment_bytes_.at(as_index(range.key)) -= range.size();
      }
    }
    if (!fits) {
      ++series_.n_misfits;
      return std::nullopt;
    }
    Metrics& metrics = metrics_of(range.key);
    metrics.reserved += grows ? range.size() : -range.size();
    metrics.n_segments += static_cast<std::int64_t>(segments_.size()) - n_before;
    return group_of(range.key);
  }

  // False if a part of it is free already.
  bool make_free(const Range& range) {
    const std::optional<Ranges::Merged> merged = free_.merge(range);
    if (!merged) {
      return false;
    }
    for (const std::optional<Range>& neighbour : {merged->left, merged->right}) {
      if (neighbour) {
        count_free(*neighbour, -1);
      }
    }
    count_free(merged->whole, 1);
    return true;
  }

  // Take addresses out of what is free; the key of the range that held them, -1 if they were not all free.
  Key take(Address start, Address end) {
    const std::optional<Range> old = free_.cut(start, end);
    if (!old) {
      return kNone;
    }
    count_free(*old, -1);
    if (old->start < start) {
      count_free({old->start, start, old->key}, 1);
    }
    if (end < old->end) {
      count_free({end, old->end, old->key}, 1);
    }
    return old->key;
  }

  void count_free(const Range& free, std::int64_t sign) {
    Group& group = groups_[group_of(free.key)];
    if (sign > 0) {
      group.free_sizes.add(free.size());
    } else {
      group.free_sizes.remove(free.size());
    }
    group.now.n_free += sign;
    group.now.releasable += sign * releasable_bytes(free);
  }

  std::size_t count_block(std::size_t row, std::int64_t sign) {
    Metrics& metrics = metrics_of(key_of_row_[row]);
    metrics.active += sign * blocks_.block_bytes[row];
    metrics.requested += sign * blocks_.requested_bytes[row];
    metrics.n_active += sign;
    return group_of(key_of_row_[row]);
  }

  // Bytes of a free range that empty_cache would give back.
  Bytes releasable_bytes(const Range& free) const {
    const Bytes rule = keys_.release_rule[free.key];
    if (rule == kNever) {
      return 0;
    }
    if (rule == kWhole) {
      return free.size() == segment_bytes_.at(as_index(free.key)) ? free.size() : 0;
    }
    const Range* const segment = segments_.find(free.start);
    if (segment == nullptr) {
      return 0;
    }
    const std::int64_t first_handle = (free.start - segment->start + rule - 1) / rule;
    const std::int64_t last_handle = (free.end - segment->start) / rule;
    return std::max<std::int64_t>(last_handle - first_handle, 0) * rule;
  }

  std::size_t group_of(Key key) const { return as_index(keys_.group[key]); }
  Metrics& metrics_of(Key key) { return groups_[group_of(key)].now; }

  const Events& events_;
  const Int64s segment_key_;
  const KeyTable& keys_;
  const Blocks& blocks_;
  const std::int64_t first_event_;
  Ranges segments_;
  Ranges free_;
  std::vector<Group> groups_;
  std::vector<Bytes> segment_bytes_;  // of each key; one that goes back as a whole is of one segment
  std::vector<Key> key_of_row_;  // of the segment that holds its block, -1 where it has none
  std::vector<Row> born_;        // the row whose block is handed out at an event, and
  std::vector<Row> died_;        // whose block is given back
  FragmentationSeries series_;
};

}  // namespace

void MetricsSeries::append(std::int64_t at_event, const Metrics& metrics) {
  event.push_back(static_cast<std::int32_t>(at_event));
  reserved.push_back(metrics.reserved);
  active.push_back(metrics.active);
  requested.push_back(metrics.requested);
  releasable.push_back(metrics.releasable);
  largest_free.push_back(metrics.largest_free);
  // Each of a block, a range or a segment needs an event or a row, which 32 bits can number.
  n_segments.push_back(static_cast<std::int32_t>(metrics.n_segments));
  n_active.push_back(static_cast<std::int32_t>(metrics.n_active));
  n_free.push_back(static_cast<std::int32_t>(metrics.n_free));
}

FragmentationSeries follow(const Events& events, Int64s segment_key, const lifetimes::RangeColumns& start_segments,
                           const KeyTable& keys, const Blocks& blocks, std::int64_t first_event) {
  return Follower(events, segment_key, start_segments, keys, blocks, first_event).follow();
}

}  // namespace memscope::fragmentation
