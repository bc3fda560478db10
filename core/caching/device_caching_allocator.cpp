#include "caching/device_caching_allocator.h"

#include <algorithm>

namespace memscope::caching {
namespace {

// Size of a block and of the unmapped range after it.
Bytes growth_room(const Block& block) {
  const bool can_grow = block.next != nullptr && block.next->state == BlockState::kUnmapped;
  return block.size + (can_grow ? block.next->size : 0);
}

// With expandable segments a small block at the growing end is passed over for a larger hole: neighbours only, the
// first failure stops. Without, what is left of expandable segments is not touched.
Block* choose(const BlockPool& pool, Block* block, bool expandable_segments) {
  if (!expandable_segments) {
    while (block != nullptr && block->segment->is_expandable) {
      block = pool.blocks.next(*block);
    }
    return block;
  }
  while (block != nullptr && block->segment->is_expandable) {
    Block* const later = pool.blocks.next(*block);
    if (later == nullptr || growth_room(*later) >= growth_room(*block)) {
      break;
    }
    block = later;
  }
  return block;
}

// The ages of what garbage collection considers.
struct GarbageAges {
  double sum = 0;
  std::int64_t n = 0;

  static GarbageAges of(std::span<BlockPool* const> pools, std::int64_t calls) {
    GarbageAges ages;
    for (const BlockPool* pool : pools) {
      pool->blocks.for_each([&](const Block& block) {
        if (is_whole_segment(block)) {
          ages.sum += static_cast<double>(calls - block.gc_count_base);
          ++ages.n;
        }
      });
    }
    return ages;
  }
};

}  // namespace

std::span<BlockPool* const> release_group(std::span<BlockPool* const> from) {
  const auto end = std::find_if(from.begin(), from.end(), [&](const BlockPool* pool) {
    return pool->pool_id != from.front()->pool_id || pool->is_small() != from.front()->is_small();
  });
  return {from.begin(), end};
}

Block* DeviceCachingAllocator::malloc(std::size_t pair, Bytes requested_size) {
  const Bytes size = round_size(requested_size, config.roundup_power2_divisions);
  BlockPool& pool = pool_for(pair, size);
  count_call(pool);
  if (Block* const block = find_free_block(pool, size)) {
    return alloc_free_block(*block, requested_size, size);
  }
  Block* const block = alloc_after_miss(pool, size);
  return block == nullptr ? nullptr : alloc_found_block(*block, requested_size, size);
}

Block* DeviceCachingAllocator::find_free_block(const BlockPool& pool, Bytes size) const {
  Block* block = pool.blocks.lower_bound(size);
  if (n_expandable_segments > 0) {
    block = choose(pool, block, config.expandable_segments);
  }
  if (block == nullptr) {
    return nullptr;
  }
  // Large blocks are not split for small requests, nor used for requests that are much smaller.
  if (size < config.max_split_size ? block->size >= config.max_split_size
                                   : block->size >= size + config.max_non_split_rounding_size) {
    return nullptr;
  }
  return block;
}

Block* DeviceCachingAllocator::alloc_after_miss(BlockPool& pool, Bytes size) {
  if (config.garbage_collection_bytes) {
    garbage_collect_cached_blocks();
  }
  if (is_rejected(size)) {
    ++stats.num_rejections;
    return nullptr;
  }
  if (Block* const block = alloc_block(pool, size)) {
    return block;
  }
  if (config.max_split_size != kUnlimited && release_available_cached_blocks(pool, size)) {
    if (Block* const block = alloc_block(pool, size)) {
      return block;
    }
  }
  release_cached_blocks();
  ++stats.num_alloc_retries;
  Block* const block = alloc_block(pool, size);
  return block != nullptr ? block : out_of_memory(size, pool);
}

// throw_on_cudamalloc_oom: over the device's total, and not already over the memory fraction.
bool DeviceCachingAllocator::is_rejected(Bytes size) const {
  const Bytes after = stats.reserved_bytes.current + allocation_size(size);
  return after <= config.allowed_memory_maximum && after > config.rejection_bytes;
}

Block* DeviceCachingAllocator::alloc_block(BlockPool& pool, Bytes size) {
  const Bytes n_bytes = allocation_size(size);
  if (stats.reserved_bytes.current + n_bytes > config.allowed_memory_maximum) {
    return nullptr;
  }
  if (config.expandable_segments) {
    return try_allocate_expandable_block(pool, size);
  }
  return driver.has(n_bytes) ? &add_segment(pool, driver.place(n_bytes), n_bytes) : nullptr;
}

bool DeviceCachingAllocator::splits(const Block& block, Bytes size) const {
  return block.pool->can_split &&
         should_split(block.size, size, config.max_split_size, config.expandable_segments);
}

Block* DeviceCachingAllocator::alloc_found_block(Block& block, Bytes requested_size, Bytes size) {
  if (!splits(block, size)) {
    return count_allocated(block, requested_size);
  }
  Block& front = new_front(block, size, BlockState::kAllocated);
  block.address += size;
  block.size -= size;
  insert_free(block);
  return count_allocated(front, requested_size);
}

Block* DeviceCachingAllocator::alloc_free_block(Block& block, Bytes requested_size, Bytes size) {
  FreeBlocks& free_blocks = block.pool->blocks;
  if (!splits(block, size)) {
    free_blocks.erase(block);
    return count_allocated(block, requested_size);
  }
  Block& front = new_front(block, size, BlockState::kAllocated);
  block.gc_count_base = gc_calls;
  free_blocks.replace(block, block, [&] {
    block.address += size;
    block.size -= size;
  });
  return count_allocated(front, requested_size);
}

void DeviceCachingAllocator::free_block(Block& block) { insert_merged(block); }

bool DeviceCachingAllocator::release_available_cached_blocks(BlockPool& pool, Bytes size) {
  // Blocks above the limit are whole segments, unless large_segment_size_mb is above it too: what is then left of a
  // split segment is passed over, because a part of a segment cannot be given back.
  const Bytes wanted = std::max(size, config.max_split_size);
  if (Block* const block = pool.blocks.lower_bound(wanted); block != nullptr && is_whole_segment(*block)) {
    release_block(*block);
    return true;
  }
  Bytes released = 0;
  Block* block = pool.blocks.last_below(wanted);
  while (block != nullptr && released < wanted && block->size >= config.max_split_size) {
    Block* const smaller = pool.blocks.previous(*block);
    if (is_whole_segment(*block)) {
      released += block->size;
      release_block(*block);
    }
    block = smaller;
  }
  return released >= wanted;
}

// Whole segments first, then handles of expandable ones; each in the order of streams, then of the free blocks.
void DeviceCachingAllocator::release_blocks(std::span<BlockPool* const> of_all_streams) {
  for (BlockPool* pool : of_all_streams) {
    for (Block *block = pool->blocks.first(), *later; block != nullptr; block = later) {
      later = pool->blocks.next(*block);
      if (is_whole_segment(*block)) {
        release_block(*block);
      }
    }
  }
  for (BlockPool* pool : of_all_streams) {
    for (Block *block = pool->blocks.first(), *later; block != nullptr; block = later) {
      later = pool->blocks.next(*block);
      if (block->segment->is_expandable) {
        unmap_block(*block);
      }
    }
  }
}

void DeviceCachingAllocator::release_cached_blocks() {
  synchronize_and_free_events();
  for (std::span<BlockPool* const> left(release_order); !left.empty();) {
    const auto group = release_group(left);
    if (group.front()->is_releasable) {
      release_blocks(group);
    }
    left = left.subspan(group.size());
  }
}

void DeviceCachingAllocator::release_pool(std::int64_t pool_id) {
  for (BlockPool* const& pool : release_order) {
    if (pool->pool_id == pool_id) {
      release_blocks({&pool, 1});
    }
  }
}

void DeviceCachingAllocator::make_releasable(std::int64_t pool_id) {
  for (BlockPool& pool : pools) {
    pool.is_releasable = pool.is_releasable || pool.pool_id == pool_id;
  }
}

std::span<BlockPool* const> DeviceCachingAllocator::default_large_pools() const {
  if (release_order.empty() || !release_order.front()->is_default() || release_order.front()->is_small()) {
    return {};
  }
  return release_group(release_order);
}

void DeviceCachingAllocator::garbage_collect_cached_blocks() {
  const Bytes target = stats.reserved_bytes.current - *config.garbage_collection_bytes;
  if (target <= 0) {
    return;
  }
  const auto pools_of_age = default_large_pools();
  GarbageAges left = GarbageAges::of(pools_of_age, gc_calls);
  Bytes reclaimed = 0;
  bool freed_any = true;
  // A pass frees every block whose age is at least the mean age at its start, and goes on past the target.
  while (reclaimed < target && freed_any && left.n > 0) {
    freed_any = false;
    const double cutoff = left.sum / static_cast<double>(left.n);
    for (BlockPool* pool : pools_of_age) {
      for (Block *block = pool->blocks.first(), *later; block != nullptr; block = later) {
        later = pool->blocks.next(*block);
        const auto age = static_cast<double>(gc_calls - block->gc_count_base);
        if (is_whole_segment(*block) && age >= cutoff) {
          reclaimed += block->size;
          left.sum -= age;
          --left.n;
          freed_any = true;
          release_block(*block);
        }
      }
    }
  }
}

}  // namespace memscope::caching
