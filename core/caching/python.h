// How an allocator is shown to Python: the same for every model.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/shared_ptr.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <utility>
#include <vector>

#include "arrays.h"
#include "caching/replay.h"

namespace memscope::caching {

// A block as Python holds it: it keeps the allocator alive, and knows when its block is gone.
struct BlockHandle {
  std::shared_ptr<BlockAllocator> allocator;
  Block* block;
  std::int64_t serial;

  static std::optional<BlockHandle> of(std::shared_ptr<BlockAllocator> allocator, Block* block) {
    if (block == nullptr) {
      return std::nullopt;
    }
    return BlockHandle{std::move(allocator), block, block->serial};
  }

  bool is_alive() const { return block->serial == serial && block->state != BlockState::kNone; }

  // Raises RuntimeError in Python.
  Block& get() const {
    if (!is_alive()) {
      throw std::runtime_error("this block was merged with another one, or given back");
    }
    return *block;
  }

  // Raises RuntimeError in Python if the block is another allocator's.
  Block& get_of(const BlockAllocator& owner) const {
    if (allocator.get() != &owner) {
      throw std::runtime_error("this block belongs to another allocator");
    }
    return get();
  }
};

struct SegmentHandle {
  std::shared_ptr<BlockAllocator> allocator;
  Segment* segment;
  std::int64_t serial;

  static SegmentHandle of(std::shared_ptr<BlockAllocator> allocator, Segment& segment) {
    return {std::move(allocator), &segment, segment.serial};
  }

  // Raises RuntimeError in Python.
  Segment& get() const {
    if (segment->serial != serial || !segment->is_live) {
      throw std::runtime_error("this segment was given back");
    }
    return *segment;
  }
};

// A row for each column; the rows need not lie one after the other.
using UsageMatrix = nb::ndarray<Bytes, nb::numpy, nb::ndim<2>>;

inline UsageMatrix to_numpy(UsageSeries usage) {
  const std::size_t n_moments = usage.size();
  const auto stride = static_cast<std::int64_t>(usage.stride());
  Bytes* const values = usage.take().release();
  nb::capsule owner(values, [](void* pointer) noexcept { delete[] static_cast<Bytes*>(pointer); });
  return UsageMatrix(values, {UsageSeries::kColumns, n_moments}, owner, {stride, 1});
}

// Usage, the moment of its peak, unused bytes at the most and in the mean, and the call that failed.
using ServedTuple = std::tuple<UsageMatrix, std::size_t, Bytes, nb::int_, std::optional<std::size_t>>;

template <AllocatorModel Model>
ServedTuple serve(Model& model, const Array<std::int8_t>& op, const Array<std::int32_t>& row,
                  const Array<std::int32_t>& dropped_pool, const Array<std::int64_t>& requested_bytes,
                  const Array<std::int64_t>& pair, bool keeps_peak_only) {
  Served served = without_gil([&] {
    return replay(model, {view(requested_bytes), view(pair)}, {view(op), view(row), view(dropped_pool)},
                  keeps_peak_only);
  });
  UsageSeries& usage = served.usage;
  const std::size_t peak_moment = usage.peak_moment();
  const Bytes largest_unused = usage.largest_unused();
  nb::int_ mean_unused(to_int(usage.sum_of_unused()).floor_div(nb::int_(usage.n_seen())));
  return {to_numpy(std::move(usage)), peak_moment, largest_unused, std::move(mean_unused), served.failed_call};
}

// The class of a model, with the acts that every one has; its constructor and what else it shows are added to it.
// The module must have imported memscope._core.caching before, where the base class is.
template <AllocatorModel Model>
nb::class_<Model, BlockAllocator> bind_model(nb::module_& module, const char* name) {
  using namespace nb::literals;
  return nb::class_<Model, BlockAllocator>(module, name)
      .def(
          "malloc",
          [](std::shared_ptr<Model> self, std::size_t pair, Bytes requested_bytes) {
            Block* const block = self->malloc(pair, requested_bytes);
            return BlockHandle::of(std::move(self), block);
          },
          "pair"_a, "requested_bytes"_a, "The block given to a request of a (pool, stream) pair; None: out of memory.")
      .def(
          "free",
          [](Model& self, const BlockHandle& handle, bool waits) {
            Block& block = handle.get_of(self);
            if (block.state != BlockState::kAllocated) {
              throw std::runtime_error("this block is not allocated");
            }
            self.free(block, waits);
          },
          "block"_a, "waits"_a = false, "Take an allocation back; with ``waits`` it stays pending for other streams.")
      .def(
          "complete_free",
          [](Model& self, const BlockHandle& handle) {
            Block& block = handle.get_of(self);
            if (block.state != BlockState::kPending) {
              throw std::runtime_error("this block does not wait for other streams");
            }
            self.complete_free(block);
          },
          "block"_a, "Return a pending allocation: the streams that it waited for are done.")
      .def(
          "address_of", [](Model& self, const BlockHandle& handle) { return self.address_of(handle.get_of(self)); },
          "block"_a, "Where the program sees the allocation that a block is the first of.")
      .def(
          "next_part",
          [](std::shared_ptr<Model> self, const BlockHandle& handle) {
            Block* const part = self->next_part(handle.get_of(*self));
            return BlockHandle::of(std::move(self), part);
          },
          "block"_a, "The next block of the same allocation, None after the last.")
      .def("empty_cache", &Model::empty_cache, "Wait for all streams and give all unused memory back.")
      .def("serve", &serve<Model>, "op"_a, "row"_a, "dropped_pool"_a, "requested_bytes"_a, "pair"_a,
           "keeps_peak_only"_a = false,
           "Serve a program's calls up to the first request that fails. O(log n) in the free blocks for each.\n\n"
           "``op`` int8 (n,) by ``Op``, ``row`` int32 (n,): what was done, and the allocation it is about (for\n"
           "``EMPTY_POOL`` the pool); ``dropped_pool`` int32 (n,): pool whose owner is gone after it, −1 for none;\n"
           "``requested_bytes``, ``pair`` int64 (rows,): the allocations.\n\n"
           "Returns int64 (4, n + 1): allocated, active, requested and reserved bytes before the first call and after\n"
           "each that was served or failed; which of these moments is the first with the most reserved bytes, and with\n"
           "``keeps_peak_only`` int64 (4, 1) of that one alone; reserved bytes that were not in use, at the most and in\n"
           "the mean of all moments, rounded down; the position of the call that failed, None if none did.");
}

}  // namespace memscope::caching
