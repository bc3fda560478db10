// A pool that coalesces, as RMM's pool_memory_resource does it.
//
// Source: RMM pool_memory_resource.hpp, stream_ordered_memory_resource.hpp and coalescing_free_list.hpp (read at
// 0e89dfb). After those are the rounding, the free list of each stream with its best fit, the search of the other
// streams' lists (first for a block, then joined one by one into the own list; a stream only makes another wait by an
// event, nothing waits on the host) and the growth with its back-off. A model is that streams are searched in the order
// of their first use, and what gives memory back: RMM's pool keeps everything until it is destroyed, even where a
// request then fails.
//
// The free list of a stream is the first pool of its pair.
#pragma once

#include "models/carving.h"

namespace memscope::models {

struct PoolParameters {
  Bytes alignment;
  Bytes initial_size;
  Bytes maximum_size;   // -1 for no maximum
  bool returns_memory;  // when the cache is emptied, and before a request fails
};

// The lists of the program's streams in an allocator: they begin at one of its pairs.
class StreamLists {
 public:
  StreamLists(BlockAllocator& allocator, const PoolParameters& parameters, std::size_t first_pair)
      : allocator_(allocator), parameters_(parameters), first_pool_(2 * first_pair) {}

  BlockPool& list_of(std::size_t pair) { return allocator_.pools.at(2 * pair); }

  // A block of exactly that size for a stream, in no set and not counted; nullptr if there is none.
  Block* take(BlockPool& own, Bytes size) {
    if (allocator_.stats.reserved_bytes.current == 0 && parameters_.initial_size > 0) {
      start(own);
    }
    Block* block = search(own, size);
    if (block == nullptr) {
      block = grow(own, size);
    }
    if (block != nullptr) {
      block->pool = &own;
    }
    return block;
  }

  // The streams have been waited for: joins free neighbours of different streams' lists and gives unused memory back.
  void return_unused() {
    for (Segment& segment : allocator_.segments) {
      if (segment.is_live) {
        join_streams(*segment.head);
      }
    }
    release_unused_segments(allocator_);
  }

 private:
  void start(BlockPool& own) {
    if (allocator_.driver.has(parameters_.initial_size)) {
      allocator_.insert_free(
          allocator_.add_segment(own, allocator_.driver.place(parameters_.initial_size), parameters_.initial_size));
    }
  }

  Block* search(BlockPool& own, Bytes size) {
    if (Block* const block = take_best_fit(own, size)) {
      return &take_front(allocator_, *block, size);
    }
    Block* const block = take_from_streams(own, size);
    return block == nullptr ? merge_streams(own, size) : block;
  }

  // A block of another stream's list, the rest of it left there. O(streams · log n).
  Block* take_from_streams(const BlockPool& own, Bytes size) {
    for (std::size_t i = first_pool_; i < allocator_.pools.size(); i += 2) {
      BlockPool& list = allocator_.pools[i];
      Block* const block = &list == &own ? nullptr : take_best_fit(list, size);
      if (block != nullptr) {
        return &take_front(allocator_, *block, size);
      }
    }
    return nullptr;
  }

  // Joins the other lists one by one into the own one until it has a block. O(moved · log n).
  Block* merge_streams(BlockPool& own, Bytes size) {
    for (std::size_t i = first_pool_; i < allocator_.pools.size(); i += 2) {
      BlockPool& list = allocator_.pools[i];
      if (&list == &own || list.blocks.empty()) {
        continue;
      }
      while (Block* const block = list.blocks.first()) {
        detach(*block);
        put_back(allocator_, *block, own);
      }
      if (Block* const block = take_best_fit(own, size)) {
        return &take_front(allocator_, *block, size);
      }
    }
    return nullptr;
  }

  // More memory, cut to the size: as much again as the pool has, or half of what it may still get.
  Block* grow(BlockPool& own, Bytes size) {
    Bytes wanted = std::max(size, allocator_.stats.reserved_bytes.current);
    if (parameters_.maximum_size >= 0) {
      const Bytes remaining =
          round_up(parameters_.maximum_size - allocator_.stats.reserved_bytes.current, parameters_.alignment);
      if (size > remaining) {
        return nullptr;
      }
      wanted = std::max(size, remaining / 2);
    }
    while (!allocator_.driver.has(wanted)) {
      if (wanted == size) {
        return nullptr;
      }
      wanted = std::max(size, wanted / 2);
    }
    return &take_front(allocator_, allocator_.add_segment(own, allocator_.driver.place(wanted), wanted), size);
  }

  bool is_listed(const Block& block) const { return block.is_free() && block.pool->index >= first_pool_; }

  // Joins free neighbours from a segment's first block on.
  void join_streams(Block& head) {
    for (Block* block = &head; block->next != nullptr;) {
      if (!is_listed(*block) || !is_listed(*block->next)) {
        block = block->next;
        continue;
      }
      detach(*block);
      detach(*block->next);
      allocator_.absorb_next(*block);
      allocator_.insert_free(*block);
    }
  }

  BlockAllocator& allocator_;
  const PoolParameters parameters_;
  const std::size_t first_pool_;
};

class Pool : public Allocator<Pool> {
 public:
  using Parameters = PoolParameters;

  Pool(const AllocatorOptions& options, const Parameters& parameters)
      : Allocator(options), parameters_(parameters), lists_(*this, parameters, 0) {}

  Block* malloc(std::size_t pair, Bytes requested_size) {
    const Bytes size = round_up(requested_size, parameters_.alignment);
    BlockPool& own = lists_.list_of(pair);
    Block* block = lists_.take(own, size);
    if (block == nullptr) {
      empty_cache();
      ++stats.num_alloc_retries;
      block = lists_.take(own, size);
    }
    return block == nullptr ? out_of_memory(size, own) : count_allocated(*block, requested_size);
  }

  void free_block(Block& block) { put_back(*this, block, *block.pool); }

  void empty_cache() {
    synchronize_and_free_events();
    if (parameters_.returns_memory) {
      lists_.return_unused();
    }
  }

 private:
  const Parameters parameters_;
  StreamLists lists_;
};

}  // namespace memscope::models
