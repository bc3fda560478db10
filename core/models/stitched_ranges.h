// Stitched ranges: which blocks each is made of, which are idle, and which idle one was used longest ago.
//
// A range is a doubly linked list of links, one for each of its blocks in order; each block's links, one for each range
// over it, are doubly linked too, so that a split reaches them all. Idle ranges of one pool and size are chained for
// exact matches, the latest first, and all of them from the longest idle one to the latest. Everything is O(1) but for
// the walk over a range's or a block's own links, and the search for a size, O(log sizes).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <utility>

#include "caching/block.h"

namespace memscope::models {

struct StitchedRange;

// One block of one range.
struct Link {
  StitchedRange* range = nullptr;
  caching::Block* block = nullptr;
  Link* prev = nullptr;  // neighbours in the range
  Link* next = nullptr;
  Link* block_prev = nullptr;  // neighbours over the block
  Link* block_next = nullptr;
  std::uint32_t slot = 0;
};

struct StitchedRange {
  caching::Address address = 0;
  caching::Bytes size = 0;
  const caching::BlockPool* pool = nullptr;
  Link* first = nullptr;
  Link* last = nullptr;
  Link* watch = nullptr;  // its block was in use when the range was last looked at: most likely it still is
  StitchedRange* older = nullptr;  // neighbours among the idle ones
  StitchedRange* newer = nullptr;
  StitchedRange* alike_prev = nullptr;  // neighbours among the idle ones of its pool and size
  StitchedRange* alike_next = nullptr;
  std::uint32_t slot = 0;
};

class StitchedRanges {
 public:
  std::size_t n_ranges() const { return ranges_.n_used(); }
  std::size_t n_links() const { return links_.n_used(); }
  std::size_t n_idle() const { return n_idle_; }
  std::size_t n_linked_blocks() const {
    return first_links_.size() -
           static_cast<std::size_t>(std::count(first_links_.begin(), first_links_.end(), nullptr));
  }
  StitchedRange* oldest() const { return oldest_; }  // the longest idle one

  // A range without blocks, not idle yet.
  StitchedRange& new_range(const caching::BlockPool& pool, caching::Address address, caching::Bytes size) {
    StitchedRange& range = taken(ranges_);
    range.address = address;
    range.size = size;
    range.pool = &pool;
    return range;
  }

  // Lets a range end in one more block.
  void append_block(StitchedRange& range, caching::Block& block) {
    Link& link = new_link(range, block);
    link.prev = range.last;
    (range.last == nullptr ? range.first : range.last->next) = &link;
    range.last = &link;
    range.watch = range.first;
  }

  // A block gave its front to another one: all ranges over it now run over both.
  void put_front_part(const caching::Block& block, caching::Block& front) {
    for (Link* later = first_link(block); later != nullptr; later = later->block_next) {
      Link& link = new_link(*later->range, front);
      link.prev = later->prev;
      link.next = later;
      (link.prev == nullptr ? link.range->first : link.prev->next) = &link;
      later->prev = &link;
    }
  }

  // Keeps a range that serves no allocation: the latest of them, and the first of its size to be tried.
  void keep_idle(StitchedRange& range) {
    range.older = newest_;
    range.newer = nullptr;
    (newest_ == nullptr ? oldest_ : newest_->newer) = &range;
    newest_ = &range;
    StitchedRange*& first = idle_[key_of(*range.pool, range.size)];
    range.alike_prev = nullptr;
    range.alike_next = first;
    if (first != nullptr) {
      first->alike_prev = &range;
    }
    first = &range;
    ++n_idle_;
  }

  // Takes a range out of the idle ones.
  void take_idle(StitchedRange& range) {
    (range.older == nullptr ? oldest_ : range.older->newer) = range.newer;
    (range.newer == nullptr ? newest_ : range.newer->older) = range.older;
    if (range.alike_next != nullptr) {
      range.alike_next->alike_prev = range.alike_prev;
    }
    if (range.alike_prev != nullptr) {
      range.alike_prev->alike_next = range.alike_next;
    } else if (range.alike_next != nullptr) {
      idle_[key_of(*range.pool, range.size)] = range.alike_next;
    } else {
      idle_.erase(key_of(*range.pool, range.size));
    }
    --n_idle_;
  }

  // The latest idle range of exactly that size, all of whose blocks are free; nullptr for none.
  //
  // O(ranges of that size), as long as the block that was in use when a range was last looked at still is.
  StitchedRange* find_idle(const caching::BlockPool& pool, caching::Bytes size) const {
    const auto found = idle_.find(key_of(pool, size));
    StitchedRange* range = found == idle_.end() ? nullptr : found->second;
    while (range != nullptr && !is_free(*range)) {
      range = range->alike_next;
    }
    return range;
  }

  // Gives up a range that is not idle, and its links.
  void drop_range(StitchedRange& range) {
    for (Link* link = range.first; link != nullptr;) {
      Link& dropped = *link;
      link = link->next;
      if (dropped.block_next != nullptr) {
        dropped.block_next->block_prev = dropped.block_prev;
      }
      (dropped.block_prev == nullptr ? first_link(*dropped.block) : dropped.block_prev->block_next) =
          dropped.block_next;
      links_.give_back(dropped);
    }
    ranges_.give_back(range);
  }

 private:
  using Key = std::pair<std::size_t, caching::Bytes>;

  static Key key_of(const caching::BlockPool& pool, caching::Bytes size) { return {pool.index, size}; }

  // A slot as it is when new.
  template <typename T>
  static T& taken(caching::Slots<T>& slots) {
    T& object = slots.take();
    const std::uint32_t slot = object.slot;
    object = T{};
    object.slot = slot;
    return object;
  }

  // The first of a block's links.
  Link*& first_link(const caching::Block& block) {
    if (first_links_.size() <= block.slot) {
      first_links_.resize(block.slot + 1);
    }
    return first_links_[block.slot];
  }

  Link& new_link(StitchedRange& range, caching::Block& block) {
    Link& link = taken(links_);
    link.range = &range;
    link.block = &block;
    Link*& first = first_link(block);
    link.block_next = first;
    if (first != nullptr) {
      first->block_prev = &link;
    }
    first = &link;
    return link;
  }

  static bool is_free(StitchedRange& range) {
    if (!range.watch->block->is_free()) {
      return false;
    }
    for (Link* link = range.first; link != nullptr; link = link->next) {
      if (!link->block->is_free()) {
        range.watch = link;
        return false;
      }
    }
    return true;
  }

  caching::Slots<StitchedRange> ranges_;
  caching::Slots<Link> links_;
  std::deque<Link*> first_links_;  // by the slot of the block; nullptr for none
  std::map<Key, StitchedRange*> idle_;  // the first of a pool and size
  StitchedRange* oldest_ = nullptr;
  StitchedRange* newest_ = nullptr;
  std::size_t n_idle_ = 0;
};

}  // namespace memscope::models
