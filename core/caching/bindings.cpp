#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "caching/follow.h"
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
      .value("EMPTY_POOL", Op::kEmptyPool)
      .value("TRY", Op::kTry);
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
      .def_prop_ro("pool", [](const SegmentHandle& h) { return h.get().pool->index; }, "Index of its pool.")
      .def_prop_ro("is_expandable", [](const SegmentHandle& h) { return h.get().is_expandable; })
      .def_prop_ro("is_old", [](const SegmentHandle& h) { return h.get().is_old; }, "Made before the first event.");
  const auto neighbour = [](const BlockHandle& handle, Block* Block::* side) {
    return BlockHandle::of(handle.allocator, handle.get().*side);
  };
  nb::class_<BlockHandle>(module, "Block", "A block of an allocator; RuntimeError once it was merged or given back.")
      .def_prop_ro("is_alive", &BlockHandle::is_alive, "Whether it was neither merged nor given back yet.")
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
      .def(
          "__eq__",
          [](const BlockHandle& a, nb::handle other) {
            BlockHandle b{};
            return nb::try_cast(other, b) && a.block == b.block && a.serial == b.serial;
          },
          "other"_a.none())
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
      .def_ro("n_retries", &DeviceStats::num_alloc_retries, "Requests served only after a reclaim.")
      .def_ro("n_ooms", &DeviceStats::num_ooms)
      .def_ro("n_rejections", &DeviceStats::num_rejections)
      .def_ro("n_syncs", &DeviceStats::num_sync_all_streams)
      .def_ro("n_stream_syncs", &DeviceStats::num_stream_syncs)
      .def_ro("n_device_allocs", &DeviceStats::num_device_alloc, "Calls that took memory from the driver.")
      .def_ro("n_device_frees", &DeviceStats::num_device_free)
      .def_ro("n_reservations", &DeviceStats::num_reservations, "Address ranges made.")
      .def_ro("n_reservations_dropped", &DeviceStats::num_reservations_dropped)
      .def_ro("n_map_calls", &DeviceStats::num_map_calls)
      .def_ro("n_unmap_calls", &DeviceStats::num_unmap_calls)
      .def_ro("n_mapped_handles", &DeviceStats::num_mapped_handles)
      .def_ro("n_unmapped_handles", &DeviceStats::num_unmapped_handles)
      .def_ro("n_async_allocs", &DeviceStats::num_async_allocs)
      .def_ro("n_async_frees", &DeviceStats::num_async_frees);
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
      .def(
          "place_as",
          [](BlockAllocator& self, const Array<std::int64_t>& size, const Array<std::int64_t>& address) {
            const auto copied = [](const auto& array) { return std::vector(view(array).begin(), view(array).end()); };
            self.place_as(RecordedPlaces(copied(size), copied(address)));
          },
          "size_bytes"_a, "address"_a,
          "Place segments where those of a recording lay, for as long as the same sizes are asked for in the same order:\n"
          "int64 (n,) each.")
      .def_prop_ro("device_used_bytes", [](const BlockAllocator& self) { return self.driver.used; })
      .def(
          "live_segments",
          [](const SharedAllocator& self) {
            std::vector<SegmentHandle> found;
            for (Segment& segment : self->segments) {
              if (segment.is_live) {
                found.push_back(SegmentHandle::of(self, segment));
              }
            }
            return found;
          },
          "All segments by id, one by one.")
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

using SharedCaching = std::shared_ptr<DeviceCachingAllocator>;
using MaybeBlock = std::optional<BlockHandle>;

void require(bool is_so, const char* what) {
  if (!is_so) {
    throw std::runtime_error(what);
  }
}

MaybeBlock to_python(SharedCaching owner, Block* block) { return BlockHandle::of(std::move(owner), block); }

BlockPool& pool_at(DeviceCachingAllocator& allocator, std::size_t index) { return allocator.pools.at(index); }

// A block that a reclaim may give back, or that a request may take.
Block& free_block_of(const BlockHandle& handle, const DeviceCachingAllocator& owner) {
  Block& block = handle.get_of(owner);
  require(block.is_free(), "this block is not free");
  return block;
}

Bytes rounded(const DeviceCachingAllocator& allocator, Bytes requested) {
  return round_size(requested, allocator.config.roundup_power2_divisions);
}

BlockHandle alloc_from(SharedCaching self, const BlockHandle& handle, Bytes requested) {
  Block& block = free_block_of(handle, *self);
  const Bytes size = rounded(*self, requested);
  require(size <= block.size, "this block is too small for the request");
  Block* const given = self->alloc_free_block(block, requested, size);
  return {std::move(self), given, given->serial};
}

BlockHandle alloc_in_new_segment(SharedCaching self, std::size_t pool, Address address, Bytes n_bytes,
                                 Bytes requested) {
  const Bytes size = rounded(*self, requested);
  require(size <= n_bytes, "this segment is too small for the request");
  Block& block = self->add_segment(pool_at(*self, pool), address, n_bytes);
  Block* const given = self->alloc_found_block(block, requested, size);
  return {std::move(self), given, given->serial};
}

std::vector<BlockHandle> unsplit_blocks(const SharedCaching& self, std::size_t pool) {
  std::vector<BlockHandle> found;
  self->pools.at(pool).blocks.for_each([&](Block& block) {
    if (is_whole_segment(block)) {
      found.push_back({self, &block, block.serial});
    }
  });
  return found;
}

void release_block(DeviceCachingAllocator& self, const BlockHandle& handle) {
  Block& block = free_block_of(handle, self);
  require(is_whole_segment(block), "this block is not a whole segment");
  self.release_block(block);
}

bool map_block(DeviceCachingAllocator& self, const BlockHandle& handle, Bytes n_bytes) {
  Block& block = handle.get_of(self);
  require(block.state == BlockState::kUnmapped, "this block is not unmapped");
  return self.map_block(block, n_bytes);
}

bool unmap_block(DeviceCachingAllocator& self, const BlockHandle& handle) {
  Block& block = free_block_of(handle, self);
  require(block.segment->is_expandable, "this block is not part of an expandable segment");
  return self.unmap_block(block);
}

std::pair<Address, Address> handles_inside(DeviceCachingAllocator& self, const BlockHandle& handle) {
  const auto [from, to] = self.whole_handles(handle.get_of(self));
  return {from, to};
}

void bind_requests(nb::class_<DeviceCachingAllocator, BlockAllocator>& allocator) {
  allocator
      .def(
          "find_free_block",
          [](SharedCaching self, std::size_t pool, Bytes rounded_bytes) {
            Block* const block = self->find_free_block(pool_at(*self, pool), rounded_bytes);
            return to_python(std::move(self), block);
          },
          "pool"_a, "rounded_bytes"_a, "The free block that a request takes, None for none; nothing is changed.")
      .def("alloc_from", &alloc_from, "block"_a, "requested_bytes"_a,
           "Give a free block, or its front, to the program.")
      .def("alloc_in_new_segment", &alloc_in_new_segment, "pool"_a, "address"_a, "segment_bytes"_a,
           "requested_bytes"_a, "A ``cudaMalloc`` at that address, and a block of it given to the program.")
      .def(
          "count_call",
          [](DeviceCachingAllocator& self, std::size_t pool) { self.count_call(pool_at(self, pool)); }, "pool"_a,
          "Count a request for the ages of garbage collection.")
      .def("count_oom", [](DeviceCachingAllocator& self) { ++self.stats.num_ooms; })
      .def_prop_rw(
          "gc_calls", [](const DeviceCachingAllocator& self) { return self.gc_calls; },
          [](DeviceCachingAllocator& self, std::int64_t n_calls) { self.gc_calls = n_calls; },
          "Requests counted for the ages of garbage collection.")
      .def_prop_ro("n_segments_made", [](const DeviceCachingAllocator& self) { return self.n_segments_made; });
}

void bind_free_blocks(nb::class_<DeviceCachingAllocator, BlockAllocator>& allocator) {
  allocator
      .def(
          "first_free_block",
          [](SharedCaching self, std::size_t pool, Bytes least_bytes) {
            Block* const block = pool_at(*self, pool).blocks.lower_bound(least_bytes);
            return to_python(std::move(self), block);
          },
          "pool"_a, "least_bytes"_a, "The first free block of a pool that is at least that large, None for none.")
      .def(
          "next_free_block",
          [](SharedCaching self, const BlockHandle& handle) {
            Block& block = free_block_of(handle, *self);
            return to_python(std::move(self), block.pool->blocks.next(block));
          },
          "block"_a, "The free block after one in the order of its pool, None after the last.")
      .def(
          "free_block_at",
          [](SharedCaching self, Address address) {
            Block* const block = free_block_at(*self, address);
            return to_python(std::move(self), block);
          },
          "address"_a, "The free block that begins at an address, None for none. O(blocks).")
      .def(
          "free_block_holding",
          [](SharedCaching self, Address address) {
            Block* const block = free_block_holding(*self, address);
            return to_python(std::move(self), block);
          },
          "address"_a, "The free block that an address lies in, None for none. O(blocks).")
      .def("unsplit_blocks", &unsplit_blocks, "pool"_a,
           "The free blocks of a pool that are whole ``cudaMalloc`` segments, in their order.")
      .def(
          "gc_age",
          [](const DeviceCachingAllocator& self, const BlockHandle& handle) {
            return self.gc_calls - handle.get_of(self).gc_count_base;
          },
          "block"_a, "Requests counted for garbage collection since a free block became free.")
      .def("release_block", &release_block, "block"_a, "``cudaFree`` of the segment that a free block is the whole of.")
      .def_prop_ro(
          "release_order",
          [](const DeviceCachingAllocator& self) {
            std::vector<std::size_t> order;
            for (const BlockPool* pool : self.release_order) {
              order.push_back(pool->index);
            }
            return order;
          },
          "Indices of the pools in the order in which a reclaim gives their memory back.");
}

void bind_expandable(nb::class_<DeviceCachingAllocator, BlockAllocator>& allocator) {
  allocator
      .def_prop_rw(
          "reservation_bytes", [](const DeviceCachingAllocator& self) { return self.config.reservation_bytes; },
          [](DeviceCachingAllocator& self, Bytes n_bytes) { self.config.reservation_bytes = n_bytes; },
          "Address space of one expandable segment, before rounding to handles.")
      .def(
          "handle_size",
          [](DeviceCachingAllocator& self, std::size_t pool) { return self.handle_size(pool_at(self, pool)); },
          "pool"_a, "Bytes of one handle in the expandable segments of a pool.")
      .def(
          "reservation_size",
          [](DeviceCachingAllocator& self, std::size_t pool) { return self.reservation_size(pool_at(self, pool)); },
          "pool"_a, "Bytes of address space in a new reservation of a pool: whole handles.")
      .def(
          "add_reservation",
          [](SharedCaching self, std::size_t pool, Address address) {
            BlockPool& for_pool = pool_at(*self, pool);
            Block& block = self->add_reservation(for_pool, address, self->reservation_size(for_pool));
            return BlockHandle{std::move(self), &block, block.serial};
          },
          "pool"_a, "address"_a, "Reserve addresses; returns the unmapped block.")
      .def(
          "find_expandable_block",
          [](SharedCaching self, std::size_t pool, Bytes rounded_bytes) {
            Block* const block = self->find_expandable_block(pool_at(*self, pool), rounded_bytes);
            return to_python(std::move(self), block);
          },
          "pool"_a, "rounded_bytes"_a,
          "Where a request could grow: an unmapped range, or the free block before it; None for none.")
      .def("map_block", &map_block, "block"_a, "n_bytes"_a,
           "Map whole handles at the start of an unmapped range; whether the driver had them.")
      .def("unmap_block", &unmap_block, "block"_a, "Unmap the handles inside a free block; whether there were any.")
      .def("whole_handles", &handles_inside, "block"_a, "The whole handles inside a block, as addresses from and to.")
      .def(
          "shorten_reservation",
          [](DeviceCachingAllocator& self, const SegmentHandle& segment, Address end) {
            require(segment.allocator.get() == &self, "this segment belongs to another allocator");
            return shorten_reservation(self, segment.get(), end);
          },
          "segment"_a, "end"_a, "Let a reservation end earlier, if nothing is mapped beyond that; whether it could.");
}

std::pair<std::size_t, FollowStatus> follow_events(DeviceCachingAllocator& self, const Array<std::int8_t>& action,
                                                   const Array<std::int64_t>& address,
                                                   const Array<std::int64_t>& size, const Array<std::int64_t>& pair,
                                                   const Array<std::int64_t>& row, bool requests_recorded,
                                                   std::size_t position) {
  const RecordedEvents recorded{{view(action), view(address), view(size)}, view(pair), view(row), requests_recorded};
  const Followed followed = without_gil([&] { return follow(self, recorded, position); });
  return {followed.position, followed.status};
}

MaybeBlock settle(SharedCaching self, const BlockHandle& tail, Bytes n_bytes, BlockState state, Bytes requested) {
  Block* const rest = settle_old_block(*self, tail.get_of(*self), n_bytes, state, requested);
  return to_python(std::move(self), rest);
}

void widen(DeviceCachingAllocator& self, const BlockHandle& handle, Bytes n_bytes) {
  Block& block = handle.get_of(self);
  require(block.next != nullptr && block.next->is_free() && n_bytes < block.next->size,
          "there is no free block after this one that is larger than that");
  widen_block(self, block, n_bytes);
}

// Ids of the blocks of some of the program's allocations, -1 where they have none.
Int64Array ids_of_rows(const DeviceCachingAllocator& self, const Array<std::int64_t>& rows) {
  const Checked<const Row> all(self.rows);
  std::vector<std::int64_t> ids;
  for (const std::int64_t row : view(rows)) {
    ids.push_back(id_of(all[row].block));
  }
  return to_numpy(std::move(ids));
}

// Those of some allocations whose block is in use and stood before the first event.
Int64Array old_rows(const DeviceCachingAllocator& self, const Array<std::int64_t>& rows) {
  const Checked<const Row> all(self.rows);
  std::vector<std::int64_t> found;
  for (const std::int64_t row : view(rows)) {
    const Block* const block = all[row].block;
    const bool is_in_use =
        block != nullptr && (block->state == BlockState::kAllocated || block->state == BlockState::kPending);
    if (is_in_use && block->is_old) {
      found.push_back(row);
    }
  }
  return to_numpy(std::move(found));
}

void bind_following(nb::module_& module, nb::class_<DeviceCachingAllocator, BlockAllocator>& allocator) {
  nb::enum_<FollowStatus>(module, "FollowStatus", "Why following a recording stopped.")
      .value("FOLLOWED", FollowStatus::kFollowed)
      .value("NEEDS_DECISION", FollowStatus::kNeedsDecision, "A kind that is decided outside, or an unknown pool.")
      .value("FITS_ELSEWHERE", FollowStatus::kFitsElsewhere, "The allocator takes a block at another address.")
      .value("FITS_NOWHERE", FollowStatus::kFitsNowhere, "A free block was taken, the allocator finds none.")
      .value("FITS_ALREADY", FollowStatus::kFitsAlready, "The driver was asked, the allocator finds a free block.")
      .value("SEGMENT_SIZE_DIFFERS", FollowStatus::kSegmentSizeDiffers)
      .value("NOT_IN_USE", FollowStatus::kNotInUse)
      .value("SIZE_DIFFERS", FollowStatus::kSizeDiffers)
      .value("ACTIVE_BYTES_DIFFER", FollowStatus::kActiveBytesDiffer);
  allocator
      .def("follow", &follow_events, "action"_a, "address"_a, "size_bytes"_a, "pair"_a, "row"_a,
           "requests_recorded"_a, "position"_a,
           "Do recorded events from a position on, until one differs from what the allocator does or needs a\n"
           "decision. ``action`` int8 (n,), ``address``, ``size_bytes``, ``pair``, ``row`` int64 (n,): −1 for a pair\n"
           "that is not known, or no allocation; ``requests_recorded``: are there ``free_requested`` events.\n\n"
           "Returns the first event that was not done, and why. O(log n) in the free blocks for each.")
      .def("set_n_rows", [](DeviceCachingAllocator& self, std::size_t n_rows) { self.rows.assign(n_rows, Row{}); },
           "n_rows"_a, "Make room for so many allocations of the program, without a block each.")
      .def(
          "block_of",
          [](SharedCaching self, std::size_t row) {
            Block* const block = self->rows.at(row).block;
            return to_python(std::move(self), block);
          },
          "row"_a, "The block of an allocation, None if it has none (yet, or any more).")
      .def(
          "set_block_of",
          [](DeviceCachingAllocator& self, std::size_t row, const BlockHandle& handle) {
            self.rows.at(row).block = &handle.get_of(self);
          },
          "row"_a, "block"_a)
      .def("ids_of_rows", &ids_of_rows, "rows"_a, "int64 (n,): ids of the blocks of allocations, −1 for none.")
      .def("old_rows", &old_rows, "rows"_a, "Those of int64 (n,) allocations whose block is in use and an old one.")
      .def(
          "add_old_segment",
          [](SharedCaching self, std::size_t pool, Address address, Bytes n_bytes, bool is_expandable) {
            Block& block = add_old_segment(*self, pool_at(*self, pool), address, n_bytes, is_expandable);
            return BlockHandle{std::move(self), &block, block.serial};
          },
          "pool"_a, "address"_a, "size_bytes"_a, "is_expandable"_a,
          "A segment that stood before the first event; returns its block, whose parts are to be settled.")
      .def("settle_old_block", &settle, "tail"_a, "size_bytes"_a, "state"_a, "requested_bytes"_a,
           "Give the front of a segment's last block a state, and count it; returns the rest, None for nothing.")
      .def("widen_block", &widen, "block"_a, "n_bytes"_a, "Let a block in use reach into the free block after it.");
}

CachingOptions options_of(TieRule tie_rule, Bytes capacity, Address base, Bytes gap, bool is_logged) {
  CachingOptions options;
  options.tie_rule = tie_rule;
  options.capacity = capacity;
  options.base = base;
  options.gap = gap;
  options.is_logged = is_logged;
  return options;
}

void bind_caching(nb::module_& module) {
  auto allocator = bind_model<DeviceCachingAllocator>(module, "DeviceCachingAllocator");
  allocator.def(
      "__init__",
      [](DeviceCachingAllocator* self, int tie_rule, Bytes capacity, Address base, Bytes gap, bool is_logged,
         const RoundupDivisions& divisions, std::optional<Bytes> max_split, Bytes max_non_split_rounding,
         Bytes large_segment, bool is_expandable, std::optional<Bytes> allowed, std::optional<Bytes> gc,
         std::optional<Bytes> rejection, Bytes reservation, Bytes alignment, Bytes reservation_gap) {
        CachingOptions options = options_of(static_cast<TieRule>(tie_rule), capacity, base, gap, is_logged);
        options.roundup_power2_divisions = divisions;
        options.max_split_size = max_split.value_or(kUnlimited);
        options.max_non_split_rounding_size = max_non_split_rounding;
        options.large_segment_size = large_segment;
        options.expandable_segments = is_expandable;
        options.allowed_memory_maximum = allowed.value_or(kUnlimited);
        options.garbage_collection_bytes = gc;
        options.rejection_bytes = rejection.value_or(kUnlimited);
        options.reservation_bytes = reservation;
        options.reservation_alignment = alignment;
        options.reservation_gap = reservation_gap;
        new (self) DeviceCachingAllocator(options);
      },
      "tie_rule"_a, "capacity_bytes"_a, "base"_a, "gap_bytes"_a, "is_logged"_a, "roundup_divisions"_a,
      "max_split_bytes"_a.none(), "max_non_split_rounding_bytes"_a, "large_segment_bytes"_a, "is_expandable"_a,
      "allowed_bytes"_a.none(), "garbage_collection_bytes"_a.none(), "rejection_bytes"_a.none(),
      "reservation_bytes"_a, "reservation_alignment_bytes"_a, "reservation_gap_bytes"_a,
      "An allocator that holds nothing, and has no pools yet. ``roundup_divisions``: 16 numbers; None is no limit.");
  allocator
      .def_prop_rw(
          "allowed_bytes", [](const DeviceCachingAllocator& self) { return self.config.allowed_memory_maximum; },
          [](DeviceCachingAllocator& self, Bytes n_bytes) { self.config.allowed_memory_maximum = n_bytes; },
          "What PyTorch may reserve.")
      .def_prop_rw(
          "garbage_collection_bytes",
          [](const DeviceCachingAllocator& self) { return self.config.garbage_collection_bytes; },
          [](DeviceCachingAllocator& self, std::optional<Bytes> n_bytes) {
            self.config.garbage_collection_bytes = n_bytes;
          },
          nb::for_setter(nb::arg().none()), "Reserved bytes from which garbage is collected, None for never.");
  bind_requests(allocator);
  bind_free_blocks(allocator);
  bind_expandable(allocator);
  bind_following(module, allocator);
}

void bind_rules(nb::module_& module) {
  module.attr("MIN_BLOCK_BYTES") = kMinBlockSize;
  module.attr("HIGHEST_PLACE") = RecordedPlaces::kHighest;
  module.attr("SMALL_BYTES") = kSmallSize;
  module.attr("SMALL_SEGMENT_BYTES") = kSmallBuffer;
  module.attr("LARGE_SEGMENT_BYTES") = kLargeBuffer;
  module.attr("MIN_LARGE_ALLOC_BYTES") = kMinLargeAlloc;
  module.attr("ROUND_LARGE_BYTES") = kRoundLarge;
  module.attr("UNLIMITED") = kUnlimited;
  module.attr("N_ROUNDUP_INTERVALS") = kRoundUpPowerOfTwoIntervals;
  module.def("round_size", &round_size, "requested_bytes"_a, "roundup_divisions"_a, "Rounded size of a request.");
  module.def(
      "round_sizes",
      [](const Array<std::int64_t>& requested, const RoundupDivisions& divisions) {
        std::vector<Bytes> sizes(view(requested).begin(), view(requested).end());
        for (Bytes& size : sizes) {
          size = round_size(size, divisions);
        }
        return to_numpy(std::move(sizes));
      },
      "requested_bytes"_a, "roundup_divisions"_a, "Rounded sizes of int64 (n,) requests.");
  module.def("allocation_size", &get_allocation_size, "rounded_bytes"_a, "large_segment_bytes"_a,
             "Bytes of the ``cudaMalloc`` that a rounded request leads to.");
  module.def("should_split", &should_split, "block_bytes"_a, "rounded_bytes"_a, "max_split_bytes"_a, "is_expandable"_a,
             "Whether a free block is split for a rounded request, or handed out whole.");
}

}  // namespace

NB_MODULE(caching, module) {
  memscope::end_quietly();
  module.doc() = "PyTorch's caching allocator, and what every simulated allocator is made of.";
  bind_rules(module);
  bind_enums(module);
  bind_blocks(module);
  bind_tables(module);
  bind_stats(module);
  bind_allocator(module);
  bind_caching(module);
}
