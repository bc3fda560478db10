// Fixed physical pages behind contiguous virtual ranges: what paging would make of a program's requests.
//
// A large request gets a virtual range of its own, mapped page by page. When it is freed the range is unmapped, and its
// pages join the store of free pages, which serves every later request of any size and stream. Small requests are placed
// best-fit in slabs of one page each. Exact is the arithmetic of pages; a model is everything else, since no allocator
// of PyTorch works that way.
//
// Free pages have no order, so that the store is one segment with one free block, at an address of its own; its pool is
// the large one of the first pair, which no stream uses. Empty slabs, and freed ranges if ranges are kept mapped, stay
// in their streams' pools until someone is short of pages.
#pragma once

#include "models/carving.h"
#include "models/virtual_memory.h"

namespace memscope::models {

struct PagedParameters {
  Bytes page_size;        // of a physical page; 2 MiB is the least that cuMemCreate makes
  Bytes large_from_size;  // requests of at least that many bytes, or of a page, get a range of their own
  Bytes alignment;        // what small requests are rounded to
  bool keeps_ranges;      // freed ranges stay mapped for requests of as many pages on the same stream, until pages run short
};

class Paged : public Allocator<Paged> {
 public:
  using Parameters = PagedParameters;

  Paged(const AllocatorOptions& options, const Parameters& parameters) : Allocator(options), parameters_(parameters) {
    add_pair(0, kNoStream, false);
  }

  Block* malloc(std::size_t pair, Bytes requested_size) {
    const bool is_large = requested_size >= std::min(parameters_.large_from_size, parameters_.page_size);
    const Bytes size =
        round_up(std::max<Bytes>(requested_size, 1), is_large ? parameters_.page_size : parameters_.alignment);
    BlockPool& pool = get_pool(pair, is_large);
    Block* block = is_large ? find_large(pool, size) : find_small(pool, size);
    if (block == nullptr && first_pending != nullptr) {
      // Every free page was used already: only memory that waits for other streams can still help.
      synchronize_and_free_events();
      ++stats.num_alloc_retries;
      block = is_large ? find_large(pool, size) : find_small(pool, size);
    }
    return block == nullptr ? out_of_memory(size, pool) : count_allocated(*block, requested_size);
  }

  void free_block(Block& block) {
    if (block.pool->is_small()) {
      put_back(*this, block, *block.pool);
    } else if (parameters_.keeps_ranges) {
      insert_free(block);
    } else {
      unmap_range(block);
    }
  }

  void empty_cache() {
    synchronize_and_free_events();
    for (std::size_t i = kFirstStreamPool; i < pools.size(); ++i) {
      while (Block* const block = unused_range(pools[i], parameters_.page_size)) {
        detach(*block);
        unmap_range(*block);
      }
    }
    const Bytes stored = stored_bytes();
    change_store(-stored);
    release_handles(*this, stored, stored / parameters_.page_size);
  }

 private:
  static constexpr std::size_t kFirstStreamPool = 2;
  // Far below the addresses that the simulated driver gives out.
  static constexpr Address kStoreAddress = Address{1} << 40;

  BlockPool& store() { return get_pool(0, true); }

  Bytes stored_bytes() {
    const Block* const block = store().blocks.first();
    return block == nullptr ? 0 : block->size;
  }

  // Puts pages into the store, or takes them out. O(1): it is alone in its pool.
  void change_store(Bytes n_bytes) {
    Block* const block = store().blocks.first();
    if (n_bytes == 0) {
      return;
    }
    if (block == nullptr) {
      insert_free(new_segment(store(), kStoreAddress, n_bytes, false, BlockState::kFree));
      return;
    }
    detach(*block);
    block->size += n_bytes;
    block->segment->size += n_bytes;
    if (block->size == 0) {
      drop_segment(*block->segment);
      drop_block(*block);
    } else {
      insert_free(*block);
    }
  }

  // A new range over pages of the store; its block is in no set.
  Block& map_range(BlockPool& pool, Bytes size) {
    change_store(-size);
    count_mapped_range(stats, size / parameters_.page_size);
    const Address address = driver.place(size);
    record_trace(Action::kSegmentMap, address, size, pool);
    return new_segment(pool, address, size, false, BlockState::kFree);
  }

  // Gives up the range that a block, in no set, is the whole of; its pages go to the store.
  void unmap_range(Block& block) {
    const Bytes size = block.size;
    record_trace(Action::kSegmentUnmap, block.address, size, *block.pool);
    count_unmapped_range(stats, size / parameters_.page_size);
    drop_segment(*block.segment);
    drop_block(block);
    change_store(size);
  }

  // A mapped range of a pool that nobody uses: the best fit for what is missing, or else the largest.
  Block* unused_range(BlockPool& pool, Bytes missing) const {
    if (pool.is_small()) {
      return pool.blocks.lower_bound(parameters_.page_size);
    }
    Block* const block = pool.blocks.lower_bound(missing);
    return block == nullptr ? pool.blocks.last_below(missing) : block;
  }

  // Has that much in the store: from unused ranges, then from the driver; whether that was enough.
  //
  // Every range is unmapped once at most, so that it costs O(log n) amortised, and one step for each stream.
  bool gather(Bytes n_bytes) {
    Bytes stored = stored_bytes();
    for (std::size_t i = kFirstStreamPool; i < pools.size(); ++i) {
      while (stored < n_bytes) {
        Block* const block = unused_range(pools[i], n_bytes - stored);
        if (block == nullptr) {
          break;
        }
        stored += block->size;
        detach(*block);
        unmap_range(*block);
      }
    }
    const Bytes missing = n_bytes - stored;
    if (missing <= 0) {
      return true;
    }
    if (!driver.has_exactly(missing)) {
      return false;
    }
    create_handles(*this, missing, missing / parameters_.page_size);
    change_store(missing);
    return true;
  }

  // Blocks for a request, in no set; nullptr if pages run short.

  Block* find_large(BlockPool& pool, Bytes size) {
    Block* const kept = parameters_.keeps_ranges ? pool.blocks.lower_bound(size) : nullptr;
    if (kept != nullptr && kept->size == size) {
      detach(*kept);
      return kept;
    }
    return gather(size) ? &map_range(pool, size) : nullptr;
  }

  Block* find_small(BlockPool& pool, Bytes size) {
    Block* block = take_best_fit(pool, size);
    if (block == nullptr && gather(parameters_.page_size)) {
      block = &map_range(pool, parameters_.page_size);
    }
    return block == nullptr ? nullptr : &take_front(*this, *block, size);
  }

  const Parameters parameters_;
};

}  // namespace memscope::models
