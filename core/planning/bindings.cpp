#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include <optional>
#include <utility>

#include "arrays.h"
#include "planning/overlap.h"

using namespace memscope;
using namespace nb::literals;

namespace {

using RowPair = std::pair<std::int64_t, std::int64_t>;

std::optional<RowPair> find_overlap(const Array<std::int64_t>& start, const Array<std::int64_t>& end,
                                    const Array<std::int64_t>& low, const Array<std::int64_t>& high) {
  const auto found =
      without_gil([&] { return planning::find_overlap(view(start), view(end), view(low), view(high)); });
  return found ? std::optional<RowPair>({found->later, found->earlier}) : std::nullopt;
}

}  // namespace

NB_MODULE(planning, module) {
  module.doc() = "Placing allocations whose lifetimes are all known in advance.";
  module.def("find_overlap", &find_overlap, "start"_a, "end"_a, "low"_a, "high"_a,
             "The later and the earlier of two rows that are alive together, in ``[start, end)``, with addresses\n"
             "``[low, high)`` in common; None if there are none. int64 (rows,) each. O(n log n).");
}
