// Sorted, disjoint address ranges, each with a key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>

#include "caching/rules.h"

namespace memscope::lifetimes {

using caching::Address;
using caching::Bytes;
using Key = std::int64_t;

inline constexpr std::int64_t kNone = -1;

// [start, end)
struct Range {
  Address start;
  Address end;
  Key key;

  Bytes size() const { return end - start; }
};

// Two ranges that touch are merged exactly if their keys are equal: every cudaMalloc segment has its own key, all runs
// of one expandable reservation share one. O(log n) each.
class Ranges {
 public:
  std::size_t size() const { return by_start_.size(); }

  // The range that contains an address, nullptr if none does; valid until the next change.
  const Range* find(Address address) const {
    auto above = by_start_.upper_bound(address);
    if (above == by_start_.begin()) {
      return nullptr;
    }
    --above;
    return address < above->second.end ? &above->second : nullptr;
  }

  // What became of a range that was added: the neighbours that it was merged with, and the range that contains it now.
  struct Merged {
    std::optional<Range> left;
    std::optional<Range> right;
    Range whole;
  };

  // Add a range and merge it with neighbours of the same key; none (and no change) if it overlaps one, or is empty.
  std::optional<Merged> merge(const Range& added);
  bool insert(const Range& added) { return merge(added).has_value(); }

  // Take [start, end) out of the one range that contains it, and return that as it was; none (and no change) if none does.
  std::optional<Range> cut(Address start, Address end);
  bool remove(Address start, Address end) { return cut(start, end).has_value(); }

  template <typename Visit>
  void for_each(Visit&& visit) const {
    for (const auto& [start, range] : by_start_) {
      visit(range);
    }
  }

 private:
  using Places = std::map<Address, Range>;

  // Let a range begin elsewhere, without passing a neighbour.
  void begin_at(Places::iterator place, Address start);

  Places by_start_;
};

}  // namespace memscope::lifetimes
