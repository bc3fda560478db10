// Bins of fixed sizes over a pool, as RMM's binning_memory_resource has them in its replay benchmark.
//
// Source: RMM binning_memory_resource.hpp and fixed_size_memory_resource.hpp (read at 16e6c30 and 078bf70). After those
// are the bins (one for each power of two between two exponents), that a request is served by the smallest bin that
// holds it (the smallest bin serves everything below it too), that a bin takes its blocks from upstream by chunks of
// 128, never joins or splits them and never gives them back, and that larger requests go to the pool upstream, which is
// that of models/pool.h.
//
// A model is when a bin takes its first chunk: at its first request, where RMM takes one for every bin at the start. A
// chunk is cut into blocks as they are needed, and a bin serves its free block at the lowest address, whichever stream
// freed it: its blocks are all alike, so that no byte depends on the choice. What an emptied cache gives back is a model
// too: chunks without any use go back to the pool, and unused memory of the pool to the driver.
//
// Bin i is the pool of index i; the lists of the streams follow. The chunk of a bin's block is its tie.
#pragma once

#include "models/pool.h"

namespace memscope::models {

struct BinningParameters {
  int min_bin_exponent;
  int max_bin_exponent;
  Bytes blocks_per_chunk;
  // Of the pool upstream.
  Bytes alignment;
  Bytes initial_size;
  Bytes maximum_size;
  bool returns_memory;
};

class Binning : public Allocator<Binning> {
 public:
  using Parameters = BinningParameters;

  static constexpr std::size_t kMaxBins = 32;

  Binning(const AllocatorOptions& options, const Parameters& parameters)
      : Allocator(options), parameters_(parameters), lists_(*this, upstream(parameters), kMaxBins / 2) {
    for (std::size_t pair = 0; pair < kMaxBins / 2; ++pair) {
      add_pair(0, kNoStream, false);
    }
  }

  Block* malloc(std::size_t pair, Bytes requested_size) {
    const Bytes size = round_up(requested_size, parameters_.alignment);
    BlockPool& own = lists_.list_of(pair);
    Block* block = find(own, size);
    if (block == nullptr) {
      empty_cache();
      ++stats.num_alloc_retries;
      block = find(own, size);
    }
    return block == nullptr ? out_of_memory(size, own) : count_allocated(*block, requested_size);
  }

  void free_block(Block& block) {
    if (is_binned(block)) {
      insert_free(block);
    } else {
      put_back(*this, block, *block.pool);
    }
  }

  void empty_cache() {
    synchronize_and_free_events();
    if (!parameters_.returns_memory) {
      return;
    }
    for (Segment& segment : segments) {
      if (segment.is_live) {
        return_chunks(*segment.head);
      }
    }
    lists_.return_unused();
  }

 private:
  static PoolParameters upstream(const Parameters& parameters) {
    return {parameters.alignment, parameters.initial_size, parameters.maximum_size, parameters.returns_memory};
  }

  static bool is_binned(const Block& block) { return block.pool->index < kMaxBins; }

  // A block for a size, from a bin or from the pool, in no set.
  Block* find(BlockPool& own, Bytes size) {
    if (size > Bytes{1} << parameters_.max_bin_exponent) {
      return lists_.take(own, size);
    }
    const int exponent = std::max(size <= 1 ? 0 : caching::floor_log2(size - 1) + 1, parameters_.min_bin_exponent);
    return take_from_bin(pools.at(static_cast<std::size_t>(exponent - parameters_.min_bin_exponent)), own,
                         Bytes{1} << exponent);
  }

  Block* take_from_bin(BlockPool& bin, BlockPool& own, Bytes bin_size) {
    Block* block = take_best_fit(bin, bin_size);
    if (block == nullptr) {
      block = lists_.take(own, bin_size * parameters_.blocks_per_chunk);
      if (block == nullptr) {
        return nullptr;
      }
      block->pool = &bin;
      block->tie = block->address;
    }
    return &take_front(*this, *block, bin_size);
  }

  // Gives unused chunks back to the pool, from a segment's first block on. O(its blocks · log n).
  void return_chunks(Block& head) {
    for (Block* block = &head; block != nullptr;) {
      if (!is_binned(*block)) {
        block = block->next;
        continue;
      }
      const Chunk chunk = chunk_from(*block);
      block = chunk.is_unused ? return_chunk(*block, chunk.end).next : chunk.end;
    }
  }

  struct Chunk {
    Block* end;  // the block after it
    bool is_unused;
  };

  // The chunk that begins at a block.
  static Chunk chunk_from(Block& first) {
    bool is_unused = true;
    Block* block = &first;
    while (block != nullptr && is_binned(*block) && block->tie == first.tie) {
      is_unused = is_unused && block->is_free();
      block = block->next;
    }
    return {block, is_unused};
  }

  // The block of the pool that the chunk is part of then.
  Block& return_chunk(Block& first, const Block* end) {
    detach(first);
    while (first.next != end) {
      detach(*first.next);
      absorb_next(first);
    }
    first.tie = 0;
    return put_back(*this, first, pools.at(kMaxBins));
  }

  const Parameters parameters_;
  StreamLists lists_;
};

}  // namespace memscope::models
