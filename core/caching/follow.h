// Following a recording: each event is done as recorded, as long as the allocator would have done the same.
//
// The addresses of segments and the moments of deferred frees are taken from the recording; what the allocator decides
// itself must be what was recorded. Where it is not, or where the event is of a kind that is decided outside, following
// stops and says why.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "caching/device_caching_allocator.h"
#include "checked.h"
#include "events.h"

namespace memscope::caching {

enum class FollowStatus : std::uint8_t {
  kFollowed,           // all events were
  kNeedsDecision,      // the event is one of a kind that is decided outside, or its pool is not known
  kFitsElsewhere,      // the recording allocated at another address than the block the allocator takes
  kFitsNowhere,        // the recording allocated from a free block, the allocator finds none
  kFitsAlready,        // the recording asked the driver, the allocator finds a free block
  kSegmentSizeDiffers,
  kNotInUse,           // the recording frees what is not allocated, or completes a free that was not requested
  kSizeDiffers,
  kActiveBytesDiffer,
};

// A recording's events, and what is known beside them, (n,) each: the pair of pool and stream, -1 where it is not
// known, and the row of the allocation that an event makes or frees, -1 for none.
struct RecordedEvents {
  Events events;
  Int64s pair;
  Int64s row;
  bool requests_recorded;  // whether there are free_requested events; without, a completed free is the whole free
};

struct Followed {
  std::size_t position;  // the first event that was not done
  FollowStatus status;
};

// Does events from a position on. O(log n) in the free blocks for each.
Followed follow(DeviceCachingAllocator& allocator, const RecordedEvents& recorded, std::size_t position);

// What stood before the first event.

// A segment; its block is in no set and covers all of it.
Block& add_old_segment(BlockAllocator& allocator, BlockPool& pool, Address address, Bytes size, bool is_expandable);
// Gives the front of a segment's last block a state and counts it; returns what is left of it, nullptr for nothing.
Block* settle_old_block(DeviceCachingAllocator& allocator, Block& tail, Bytes size, BlockState state,
                        Bytes requested_size);

// What a recording tells later of what stood before it.

// Lets a reservation end earlier, if nothing is mapped beyond that; whether it could.
bool shorten_reservation(BlockAllocator& allocator, Segment& segment, Address end);
// Lets a block in use reach so far into the free block after it.
void widen_block(BlockAllocator& allocator, Block& block, Bytes n_bytes);

// For the rare cases, O(blocks): the free block that begins at an address, and the one that holds it.
Block* free_block_at(BlockAllocator& allocator, Address address);
Block* free_block_holding(BlockAllocator& allocator, Address address);

}  // namespace memscope::caching
