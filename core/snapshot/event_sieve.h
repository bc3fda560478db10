// The events of a snapshot, looked at as they are read: a part of them is kept, of all others only what is in use.
//
// A snapshot's events are most of it, and one of a thousand may be wanted. What the allocator's state was before the
// wanted ones follows from all events before, and needs no more memory than what was in use at once.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "caching/rules.h"
#include "checked.h"
#include "events.h"
#include "lifetimes/ranges.h"
#include "lifetimes/segments.h"
#include "snapshot/tape.h"

namespace memscope::snapshot {

// The text ids of the words that are looked for, in this order.
enum class EventWord : std::uint8_t { kDeviceTraces = 0, kAction, kAddr, kSize, kTimeUs, kPoolId, kFrames };
using EventWords = std::array<std::int64_t, 7>;

// What was allocated and is not free yet.
struct InUse {
  caching::Bytes requested_bytes = 0;
  caching::Bytes block_bytes = 0;
  lifetimes::Key key = lifetimes::kNone;
  bool is_pending = false;
  Value frames;
};

// Events [begin, end) of a device, and what must be known to follow its free ranges up to there.
struct WantedPart {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  lifetimes::Ranges free;                          // before the first event
  std::vector<lifetimes::Key> segment_event_keys;  // of each event that makes or ends a segment, in order
  caching::RoundupDivisions roundup_divisions{};
  caching::Bytes max_split_size = caching::kUnlimited;
  bool expandable_segments = false;
};

// What is told of all events of a device.
struct EventCounts {
  std::int64_t n_events = 0;
  std::int64_t n_segment_events = 0;
  std::int64_t n_allocs = 0;
  std::int64_t n_requests = 0;     // of frees
  std::int64_t n_completions = 0;  // of frees
  std::int64_t n_times_back = 0;   // events that are earlier than the one before
  std::int64_t n_without_time = 0;
  std::int64_t first_time = 0;
  std::int64_t last_time = 0;
};

// Without parts (an outline) the events that make or end segments are kept; with parts, their events and the one on
// either side. Whatever is not as a sound recording has it, or can only be told by looking at every event at once, is
// refused with kNotSliced: a free of what was never allocated, a private pool, a block where nothing was free.
class EventSieve {
 public:
  // `actions` are text ids, in the order of the numbers of actions.
  EventSieve(EventWords words, const std::vector<std::int64_t>& actions);

  // Before reading.
  void want(std::size_t device, WantedPart part);

  // The device whose list of events this is: what lies below it on the stack says so.
  std::optional<std::size_t> device_of(const Tape& tape, Value list, std::span<const Value> below);
  // The next events of a device's list. Those that are not kept are given back to the tape.
  void take(Tape& tape, Value list, std::size_t device, std::span<const Value> events);

  // After reading.
  std::size_t n_devices() const { return devices_.size(); }
  Value outer_list() const { return outer_; }
  const EventCounts& counts(std::size_t device) const { return devices_.at(device).counts; }
  // Places of the events kept, in the device's list.
  const std::vector<std::int64_t>& kept(std::size_t device) const { return devices_.at(device).kept; }
  // What is in use after the part's last event, or after all events, by address.
  const std::unordered_map<caching::Address, InUse>& in_use(std::size_t device) const {
    return devices_.at(device).in_use;
  }
  // Whether an event, kept or not, has a key.
  bool is_seen(const Tape& tape, std::int64_t key) const;

 private:
  struct Followed {
    EventCounts counts;
    std::vector<std::int64_t> kept;
    std::unordered_map<caching::Address, InUse> in_use;
    std::optional<WantedPart> part;
  };
  struct Positions {
    std::optional<std::size_t> action, addr, size, time_us, pool_id, frames;
  };
  struct Event {
    Action action = Action::kAlloc;
    caching::Address address = 0;
    caching::Bytes size = 0;
    Value frames;
  };

  Event look_at(const Tape& tape, Value event, EventCounts& counts);
  Value text_of(EventWord word) const;
  const Positions& positions(const Tape& tape, ShapeId shape);
  Action action_of(Value text) const;
  void check_pool(const Tape& tape, Value pool);
  void note_time(EventCounts& counts, Value time) const;
  bool keeps(const Followed& device, Action action) const;
  void follow(Followed& device, const Event& event);
  void allocate(Followed& device, const Event& event);
  void free_block(Followed& device, const Event& event);
  void change_segments(Followed& device, const Event& event);

  EventWords words_;
  std::unordered_map<std::uint64_t, Action> action_of_text_;
  std::vector<std::optional<Positions>> positions_;  // by shape
  std::vector<Followed> devices_;
  bool has_parts_ = false;
  Value outer_;
  Value list_;  // the last that was asked for, and whose it is
  std::size_t device_ = 0;
  Value pool_;  // the last that was looked at
};

}  // namespace memscope::snapshot
