// Blocks, the segments that they tile, and the pools that keep the free ones apart.
//
// Blocks and segments lie in slots that are used again: a pointer to one is valid as long as its allocator, but the
// block behind it is another one once its serial number differs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <tuple>
#include <vector>

#include "caching/rules.h"
#include "caching/sorted_chunks.h"

namespace memscope::caching {

struct Segment;
struct BlockPool;

enum class BlockState : std::uint8_t {
  kNone,       // the slot is not in use
  kFree,
  kAllocated,
  kPending,    // its free waits for other streams
  kUnmapped,   // addresses without memory, in an expandable segment
};

struct Block {
  Address address = 0;
  Bytes size = 0;
  Bytes requested_size = 0;
  Block* prev = nullptr;  // neighbours in the segment
  Block* next = nullptr;
  Segment* segment = nullptr;
  BlockPool* pool = nullptr;
  std::int64_t tie = 0;     // what decides between equal sizes before the address; 0, or an age of block or segment
  std::int64_t serial = 0;  // counts the blocks that were made: which one this is of those in its slot
  std::int64_t gc_count_base = 0;
  Block* pending_prev = nullptr;  // neighbours among those that wait for other streams
  Block* pending_next = nullptr;
  std::uint32_t slot = 0;
  BlockState state = BlockState::kNone;
  bool is_old = false;  // it stood before the first event, so that its age is not known

  Address end() const { return address + size; }
  bool is_free() const { return state == BlockState::kFree; }
  bool is_split() const { return prev != nullptr || next != nullptr; }
};

// One cudaMalloc, or the whole address reservation of an expandable segment.
struct Segment {
  Address address = 0;
  Bytes size = 0;
  BlockPool* pool = nullptr;
  Block* head = nullptr;  // the first of its blocks
  std::int64_t serial = 0;
  std::uint32_t slot = 0;
  bool is_live = false;
  bool is_expandable = false;
  bool is_old = false;  // it stood before the first event

  Address end() const { return address + size; }
};

// Objects at fixed addresses; a slot that was given back is the next to be used.
template <typename T>
class Slots {
 public:
  T& take() {
    if (free_.empty()) {
      T& slot = all_.emplace_back();
      slot.slot = static_cast<std::uint32_t>(all_.size() - 1);
      return slot;
    }
    T& slot = *free_.back();
    free_.pop_back();
    return slot;
  }

  // The caller has marked it as not in use.
  void give_back(T& slot) { free_.push_back(&slot); }

  std::size_t n_used() const { return all_.size() - free_.size(); }

  // Every slot that was ever used, in order, and those not in use among them.
  auto begin() { return all_.begin(); }
  auto end() { return all_.end(); }
  auto begin() const { return all_.begin(); }
  auto end() const { return all_.end(); }

 private:
  std::deque<T> all_;
  std::vector<T*> free_;
};

// Free blocks by (size, tie, address): the first that is large enough is the best fit.
class FreeBlocks {
 public:
  bool empty() const { return keys_.empty(); }
  std::size_t size() const { return keys_.size(); }

  void insert(Block& block) { keys_.insert(Key::of(block)); }
  // Size, tie and address must be what they were when the block was put in. Whether it was there.
  bool erase(const Block& block) { return keys_.erase(Key::of(block)); }

  // Puts a block in for one that is there, or the same one with another key: `change` makes it so. For less than an
  // erase and an insert, since the new place is most often near the old one.
  template <typename Change>
  void replace(const Block& old, Block& block, Change&& change) {
    const auto place = keys_.find(Key::of(old));
    change();
    if (place) {
      keys_.replace(*place, Key::of(block));
    } else {
      keys_.insert(Key::of(block));
    }
  }

  Block* first() const { return block_of(keys_.first()); }
  // The smallest block of at least that size.
  Block* lower_bound(Bytes size) const { return block_of(keys_.lower_bound(Size{size})); }
  // The largest block that is smaller.
  Block* last_below(Bytes size) const { return block_of(keys_.last_before(Size{size})); }
  // The blocks after and before one, which need not be in the set (any more).
  Block* next(const Block& block) const { return block_of(keys_.upper_bound(Key::of(block))); }
  Block* previous(const Block& block) const { return block_of(keys_.last_before(Key::of(block))); }

  static bool is_before(const Block& a, const Block& b) { return Key::of(a) < Key::of(b); }

  // Calls visit(block) in order; the set must not be changed meanwhile.
  template <typename Visit>
  void for_each(Visit&& visit) const {
    keys_.for_each([&](const Key& key) { visit(*key.block); });
  }

 private:
  // Small, because changes move keys; most sizes differ, so that the block itself is seldom looked at.
  struct Key {
    Bytes size;
    Block* block;

    static Key of(const Block& block) { return {block.size, const_cast<Block*>(&block)}; }

    friend bool operator<(const Key& a, const Key& b) {
      if (a.size != b.size) [[likely]] {
        return a.size < b.size;
      }
      return a.block->tie != b.block->tie ? a.block->tie < b.block->tie : a.block->address < b.block->address;
    }
  };

  // Stands before all blocks of a size.
  struct Size {
    Bytes size;

    friend bool operator<(const Size& a, const Key& b) { return a.size <= b.size; }
    friend bool operator<(const Key& a, const Size& b) { return a.size < b.size; }
  };

  static Block* block_of(const Key* key) { return key == nullptr ? nullptr : key->block; }

  SortedChunks<Key> keys_;
};

// Blocks by address.
class BlocksByAddress {
 public:
  bool empty() const { return keys_.empty(); }

  void insert(Block& block) { keys_.insert({block.address, &block}); }
  bool erase(const Block& block) { return keys_.erase({block.address, nullptr}); }

  Block* first() const { return block_of(keys_.first()); }
  Block* next(const Block& block) const { return block_of(keys_.upper_bound({block.address, nullptr})); }
  // The block at the lowest address from one on, and that at the highest address below it.
  Block* first_from(Address address) const { return block_of(keys_.lower_bound({address, nullptr})); }
  Block* last_below(Address address) const { return block_of(keys_.last_before({address, nullptr})); }

  template <typename Visit>
  void for_each(Visit&& visit) const {
    keys_.for_each([&](const Key& key) { visit(*key.block); });
  }

 private:
  struct Key {
    Address address;
    Block* block;

    friend bool operator<(const Key& a, const Key& b) { return a.address < b.address; }
  };

  static Block* block_of(const Key* key) { return key == nullptr ? nullptr : key->block; }

  SortedChunks<Key> keys_;
};

// Free memory of one (pool, stream, size class); it never crosses to another one in PyTorch's allocator.
struct BlockPool {
  std::size_t index = 0;    // 2 k for the small and 2 k + 1 for the large pool of the pair k
  std::int64_t pool_id = 0;  // dense: 0 is the default pool, the others are private ones
  std::int64_t stream = 0;   // the raw handle
  bool can_split = true;
  bool is_releasable = true;
  FreeBlocks blocks;
  BlocksByAddress unmapped;

  BlockPool() = default;
  // Blocks point at it.
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  bool is_small() const { return (index & 1) == 0; }
  bool is_default() const { return pool_id == 0; }
};

}  // namespace memscope::caching
