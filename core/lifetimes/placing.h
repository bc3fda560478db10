// The layout of blocks that the events of a device imply.
#pragma once

#include <cstdint>
#include <vector>

#include "caching/rules.h"
#include "checked.h"
#include "events.h"
#include "lifetimes/ranges.h"
#include "lifetimes/segments.h"

namespace memscope::lifetimes {

// The allocations, by row: events are positions, -1 for none (of an alloc: it predates the events).
struct Allocations {
  Int64s alloc_event;
  Int64s free_event;
  Int64s address;
};

struct SplitRules {
  caching::RoundupDivisions roundup_divisions;
  Bytes max_split_size;
  bool expandable_segments;
  Checked<const bool> key_never_splits;  // by range key: whether its pool hands out whole blocks only
};

// The block of each allocation.
struct Layout {
  std::vector<Bytes> block_bytes;
  std::vector<std::uint8_t> is_exact;  // as block_bytes: of the allocations that predate the events, what is known
  std::vector<Key> key;                // of the segment that holds it, -1 where none does
  std::int64_t n_misplaced = 0;        // events that do not fit, such as an alloc where nothing is free
  std::int64_t first_misplaced = kNone;
};

// Takes a block out of the free range that holds it: that range's key, -1 (and no change) if none does.
Key carve_block(Ranges& free, Address address, Bytes block_bytes);

// Finds the block of every allocation by following the free ranges forward. O(log n) for each event.
//
// An alloc takes the front of the free range at its address; whether it takes the whole is the split rule. Where the
// recording began mid-life the size of a block that predates it may be known only from below; an alloc that starts
// beyond the free range's start proves how far the block before it reaches.
Layout lay_out(const Events& events, Int64s segment_key, const RangeColumns& start_segments,
               const Allocations& allocations, Layout known, const SplitRules& rules);

}  // namespace memscope::lifetimes
