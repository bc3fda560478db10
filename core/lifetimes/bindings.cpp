#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "arrays.h"
#include "lifetimes/pairing.h"
#include "lifetimes/placing.h"
#include "lifetimes/ranges.h"
#include "lifetimes/segments.h"

using namespace memscope;
using namespace memscope::lifetimes;
using namespace nb::literals;

namespace {

using Int8Array = Array<std::int8_t>;
using Int64Array = Array<std::int64_t>;
using Ints = NewArray<std::int64_t>;

using RangesTuple = std::tuple<Ints, Ints, Ints>;

RangesTuple to_columns(const Ranges& ranges) {
  std::vector<std::int64_t> start, end, key;
  ranges.for_each([&](const Range& range) {
    start.push_back(range.start);
    end.push_back(range.end);
    key.push_back(range.key);
  });
  return {to_numpy(std::move(start)), to_numpy(std::move(end)), to_numpy(std::move(key))};
}

using ArrayTriple = std::tuple<Int64Array, Int64Array, Int64Array>;

RangeColumns columns_of(const ArrayTriple& ranges) {
  return {view(std::get<0>(ranges)), view(std::get<1>(ranges)), view(std::get<2>(ranges))};
}

RangesTuple ranges_after_of(const ArrayTriple& before, const Int8Array& action, const Int64Array& address,
                            const Int64Array& size_bytes, const Int64Array& key) {
  return to_columns(without_gil([&] {
    return ranges_after(columns_of(before), {view(action), view(address), view(size_bytes)}, view(key));
  }));
}

std::tuple<RangesTuple, std::int64_t, std::int64_t> ranges_before_of(const ArrayTriple& after, const Int8Array& action,
                                                                     const Int64Array& address,
                                                                     const Int64Array& size_bytes,
                                                                     const Int64Array& key) {
  const RangesBefore found = without_gil([&] {
    return ranges_before(columns_of(after), {view(action), view(address), view(size_bytes)}, view(key));
  });
  return {to_columns(found.ranges), found.n_misfits, found.first_misfit};
}

using PairColumns = std::tuple<Ints, Ints, Ints, Ints, Ints>;
using First = std::optional<std::pair<Contradiction, std::int64_t>>;

std::tuple<PairColumns, std::int64_t, std::int64_t, First> pair_events_of(const Int8Array& action,
                                                                          const Int64Array& address,
                                                                          const Int64Array& size_bytes,
                                                                          bool allocs_recorded,
                                                                          bool completions_recorded) {
  Pairing found = without_gil([&] {
    return pair_events({view(action), view(address), view(size_bytes)}, {allocs_recorded, completions_recorded});
  });
  Pairs& pairs = found.pairs;
  First first;
  if (found.first_contradiction) {
    first = {found.first_contradiction->contradiction, found.first_contradiction->event};
  }
  return {{to_numpy(std::move(pairs.alloc_event)), to_numpy(std::move(pairs.free_requested_event)),
           to_numpy(std::move(pairs.free_event)), to_numpy(std::move(pairs.address)),
           to_numpy(std::move(pairs.requested_bytes))},
          found.n_unmatched_frees,
          found.n_implied_frees,
          first};
}

std::tuple<Ints, NewArray<std::uint8_t>, Ints, std::int64_t, std::int64_t> lay_out_of(
    const Int8Array& action, const Int64Array& address, const Int64Array& size_bytes, const Int64Array& segment_key,
    const ArrayTriple& start_segments, const ArrayTriple& allocations, const Int64Array& block_bytes,
    const Array<bool>& is_exact, const caching::RoundupDivisions& roundup_divisions, Bytes max_split_bytes,
    bool is_expandable, const Array<bool>& key_never_splits) {
  const auto& [alloc_event, free_event, row_address] = allocations;
  Layout found = without_gil([&] {
    Layout known;
    known.block_bytes.assign(view(block_bytes).begin(), view(block_bytes).end());
    known.is_exact.assign(view(is_exact).begin(), view(is_exact).end());
    return lay_out({view(action), view(address), view(size_bytes)}, view(segment_key), columns_of(start_segments),
                   {view(alloc_event), view(free_event), view(row_address)}, std::move(known),
                   {roundup_divisions, max_split_bytes, is_expandable, view(key_never_splits)});
  });
  return {to_numpy(std::move(found.block_bytes)), to_numpy(std::move(found.is_exact)), to_numpy(std::move(found.key)),
          found.n_misplaced, found.first_misplaced};
}

}  // namespace

NB_MODULE(lifetimes, module) {
  module.doc() = "Allocs paired with their frees, segments over time, and the layout of blocks that they imply.";
  nb::enum_<Contradiction>(module, "Contradiction", "Why an event cannot be.")
      .value("ALLOCATED_TWICE", Contradiction::kAllocatedTwice)
      .value("FREED_TWICE", Contradiction::kFreedTwice)
      .value("FREE_SIZE_DIFFERS", Contradiction::kFreeSizeDiffers);
  module.def("pair_events", &pair_events_of, "action"_a, "address"_a, "size_bytes"_a, nb::kw_only(), "allocs_recorded"_a,
             "completions_recorded"_a,
             "Pair the allocs of one device with their frees, by address. O(n).\n\n"
             "``action`` int8 (n,), ``address``, ``size_bytes`` int64 (n,): the device's events in order. Where allocs\n"
             "were not recorded, frees without one prove nothing; where completions were not, a request closes.\n\n"
             "Returns one row for each allocation seen: alloc, free-requested and free event (positions, −1 for none),\n"
             "address and requested bytes, int64 (rows,) each; the number of frees whose alloc was not seen; of allocs\n"
             "that found their address still open; the first contradiction and its event, None if there is none.");
  module.def("lay_out", &lay_out_of, "action"_a, "address"_a, "size_bytes"_a, "segment_key"_a, "start_segments"_a,
             "allocations"_a, "block_bytes"_a, "is_exact"_a, nb::kw_only(), "roundup_divisions"_a, "max_split_bytes"_a,
             "is_expandable"_a, "key_never_splits"_a,
             "Find the block of every allocation by following the free ranges forward. O(log n) for each event.\n\n"
             "``action`` int8 (n,), ``address``, ``size_bytes`` int64 (n,): the events of one device; ``segment_key``\n"
             "int64 (n,): the range key of segment events. ``start_segments``: start, end and key, int64 (m,), of what\n"
             "exists before the first. ``allocations``: alloc event, free event (positions, −1 for none) and address,\n"
             "int64 (rows,). ``block_bytes`` int64 and ``is_exact`` bool (rows,): what is known of those that predate\n"
             "the events. ``key_never_splits`` bool (k,): by range key, whether its pool hands out whole blocks only.\n\n"
             "Returns ``block_bytes`` int64, ``is_exact`` uint8 and the key of its segment (−1 for none) int64 of each\n"
             "row; the number of events that do not fit the layout, and the first of them, −1 for none.");
  module.def("ranges_after", &ranges_after_of, "before"_a, "action"_a, "address"_a, "size_bytes"_a, "key"_a,
             "Segments, and mapped runs, after some segment events; those that do not fit are left out.\n\n"
             "``before``: start, end and key, int64 (m,), of those before the first; ``action`` int8, the others int64\n"
             "(n,): the events. Returns start, end and key, int64, ascending.");
  module.def("ranges_before", &ranges_before_of, "after"_a, "action"_a, "address"_a, "size_bytes"_a, "key"_a,
             "Segments, and mapped runs, before some segment events, by undoing them; arguments as for\n"
             ":func:`ranges_after`. Returns start, end and key, int64, ascending; the number of events that could not\n"
             "be undone, and the first of them, −1 for none.");
}
