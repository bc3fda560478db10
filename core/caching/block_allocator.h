// What every simulated allocator has and does, whatever its rules: blocks that tile segments, pools of free blocks, the
// driver's memory below them, counters, a log, and frees that wait for other streams.
//
// A model of an allocator is one header with one class:
//
//   class Slab : public Allocator<Slab> {
//    public:
//     explicit Slab(const AllocatorOptions& options, ...its parameters...);
//     // Serves a request of a (pool, stream) pair: the block given, allocated and counted (count_allocated), or
//     // out_of_memory(size, pool). It waits for other streams only where it calls synchronize_and_free_events().
//     Block* malloc(std::size_t pair, Bytes requested_size);
//     // Takes back a block that is free and counted no longer, for later requests to use.
//     void free_block(Block& block);
//     // Gives all unused memory back to the driver: torch.cuda.empty_cache().
//     void empty_cache();
//   };
//
// One whose allocations consist of several blocks also has
//
//     Block* next_part(const Block& block) const;      // the next block of the same allocation, nullptr after the last
//     Address address_of(const Block& block) const;    // where the program sees the allocation
//
// and uses count_allocated_parts; the first block stands for all of them, and free_block is called with that one.
// With these it satisfies AllocatorModel (caching/replay.h) and can be replayed; its bindings are one line,
// bind_model<Slab>(module, "Slab") of caching/python.h, and what else Python should see of it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "caching/block.h"
#include "caching/rules.h"
#include "events.h"

namespace memscope::caching {

// Which of several equally large free blocks is taken; the numbers are those of memscope.trace.schema.TieRule.
enum class TieRule : std::uint8_t { kAddress = 0, kBlockAge = 1, kSegmentAge = 2 };

struct TraceEntry {
  Action action;
  Address address;
  Bytes size;
  std::size_t pool;  // index
};

struct Stat {
  std::int64_t current = 0;
  std::int64_t peak = 0;

  void increase(std::int64_t amount) {
    current += amount;
    peak = std::max(peak, current);
  }
  void decrease(std::int64_t amount) { current -= amount; }
};

struct DeviceStats {
  Stat allocated_bytes;
  Stat active_bytes;
  Stat requested_bytes;
  Stat reserved_bytes;
  std::int64_t num_alloc_retries = 0;
  std::int64_t num_ooms = 0;
  std::int64_t num_rejections = 0;        // requests that throw_on_cudamalloc_oom refused at once
  std::int64_t num_sync_all_streams = 0;
  std::int64_t num_stream_syncs = 0;
  std::int64_t num_device_alloc = 0;      // calls that took memory from the driver
  std::int64_t num_device_free = 0;
  std::int64_t num_reservations = 0;      // address ranges: made, given up
  std::int64_t num_reservations_dropped = 0;
  std::int64_t num_map_calls = 0;
  std::int64_t num_unmap_calls = 0;
  std::int64_t num_mapped_handles = 0;
  std::int64_t num_unmapped_handles = 0;
  std::int64_t num_async_allocs = 0;      // cudaMallocAsync and cudaFreeAsync
  std::int64_t num_async_frees = 0;
};

// Where the segments of a recording lay, in the order in which they were made. A simulated driver places its own there
// for as long as segments of the same sizes are made in the same order: between blocks of one size addresses decide.
class RecordedPlaces {
 public:
  static constexpr std::int64_t kHighest = std::int64_t{1} << 62;

  RecordedPlaces() = default;
  // As many addresses as sizes. Throws std::invalid_argument for one that is negative or beyond kHighest.
  RecordedPlaces(std::vector<Bytes> sizes, std::vector<Address> addresses);

  // The next place, if it is one for so many bytes and free; once it is not, there are none any more.
  std::optional<Address> take(Bytes n_bytes);
  void give_back(Address address) { taken_.erase(address); }
  // An address above all places.
  Address end() const { return end_; }

 private:
  std::vector<Bytes> sizes_;
  std::vector<Address> addresses_;
  std::size_t next_ = 0;
  std::map<Address, Address> taken_;  // where what lies at the places begins, and where it ends
  Address end_ = 0;
};

// The memory that the simulated driver can give out, in granules, and where it places it: upwards, never at an address
// used before, unless it follows a recording.
struct DriverMemory {
  static constexpr Bytes kGranule = Bytes{2} << 20;

  Bytes capacity = -1;  // -1: no limit
  Bytes used = 0;
  Address next_address = 0;
  Bytes gap = 0;  // between two segments
  RecordedPlaces recorded;

  static constexpr Bytes in_granules(Bytes n_bytes) { return round_up(n_bytes, kGranule); }

  bool is_limited() const { return capacity >= 0; }
  bool has(Bytes n_bytes) const { return has_exactly(in_granules(n_bytes)); }
  bool has_exactly(Bytes n_bytes) const { return !is_limited() || used + n_bytes <= capacity; }
  Bytes n_left() const { return capacity - used; }

  Address place(Bytes n_bytes) {
    if (const std::optional<Address> address = recorded.take(n_bytes)) {
      return *address;
    }
    const Address address = next_address;
    next_address += in_granules(n_bytes) + gap;
    return address;
  }
};

struct AllocatorOptions {
  TieRule tie_rule = TieRule::kAddress;
  Bytes capacity = -1;
  Address base = 0x7F0000000000;
  Bytes gap = 0;
  bool is_logged = false;
};

// An allocation of the program, by its number: where it is now, and how often all streams had been waited for when its
// free began to wait.
struct Row {
  Block* block = nullptr;
  std::int64_t n_syncs = 0;
};

class BlockAllocator {
 public:
  explicit BlockAllocator(const AllocatorOptions& options)
      : tie_rule(options.tie_rule), is_logged(options.is_logged) {
    driver.capacity = options.capacity;
    driver.next_address = options.base;
    driver.gap = options.gap;
  }
  // Blocks, segments and pools point at each other.
  BlockAllocator(const BlockAllocator&) = delete;
  BlockAllocator& operator=(const BlockAllocator&) = delete;

  const TieRule tie_rule;
  const bool is_logged;
  DriverMemory driver;
  DeviceStats stats;
  std::vector<TraceEntry> trace;  // what happened, if it is logged
  Slots<Block> blocks;
  Slots<Segment> segments;
  std::deque<BlockPool> pools;         // two for each pair, in the order in which pairs were added
  std::vector<BlockPool*> release_order;  // the same in the order in which they give memory back
  std::vector<Row> rows;
  Block* first_pending = nullptr;  // those that wait for other streams, the longest waiting first
  Block* last_pending = nullptr;

  std::size_t n_pairs() const { return pools.size() / 2; }

  // Place segments where a recording's lay.
  void place_as(RecordedPlaces places);

  // Pools for one more (pool, stream) pair.
  void add_pair(std::int64_t pool_id, std::int64_t stream, bool is_releasable);

  BlockPool& get_pool(std::size_t pair, bool is_large) { return pools.at(2 * pair + (is_large ? 1 : 0)); }

  // Blocks and segments. New ones are in no pool's set; their neighbours are the caller's to set.

  Block& new_block(Segment& segment, Address address, Bytes size, BlockState state);
  // One for the front of another, put before it; the start of that one is the caller's to move.
  Block& new_front(Block& block, Bytes size, BlockState state);
  void drop_block(Block& block);
  // A segment with the one block that covers it, which is returned.
  Block& new_segment(BlockPool& pool, Address address, Bytes size, bool is_expandable, BlockState state);
  void drop_segment(Segment& segment);

  // Links a new block in next to another one of its segment.
  static void put_before(Block& block, Block& later);
  static void put_after(Block& block, Block& earlier);
  // Joins a block with the one after it; neither is in a set.
  void absorb_next(Block& block);
  // Merges with the neighbours of the same kind (free or unmapped), which are taken out of their sets; the block, which
  // is in no set, survives.
  void try_merge_blocks(Block& block);

  void insert_free(Block& block) {
    block.state = BlockState::kFree;
    block.gc_count_base = gc_calls;
    block.pool->blocks.insert(block);
  }
  // Frees a block that is in no set, merged with its free neighbours: try_merge_blocks and insert_free in one.
  void insert_merged(Block& block);
  void insert_unmapped(Block& block) {
    block.state = BlockState::kUnmapped;
    block.pool->unmapped.insert(block);
  }

  // The driver's memory.

  void take_from_driver(Bytes n_bytes);
  void give_to_driver(Bytes n_bytes);
  // A cudaMalloc that succeeded: its block, in no set.
  Block& add_segment(BlockPool& pool, Address address, Bytes n_bytes);
  // cudaFree of the segment that a free block is the whole of.
  void release_block(Block& block);

  void record_trace(Action action, Address address, Bytes size, const BlockPool& pool) {
    if (is_logged) {
      trace.push_back({action, address, size, pool.index});
    }
  }

  // What the program holds.

  void count_allocated_bytes(Bytes block_bytes, Bytes requested) {
    stats.allocated_bytes.increase(block_bytes);
    stats.active_bytes.increase(block_bytes);
    stats.requested_bytes.increase(requested);
  }
  // Marks a block as given to the program, whole, and counts it.
  Block* count_allocated(Block& block, Bytes requested_size) {
    block.state = BlockState::kAllocated;
    block.requested_size = requested_size;
    count_allocated_bytes(block.size, requested_size);
    record_trace(Action::kAlloc, block.address, requested_size, *block.pool);
    return &block;
  }
  // Counts a request that cannot be served.
  Block* out_of_memory(Bytes size, const BlockPool& pool) {
    ++stats.num_ooms;
    record_trace(Action::kOom, -1, size, pool);
    return nullptr;
  }

  void append_pending(Block& block);
  void remove_pending(Block& block);

  std::int64_t gc_calls = 0;  // requests that count for the ages of garbage collection
  std::int64_t n_segments_made = 0;
  std::int64_t n_expandable_segments = 0;

 private:
  Block& new_block(Segment& segment, BlockPool& pool, std::int64_t tie, Address address, Bytes size, BlockState state);
  void absorb(Block& block, Block* other);
  void join(Block& block, Block& neighbour);

  std::int64_t n_blocks_made_ = 0;
};

// The acts that end in the model's own: see above.
template <typename Model>
class Allocator : public BlockAllocator {
 public:
  using BlockAllocator::BlockAllocator;

  static Block* next_part(const Block&) { return nullptr; }
  static Address address_of(const Block& block) { return block.address; }

  // As count_allocated for an allocation of several blocks: all but the last are filled to the end.
  Block* count_allocated_parts(Block& block, Bytes requested_size);

  // Takes an allocation back from the program; all its blocks stay pending if it waits for other streams.
  void free(Block& block, bool waits);
  // Returns a pending allocation: the streams that it waited for are done.
  void complete_free(Block& block);
  // Waits for every stream: all pending allocations return, the longest waiting first.
  void synchronize_and_free_events();

 private:
  Model& self() { return static_cast<Model&>(*this); }
  void finish_free(Block& block);
};

template <typename Model>
Block* Allocator<Model>::count_allocated_parts(Block& block, Bytes requested_size) {
  Bytes n_bytes = 0, n_left = requested_size;
  for (Block* part = &block; part != nullptr; part = self().next_part(*part)) {
    part->state = BlockState::kAllocated;
    part->requested_size = std::min(n_left, part->size);
    n_left -= part->requested_size;
    n_bytes += part->size;
  }
  count_allocated_bytes(n_bytes, requested_size);
  record_trace(Action::kAlloc, self().address_of(block), requested_size, *block.pool);
  return &block;
}

template <typename Model>
void Allocator<Model>::free(Block& block, bool waits) {
  Bytes requested = 0;
  for (Block* part = &block; part != nullptr; part = self().next_part(*part)) {
    requested += part->requested_size;
    stats.allocated_bytes.decrease(part->size);
    part->state = BlockState::kPending;
    if (waits) {
      append_pending(*part);
    }
  }
  record_trace(Action::kFreeRequested, self().address_of(block), requested, *block.pool);
  if (!waits) {
    finish_free(block);
  }
}

template <typename Model>
void Allocator<Model>::complete_free(Block& block) {
  for (Block* part = &block; part != nullptr; part = self().next_part(*part)) {
    remove_pending(*part);
  }
  finish_free(block);
}

template <typename Model>
void Allocator<Model>::finish_free(Block& block) {
  Bytes requested = 0;
  for (Block* part = &block; part != nullptr; part = self().next_part(*part)) {
    requested += part->requested_size;
    stats.active_bytes.decrease(part->size);
    part->state = BlockState::kFree;
  }
  stats.requested_bytes.decrease(requested);
  record_trace(Action::kFreeCompleted, self().address_of(block), requested, *block.pool);
  self().free_block(block);
}

template <typename Model>
void Allocator<Model>::synchronize_and_free_events() {
  ++stats.num_sync_all_streams;
  while (first_pending != nullptr) {
    complete_free(*first_pending);
  }
}

}  // namespace memscope::caching
