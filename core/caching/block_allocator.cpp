#include "caching/block_allocator.h"

#include <iterator>
#include <stdexcept>
#include <tuple>
#include <utility>

namespace memscope::caching {
namespace {

// PyTorch's order: the default pool's large blocks, then its small ones, then each private pool's small and large ones;
// among them by stream handle, unsigned.
auto release_key(const BlockPool& pool) {
  const bool is_late = pool.is_default() ? pool.is_small() : !pool.is_small();
  return std::tuple(pool.pool_id, is_late, static_cast<std::uint64_t>(pool.stream));
}

}  // namespace

RecordedPlaces::RecordedPlaces(std::vector<Bytes> sizes, std::vector<Address> addresses)
    : sizes_(std::move(sizes)), addresses_(std::move(addresses)) {
  if (sizes_.size() != addresses_.size()) {
    throw std::invalid_argument("as many addresses as sizes are needed");
  }
  for (std::size_t i = 0; i < sizes_.size(); ++i) {
    if (sizes_[i] <= 0 || sizes_[i] > kHighest || addresses_[i] < 0 || addresses_[i] > kHighest - sizes_[i]) {
      throw std::invalid_argument("a segment lies where none can");
    }
    end_ = std::max(end_, addresses_[i] + sizes_[i]);
  }
}

std::optional<Address> RecordedPlaces::take(Bytes n_bytes) {
  if (next_ == sizes_.size()) {
    return std::nullopt;
  }
  const Address address = addresses_[next_];
  const auto above = taken_.lower_bound(address);
  const bool is_free = (above == taken_.end() || above->first >= address + n_bytes) &&
                       (above == taken_.begin() || std::prev(above)->second <= address);
  if (sizes_[next_] != n_bytes || !is_free) {
    next_ = sizes_.size();
    return std::nullopt;
  }
  ++next_;
  taken_.emplace(address, address + n_bytes);
  return address;
}

void BlockAllocator::add_pair(std::int64_t pool_id, std::int64_t stream, bool is_releasable) {
  for (int i = 0; i < 2; ++i) {
    BlockPool& pool = pools.emplace_back();
    pool.index = pools.size() - 1;
    pool.pool_id = pool_id;
    pool.stream = stream;
    pool.is_releasable = pool.is_default() || is_releasable;
    const auto later = std::upper_bound(
        release_order.begin(), release_order.end(), &pool,
        [](const BlockPool* a, const BlockPool* b) { return release_key(*a) < release_key(*b); });
    release_order.insert(later, &pool);
  }
}

Block& BlockAllocator::new_block(Segment& segment, Address address, Bytes size, BlockState state) {
  return new_block(segment, *segment.pool, tie_rule == TieRule::kSegmentAge ? segment.serial : 0, address, size, state);
}

Block& BlockAllocator::new_block(Segment& segment, BlockPool& pool, std::int64_t tie, Address address, Bytes size,
                                 BlockState state) {
  Block& block = blocks.take();
  const std::uint32_t slot = block.slot;
  block = Block{};
  block.slot = slot;
  block.serial = ++n_blocks_made_;
  block.address = address;
  block.size = size;
  block.state = state;
  block.segment = &segment;
  block.pool = &pool;
  block.tie = tie_rule == TieRule::kBlockAge ? block.serial : tie;
  return block;
}

Block& BlockAllocator::new_front(Block& block, Bytes size, BlockState state) {
  // All that it shares with the block is taken from there: its segment may be far away in memory.
  Block& front = new_block(*block.segment, *block.pool, block.tie, block.address, size, state);
  put_before(front, block);
  return front;
}

void BlockAllocator::drop_block(Block& block) {
  block.state = BlockState::kNone;
  blocks.give_back(block);
}

Block& BlockAllocator::new_segment(BlockPool& pool, Address address, Bytes size, bool is_expandable,
                                   BlockState state) {
  Segment& segment = segments.take();
  const std::uint32_t slot = segment.slot;
  segment = Segment{};
  segment.slot = slot;
  segment.serial = ++n_segments_made;
  segment.address = address;
  segment.size = size;
  segment.pool = &pool;
  segment.is_live = true;
  segment.is_expandable = is_expandable;
  n_expandable_segments += is_expandable ? 1 : 0;
  segment.head = &new_block(segment, address, size, state);
  return *segment.head;
}

void BlockAllocator::drop_segment(Segment& segment) {
  segment.is_live = false;
  n_expandable_segments -= segment.is_expandable ? 1 : 0;
  segment.head = nullptr;
  segments.give_back(segment);
}

void BlockAllocator::put_before(Block& block, Block& later) {
  block.prev = later.prev;
  block.next = &later;
  (later.prev == nullptr ? block.segment->head : later.prev->next) = &block;
  later.prev = &block;
}

void BlockAllocator::put_after(Block& block, Block& earlier) {
  block.prev = &earlier;
  block.next = earlier.next;
  if (earlier.next != nullptr) {
    earlier.next->prev = &block;
  }
  earlier.next = &block;
}

void BlockAllocator::absorb_next(Block& block) {
  Block& absorbed = *block.next;
  block.next = absorbed.next;
  if (block.next != nullptr) {
    block.next->prev = &block;
  }
  block.size += absorbed.size;
  drop_block(absorbed);
}

// Neither is in a set.
void BlockAllocator::join(Block& block, Block& neighbour) {
  if (&neighbour == block.prev) {
    block.address = neighbour.address;
    block.prev = neighbour.prev;
    (block.prev == nullptr ? block.segment->head : block.prev->next) = &block;
  } else {
    block.next = neighbour.next;
    if (block.next != nullptr) {
      block.next->prev = &block;
    }
  }
  block.size += neighbour.size;
  drop_block(neighbour);
}

void BlockAllocator::absorb(Block& block, Block* other) {
  if (other == nullptr || other->state != block.state) {
    return;
  }
  if (other->state == BlockState::kFree) {
    other->pool->blocks.erase(*other);
    join(block, *other);
  } else if (other->state == BlockState::kUnmapped) {
    other->pool->unmapped.erase(*other);
    join(block, *other);
  }
}

void BlockAllocator::try_merge_blocks(Block& block) {
  absorb(block, block.prev);
  absorb(block, block.next);
}

void BlockAllocator::insert_merged(Block& block) {
  const auto is_alike = [&](const Block* other) {
    return other != nullptr && other->is_free() && other->pool == block.pool;
  };
  FreeBlocks& free_blocks = block.pool->blocks;
  block.state = BlockState::kFree;
  block.gc_count_base = gc_calls;
  if (is_alike(block.prev) && is_alike(block.next)) {
    // The place of the larger one is nearer to that of all three.
    Block& smaller = block.prev->size < block.next->size ? *block.prev : *block.next;
    free_blocks.erase(smaller);
    join(block, smaller);
  }
  Block* const neighbour = is_alike(block.prev) ? block.prev : is_alike(block.next) ? block.next : nullptr;
  if (neighbour == nullptr) {
    free_blocks.insert(block);
  } else {
    free_blocks.replace(*neighbour, block, [&] { join(block, *neighbour); });
  }
}

void BlockAllocator::place_as(RecordedPlaces places) {
  driver.next_address = std::max(driver.next_address, DriverMemory::in_granules(places.end()));
  driver.recorded = std::move(places);
}

void BlockAllocator::take_from_driver(Bytes n_bytes) {
  driver.used += DriverMemory::in_granules(n_bytes);
  ++stats.num_device_alloc;
  stats.reserved_bytes.increase(n_bytes);
}

void BlockAllocator::give_to_driver(Bytes n_bytes) {
  driver.used -= DriverMemory::in_granules(n_bytes);
  ++stats.num_device_free;
  stats.reserved_bytes.decrease(n_bytes);
}

Block& BlockAllocator::add_segment(BlockPool& pool, Address address, Bytes n_bytes) {
  take_from_driver(n_bytes);
  Block& block = new_segment(pool, address, n_bytes, false, BlockState::kFree);
  record_trace(Action::kSegmentAlloc, address, n_bytes, pool);
  return block;
}

void BlockAllocator::release_block(Block& block) {
  block.pool->blocks.erase(block);
  record_trace(Action::kSegmentFree, block.address, block.size, *block.pool);
  give_to_driver(block.size);
  driver.recorded.give_back(block.address);
  drop_segment(*block.segment);
  drop_block(block);
}

void BlockAllocator::append_pending(Block& block) {
  block.pending_prev = last_pending;
  block.pending_next = nullptr;
  (last_pending == nullptr ? first_pending : last_pending->pending_next) = &block;
  last_pending = &block;
}

void BlockAllocator::remove_pending(Block& block) {
  (block.pending_prev == nullptr ? first_pending : block.pending_prev->pending_next) = block.pending_next;
  (block.pending_next == nullptr ? last_pending : block.pending_next->pending_prev) = block.pending_prev;
}

}  // namespace memscope::caching
