// What is free, and what of it could go back, after every event of a device.
#pragma once

#include <cstdint>
#include <vector>

#include "checked.h"
#include "events.h"
#include "lifetimes/ranges.h"
#include "lifetimes/segments.h"

namespace memscope::fragmentation {

using lifetimes::Address;
using lifetimes::Bytes;
using lifetimes::Key;

// How a segment's memory goes back: never (a private pool), as a whole, or by handles of that many bytes.
inline constexpr Bytes kNever = 0;
inline constexpr Bytes kWhole = 1;

struct KeyTable {
  Int64s group;         // of each range key: a (pool, stream, size class)
  Int64s release_rule;
};

// The allocations by row: the events that hand their blocks out and give them back, -1 for none.
struct Blocks {
  Int64s alloc_event;
  Int64s free_event;
  Int64s address;
  Int64s block_bytes;
  Int64s requested_bytes;
};

struct Metrics {
  Bytes reserved = 0;
  Bytes active = 0;
  Bytes requested = 0;
  Bytes releasable = 0;
  Bytes largest_free = 0;
  std::int64_t n_segments = 0;
  std::int64_t n_active = 0;
  std::int64_t n_free = 0;
};

// Metrics before the first event (-1), and after each that changes them.
struct MetricsSeries {
  std::vector<std::int32_t> event;
  std::vector<Bytes> reserved;
  std::vector<Bytes> active;
  std::vector<Bytes> requested;
  std::vector<Bytes> releasable;
  std::vector<Bytes> largest_free;
  std::vector<std::int32_t> n_segments;
  std::vector<std::int32_t> n_active;
  std::vector<std::int32_t> n_free;

  void append(std::int64_t at_event, const Metrics& metrics);
};

struct FragmentationSeries {
  std::vector<MetricsSeries> groups;
  std::int64_t n_misfits = 0;   // events that do not fit
};

// O(log n) for each event. Events are numbered from `first_event` on; `segment_key` names the range of segment events.
FragmentationSeries follow(const Events& events, Int64s segment_key, const lifetimes::RangeColumns& start_segments,
                           const KeyTable& keys, const Blocks& blocks, std::int64_t first_event);

}  // namespace memscope::fragmentation
