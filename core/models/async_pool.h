// The driver's stream-ordered pool below cudaMallocAsync, which PyTorch's backend of that name uses.
//
// Source: CUDA runtime API, memory pool attributes; CUDA programming guide, stream-ordered memory allocator; PyTorch
// c10/cuda/CUDAMallocAsyncAllocator.cpp (read at 0345947: no release threshold, every way of reuse on, and an emptied
// cache waits for the device and trims the pool to nothing). How the driver places and grows is not published. Assumed
// are best fit with coalescing, growth by whole chunks at addresses of their own (by pages where no chunk is left), one
// physical allocation for each chunk, and that memory goes back by what was grown at once.
//
// Documented, and modelled by whole unused growths: where free memory is in pieces too small for a request, the driver
// maps unused memory into one range instead of asking for more (NVIDIA, Using the CUDA Stream-Ordered Memory Allocator,
// part 1).
//
// Memory that was freed on one stream serves another if its free has completed and either opportunistic reuse or
// internal dependencies are allowed: a free that the recording calls completed is taken for one. Otherwise it stays with
// its stream until the next wait for the device. A recording holds no events between streams, so that reuse that
// follows them is not modelled.
//
// The first pair of pools holds what every stream may have, the others what only their stream may: pieces of growths in
// the first pool of a pair, unused growths in the second.
#pragma once

#include "models/carving.h"
#include "models/virtual_memory.h"

namespace memscope::models {

struct AsyncPoolParameters {
  Bytes alignment;
  Bytes page_size;
  Bytes growth_chunk_size;
  Bytes release_threshold;  // -1 for none
  bool reuse_allow_opportunistic;
  bool reuse_allow_internal_dependencies;
  bool remaps_unused;
};

class AsyncPool : public Allocator<AsyncPool> {
 public:
  using Parameters = AsyncPoolParameters;

  AsyncPool(const AllocatorOptions& options, const Parameters& parameters)
      : Allocator(options), parameters_(parameters) {
    add_pair(0, kNoStream, false);
  }

  Block* malloc(std::size_t pair, Bytes requested_size) {
    const Bytes size = round_up(requested_size, parameters_.alignment);
    Block* block = find(pair, size);
    if (block == nullptr) {
      empty_cache();
      ++stats.num_alloc_retries;
      block = find(pair, size);
    }
    if (block == nullptr) {
      return out_of_memory(size, get_pool(pair, false));
    }
    ++stats.num_async_allocs;
    return count_allocated(*block, requested_size);
  }

  void free_block(Block& block) {
    ++stats.num_async_frees;
    const std::size_t pair = pair_for(pair_of(block));
    put(block, pair);
    if (parameters_.release_threshold >= 0) {
      trim(pair, parameters_.release_threshold);
    }
  }

  void empty_cache() {
    synchronize_and_free_events();
    share_all();
    trim(kShared, 0);
  }

 private:
  static constexpr std::size_t kShared = 0;

  static std::size_t pair_of(const Block& block) { return block.pool->index / 2; }
  BlockPool& pieces_of(std::size_t pair) { return get_pool(pair, false); }
  BlockPool& unused_of(std::size_t pair) { return get_pool(pair, true); }

  // Where a stream looks first, and where what it has freed goes: to all if a completed free serves every stream.
  std::size_t pair_for(std::size_t stream_pair) const {
    const bool shares = parameters_.reuse_allow_opportunistic || parameters_.reuse_allow_internal_dependencies;
    return shares ? kShared : stream_pair;
  }

  // Frees a block for those whom a pair serves, joined with its neighbours there.
  Block& put(Block& block, std::size_t pair) {
    Block& whole = join_neighbours(*this, block, pieces_of(pair));
    if (!whole.is_split()) {
      whole.pool = &unused_of(pair);
    }
    insert_free(whole);
    return whole;
  }

  // A block of exactly that size for a stream, in no set; nullptr if the driver has no more.
  Block* find(std::size_t stream_pair, Bytes size) {
    const std::size_t pair = pair_for(stream_pair);
    Block* block = best_fit(pair, size);
    if (block == nullptr && pair != kShared) {
      block = best_fit(kShared, size);
    }
    if (block == nullptr) {
      return grow(pair, stream_pair, size);
    }
    detach(*block);
    return &cut(*block, stream_pair, size);
  }

  Block* best_fit(std::size_t pair, Bytes size) {
    Block* const piece = pieces_of(pair).blocks.lower_bound(size);
    Block* const unused = unused_of(pair).blocks.lower_bound(size);
    if (piece == nullptr || unused == nullptr) {
      return piece == nullptr ? unused : piece;
    }
    return caching::FreeBlocks::is_before(*piece, *unused) ? piece : unused;
  }

  // The front of a block that is in no set, for a stream; the rest goes back to whom the block was for.
  Block& cut(Block& block, std::size_t stream_pair, Bytes size) {
    Block* front = &block;
    if (block.size > size) {
      front = &cut_front(*this, block, size);
      block.pool = &pieces_of(pair_of(block));
      insert_free(block);
    }
    front->pool = &pieces_of(stream_pair);
    return *front;
  }

  std::int64_t n_chunks(Bytes n_bytes) const {
    return (n_bytes + parameters_.growth_chunk_size - 1) / parameters_.growth_chunk_size;
  }

  // Takes an unused growth out of the pool; its memory is the caller's to give back or to map again.
  Bytes unmap(Block& block) {
    const Bytes size = block.size;
    detach(block);
    record_trace(Action::kSegmentFree, block.address, size, *block.pool);
    count_unmapped_range(stats, n_chunks(size));
    release_handles(*this, size, 0);
    drop_segment(*block.segment);
    drop_block(block);
    return size;
  }

  // Bytes of unused growths, the largest first, until they hold a size. O(growths · log n).
  Bytes remappable_bytes(std::size_t pair, Bytes size) {
    const caching::FreeBlocks& unused = unused_of(pair).blocks;
    Bytes n_bytes = 0;
    for (Block* block = unused.last_below(size); block != nullptr && n_bytes < size; block = unused.previous(*block)) {
      n_bytes += block->size;
    }
    return n_bytes;
  }

  // What the driver must create for a size beside memory that is mapped again: chunks, or pages where it lacks a chunk;
  // -1 if it lacks those too.
  Bytes new_bytes(Bytes missing) const {
    for (const Bytes unit : {parameters_.growth_chunk_size, parameters_.page_size}) {
      const Bytes n_bytes = round_up(std::max<Bytes>(missing, 0), unit);
      if (driver.has_exactly(n_bytes)) {
        return n_bytes;
      }
    }
    return -1;
  }

  // A new range that holds a size, of unused memory and of new, cut to the size.
  Block* grow(std::size_t pair, std::size_t stream_pair, Bytes size) {
    const Bytes n_unused = parameters_.remaps_unused ? remappable_bytes(pair, size) : 0;
    const Bytes n_new = new_bytes(size - n_unused);
    if (n_new < 0) {
      return nullptr;
    }
    Bytes n_mapped = 0;
    std::int64_t n_handles = n_chunks(n_new);
    while (n_mapped < n_unused) {
      Block& unused = *unused_of(pair).blocks.last_below(size);
      n_handles += n_chunks(unused.size);
      n_mapped += unmap(unused);
    }
    count_mapped_range(stats, n_handles);
    create_handles(*this, n_mapped + n_new, n_chunks(n_new));
    BlockPool& pool = pieces_of(pair);
    const Address address = driver.place(n_mapped + n_new);
    record_trace(Action::kSegmentAlloc, address, n_mapped + n_new, pool);
    return &cut(new_segment(pool, address, n_mapped + n_new, false, BlockState::kFree), stream_pair, size);
  }

  // Gives unused growths back, the smallest first, until no more than that is held. O(growths · log n).
  void trim(std::size_t pair, Bytes keep) {
    while (stats.reserved_bytes.current > keep) {
      Block* const block = unused_of(pair).blocks.first();
      if (block == nullptr) {
        return;
      }
      stats.num_device_free += n_chunks(block->size);
      unmap(*block);
    }
  }

  // The device was waited for: every stream may have what any has freed. O(blocks · log n).
  void share_all() {
    for (const Segment& segment : segments) {
      if (!segment.is_live) {
        continue;
      }
      for (Block* block = segment.head; block != nullptr; block = block->next) {
        if (block->is_free() && pair_of(*block) != kShared) {
          detach(*block);
          block = &put(*block, kShared);
        }
      }
    }
  }

  const Parameters parameters_;
};

}  // namespace memscope::models
