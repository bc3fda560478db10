#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "caching/python.h"

using namespace memscope;
using namespace memscope::caching;
using namespace nb::literals;

namespace {

using SharedAllocator = std::shared_ptr<BlockAllocator>;
using Int64Array = NewArray<std::int64_t>;

template <typename T, typename Objects, typename Read>
NewArray<T> column(const Objects& objects, Read read) {
  std::vector<T> values;
  values.reserve(objects.size());
  for (const auto* object : objects) {
    values.push_back(static_cast<T>(read(*object)));
  }
  return to_numpy(std::move(values));
}

std::int64_t id_of(const Block* block) { return block == nullptr ? -1 : std::int64_t{block->slot}; }

// All blocks, whatever their state.
struct BlockTable {
  Int64Array id, address, size_bytes, requested_bytes, pool, segment, prev, next, tie;
  NewArray<std::uint8_t> state;

  static BlockTable of(const BlockAllocator& allocator) {
    std::vector<const Block*> used;
    for (const Block& block : allocator.blocks) {
      if (block.state != BlockState::kNone) {
        used.push_back(&block);
      }
    }
    using Int = std::int64_t;
    return {column<Int>(used, [](const Block& b) { return b.slot; }),
            column<Int>(used, [](const Block& b) { return b.address; }),
            column<Int>(used, [](const Block& b) { return b.size; }),
            column<Int>(used, [](const Block& b) { return b.requested_size; }),
            column<Int>(used, [](const Block& b) { return b.pool->index; }),
            column<Int>(used, [](const Block& b) { return b.segment->slot; }),
            column<Int>(used, [](const Block& b) { return id_of(b.prev); }),
            column<Int>(used, [](const Block& b) { return id_of(b.next); }),
            column<Int>(used, [](const Block& b) { return b.tie; }),
            column<std::uint8_t>(used, [](const Block& b) { return b.state; })};
  }
};

struct SegmentTable {
  Int64Array id, address, size_bytes, pool, first_block, serial;
  NewArray<bool> is_expandable;

  static SegmentTable of(const BlockAllocator& allocator) {
    std::vector<const Segment*> live;
    for (const Segment& segment : allocator.segments) {
      if (segment.is_live) {
        live.push_back(&segment);
      }
    }
    using Int = std::int64_t;
    // std::vector<bool> has no memory that an array could take over.
    NewArray<bool> is_expandable = [&] {
      auto* values = new bool[live.size()];
      nb::capsule owner(values, [](void* pointer) noexcept { delete[] static_cast<bool*>(pointer); });
      for (std::size_t i = 0; i < live.size(); ++i) {
        values[i] = live[i]->is_expandable;
      }
      return NewArray<bool>(values, {live.size()}, owner);
    }();
    return {column<Int>(live, [](const Segment& s) { return s.slot; }),
            column<Int>(live, [](const Segment& s) { return s.address; }),
            column<Int>(live, [](const Segment& s) { return s.size; }),
            column<Int>(live, [](const Segment& s) { return s.pool->index; }),
            column<Int>(live, [](const Segment& s) { return id_of(s.head); }),
            column<Int>(live, [](const Segment& s) { return s.serial; }),
            std::move(is_expandable)};
  }
};

std::vector<BlockHandle> handles(const SharedAllocator& allocator, const auto& set) {
  std::vector<BlockHandle> found;
  set.for_each([&](Block& block) { found.push_back({allocator, &block, block.serial}); });
  return found;
}

std::vector<BlockHandle> pending_blocks(const SharedAllocator& allocator) {
  std::vector<BlockHandle> found;
  for (Block* block = allocator->first_pending; block != nullptr; block = block->pending_next) {
    found.push_back({allocator, block, block->serial});
  }
  return found;
}

void bind_enums(nb::module_& module) {
  nb::enum_<Op>(module, "Op", nb::is_arithmetic(), "What a program does; ``FREE`` completes at once.")
      .value("NONE", Op::kNone)
      .value("MALLOC", Op::kMalloc)
      .value("FREE", Op::kFree)
      .value("FREE_LATER", Op::kFreeLater)
      .value("COMPLETE", Op::kComplete)
      .value("EMPTY_CACHE", Op::kEmptyCache)
      .value("EMPTY_POOL", Op::kEmptyPool);
  nb::enum_<BlockState>(module, "BlockState", nb::is_arithmetic(), "What a block is at the moment.")
      .value("FREE", BlockState::kFree)
      .value("ALLOCATED", BlockState::kAllocated)
      .value("PENDING", BlockState::kPending)
      .value("UNMAPPED", BlockState::kUnmapped);
}

template <typename Read>
auto block_property(Read read) {
  return [read](const BlockHandle& handle) { return read(handle.get()); };
}

void bind_blocks(nb::module_& module) {
  nb::class_<SegmentHandle>(module, "Segment", "One ``cudaMalloc``, or the address reservation of an expandable one.")
      .def_prop_ro("id", [](const SegmentHandle& h) { return h.get().slot; }, "Its slot, used again once it is gone.")
      .def_prop_ro("serial", [](const SegmentHandle& h) { return h.get().serial; }, "Counts the segments made.")
      .def_prop_ro("address", [](const SegmentHandle& h) { return h.get().address; })
      .def_prop_ro("size_bytes", [](const SegmentHandle& h) { return h.get().size; })
      .def_prop_ro("is_expandable", [](const SegmentHandle& h) { return h.get().is_expandable; })
      .def_prop_ro("is_old", [](const SegmentHandle& h) { return h.get().is_old; }, "Made before the first event.");
  const auto neighbour = [](const BlockHandle& handle, Block* Block::* side) {
    return BlockHandle::of(handle.allocator, handle.get().*side);
  };
  nb::class_<BlockHandle>(module, "Block", "A block of an allocator; RuntimeError once it was merged or given back.")
      .def_prop_ro("id", block_property([](const Block& b) { return b.slot; }), "Its slot, used again once it is gone.")
      .def_prop_ro("address", block_property([](const Block& b) { return b.address; }))
      .def_prop_ro("size_bytes", block_property([](const Block& b) { return b.size; }))
      .def_prop_ro("end", block_property([](const Block& b) { return b.end(); }), "The address behind it.")
      .def_prop_ro("requested_bytes", block_property([](const Block& b) { return b.requested_size; }))
      .def_prop_ro("state", block_property([](const Block& b) { return b.state; }))
      .def_prop_ro("pool", block_property([](const Block& b) { return b.pool->index; }), "Index of its pool.")
      .def_prop_ro("tie", block_property([](const Block& b) { return b.tie; }),
                   "What decides between equal sizes before the address.")
      .def_prop_ro("is_old", block_property([](const Block& b) { return b.is_old; }), "Made before the first event.")
      .def_prop_ro("is_split", block_property([](const Block& b) { return b.is_split(); }),
                   "Whether it is not the whole of its segment.")
      .def_prop_ro("segment", [](const BlockHandle& h) { return SegmentHandle::of(h.allocator, *h.get().segment); })
      .def_prop_ro("prev", [neighbour](const BlockHandle& h) { return neighbour(h, &Block::prev); })
      .def_prop_ro("next", [neighbour](const BlockHandle& h) { return neighbour(h, &Block::next); })
      .def("__eq__", [](const BlockHandle& a, nb::object other) {
            BlockHandle b{};
            return nb::try_cast(other, b) && a.block == b.block && a.serial == b.serial;
          })
      .def("__hash__", [](const BlockHandle& h) { return h.serial; });
  nb::class_<BlockPool>(module, "BlockPool", "Free memory of one (pool, stream, size class).")
      .def_ro("index", &BlockPool::index, "2 k for the small, 2 k + 1 for the large pool of the pair k.")
      .def_ro("pool_id", &BlockPool::pool_id, "Dense pool id; 0 is the default pool.")
      .def_ro("stream", &BlockPool::stream, "Raw stream handle.")
      .def_prop_ro("is_small", &BlockPool::is_small)
      .def_rw("can_split", &BlockPool::can_split, "Whether its blocks are ever split.")
      .def_rw("is_releasable", &BlockPool::is_releasable, "Whether reclaims give its unused memory back.");
}

void bind_tables(nb::module_& module) {
  const auto take = nb::rv_policy::reference;
  nb::class_<BlockTable>(module, "BlockTable", "Blocks by id: int64 (n,) each, ``state`` uint8 by ``BlockState``.")
      .def_ro("id", &BlockTable::id, take)
      .def_ro("address", &BlockTable::address, take)
      .def_ro("size_bytes", &BlockTable::size_bytes, take)
      .def_ro("requested_bytes", &BlockTable::requested_bytes, take)
      .def_ro("pool", &BlockTable::pool, take, "Index of the pool.")
      .def_ro("segment", &BlockTable::segment, take, "Id of the segment.")
      .def_ro("prev", &BlockTable::prev, take, "Id of the block before it in its segment, −1 for none.")
      .def_ro("next", &BlockTable::next, take)
      .def_ro("tie", &BlockTable::tie, take)
      .def_ro("state", &BlockTable::state, take);
  nb::class_<SegmentTable>(module, "SegmentTable", "Segments by id: int64 (n,) each, ``is_expandable`` bool.")
      .def_ro("id", &SegmentTable::id, take)
      .def_ro("address", &SegmentTable::address, take)
      .def_ro("size_bytes", &SegmentTable::size_bytes, take)
      .def_ro("pool", &SegmentTable::pool, take, "Index of the pool.")
      .def_ro("first_block", &SegmentTable::first_block, take, "Id of its first block.")
      .def_ro("serial", &SegmentTable::serial, take, "Counts the segments made.")
      .def_ro("is_expandable", &SegmentTable::is_expandable, take);
}

template <auto member>
auto current(const DeviceStats& stats) {
  return (stats.*member).current;
}
template <auto member>
auto peak(const DeviceStats& stats) {
  return (stats.*member).peak;
}

void bind_stats(nb::module_& module) {
  nb::class_<DeviceStats>(module, "DeviceStats", "Counters of an allocator: bytes now and at their peak, calls so far.")
      .def_prop_ro("allocated_bytes", &current<&DeviceStats::allocated_bytes>)
      .def_prop_ro("active_bytes", &current<&DeviceStats::active_bytes>)
      .def_prop_ro("requested_bytes", &current<&DeviceStats::requested_bytes>)
      .def_prop_ro("reserved_bytes", &current<&DeviceStats::reserved_bytes>)
      .def_prop_ro("peak_allocated_bytes", &peak<&DeviceStats::allocated_bytes>)
      .def_prop_ro("peak_active_bytes", &peak<&DeviceStats::active_bytes>)
      .def_prop_ro("peak_requested_bytes", &peak<&DeviceStats::requested_bytes>)
      .def_prop_ro("peak_reserved_bytes", &peak<&DeviceStats::reserved_bytes>)
      .def_ro("num_alloc_retries", &DeviceStats::num_alloc_retries, "Requests served only after a reclaim.")
      .def_ro("num_ooms", &DeviceStats::num_ooms)
      .def_ro("num_rejections", &DeviceStats::num_rejections)
      .def_ro("num_sync_all_streams", &DeviceStats::num_sync_all_streams)
      .def_ro("num_stream_syncs", &DeviceStats::num_stream_syncs)
      .def_ro("num_device_alloc", &DeviceStats::num_device_alloc, "Calls that took memory from the driver.")
      .def_ro("num_device_free", &DeviceStats::num_device_free)
      .def_ro("num_reservations", &DeviceStats::num_reservations, "Address ranges made.")
      .def_ro("num_reservations_dropped", &DeviceStats::num_reservations_dropped)
      .def_ro("num_map_calls", &DeviceStats::num_map_calls)
      .def_ro("num_unmap_calls", &DeviceStats::num_unmap_calls)
      .def_ro("num_mapped_handles", &DeviceStats::num_mapped_handles)
      .def_ro("num_unmapped_handles", &DeviceStats::num_unmapped_handles)
      .def_ro("num_async_allocs", &DeviceStats::num_async_allocs)
      .def_ro("num_async_frees", &DeviceStats::num_async_frees);
}

void bind_allocator(nb::module_& module) {
  nb::class_<TraceEntry>(module, "TraceEntry", "One thing that an allocator did.")
      .def_prop_ro("action", [](const TraceEntry& entry) { return static_cast<int>(entry.action); })
      .def_ro("address", &TraceEntry::address)
      .def_ro("size_bytes", &TraceEntry::size)
      .def_ro("pool", &TraceEntry::pool, "Index of the pool.");
  nb::class_<BlockAllocator>(module, "BlockAllocator", "What every simulated allocator has.")
      .def("add_pair", &BlockAllocator::add_pair, "pool_id"_a, "stream"_a, "is_releasable"_a = false,
           "Add the small and the large pool of a (dense pool id, stream handle) pair. Private pools that are not\n"
           "releasable keep their memory in reclaims.")
      .def_prop_ro("n_pairs", &BlockAllocator::n_pairs)
      .def_prop_ro(
          "pools",
          [](BlockAllocator& self) {
            std::vector<BlockPool*> found;
            for (BlockPool& pool : self.pools) {
              found.push_back(&pool);
            }
            return found;
          },
          nb::rv_policy::reference_internal, "All pools by their index.")
      .def_prop_ro("stats", [](const BlockAllocator& self) { return self.stats; }, "A copy of the counters.")
      .def_prop_rw(
          "capacity_bytes", [](const BlockAllocator& self) { return self.driver.capacity; },
          [](BlockAllocator& self, Bytes n_bytes) { self.driver.capacity = n_bytes; },
          "What the driver can give out, −1 for no limit.")
      .def_prop_ro("device_used_bytes", [](const BlockAllocator& self) { return self.driver.used; })
      .def("blocks", &BlockTable::of, "All blocks, those without memory too.")
      .def("segments", &SegmentTable::of, "All segments.")
      .def(
          "free_blocks",
          [](const SharedAllocator& self, std::size_t pool) { return handles(self, self->pools.at(pool).blocks); },
          "pool"_a, "The free blocks of a pool in their order.")
      .def(
          "unmapped_blocks",
          [](const SharedAllocator& self, std::size_t pool) { return handles(self, self->pools.at(pool).unmapped); },
          "pool"_a, "The unmapped ranges of a pool in their order.")
      .def("pending_blocks", &pending_blocks, "The blocks that wait for other streams, the longest waiting first.")
      .def(
          "drain_trace", [](BlockAllocator& self) { return std::exchange(self.trace, {}); },
          "What happened since the last call, if it is logged.");
}

}  // namespace

NB_MODULE(caching, module) {
  module.doc() = "PyTorch's caching allocator, and what every simulated allocator is made of.";
  bind_enums(module);
  bind_blocks(module);
  bind_tables(module);
  bind_stats(module);
  bind_allocator(module);
}
