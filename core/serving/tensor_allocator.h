// PyTorch's caching allocator with its default settings, for tensors that are made anew all the time on one stream.
//
// It decides as caching::DeviceCachingAllocator does, by the same rules. A simulation asks it for half a billion
// tensors, so that it knows less and is several times as fast: blocks are numbered rows of 32 bytes, free ones lie in
// lists by their size, and a run of equal requests keeps the block that was freed last at hand: every second request
// takes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "caching/block_allocator.h"
#include "caching/rules.h"
#include "serving/size_classes.h"

namespace memscope::serving {

class TensorAllocator {
 public:
  static constexpr BlockId kNoBlock = 0;
  // Requests will be multiples of so many bytes.
  TensorAllocator(caching::Bytes capacity, caching::Bytes granularity);

  // Give each of the blocks another one of that size in its place, one after the other: the new one is taken before the
  // old one, if there is one, is let go. How many got theirs: fewer than all if memory ran out.
  std::size_t replace(std::span<BlockId> blocks, caching::Bytes requested_size);
  void free(BlockId id);

  caching::Bytes address_of(BlockId id) const { return blocks_.at(id).address * caching::kMinBlockSize; }
  caching::Bytes active_bytes() const { return static_cast<caching::Bytes>(active_) * caching::kMinBlockSize; }
  caching::Bytes peak_reserved_bytes() const { return peak_reserved_; }
  std::int64_t num_alloc_retries() const { return num_alloc_retries_; }

 private:
  class Run;

  // Rows that are no blocks. Beyond the ends of a segment there is kNoBlock, which is never free, and whose neighbours
  // mean nothing. One is smaller than every request, one larger than every block.
  static constexpr BlockId kNothing = 1;
  static constexpr BlockId kEndless = 2;
  static constexpr BlockId kFirstNode = 3;

  // Beside the blocks: a free asks it of both neighbours, and most are not free.
  struct BlockState {
    bool is_free = false;
    bool is_small = false;  // of the pool for small requests
  };

  SizeClasses& pool_of(BlockId id) { return states_[id].is_small ? small_ : large_; }
  void make_room(std::size_t n_blocks);
  BlockId take_row();
  void insert(BlockId id);
  void erase(BlockId id);
  // Joins a block with a neighbour, which is in no list.
  void absorb_prev(BlockId id);
  void absorb_next(BlockId id);

  BlockId alloc_after_miss(caching::Bytes size);
  BlockId alloc_block(caching::Bytes size);
  void release_cached_blocks();
  void release_blocks(SizeClasses& pool, caching::Bytes least_segment);

  SizeClasses small_;
  SizeClasses large_;
  std::vector<TensorBlock> blocks_;
  std::vector<BlockState> states_;
  std::vector<BlockId> unused_rows_;
  std::vector<BlockId> released_;
  caching::DriverMemory driver_;
  std::int64_t active_ = 0;
  caching::Bytes reserved_ = 0;
  caching::Bytes peak_reserved_ = 0;
  std::int64_t num_alloc_retries_ = 0;
};

}  // namespace memscope::serving
