#include "serving/tensor_allocator.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace memscope::serving {

using caching::Bytes;
using caching::kMinBlockSize;

namespace {

constexpr Size in_blocks(Bytes n_bytes) { return static_cast<Size>(n_bytes / kMinBlockSize); }

// The largest power of two that divides all sizes, segments' too, as its exponent.
int shift_of(Bytes granularity) {
  const bool is_whole = granularity % kMinBlockSize == 0;
  const Size size = is_whole ? in_blocks(granularity) : 1;
  return std::countr_zero(size | in_blocks(caching::kRoundLarge));
}

}  // namespace

TensorAllocator::TensorAllocator(Bytes capacity, Bytes granularity)
    : small_(shift_of(granularity), in_blocks(caching::kSmallBuffer), kFirstNode),
      large_(shift_of(granularity), in_blocks(std::max(capacity, caching::kLargeBuffer)), small_.end_node()),
      blocks_(large_.end_node()),
      states_(blocks_.size()) {
  driver_.capacity = capacity;
  blocks_[kEndless].size = std::numeric_limits<Size>::max();
  small_.link_nodes(blocks_);
  large_.link_nodes(blocks_);
}

void TensorAllocator::make_room(std::size_t n_blocks) {
  while (unused_rows_.size() < n_blocks) {
    unused_rows_.push_back(static_cast<BlockId>(blocks_.size()));
    blocks_.emplace_back();
    states_.emplace_back();
  }
}

BlockId TensorAllocator::take_row() {
  const BlockId id = unused_rows_.back();
  unused_rows_.pop_back();
  return id;
}

void TensorAllocator::insert(BlockId id) {
  states_[id].is_free = true;
  pool_of(id).insert(blocks_.data(), id);
}

void TensorAllocator::erase(BlockId id) {
  states_[id].is_free = false;
  pool_of(id).erase(blocks_.data(), id);
}

void TensorAllocator::absorb_prev(BlockId id) {
  TensorBlock& block = blocks_[id];
  const BlockId absorbed = block.prev;
  block.address = blocks_[absorbed].address;
  block.size += blocks_[absorbed].size;
  block.prev = blocks_[absorbed].prev;
  blocks_[block.prev].next = id;
  unused_rows_.push_back(absorbed);
}

void TensorAllocator::absorb_next(BlockId id) {
  TensorBlock& block = blocks_[id];
  const BlockId absorbed = block.next;
  block.size += blocks_[absorbed].size;
  block.next = blocks_[absorbed].next;
  blocks_[block.next].prev = id;
  unused_rows_.push_back(absorbed);
}

void TensorAllocator::free(BlockId id) {
  active_ -= static_cast<std::int64_t>(blocks_[id].size);
  if (states_[blocks_[id].prev].is_free) {
    erase(blocks_[id].prev);
    absorb_prev(id);
  }
  if (states_[blocks_[id].next].is_free) {
    erase(blocks_[id].next);
    absorb_next(id);
  }
  insert(id);
}

BlockId TensorAllocator::alloc_after_miss(Bytes size) {
  BlockId id = alloc_block(size);
  if (id == kNoBlock) {
    release_cached_blocks();
    ++num_alloc_retries_;
    id = alloc_block(size);
  }
  return id;
}

BlockId TensorAllocator::alloc_block(Bytes size) {
  const Bytes n_bytes = caching::get_allocation_size(size, caching::kLargeBuffer);
  if (!driver_.has(n_bytes)) {
    return kNoBlock;
  }
  driver_.used += caching::DriverMemory::in_granules(n_bytes);
  reserved_ += n_bytes;
  peak_reserved_ = std::max(peak_reserved_, reserved_);
  const BlockId id = take_row();
  blocks_[id] = {.address = driver_.place(n_bytes) / kMinBlockSize, .size = in_blocks(n_bytes)};
  states_[id] = {.is_small = size <= caching::kSmallSize};
  return id;
}

void TensorAllocator::release_cached_blocks() {
  release_blocks(large_, caching::kMinLargeAlloc);
  release_blocks(small_, caching::kSmallBuffer);
}

void TensorAllocator::release_blocks(SizeClasses& pool, Bytes least_segment) {
  released_.clear();
  pool.for_each_from(blocks_.data(), in_blocks(least_segment), [&](BlockId id) {
    if (blocks_[id].prev == kNoBlock && blocks_[id].next == kNoBlock) {
      released_.push_back(id);
    }
  });
  for (const BlockId id : released_) {
    const Bytes n_bytes = static_cast<Bytes>(blocks_[id].size) * kMinBlockSize;
    erase(id);
    driver_.used -= caching::DriverMemory::in_granules(n_bytes);
    reserved_ -= n_bytes;
    unused_rows_.push_back(id);
  }
}

// Requests of one size, one after the other.
class TensorAllocator::Run {
 public:
  Run(TensorAllocator& allocator, Bytes size)
      : allocator_(allocator),
        pool_(size <= caching::kSmallSize ? allocator.small_ : allocator.large_),
        blocks_(allocator.blocks_.data()),
        states_(allocator.states_.data()),
        size_bytes_(size),
        size_(in_blocks(size)),
        is_small_(size <= caching::kSmallSize),
        least_rest_(is_small_ ? 1 : in_blocks(caching::kSmallSize) + 1) {}
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  ~Run() {
    put_away_last_freed();
    allocator_.active_ += active_;
  }

  BlockId malloc();
  void free(BlockId id);

 private:
  BlockId take_best_fit();
  void split(BlockId id);
  void insert(BlockId id);
  bool take_if_free(BlockId id);
  void put_away_last_freed();

  TensorAllocator& allocator_;
  SizeClasses& pool_;
  TensorBlock* const blocks_;
  BlockState* const states_;
  const Bytes size_bytes_;
  const Size size_;
  const bool is_small_;
  const Size least_rest_;            // that is split off
  BlockId last_freed_ = kNothing;    // in no list
  BlockId best_fit_ = kEndless;      // of the lists
  bool is_best_fit_known_ = false;
  std::int64_t active_ = 0;          // more than before
};

inline BlockId TensorAllocator::Run::malloc() {
  if (!is_best_fit_known_) {
    best_fit_ = pool_.lower_bound(blocks_, size_, kEndless);
    is_best_fit_known_ = true;
  }
  BlockId id = last_freed_;
  if (blocks_[id].size >= size_ && is_before(blocks_[id], blocks_[best_fit_])) {
    last_freed_ = kNothing;
  } else if (best_fit_ != kEndless) {
    id = take_best_fit();
  } else {
    put_away_last_freed();
    id = allocator_.alloc_after_miss(size_bytes_);
    is_best_fit_known_ = false;
    if (id == kNoBlock) {
      return kNoBlock;
    }
  }
  if (blocks_[id].size - size_ >= least_rest_) {
    split(id);
  }
  active_ += static_cast<std::int64_t>(blocks_[id].size);
  return id;
}

inline BlockId TensorAllocator::Run::take_best_fit() {
  const BlockId id = best_fit_;
  best_fit_ = pool_.next_in_class(blocks_, id, kEndless);
  is_best_fit_known_ = best_fit_ != kEndless;
  states_[id].is_free = false;
  pool_.erase(blocks_, id);
  return id;
}

// Leaves the front of a block, and makes a free one of the rest.
inline void TensorAllocator::Run::split(BlockId id) {
  const BlockId rest = allocator_.take_row();
  TensorBlock& block = blocks_[id];
  blocks_[rest] = {.address = block.address + static_cast<std::int64_t>(size_),
                   .size = block.size - size_,
                   .prev = id,
                   .next = block.next};
  states_[rest] = {.is_small = is_small_};
  blocks_[block.next].prev = rest;
  block.next = rest;
  block.size = size_;
  insert(rest);
}

inline void TensorAllocator::Run::free(BlockId id) {
  TensorBlock& block = blocks_[id];
  if (states_[id].is_small != is_small_) {
    // It was made when the tensor was shorter.
    allocator_.free(id);
    return;
  }
  active_ -= static_cast<std::int64_t>(block.size);
  if (take_if_free(block.prev)) {
    allocator_.absorb_prev(id);
  }
  if (take_if_free(block.next)) {
    allocator_.absorb_next(id);
  }
  if (last_freed_ != kNothing) {
    insert(last_freed_);
  }
  last_freed_ = id;
}

inline void TensorAllocator::Run::insert(BlockId id) {
  states_[id].is_free = true;
  pool_.insert(blocks_, id);
  if (is_best_fit_known_ && blocks_[id].size >= size_ && is_before(blocks_[id], blocks_[best_fit_])) {
    best_fit_ = id;
  }
}

// Whether a block is free; it is in no list then.
inline bool TensorAllocator::Run::take_if_free(BlockId id) {
  if (id == last_freed_) {
    last_freed_ = kNothing;
    return true;
  }
  if (!states_[id].is_free) {
    return false;
  }
  if (id == best_fit_) {
    is_best_fit_known_ = false;
  }
  states_[id].is_free = false;
  pool_.erase(blocks_, id);
  return true;
}

inline void TensorAllocator::Run::put_away_last_freed() {
  if (last_freed_ != kNothing) {
    insert(last_freed_);
    last_freed_ = kNothing;
  }
}

std::size_t TensorAllocator::replace(std::span<BlockId> blocks, Bytes requested_size) {
  // A request makes two blocks at most: a segment, and what is left of it.
  make_room(2 * blocks.size());
  Run run(*this, caching::round_size(requested_size, {}));
  std::size_t n = 0;
  for (BlockId& block : blocks) {
    const BlockId longer = run.malloc();
    if (longer == kNoBlock) {
      break;
    }
    if (block != kNoBlock) {
      run.free(block);
    }
    block = longer;
    ++n;
  }
  return n;
}

}  // namespace memscope::serving
