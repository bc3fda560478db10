// Expandable segments: reservations of addresses into which memory is mapped handle by handle.
#include <algorithm>

#include "caching/device_caching_allocator.h"

namespace memscope::caching {
namespace {

bool has_available_address_space(const Block* block, Bytes n_bytes) {
  Bytes total = 0;
  for (; block != nullptr && (block->is_free() || block->state == BlockState::kUnmapped); block = block->next) {
    total += block->size;
    if (total >= n_bytes) {
      return true;
    }
  }
  return false;
}

}  // namespace

Block& DeviceCachingAllocator::add_reservation(BlockPool& pool, Address address, Bytes n_bytes) {
  Block& block = new_segment(pool, address, n_bytes, true, BlockState::kUnmapped);
  ++stats.num_reservations;
  insert_unmapped(block);
  return block;
}

Block& DeviceCachingAllocator::next_reservation(BlockPool& pool) {
  const Bytes n_bytes = reservation_size(pool);
  const Address address = round_up(driver.next_address, config.reservation_alignment);
  driver.next_address = address + n_bytes + config.reservation_gap;
  return add_reservation(pool, address, n_bytes);
}

Block* DeviceCachingAllocator::find_expandable_block(const BlockPool& pool, Bytes size) const {
  for (Block* unmapped = pool.unmapped.first(); unmapped != nullptr; unmapped = pool.unmapped.next(*unmapped)) {
    const bool follows_free = unmapped->prev != nullptr && unmapped->prev->is_free();
    Block* const candidate = follows_free ? unmapped->prev : unmapped;
    if (has_available_address_space(candidate, size)) {
      return candidate;
    }
  }
  return nullptr;
}

bool DeviceCachingAllocator::map_block(Block& block, Bytes n_bytes) {
  BlockPool& pool = *block.pool;
  const Bytes handle = handle_size(pool);
  const Bytes mapped = round_up(n_bytes, handle);
  if (!driver.has(mapped)) {
    return false;
  }
  pool.unmapped.erase(block);
  const Address address = block.address;
  if (block.size > mapped) {
    Block& rest = new_block(*block.segment, address + mapped, block.size - mapped, BlockState::kUnmapped);
    put_after(rest, block);
    insert_unmapped(rest);
  }
  block.size = mapped;
  block.state = BlockState::kFree;
  try_merge_blocks(block);
  insert_free(block);
  take_from_driver(mapped);
  ++stats.num_map_calls;
  stats.num_mapped_handles += mapped / handle;
  record_trace(Action::kSegmentMap, address, mapped, pool);
  return true;
}

Block* DeviceCachingAllocator::try_allocate_expandable_block(BlockPool& pool, Bytes size) {
  Block* candidate = find_expandable_block(pool, size);
  if (candidate == nullptr) {
    candidate = &next_reservation(pool);
    if (candidate->size < size) {
      return nullptr;
    }
  }
  if (candidate->state == BlockState::kUnmapped && !map_block(*candidate, std::min(candidate->size, size))) {
    return nullptr;
  }
  while (candidate->size < size) {
    // What follows it is unmapped, and survives the merge.
    Block* const neighbour = candidate->next;
    if (neighbour == nullptr || neighbour->state != BlockState::kUnmapped) {
      return nullptr;
    }
    if (!map_block(*neighbour, std::min(size - candidate->size, neighbour->size))) {
      return nullptr;
    }
    candidate = neighbour;
  }
  pool.blocks.erase(*candidate);
  return candidate;
}

DeviceCachingAllocator::Range DeviceCachingAllocator::whole_handles(const Block& block) const {
  const Address base = block.segment->address;
  const Bytes handle = handle_size(*block.pool);
  return {base + round_up(block.address - base, handle), base + (block.end() - base) / handle * handle};
}

bool DeviceCachingAllocator::unmap_block(Block& block) {
  BlockPool& pool = *block.pool;
  Segment& segment = *block.segment;
  const auto [from, to] = whole_handles(block);
  if (to <= from) {
    return false;
  }
  pool.blocks.erase(block);
  if (from > block.address) {
    Block& before = new_block(segment, block.address, from - block.address, BlockState::kFree);
    put_before(before, block);
    insert_free(before);
  }
  if (block.end() > to) {
    Block& after = new_block(segment, to, block.end() - to, BlockState::kFree);
    put_after(after, block);
    insert_free(after);
  }
  block.address = from;
  block.size = to - from;
  block.state = BlockState::kUnmapped;
  try_merge_blocks(block);
  insert_unmapped(block);
  give_to_driver(to - from);
  ++stats.num_unmap_calls;
  stats.num_unmapped_handles += (to - from) / handle_size(pool);
  record_trace(Action::kSegmentUnmap, from, to - from, pool);
  if (!block.is_split()) {
    pool.unmapped.erase(block);
    drop_segment(segment);
    drop_block(block);
    ++stats.num_reservations_dropped;
  }
  return true;
}

}  // namespace memscope::caching
