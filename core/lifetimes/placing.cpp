#include "lifetimes/placing.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace memscope::lifetimes {
namespace {

using Row = std::size_t;
constexpr Row kNoRow = static_cast<Row>(-1);

class Placer {
 public:
  Placer(const Events& events, Int64s segment_key, const Allocations& allocations, const SplitRules& rules,
         Layout& layout, Ranges& free)
      : events_(events),
        segment_key_(segment_key),
        allocations_(allocations),
        rules_(rules),
        layout_(layout),
        free_(free),
        row_of_event_(events.size(), kNoRow) {
    const Checked<Row> row_of_event(row_of_event_);
    for (Row row = 0; row < n_rows(); ++row) {
      if (allocations.free_event[row] >= 0) {
        row_of_event[allocations.free_event[row]] = row;
      }
      if (allocations.alloc_event[row] < 0) {
        before_.push_back(row);
      }
    }
    // At one event an alloc counts rather than the free that it implies.
    for (Row row = 0; row < n_rows(); ++row) {
      if (allocations.alloc_event[row] >= 0) {
        row_of_event[allocations.alloc_event[row]] = row;
      }
    }
    std::stable_sort(before_.begin(), before_.end(),
                     [&](Row a, Row b) { return allocations.address[a] < allocations.address[b]; });
  }

  void follow() {
    for (std::size_t event = 0; event < events_.size(); ++event) {
      if (!fits(event)) {
        ++layout_.n_misplaced;
        if (layout_.first_misplaced < 0) {
          layout_.first_misplaced = static_cast<std::int64_t>(event);
        }
      }
    }
  }

 private:
  std::size_t n_rows() const { return layout_.block_bytes.size(); }

  // Whether the event fits the layout so far, which it changes.
  bool fits(std::size_t event) {
    const Action action = events_.action(event);
    const Row row = row_of_event_[event];
    if (row != kNoRow) {
      return action == Action::kAlloc ? allocate(row, event) : free_block(row);
    }
    if (makes_segment(action)) {
      return free_.insert({events_.address[event], events_.end(event), segment_key_[event]});
    }
    return !ends_segment(action) || free_.remove(events_.address[event], events_.end(event));
  }

  bool allocate(Row row, std::size_t event) {
    const Address address = events_.address[event];
    const Bytes rounded = caching::round_size(events_.size_bytes[event], rules_.roundup_divisions);
    const Range* range = free_.find(address);
    bool is_exact = true;
    if (range != nullptr && range->start < address) {
      is_exact = extend_block_before(range->start, address, event);
      range = free_.find(address);
    }
    if (range == nullptr || range->end - address < rounded) {
      layout_.block_bytes[row] = rounded;
      layout_.is_exact[row] = false;
      layout_.key[row] = kNone;
      return false;
    }
    const Bytes available = range->end - address;
    const bool splits =
        caching::should_split(available, rounded, rules_.max_split_size, rules_.expandable_segments) &&
        !rules_.key_never_splits[range->key];
    layout_.block_bytes[row] = splits ? rounded : available;
    layout_.is_exact[row] = is_exact;
    layout_.key[row] = range->key;
    free_.remove(address, address + layout_.block_bytes[row]);
    return is_exact;
  }

  bool free_block(Row row) {
    const Address start = allocations_.address[row];
    return layout_.key[row] == kNone || free_.insert({start, start + layout_.block_bytes[row], layout_.key[row]});
  }

  // Give the space before an alloc to the block that ends there, if that block predates the events.
  bool extend_block_before(Address start, Address address, std::size_t event) {
    const auto above = std::lower_bound(before_.begin(), before_.end(), start,
                                        [&](Row row, Address limit) { return allocations_.address[row] < limit; });
    if (above == before_.begin()) {
      return false;
    }
    const Row row = *(above - 1);
    const std::int64_t freed = allocations_.free_event[row];
    const bool is_live = freed < 0 || freed > static_cast<std::int64_t>(event);
    const Address end = wrapping_add(allocations_.address[row], layout_.block_bytes[row]);
    if (layout_.is_exact[row] || !is_live || end != start) {
      return false;
    }
    layout_.block_bytes[row] = address - allocations_.address[row];
    layout_.is_exact[row] = true;
    free_.remove(start, address);
    return true;
  }

  const Events& events_;
  const Int64s segment_key_;
  const Allocations& allocations_;
  const SplitRules& rules_;
  Layout& layout_;
  Ranges& free_;
  std::vector<Row> row_of_event_;
  std::vector<Row> before_;  // rows that predate the events, by address
};

}  // namespace

Key carve_block(Ranges& free, Address address, Bytes block_bytes) {
  const Range* const range = free.find(address);
  const Address end = wrapping_add(address, block_bytes);
  if (range == nullptr || range->end < end) {
    return kNone;
  }
  const Key key = range->key;
  free.remove(address, end);
  return key;
}

Layout lay_out(const Events& events, Int64s segment_key, const RangeColumns& start_segments,
               const Allocations& allocations, Layout known, const SplitRules& rules) {
  if (known.is_exact.size() != known.block_bytes.size()) {
    throw std::invalid_argument("block_bytes and is_exact differ in length");
  }
  Layout layout = std::move(known);
  Ranges free = to_ranges(start_segments);
  layout.key.assign(layout.block_bytes.size(), kNone);
  for (Row row = 0; row < layout.key.size(); ++row) {
    if (allocations.alloc_event[row] < 0) {
      layout.key[row] = carve_block(free, allocations.address[row], layout.block_bytes[row]);
    }
  }
  Placer(events, segment_key, allocations, rules, layout, free).follow();
  return layout;
}

}  // namespace memscope::lifetimes
