// What the events of a recording are, for every subject.
#pragma once

#include <cstdint>

#include "checked.h"

namespace memscope {

// The numbers are those of memscope.trace.schema.Action.
enum class Action : std::int8_t {
  kAlloc = 0,
  kFreeRequested = 1,
  kFreeCompleted = 2,
  kSegmentAlloc = 3,
  kSegmentFree = 4,
  kSegmentMap = 5,
  kSegmentUnmap = 6,
  kOom = 7,
  kSnapshot = 8,
  kAnnotate = 9,
};

constexpr bool makes_segment(Action action) {
  return action == Action::kSegmentAlloc || action == Action::kSegmentMap;
}
constexpr bool ends_segment(Action action) {
  return action == Action::kSegmentFree || action == Action::kSegmentUnmap;
}

// The events of one device, in order.
struct Events {
  Checked<const std::int8_t> action_number;
  Int64s address;
  Int64s size_bytes;

  std::size_t size() const { return action_number.size(); }
  Action action(std::size_t event) const { return static_cast<Action>(action_number[event]); }
  // Where the memory that an event is about ends.
  std::int64_t end(std::size_t event) const { return wrapping_add(address[event], size_bytes[event]); }
};

}  // namespace memscope
