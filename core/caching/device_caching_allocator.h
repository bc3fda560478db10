// PyTorch's caching allocator: what a request takes, and what goes back to the driver when nothing fits.
//
// The order of steps, the rules and their names are those of c10/cuda/CUDACachingAllocator.cpp, behaviour as tested on
// 2.6 to 2.15. A request costs O(log n) in the free blocks of its pool; a reclaim O(n log n).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "caching/block_allocator.h"
#include "caching/rules.h"

namespace memscope::caching {

struct CachingOptions : AllocatorOptions {
  RoundupDivisions roundup_power2_divisions{};
  Bytes max_split_size = kUnlimited;
  Bytes max_non_split_rounding_size = kLargeBuffer;
  Bytes large_segment_size = kLargeBuffer;
  bool expandable_segments = false;
  Bytes allowed_memory_maximum = kUnlimited;       // what the memory fraction allows
  std::optional<Bytes> garbage_collection_bytes;   // reserved bytes from which garbage is collected
  Bytes rejection_bytes = kUnlimited;              // reserved bytes above which throw_on_cudamalloc_oom rejects at once
  Bytes reservation_bytes = Bytes{16} << 40;       // address space of one expandable segment, before rounding
  Bytes reservation_alignment = DriverMemory::kGranule;
  Bytes reservation_gap = 0;
};

class DeviceCachingAllocator : public Allocator<DeviceCachingAllocator> {
 public:
  explicit DeviceCachingAllocator(const CachingOptions& options) : Allocator(options), config(options) {}

  CachingOptions config;

  Block* malloc(std::size_t pair, Bytes requested_size);
  void free_block(Block& block);
  void empty_cache() { release_cached_blocks(); }

  // Gives back everything unused of one pool of all streams, whether it is releasable or not.
  void release_pool(std::int64_t pool_id);
  // The owner of a pool is gone: reclaims give its memory back from now on.
  void make_releasable(std::int64_t pool_id);

  // Steps of a request.

  BlockPool& pool_for(std::size_t pair, Bytes size) { return get_pool(pair, size > kSmallSize); }
  // Counts a request for the ages of garbage collection: only the default pool's large blocks matter.
  void count_call(const BlockPool& pool) { gc_calls += pool.is_default() && !pool.is_small() ? 1 : 0; }
  // The free block that a request of that rounded size takes, nullptr for none; nothing is changed.
  Block* find_free_block(const BlockPool& pool, Bytes size) const;
  // A block of new memory for a request of that rounded size, in no set.
  Block* alloc_block(BlockPool& pool, Bytes size);
  // Splits a block that is in no set if the rule says so, and gives its front to the program.
  Block* alloc_found_block(Block& block, Bytes requested_size, Bytes size);
  // The same for a free block, which is in its pool's set.
  Block* alloc_free_block(Block& block, Bytes requested_size, Bytes size);

  // Reclaims.

  // Frees just enough blocks above the split limit; whether that sufficed.
  bool release_available_cached_blocks(BlockPool& pool, Bytes size);
  // Waits for all streams, then gives back all unused memory of releasable pools.
  void release_cached_blocks();
  // Frees the older unsplit blocks of the default large pool until reserved memory is below the threshold.
  void garbage_collect_cached_blocks();

  // Expandable segments.

  Bytes handle_size(const BlockPool& pool) const { return pool.is_small() ? kSmallBuffer : config.large_segment_size; }
  // Address space of a new reservation: whole handles.
  Bytes reservation_size(const BlockPool& pool) const { return round_up(config.reservation_bytes, handle_size(pool)); }
  // Reserves addresses: one unmapped block, in its set.
  Block& add_reservation(BlockPool& pool, Address address, Bytes n_bytes);
  // Where a request could grow: an unmapped range or the free block before it; nullptr for none. O(ranges).
  Block* find_expandable_block(const BlockPool& pool, Bytes size) const;
  // Maps until a block of that rounded size is free, and takes it out of its set; nullptr if the driver has too little.
  Block* try_allocate_expandable_block(BlockPool& pool, Bytes size);
  // Maps whole handles at the start of an unmapped range; whether the driver had them.
  bool map_block(Block& block, Bytes n_bytes);
  // The whole handles inside a free block, as addresses from and to.
  struct Range {
    Address from, to;
  };
  Range whole_handles(const Block& block) const;
  // Unmaps the handles that lie wholly inside a free block; what is left over stays free. Whether there were any.
  bool unmap_block(Block& block);

 private:
  bool splits(const Block& block, Bytes size) const;
  Block* alloc_after_miss(BlockPool& pool, Bytes size);
  Bytes allocation_size(Bytes size) const { return get_allocation_size(size, config.large_segment_size); }
  bool is_rejected(Bytes size) const;
  Block& next_reservation(BlockPool& pool);
  void release_blocks(std::span<BlockPool* const> pools);
  std::span<BlockPool* const> default_large_pools() const;
};

// Whether a block is a whole cudaMalloc, which can go back to the driver as it is.
inline bool is_whole_segment(const Block& block) { return !block.is_split() && !block.segment->is_expandable; }

// The pools that stand together in the release order from one on: one pool of one size class, of all streams.
std::span<BlockPool* const> release_group(std::span<BlockPool* const> from);

}  // namespace memscope::caching
