// Allocs paired with their frees, by address.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "events.h"

namespace memscope::lifetimes {

// One row for each allocation seen; events are positions, -1 for none.
struct Pairs {
  std::vector<std::int64_t> alloc_event;           // -1: it predates the events
  std::vector<std::int64_t> free_requested_event;
  std::vector<std::int64_t> free_event;            // -1: its free never completed
  std::vector<std::int64_t> address;
  std::vector<std::int64_t> requested_bytes;
};

enum class Contradiction : std::uint8_t { kAllocatedTwice, kFreedTwice, kFreeSizeDiffers };

struct ContradictoryEvent {
  Contradiction contradiction;
  std::int64_t event;
};

struct Pairing {
  Pairs pairs;
  std::int64_t n_unmatched_frees = 0;  // their alloc was not seen
  std::int64_t n_implied_frees = 0;    // allocs that found their address still open
  std::optional<ContradictoryEvent> first_contradiction;
};

// What a recording leaves out.
struct Recorded {
  bool allocs;       // if not, frees without one prove nothing
  bool completions;  // if not, a request closes
};

// O(n).
Pairing pair_events(const Events& events, Recorded recorded);

}  // namespace memscope::lifetimes
