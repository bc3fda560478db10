#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "arrays.h"
#include "planning/epochs.h"
#include "planning/in_order.h"
#include "planning/in_time.h"
#include "planning/overlap.h"

using namespace memscope;
using namespace nb::literals;

namespace {

using Int64Array = Array<std::int64_t>;
using Ints = NewArray<std::int64_t>;

std::tuple<Ints, Ints, std::int64_t> number_epochs(const Int64Array& start, const Int64Array& end,
                                                   std::size_t n_positions) {
  planning::Epochs epochs = without_gil([&] { return planning::number_epochs(view(start), view(end), n_positions); });
  return {to_numpy(std::move(epochs.start)), to_numpy(std::move(epochs.end)), epochs.n_epochs};
}

Ints load_of_epochs(const Int64Array& start, const Int64Array& end, const Int64Array& size, std::size_t n_epochs) {
  return to_numpy(without_gil([&] { return planning::load_of_epochs(view(start), view(end), view(size), n_epochs); }));
}

Ints peak_load_of_rows(const Int64Array& load, const Int64Array& start, const Int64Array& end) {
  return to_numpy(without_gil([&] { return planning::peak_load_of_rows(view(load), view(start), view(end)); }));
}

std::tuple<Ints, std::int64_t, std::int64_t, std::int64_t> place(const planning::OrderedPlacer& placer,
                                                                 const Int64Array& order, std::int64_t max_offset,
                                                                 std::int64_t max_work) {
  auto found = without_gil([&] { return placer.place(view(order), max_offset, max_work); });
  planning::Placement& placement = found.placement;
  return {to_numpy(std::move(placement.offset)), placement.peak, found.n_placed, placement.work};
}

std::tuple<Ints, std::int64_t, std::int64_t> place_in_time(const Int64Array& start, const Int64Array& end,
                                                           const Int64Array& size, const Int64Array& by_end,
                                                           bool is_best_fit, std::int64_t max_work) {
  planning::Placement placement = without_gil([&] {
    return planning::place_in_time(planning::to_lifetimes(view(start), view(end), view(size), {}), view(by_end),
                                   is_best_fit ? planning::Fit::kBest : planning::Fit::kFirst, max_work);
  });
  return {to_numpy(std::move(placement.offset)), placement.peak, placement.work};
}

std::pair<Ints, Ints> share_slots(const Int64Array& start, const Int64Array& end, const Int64Array& by_end,
                                  const Int64Array& size_class, std::size_t n_classes) {
  planning::Slots slots = without_gil([&] {
    // Sizes play no part in it.
    return planning::share_slots(planning::to_lifetimes(view(start), view(end), view(end), {}), view(by_end),
                                 view(size_class), n_classes);
  });
  return {to_numpy(std::move(slots.slot)), to_numpy(std::move(slots.n_slots))};
}

using RowPair = std::pair<std::int64_t, std::int64_t>;

std::optional<RowPair> find_overlap(const Array<std::int64_t>& start, const Array<std::int64_t>& end,
                                    const Array<std::int64_t>& low, const Array<std::int64_t>& high) {
  const auto found =
      without_gil([&] { return planning::find_overlap(view(start), view(end), view(low), view(high)); });
  return found ? std::optional<RowPair>({found->later, found->earlier}) : std::nullopt;
}

void bind_epochs(nb::module_& module) {
  module.def("number_epochs", &number_epochs, "start"_a, "end"_a, "n_positions"_a,
             "Number the runs of allocs that frees separate: the only moments at which usage can peak.\n\n"
             "``start``, ``end`` int64 (rows,): positions in ``[0, n_positions)``; at one position, frees come before\n"
             "allocs. Two lifetimes overlap in positions exactly if they overlap in epochs. O(rows + positions).\n\n"
             "Returns the epochs in which each row starts and ends, int64 (rows,), and the number of epochs.");
  module.def("load_of_epochs", &load_of_epochs, "start"_a, "end"_a, "size"_a, "n_epochs"_a,
             "Sum of the sizes alive in each epoch: int64 (n_epochs,). Epochs and sizes of rows are int64 (rows,).");
  module.def("peak_load_of_rows", &peak_load_of_rows, "load"_a, "start"_a, "end"_a,
             "Highest load in each row's lifetime: int64 (rows,). ``load`` is int64 (epochs,). O(log epochs) a row.");
}

void bind_placing(nb::module_& module) {
  nb::class_<planning::OrderedPlacer>(module, "OrderedPlacer",
                                      "Places the same rows in one order after another, each row at the lowest offset\n"
                                      "that is free in its whole lifetime.")
      .def(nb::new_([](const Int64Array& start, const Int64Array& end, const Int64Array& size, const Int64Array& floor,
                       std::size_t stride) {
             return planning::OrderedPlacer(planning::to_lifetimes(view(start), view(end), view(size), view(floor)),
                                            stride);
           }),
          "start"_a, "end"_a, "size"_a, "floor"_a, "stride"_a,
          "Rows in order of their start, int64 (rows,) each; none is placed below its floor. The rows alive at every\n"
          "``stride``-th row are remembered.")
      .def_prop_ro("n_remembered", &planning::OrderedPlacer::n_remembered, "How many rows alive, over all strides.")
      .def("place", &place, "order"_a, "max_offset"_a, "max_work"_a,
           "Place rows in an order, int64. For a row that lives with k others the cost is O(k), and O(log k) for each\n"
           "that lies below the place found.\n\n"
           "Returns offsets, int64 (rows,), −1 where not placed; the highest end; how many of the order were placed,\n"
           "less than all if one ended above ``max_offset`` or the work exceeded ``max_work``; and the work done.");
  module.def("place_in_time", &place_in_time, "start"_a, "end"_a, "size"_a, "by_end"_a, "is_best_fit"_a, "max_work"_a,
             "Put each row where an allocator that sees only the past would: first fit or best fit in one address range.\n"
             "Linear in the free ranges for each row.\n\n"
             "``start``, ``end``, ``size`` int64 (rows,), in order of start; ``by_end`` int64 (rows,): the rows in order\n"
             "of their end. Returns offsets, int64 (rows,); the highest end, −1 if the work exceeded ``max_work``; and\n"
             "the work done, in rows looked at.");
  module.def("share_slots", &share_slots, "start"_a, "end"_a, "by_end"_a, "size_class"_a, "n_classes"_a,
             "Give rows of one size class the fewest slots such that those in one slot never live together. O(rows).\n\n"
             "int64 (rows,) each, in order of start; ``by_end``: the rows in order of their end. Returns the slot of\n"
             "each row within its class, int64 (rows,), and the number of slots of each class, int64 (n_classes,).");
}

}  // namespace

NB_MODULE(planning, module) {
  module.doc() = "Placing allocations whose lifetimes are all known in advance.";
  bind_epochs(module);
  bind_placing(module);
  module.def("find_overlap", &find_overlap, "start"_a, "end"_a, "low"_a, "high"_a,
             "The later and the earlier of two rows that are alive together, in ``[start, end)``, with addresses\n"
             "``[low, high)`` in common; None if there are none. int64 (rows,) each. O(n log n).");
}
