// Binary buddies: every block is a power of two, and joins again only with the block it was halved from.
//
// Source: Knuth, The Art of Computer Programming, volume 1, section 2.5 (the buddy system). A model are the smallest
// block, the size that is asked of the driver at once, and that the smallest block that fits, at the lowest address, is
// halved.
#pragma once

#include "models/carving.h"

namespace memscope::models {

// Both are powers of two.
struct BuddyParameters {
  Bytes min_block_size;
  Bytes chunk_size;
};

class Buddy : public Allocator<Buddy> {
 public:
  using Parameters = BuddyParameters;

  Buddy(const AllocatorOptions& options, const Parameters& parameters) : Allocator(options), parameters_(parameters) {
    add_pair(0, kNoStream, false);
  }

  Block* malloc(std::size_t, Bytes requested_size) {
    Bytes size = parameters_.min_block_size;
    while (size < requested_size) {
      size *= 2;
    }
    Block* block = find(size);
    if (block == nullptr) {
      empty_cache();
      ++stats.num_alloc_retries;
      block = find(size);
    }
    if (block == nullptr) {
      return out_of_memory(size, pool());
    }
    for (Bytes half = block->size / 2; half >= size; half /= 2) {
      block = &take_front(*this, *block, half);
    }
    return count_allocated(*block, requested_size);
  }

  void free_block(Block& block) {
    Block* whole = &block;
    while (Block* const buddy = free_buddy(*whole)) {
      detach(*buddy);
      if (buddy->next == whole) {
        whole = buddy;
      }
      absorb_next(*whole);
    }
    insert_free(*whole);
  }

  void empty_cache() {
    synchronize_and_free_events();
    release_unused_segments(*this);
  }

 private:
  BlockPool& pool() { return pools[0]; }

  // A free block of at least that size, in no set; nullptr if the driver has no more.
  Block* find(Bytes size) {
    Block* const block = take_best_fit(pool(), size);
    return block == nullptr ? extend(size) : block;
  }

  // A new top-level block; half of it while the driver lacks it.
  Block* extend(Bytes size) {
    Bytes chunk_size = std::max(size, parameters_.chunk_size);
    while (!driver.has(chunk_size)) {
      chunk_size /= 2;
      if (chunk_size < size) {
        return nullptr;
      }
    }
    return &add_segment(pool(), driver.place(chunk_size), chunk_size);
  }

  // The other half of what a block was halved from; nullptr if it is not free, or halved itself.
  static Block* free_buddy(const Block& block) {
    const bool is_first = ((block.address - block.segment->address) & block.size) == 0;
    Block* const buddy = is_first ? block.next : block.prev;
    return buddy != nullptr && buddy->is_free() && buddy->size == block.size ? buddy : nullptr;
  }

  const Parameters parameters_;
};

}  // namespace memscope::models
