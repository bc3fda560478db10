#include "caching/follow.h"

namespace memscope::caching {
namespace {

class Follower {
 public:
  Follower(DeviceCachingAllocator& allocator, const RecordedEvents& recorded)
      : allocator_(allocator), rows_(allocator.rows), events_(recorded.events), recorded_(recorded) {}

  Followed from(std::size_t position) {
    const std::size_t n_events = events_.size();
    while (position < n_events) {
      step_ = 1;
      const FollowStatus status = follow_event(position);
      if (status != FollowStatus::kFollowed) {
        return {position, status};
      }
      position += step_;
    }
    return {position, FollowStatus::kFollowed};
  }

 private:
  FollowStatus follow_event(std::size_t position) {
    switch (events_.action(position)) {
      case Action::kAlloc:
        return follow_alloc(position);
      case Action::kFreeRequested:
        return follow_free_requested(position);
      case Action::kFreeCompleted:
        return follow_free_completed(position);
      case Action::kSegmentAlloc:
        return follow_segment_alloc(position);
      case Action::kSnapshot:
        return events_.size_bytes[position] == allocator_.stats.active_bytes.current ? FollowStatus::kFollowed
                                                                               : FollowStatus::kActiveBytesDiffer;
      case Action::kAnnotate:
        return FollowStatus::kFollowed;
      default:
        return FollowStatus::kNeedsDecision;
    }
  }

  bool is_followed_by(std::size_t position, Action action) const {
    return position + 1 < events_.size() && events_.action(position + 1) == action;
  }

  // The block of the allocation that an event is about, nullptr for none.
  Block* block_at(std::size_t position) const {
    const std::int64_t row = recorded_.row[position];
    return row < 0 ? nullptr : rows_[row].block;
  }

  FollowStatus follow_alloc(std::size_t position) {
    if (recorded_.pair[position] < 0 || recorded_.row[position] < 0) {
      return FollowStatus::kNeedsDecision;
    }
    const Bytes requested = events_.size_bytes[position];
    const Bytes size = round_size(requested, allocator_.config.roundup_power2_divisions);
    BlockPool& pool = allocator_.pool_for(as_index(recorded_.pair[position]), size);
    Block* const block = allocator_.find_free_block(pool, size);
    if (block == nullptr) {
      return FollowStatus::kFitsNowhere;
    }
    if (block->address != events_.address[position]) {
      return FollowStatus::kFitsElsewhere;
    }
    allocator_.count_call(pool);
    rows_[recorded_.row[position]].block = allocator_.alloc_free_block(*block, requested, size);
    return FollowStatus::kFollowed;
  }

  FollowStatus follow_segment_alloc(std::size_t position) {
    if (!is_followed_by(position, Action::kAlloc)) {
      return FollowStatus::kNeedsDecision;
    }
    const std::size_t request = position + 1;
    const bool is_simple = recorded_.pair[request] >= 0 && recorded_.row[request] >= 0 &&
                           events_.address[position] == events_.address[request];
    if (!is_simple || allocator_.config.garbage_collection_bytes) {
      return FollowStatus::kNeedsDecision;
    }
    const Bytes requested = events_.size_bytes[request];
    const Bytes size = round_size(requested, allocator_.config.roundup_power2_divisions);
    BlockPool& pool = allocator_.pool_for(as_index(recorded_.pair[request]), size);
    if (allocator_.find_free_block(pool, size) != nullptr) {
      return FollowStatus::kFitsAlready;
    }
    if (get_allocation_size(size, allocator_.config.large_segment_size) != events_.size_bytes[position]) {
      return FollowStatus::kSegmentSizeDiffers;
    }
    allocator_.count_call(pool);
    Block& block = allocator_.add_segment(pool, events_.address[position], events_.size_bytes[position]);
    rows_[recorded_.row[request]].block = allocator_.alloc_found_block(block, requested, size);
    step_ = 2;
    return FollowStatus::kFollowed;
  }

  FollowStatus follow_free_requested(std::size_t position) {
    Block* const block = block_at(position);
    if (block == nullptr || block->state != BlockState::kAllocated) {
      return FollowStatus::kNotInUse;
    }
    if (block->requested_size != events_.size_bytes[position]) {
      return FollowStatus::kSizeDiffers;
    }
    const bool at_once =
        is_followed_by(position, Action::kFreeCompleted) && recorded_.row[position + 1] == recorded_.row[position];
    if (at_once) {
      rows_[recorded_.row[position]].block = nullptr;
      step_ = 2;
    }
    allocator_.free(*block, !at_once);
    return FollowStatus::kFollowed;
  }

  FollowStatus follow_free_completed(std::size_t position) {
    Block* const block = block_at(position);
    if (block == nullptr) {
      return FollowStatus::kNotInUse;
    }
    if (block->state == BlockState::kPending) {
      allocator_.complete_free(*block);
    } else if (block->state == BlockState::kAllocated && !recorded_.requests_recorded) {
      allocator_.free(*block, false);
    } else {
      return FollowStatus::kNotInUse;
    }
    rows_[recorded_.row[position]].block = nullptr;
    return FollowStatus::kFollowed;
  }

  DeviceCachingAllocator& allocator_;
  Checked<Row> rows_;
  const Events& events_;
  const RecordedEvents& recorded_;
  std::size_t step_ = 1;  // events that the last one took with it, itself included
};

}  // namespace

Followed follow(DeviceCachingAllocator& allocator, const RecordedEvents& recorded, std::size_t position) {
  return Follower(allocator, recorded).from(position);
}

Block& add_old_segment(BlockAllocator& allocator, BlockPool& pool, Address address, Bytes size, bool is_expandable) {
  Block& block = allocator.new_segment(pool, address, size, is_expandable, BlockState::kFree);
  block.segment->is_old = true;
  block.is_old = true;
  return block;
}

Block* settle_old_block(DeviceCachingAllocator& allocator, Block& tail, Bytes size, BlockState state,
                        Bytes requested_size) {
  Block* rest = nullptr;
  if (size < tail.size) {
    rest = &allocator.new_block(*tail.segment, tail.address + size, tail.size - size, BlockState::kFree);
    rest->is_old = true;
    allocator.put_after(*rest, tail);
    tail.size = size;
  }
  if (state == BlockState::kUnmapped) {
    allocator.insert_unmapped(tail);
    return rest;
  }
  allocator.driver.used += size;
  allocator.stats.reserved_bytes.increase(size);
  if (state == BlockState::kFree) {
    allocator.insert_free(tail);
    return rest;
  }
  tail.state = BlockState::kAllocated;
  tail.requested_size = requested_size;
  allocator.count_allocated_bytes(size, requested_size);
  if (state == BlockState::kPending) {
    allocator.free(tail, true);
  }
  return rest;
}

bool shorten_reservation(BlockAllocator& allocator, Segment& segment, Address end) {
  Block* last = segment.head;
  while (last->next != nullptr) {
    last = last->next;
  }
  if (last->state != BlockState::kUnmapped || end < last->address) {
    return false;
  }
  if (end == last->address) {
    if (last->prev == nullptr) {
      return false;
    }
    last->pool->unmapped.erase(*last);
    last->prev->next = nullptr;
    allocator.drop_block(*last);
  } else {
    last->size = end - last->address;
  }
  segment.size = end - segment.address;
  return true;
}

void widen_block(BlockAllocator& allocator, Block& block, Bytes n_bytes) {
  Block& after = *block.next;
  after.pool->blocks.erase(after);
  after.address += n_bytes;
  after.size -= n_bytes;
  // Not insert_free: its age stays what it was.
  after.pool->blocks.insert(after);
  block.size += n_bytes;
  allocator.stats.active_bytes.increase(n_bytes);
  if (block.state == BlockState::kAllocated) {
    allocator.stats.allocated_bytes.increase(n_bytes);
  }
}

Block* free_block_at(BlockAllocator& allocator, Address address) {
  for (Block& block : allocator.blocks) {
    if (block.address == address && block.is_free()) {
      return &block;
    }
  }
  return nullptr;
}

Block* free_block_holding(BlockAllocator& allocator, Address address) {
  for (Block& block : allocator.blocks) {
    if (block.is_free() && block.address <= address && address < block.end()) {
      return &block;
    }
  }
  return nullptr;
}

}  // namespace memscope::caching
