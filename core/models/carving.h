// How models of allocators cut free blocks, join them and give whole segments back.
//
// Other than the caching allocator's, their blocks may change pools: free memory of one segment then lies in several of
// them, and only neighbours of the same pool are joined.
#pragma once

#include <algorithm>
#include <cstddef>

#include "caching/block_allocator.h"

namespace memscope::models {

using caching::Address;
using caching::Allocator;
using caching::AllocatorOptions;
using caching::Block;
using caching::BlockAllocator;
using caching::BlockPool;
using caching::BlockState;
using caching::Bytes;
using caching::DriverMemory;
using caching::round_up;
using caching::Segment;

// The stream of a pool that is no stream's: the allocator's own.
inline constexpr std::int64_t kNoStream = -1;

// Takes a free block out of its pool's set.
inline void detach(const Block& block) { block.pool->blocks.erase(block); }

// A pool's smallest free block of at least that size, out of its set; nullptr for none.
inline Block* take_best_fit(BlockPool& pool, Bytes size) {
  Block* const block = pool.blocks.lower_bound(size);
  if (block != nullptr) {
    detach(*block);
  }
  return block;
}

// Cuts the front off a block that is in no set, and that is larger; the rest stays in no set.
inline Block& cut_front(BlockAllocator& allocator, Block& block, Bytes size) {
  Block& front = allocator.new_block(*block.segment, block.address, size, BlockState::kAllocated);
  front.pool = block.pool;
  front.tie = block.tie;
  BlockAllocator::put_before(front, block);
  block.address += size;
  block.size -= size;
  return front;
}

// The front of a block that is in no set; what is left returns to its pool.
inline Block& take_front(BlockAllocator& allocator, Block& block, Bytes size) {
  if (block.size == size) {
    return block;
  }
  Block& front = cut_front(allocator, block, size);
  allocator.insert_free(block);
  return front;
}

// Whether there is such a block, and it is free in that pool.
inline bool is_free_in(const Block* block, const BlockPool& pool) {
  return block != nullptr && block->is_free() && block->pool == &pool;
}

// Frees a block that is in no set into a pool and joins it with its free neighbours there. Returns the block that it is
// part of now, which is in no set yet.
inline Block& join_neighbours(BlockAllocator& allocator, Block& block, BlockPool& pool) {
  block.state = BlockState::kFree;
  block.pool = &pool;
  if (is_free_in(block.next, pool)) {
    detach(*block.next);
    allocator.absorb_next(block);
  }
  if (!is_free_in(block.prev, pool)) {
    return block;
  }
  Block& earlier = *block.prev;
  detach(earlier);
  allocator.absorb_next(earlier);
  return earlier;
}

// As join_neighbours; what the block is part of then is in the pool's set.
inline Block& put_back(BlockAllocator& allocator, Block& block, BlockPool& pool) {
  Block& whole = join_neighbours(allocator, block, pool);
  allocator.insert_free(whole);
  return whole;
}

// Whether it is a segment that one free block is the whole of.
inline bool is_unused(const Segment& segment) {
  return segment.is_live && segment.head->is_free() && !segment.head->is_split();
}

// What release_unused_segments would give back. O(segments).
inline Bytes unused_segment_bytes(const BlockAllocator& allocator) {
  Bytes n_bytes = 0;
  for (const Segment& segment : allocator.segments) {
    n_bytes += is_unused(segment) ? segment.size : 0;
  }
  return n_bytes;
}

// Gives every segment that is not used at all back to the driver. O(segments · log n).
inline void release_unused_segments(BlockAllocator& allocator) {
  for (Segment& segment : allocator.segments) {
    if (is_unused(segment)) {
      allocator.release_block(*segment.head);
    }
  }
}

}  // namespace memscope::models
