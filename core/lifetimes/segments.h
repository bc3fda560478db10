// The segments of a device at another moment than the one at which they are known.
#pragma once

#include <cstdint>
#include <optional>

#include "checked.h"
#include "events.h"
#include "lifetimes/ranges.h"

namespace memscope::lifetimes {

// Ranges as columns.
struct RangeColumns {
  Int64s start;
  Int64s end;
  Int64s key;
};

Ranges to_ranges(const RangeColumns& columns);

// Segments, and mapped runs, after some segment events: `key` names the range of each. Events that do not fit are left
// out. O(log n) for each.
Ranges ranges_after(const RangeColumns& before, const Events& events, Int64s key);

struct RangesBefore {
  Ranges ranges;
  std::int64_t n_misfits = 0;      // events that could not be undone
  std::int64_t first_misfit = kNone;
};

// Segments, and mapped runs, before some segment events, by undoing them from the last one on.
RangesBefore ranges_before(const RangeColumns& after, const Events& events, Int64s key);

}  // namespace memscope::lifetimes
