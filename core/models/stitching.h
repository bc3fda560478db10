// Free blocks stitched together by remapping: a model after GMLake.
//
// Physical memory comes in chunks. A primitive block is a contiguous virtual range over chunks of its own; a stitched
// range is one more mapping of the chunks of several primitive blocks, kept when its allocation is freed. A large
// request is served, in this order, by
//
// 1. a free primitive block, or an idle stitched range over free blocks, of exactly its size;
// 2. the smallest larger primitive block, split;
// 3. the largest free primitive blocks together, the last one the best fit for what is missing and split if it is
//    larger;
// 4. what free blocks there are, and a new primitive block for the rest.
//
// Small requests go to segments of one chunk from cudaMalloc, placed best-fit. Free memory serves its own stream only.
// The states are the paper's; order and ties inside them, small requests and the eviction by count are this model's.
//
// Source: GMLake, arXiv 2401.08156, sections on the virtual memory pool and the best-fit algorithm.
//
// Each primitive block is a segment of its own. Its address names physical memory: a split leaves the parts where their
// chunks were, although their virtual ranges are new. An allocation over several blocks has the address of its stitched
// range, which no segment has: its bytes are those blocks.
#pragma once

#include <algorithm>
#include <deque>
#include <utility>

#include "models/carving.h"
#include "models/stitched_ranges.h"
#include "models/virtual_memory.h"

namespace memscope::models {

struct StitchingParameters {
  Bytes chunk_size;      // physical chunks; smaller requests are small ones
  Bytes fragment_limit;  // only free blocks of at least that size are stitched; blocks are never merged
  std::size_t max_idle;  // idle stitched ranges kept; beyond them the one used longest ago is unmapped
  Bytes alignment;       // what small requests are rounded to
};

class Stitching : public Allocator<Stitching> {
 public:
  using Parameters = StitchingParameters;

  Stitching(const AllocatorOptions& options, const Parameters& parameters)
      : Allocator(options), parameters_(parameters) {}

  StitchedRanges ranges;
  std::int64_t num_small_alloc = 0;  // of the driver's calls: the segments of small requests
  std::int64_t num_small_free = 0;
  std::int64_t num_stitches = 0;
  std::int64_t num_splits = 0;
  std::int64_t num_reuses = 0;
  std::int64_t num_evictions = 0;

  Block* malloc(std::size_t pair, Bytes requested_size) {
    const bool is_large = requested_size >= parameters_.chunk_size;
    const Bytes size =
        round_up(std::max<Bytes>(requested_size, 1), is_large ? parameters_.chunk_size : parameters_.alignment);
    BlockPool& pool = get_pool(pair, is_large);
    Block* block = is_large ? find_large(pool, size) : find_small(pool, size);
    if (block == nullptr) {
      empty_cache();
      ++stats.num_alloc_retries;
      block = is_large ? find_large(pool, size) : find_small(pool, size);
    }
    return block == nullptr ? out_of_memory(size, pool) : count_allocated_parts(*block, requested_size);
  }

  void free_block(Block& block) {
    if (block.pool->is_small()) {
      put_back(*this, block, *block.pool);
      return;
    }
    StitchedRange* const range = std::exchange(part(block).range, nullptr);
    give_parts_back(&block);
    if (range != nullptr) {
      keep_idle(*range);
    }
  }

  void empty_cache() {
    synchronize_and_free_events();
    while (ranges.n_idle() > 0) {
      evict(*ranges.oldest());
    }
    for (BlockPool& pool : pools) {
      if (pool.is_small()) {
        while (Block* const block = pool.blocks.lower_bound(parameters_.chunk_size)) {
          release_block(*block);
          ++num_small_free;
        }
      } else {
        while (Block* const block = pool.blocks.first()) {
          drop_primitive(*block);
        }
      }
    }
  }

  // Blocks that are part of a range, or of an allocation of several. O(blocks).
  std::size_t n_marked_blocks() const {
    const auto is_marked = [](const Part& part) { return part.next != nullptr || part.range != nullptr; };
    return ranges.n_linked_blocks() + static_cast<std::size_t>(std::count_if(parts_.begin(), parts_.end(), is_marked));
  }

  Block* next_part(const Block& block) { return block.pool->is_small() ? nullptr : part(block).next; }

  Address address_of(const Block& block) {
    const StitchedRange* const range = block.pool->is_small() ? nullptr : part(block).range;
    return range == nullptr ? block.address : range->address;
  }

 private:
  // What is known of a large block in use.
  struct Part {
    Block* next = nullptr;           // the block after it in the allocation that it serves
    StitchedRange* range = nullptr;  // serves the allocation which this block is the first part of
  };

  Part& part(const Block& block) {
    if (parts_.size() <= block.slot) {
      parts_.resize(block.slot + 1);
    }
    return parts_[block.slot];
  }

  std::int64_t n_chunks(Bytes size) const { return size / parameters_.chunk_size; }

  Block& new_primitive(BlockPool& pool, Bytes size) {
    create_handles(*this, size, n_chunks(size));
    count_mapped_range(stats, n_chunks(size));
    const Address address = driver.place(size);
    record_trace(Action::kSegmentAlloc, address, size, pool);
    return new_segment(pool, address, size, false, BlockState::kFree);
  }

  // Unmaps a free block that no stitched range runs over, and gives its chunks to the driver.
  void drop_primitive(Block& block) {
    detach(block);
    record_trace(Action::kSegmentFree, block.address, block.size, *block.pool);
    count_unmapped_range(stats, n_chunks(block.size));
    release_handles(*this, block.size, n_chunks(block.size));
    drop_segment(*block.segment);
    drop_block(block);
  }

  // Unmaps an idle stitched range.
  void evict(StitchedRange& range) {
    ranges.take_idle(range);
    count_unmapped_range(stats, n_chunks(range.size));
    ranges.drop_range(range);
    ++num_evictions;
  }

  // Keeps a stitched range for later, and evicts the one used longest ago if there are too many.
  void keep_idle(StitchedRange& range) {
    ranges.keep_idle(range);
    while (ranges.n_idle() > parameters_.max_idle) {
      evict(*ranges.oldest());
    }
  }

  // The front of a larger block, which is in no set; the rest becomes free. O(ranges over the block + log n).
  //
  // Both parts get ranges of their own. The range of the whole is still mapped, and is kept as a stitched one.
  Block& split(Block& block, Bytes size) {
    const Address address = block.address;
    const Bytes whole_size = block.size;
    Block& front = new_segment(*block.pool, address, size, false, BlockState::kFree);
    block.address += size;
    block.size -= size;
    block.segment->address = block.address;
    block.segment->size = block.size;
    insert_free(block);
    count_mapped_range(stats, n_chunks(size));
    count_mapped_range(stats, n_chunks(whole_size - size));
    ranges.put_front_part(block, front);
    StitchedRange& whole = ranges.new_range(*block.pool, address, whole_size);
    ranges.append_block(whole, front);
    ranges.append_block(whole, block);
    keep_idle(whole);
    ++num_splits;
    return front;
  }

  // Lets an idle stitched range over free blocks serve an allocation; its first block. O(blocks · log n).
  Block& reuse(StitchedRange& range) {
    ranges.take_idle(range);
    for (const Link* link = range.first; link != nullptr; link = link->next) {
      detach(*link->block);
      part(*link->block).next = link->next == nullptr ? nullptr : link->next->block;
    }
    Block& head = *range.first->block;
    part(head).range = &range;
    ++num_reuses;
    return head;
  }

  // Maps the chunks of an allocation's blocks behind one more range.
  void stitch(Block& head, Bytes size) {
    StitchedRange& range = ranges.new_range(*head.pool, driver.place(size), size);
    for (Block* block = &head; block != nullptr; block = part(*block).next) {
      ranges.append_block(range, *block);
    }
    part(head).range = &range;
    count_mapped_range(stats, n_chunks(size));
    ++num_stitches;
  }

  // The best fit for what is missing, else the largest free block, of those large enough to be stitched.
  Block* best_part(const BlockPool& pool, Bytes missing) const {
    if (Block* const block = pool.blocks.lower_bound(std::max(missing, parameters_.fragment_limit))) {
      return block;
    }
    Block* const block = pool.blocks.last_below(missing);
    return block == nullptr || block->size < parameters_.fragment_limit ? nullptr : block;
  }

  // A free block for what an allocation is still missing, or for a part of that, in no set; nullptr if there is none and
  // the driver has not enough.
  Block* take_part(BlockPool& pool, Bytes missing) {
    Block* const block = best_part(pool, missing);
    if (block == nullptr) {
      return driver.has_exactly(missing) ? &new_primitive(pool, missing) : nullptr;
    }
    detach(*block);
    return block->size > missing ? &split(*block, missing) : block;
  }

  // Free blocks together, and a new one for what they lack; nullptr if the driver has not enough. O(blocks · log n).
  Block* combine(BlockPool& pool, Bytes size) {
    Block* head = nullptr;
    Block* last = nullptr;
    for (Bytes missing = size; missing > 0; missing -= last->size) {
      Block* const block = take_part(pool, missing);
      if (block == nullptr) {
        give_parts_back(head);
        return nullptr;
      }
      (last == nullptr ? head : part(*last).next) = block;
      last = block;
    }
    if (head != last) {
      stitch(*head, size);
    }
    return head;
  }

  void give_parts_back(Block* block) {
    while (block != nullptr) {
      Block* const next = std::exchange(part(*block).next, nullptr);
      insert_free(*block);
      block = next;
    }
  }

  // Blocks for a request, in no set; nullptr if the driver has not enough.

  Block* find_large(BlockPool& pool, Bytes size) {
    Block* const block = pool.blocks.lower_bound(size);
    const bool is_exact = block != nullptr && block->size == size;
    if (!is_exact) {
      if (StitchedRange* const range = ranges.find_idle(pool, size)) {
        return &reuse(*range);
      }
      if (block == nullptr) {
        return combine(pool, size);
      }
    }
    detach(*block);
    return is_exact ? block : &split(*block, size);
  }

  Block* find_small(BlockPool& pool, Bytes size) {
    Block* block = take_best_fit(pool, size);
    if (block == nullptr) {
      if (!driver.has(parameters_.chunk_size)) {
        return nullptr;
      }
      ++num_small_alloc;
      block = &add_segment(pool, driver.place(parameters_.chunk_size), parameters_.chunk_size);
    }
    return &take_front(*this, *block, size);
  }

  const Parameters parameters_;
  std::deque<Part> parts_;  // by the slot of the block
};

}  // namespace memscope::models
