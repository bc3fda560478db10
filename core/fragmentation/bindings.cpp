#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>
#include <utility>
#include <vector>

#include "arrays.h"
#include "fragmentation/series.h"

using namespace memscope;
using namespace memscope::fragmentation;
using namespace nb::literals;

namespace {

using Int64Array = Array<std::int64_t>;
using Column = NewArray<std::int64_t>;
using Count = NewArray<std::int32_t>;

// Event; reserved, active, requested, releasable and largest free bytes; segments, active and free blocks.
using Columns = std::tuple<Count, Column, Column, Column, Column, Column, Count, Count, Count>;

Columns columns_of(MetricsSeries series) {
  return {to_numpy(std::move(series.event)),      to_numpy(std::move(series.reserved)),
          to_numpy(std::move(series.active)),     to_numpy(std::move(series.requested)),
          to_numpy(std::move(series.releasable)), to_numpy(std::move(series.largest_free)),
          to_numpy(std::move(series.n_segments)), to_numpy(std::move(series.n_active)),
          to_numpy(std::move(series.n_free))};
}

std::pair<std::vector<Columns>, std::int64_t> follow_of(
    const Array<std::int8_t>& action, const Int64Array& address, const Int64Array& size_bytes,
    const Int64Array& segment_key, const std::tuple<Int64Array, Int64Array, Int64Array>& start_segments,
    const Int64Array& key_group, const Int64Array& key_release_rule,
    const std::tuple<Int64Array, Int64Array, Int64Array, Int64Array, Int64Array>& blocks, std::int64_t first_event) {
  const auto& [start, end, key] = start_segments;
  const auto& [alloc_event, free_event, block_address, block_bytes, requested_bytes] = blocks;
  FragmentationSeries found = without_gil([&] {
    return follow({view(action), view(address), view(size_bytes)}, view(segment_key),
                  {view(start), view(end), view(key)}, {view(key_group), view(key_release_rule)},
                  {view(alloc_event), view(free_event), view(block_address), view(block_bytes), view(requested_bytes)},
                  first_event);
  });
  std::vector<Columns> groups;
  for (MetricsSeries& group : found.groups) {
    groups.push_back(columns_of(std::move(group)));
  }
  return {std::move(groups), found.n_misfits};
}

}  // namespace

NB_MODULE(fragmentation, module) {
  module.doc() = "What is free, and what of it could go back, after every event.";
  module.attr("NEVER") = kNever;
  module.attr("WHOLE") = kWhole;
  module.def("follow", &follow_of, "action"_a, "address"_a, "size_bytes"_a, "segment_key"_a, "start_segments"_a,
             "key_group"_a, "key_release_rule"_a, "blocks"_a, "first_event"_a,
             "Follow a device's fragmentation through its events. O(log n) each.\n\n"
             "``action`` int8 (n,), ``address``, ``size_bytes`` int64 (n,): the events of one device, numbered from\n"
             "``first_event`` on; ``segment_key`` int64 (n,): the range key of segment events. ``start_segments``: start,\n"
             "end and key, int64 (m,), of what exists before the first. ``key_group``, ``key_release_rule`` int64 (k,):\n"
             "the group of each key, and how its memory goes back: ``NEVER``, as a ``WHOLE``, or by handles of that many\n"
             "bytes. ``blocks``: alloc event, free event (−1 for none), address, block bytes and requested bytes, int64\n"
             "(rows,).\n\n"
             "Returns the step functions of each group, with the state before the first event (−1) in row 0: event,\n"
             "int32; reserved, active, requested, releasable and largest free bytes, int64 (rows,); segments, active and\n"
             "free blocks, int32 (rows,). Then the number of events that do not fit.");
}
