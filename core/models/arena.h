// Arenas, as RMM's arena_memory_resource has them: one for each stream, fed with superblocks by a global one.
//
// Source: RMM arena_memory_resource.hpp and detail/arena.hpp (read at 2dbf0a9, without the size classes, which are a
// build option there). After those are the rounding, first fit by address in every arena, the minimum size of a
// superblock and when it is split or joined, the requests that the global arena serves itself (a free of those waits for
// its stream), and the cleaning of all arenas when a request fails.
//
// A model is the size of the global arena. RMM takes half of the device, or a given size, at the start and keeps it.
// Here it grows by exactly what is touched for the first time, so that the reserved bytes are the extent that RMM would
// have used; what lies beyond belongs to the last empty superblock, as it does there. RMM keeps its arena until it is
// destroyed; here an emptied cache cleans all arenas and gives the unused end of the extent back.
//
// A segment is a superblock; an arena is the first pool of its stream's pair, the global one that of a pair of its own.
// The extent ends at the next address of the simulated driver. Free blocks lie in sets by address, in no other ones.
#pragma once

#include <deque>

#include "models/carving.h"
#include "models/first_fit_blocks.h"

namespace memscope::models {

struct ArenaParameters {
  Bytes alignment;
  Bytes superblock_size;  // at least; larger requests are served by the global arena itself
  Bytes initial_size;     // what the global arena takes at its first request
};

class Arena : public Allocator<Arena> {
 public:
  using Parameters = ArenaParameters;

  Arena(const AllocatorOptions& options, const Parameters& parameters) : Allocator(options), parameters_(parameters) {
    add_pair(0, kNoStream, false);
  }

  Block* malloc(std::size_t pair, Bytes requested_size) {
    if (stats.reserved_bytes.current == 0 && parameters_.initial_size > 0 && can_lengthen(parameters_.initial_size)) {
      put(new_superblock(parameters_.initial_size));
    }
    const Bytes size = round_up(requested_size, parameters_.alignment);
    BlockPool& arena = get_pool(pair, false);
    Block* block = find(arena, size);
    if (block == nullptr) {
      synchronize_and_free_events();
      clean();
      ++stats.num_alloc_retries;
      block = find(arena, size);
    }
    if (block == nullptr) {
      return out_of_memory(size, arena);
    }
    if (block->size > size) {
      Block& rest = *block;
      block = &cut_front(*this, rest, size);
      put(rest);
    }
    return count_allocated(*block, requested_size);
  }

  void free_block(Block& block) {
    stats.num_stream_syncs += block.size > parameters_.superblock_size ? 1 : 0;
    Block* whole = &block;
    const BlockPool& arena = *block.pool;
    if (is_free_in(block.next, arena)) {
      take(*block.next);
      absorb_next(block);
    }
    if (is_free_in(block.prev, arena)) {
      whole = block.prev;
      take(*whole);
      absorb_next(*whole);
    }
    put(&arena == &global() && !whole->is_split() ? join(*whole) : *whole);
  }

  void empty_cache() {
    synchronize_and_free_events();
    clean();
    if (Block* const block = end_of_extent()) {
      take(*block);
      shorten(*block);
    }
  }

  const FirstFitBlocks& free_blocks(const BlockPool& arena) { return free_of(arena); }

 private:
  BlockPool& global() { return pools[0]; }

  FirstFitBlocks& free_of(const BlockPool& arena) {
    if (free_.size() <= arena.index) {
      free_.resize(arena.index + 1);
    }
    return free_[arena.index];
  }

  // Puts a block into the set of its arena, or takes it out.
  void put(Block& block) {
    block.state = BlockState::kFree;
    free_of(*block.pool).insert(block);
  }
  void take(const Block& block) { free_of(*block.pool).erase(block); }

  // Whether a block is free and the whole of its superblock.
  static bool is_empty(const Block& block) { return block.is_free() && !block.is_split(); }

  // The extent.

  // Whether the driver can make it that much longer.
  bool can_lengthen(Bytes n_bytes) const {
    return !driver.is_limited() || DriverMemory::in_granules(stats.reserved_bytes.current + n_bytes) <= driver.capacity;
  }

  // Makes it longer; its first memory is one allocation. Where the new part begins.
  Address lengthen(Bytes n_bytes) {
    const Address address = driver.next_address;
    driver.next_address += n_bytes;
    stats.num_device_alloc += stats.reserved_bytes.current == 0 ? 1 : 0;
    stats.reserved_bytes.increase(n_bytes);
    driver.used = DriverMemory::in_granules(stats.reserved_bytes.current);
    record_trace(Action::kSegmentAlloc, address, n_bytes, global());
    return address;
  }

  // Ends it before an empty superblock at its end, in no set.
  void shorten(Block& block) {
    stats.reserved_bytes.decrease(block.size);
    driver.used = DriverMemory::in_granules(stats.reserved_bytes.current);
    driver.next_address = block.address;
    stats.num_device_free += stats.reserved_bytes.current == 0 ? 1 : 0;
    record_trace(Action::kSegmentFree, block.address, block.size, global());
    drop_segment(*block.segment);
    drop_block(block);
  }

  // The empty superblock of the global arena that it ends in, nullptr for none.
  Block* end_of_extent() {
    Block* const block = free_of(global()).last_below(driver.next_address);
    return block != nullptr && is_empty(*block) && block->end() == driver.next_address ? block : nullptr;
  }

  // Superblocks.

  Block& new_superblock(Bytes size) { return new_segment(global(), lengthen(size), size, false, BlockState::kFree); }

  // Gives an empty superblock, in no set, another size.
  static void resize(Block& block, Bytes size) {
    block.size = size;
    block.segment->size = size;
  }

  // A block of at least that size of the global arena, in no set, its superblock split if it was empty; nullptr if there
  // is none and the extent cannot grow.
  Block* acquire(Bytes size) {
    const Bytes least = std::max(parameters_.superblock_size, size);
    Block* block = free_of(global()).first_fit(size);
    if (block == nullptr) {
      // The end of the extent is one with the memory beyond it, if nothing there is in use.
      block = end_of_extent();
      if (!can_lengthen(block == nullptr ? least : least - block->size)) {
        return nullptr;
      }
      if (block == nullptr) {
        return &new_superblock(least);
      }
    }
    take(*block);
    if (is_empty(*block)) {
      fit_superblock(*block, least);
    }
    return block;
  }

  // Splits an empty superblock that is in no set, or lengthens it at the end of the extent, to the least size.
  void fit_superblock(Block& block, Bytes least) {
    const Bytes size = block.size;
    const bool is_last = block.end() == driver.next_address;
    if (is_last && size < least && can_lengthen(least - size)) {
      lengthen(least - size);
      resize(block, least);
    } else if (size - least >= (is_last ? 1 : parameters_.superblock_size)) {
      resize(block, least);
      put(new_segment(global(), block.end(), size - least, false, BlockState::kFree));
    }
  }

  // Gives a superblock to another arena, with all its blocks. O(its blocks · log n).
  void move(Segment& segment, BlockPool& arena) {
    segment.pool = &arena;
    for (Block* block = segment.head; block != nullptr; block = block->next) {
      if (block->is_free()) {
        take(*block);
        block->pool = &arena;
        put(*block);
      } else {
        block->pool = &arena;
      }
    }
  }

  // A block of at least that size for a stream's arena, in no set.
  Block* find(BlockPool& arena, Bytes size) {
    if (size > parameters_.superblock_size) {
      return acquire(size);
    }
    Block* block = free_of(arena).first_fit(size);
    if (block != nullptr) {
      take(*block);
      return block;
    }
    block = acquire(size);
    if (block != nullptr) {
      block->state = BlockState::kAllocated;
      move(*block->segment, arena);
    }
    return block;
  }

  // Joins an empty superblock of the global arena, in no set, with empty ones beside it. The joined one.
  Block& join(Block& block) {
    const FirstFitBlocks& free = free_of(global());
    Block* whole = &block;
    Block* const earlier = free.last_below(block.address);
    if (earlier != nullptr && is_empty(*earlier) && earlier->end() == block.address) {
      take(*earlier);
      absorb_superblock(*earlier, block);
      whole = earlier;
    }
    Block* const later = free.first_from(whole->end());
    if (later != nullptr && is_empty(*later) && whole->end() == later->address) {
      take(*later);
      absorb_superblock(*whole, *later);
    }
    return *whole;
  }

  void absorb_superblock(Block& block, Block& later) {
    resize(block, block.size + later.size);
    drop_segment(*later.segment);
    drop_block(later);
  }

  // Returns the superblocks of all arenas to the global one, in use or not. O(blocks · log n).
  void clean() {
    for (Segment& segment : segments) {
      if (!segment.is_live || segment.pool == &global()) {
        continue;
      }
      move(segment, global());
      Block& block = *segment.head;
      if (is_empty(block)) {
        take(block);
        put(join(block));
      }
    }
  }

  const Parameters parameters_;
  std::deque<FirstFitBlocks> free_;  // by the index of the pool
};

}  // namespace memscope::models
