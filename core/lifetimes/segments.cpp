#include "lifetimes/segments.h"

namespace memscope::lifetimes {

Ranges to_ranges(const RangeColumns& columns) {
  Ranges ranges;
  for (std::size_t i = 0; i < columns.start.size(); ++i) {
    ranges.insert({columns.start[i], columns.end[i], columns.key[i]});
  }
  return ranges;
}

Ranges ranges_after(const RangeColumns& before, const Events& events, Int64s key) {
  Ranges ranges = to_ranges(before);
  for (std::size_t event = 0; event < events.size(); ++event) {
    if (makes_segment(events.action(event))) {
      ranges.insert({events.address[event], events.end(event), key[event]});
    } else {
      ranges.remove(events.address[event], events.end(event));
    }
  }
  return ranges;
}

RangesBefore ranges_before(const RangeColumns& after, const Events& events, Int64s key) {
  RangesBefore found{to_ranges(after)};
  for (std::size_t event = events.size(); event-- > 0;) {
    const bool fits = makes_segment(events.action(event))
                          ? found.ranges.remove(events.address[event], events.end(event))
                          : found.ranges.insert({events.address[event], events.end(event), key[event]});
    if (!fits) {
      ++found.n_misfits;
      found.first_misfit = static_cast<std::int64_t>(event);
    }
  }
  return found;
}

}  // namespace memscope::lifetimes
