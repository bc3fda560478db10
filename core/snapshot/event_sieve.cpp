#include "snapshot/event_sieve.h"

#include <limits>
#include <utility>

namespace memscope::snapshot {
namespace {

constexpr caching::Bytes kMaxBytes = caching::Bytes{1} << 50;  // more than any device has

[[noreturn]] void refuse() { throw Refused(Status::kNotSliced); }

std::int64_t integer(Value value) {
  if (!value.is(Tag::kInteger)) {
    refuse();
  }
  return value.number();
}

Value key_of(std::int64_t text_id) { return {Tag::kText, as_index(text_id)}; }

}  // namespace

EventSieve::EventSieve(EventWords words, const std::vector<std::int64_t>& actions) : words_(words) {
  for (std::size_t action = 0; action < actions.size(); ++action) {
    action_of_text_[as_index(actions[action])] = static_cast<Action>(action);
  }
}

Value EventSieve::text_of(EventWord word) const { return key_of(words_.at(static_cast<std::size_t>(word))); }

void EventSieve::want(std::size_t device, WantedPart part) {
  if (device >= devices_.size()) {
    devices_.resize(device + 1);
  }
  devices_[device].part = std::move(part);
  has_parts_ = true;
}

std::optional<std::size_t> EventSieve::device_of(const Tape& tape, Value list, std::span<const Value> below) {
  if (list == list_) {
    return device_;
  }
  std::size_t n_lists = 0;  // the outer one among them
  while (n_lists < below.size() && tape.is_box(below[below.size() - 1 - n_lists], BoxKind::kList)) {
    ++n_lists;
  }
  if (n_lists == 0 || n_lists == below.size() ||
      below[below.size() - 1 - n_lists] != text_of(EventWord::kDeviceTraces)) {
    return std::nullopt;
  }
  const Value outer = below[below.size() - n_lists];
  if ((outer_ != Value() && outer != outer_) || tape.first_chunk(outer).next != 0) {
    refuse();  // several snapshots, or more devices than any machine has
  }
  outer_ = outer;
  list_ = list;
  device_ = tape.first_chunk(outer).size + n_lists - 1;
  if (device_ >= devices_.size()) {
    devices_.resize(device_ + 1);
  }
  if (devices_[device_].counts.n_events > 0) {
    refuse();
  }
  return device_;
}

void EventSieve::take(Tape& tape, Value list, std::size_t device, std::span<const Value> events) {
  Followed& followed = devices_.at(device);
  for (const Value& value : events) {
    const Event event = look_at(tape, value, followed.counts);
    if (keeps(followed, event.action)) {
      followed.kept.push_back(followed.counts.n_events);
      tape.append(list, std::span(&value, 1));
    } else {
      tape.recycle(value);
    }
    follow(followed, event);
    ++followed.counts.n_events;
  }
}

bool EventSieve::is_seen(const Tape& tape, std::int64_t key) const {
  for (std::size_t shape = 0; shape < positions_.size(); ++shape) {
    if (positions_[shape] && tape.shapes().position(static_cast<ShapeId>(shape), key_of(key))) {
      return true;
    }
  }
  return false;
}

EventSieve::Event EventSieve::look_at(const Tape& tape, Value value, EventCounts& counts) {
  if (!tape.is_box(value, BoxKind::kDict)) {
    refuse();
  }
  const Chunk& chunk = tape.first_chunk(value);
  if (chunk.size == 0 || chunk.next != 0 || chunk.shape == Shapes::kPairs) {
    refuse();
  }
  const Positions& at = positions(tape, static_cast<ShapeId>(chunk.shape));
  const auto field = [&](const std::optional<std::size_t>& position) {
    return position ? tape.item(chunk.start + *position) : Value();
  };
  Event event{.action = action_of(field(at.action)), .size = integer(field(at.size)), .frames = field(at.frames)};
  if (tape.is_box(event.frames, BoxKind::kList) && tape.first_chunk(event.frames).size == 0) {
    event.frames = Value();  // an empty list's place may be used again
  }
  note_time(counts, field(at.time_us));
  check_pool(tape, field(at.pool_id));
  const bool is_of_memory = event.action <= Action::kSegmentUnmap;
  if (is_of_memory) {
    event.address = integer(field(at.addr));
    if (event.address < 0 || event.size <= 0 || event.size > kMaxBytes) {
      refuse();
    }
  }
  return event;
}

const EventSieve::Positions& EventSieve::positions(const Tape& tape, ShapeId shape) {
  if (shape >= positions_.size()) {
    positions_.resize(std::size_t{shape} + 1);
  }
  std::optional<Positions>& found = positions_[shape];
  if (!found) {
    const auto at = [&](EventWord word) { return tape.shapes().position(shape, text_of(word)); };
    found = Positions{at(EventWord::kAction), at(EventWord::kAddr),   at(EventWord::kSize),
                      at(EventWord::kTimeUs), at(EventWord::kPoolId), at(EventWord::kFrames)};
  }
  return *found;
}

Action EventSieve::action_of(Value text) const {
  const auto action = text.is(Tag::kText) ? action_of_text_.find(text.id()) : action_of_text_.end();
  if (action == action_of_text_.end()) {
    refuse();
  }
  return action->second;
}

// A private pool may hand out whole blocks only, which what it hands out proves over all events.
void EventSieve::check_pool(const Tape& tape, Value pool) {
  if (pool == pool_ || !pool.is_there()) {
    return;
  }
  const Value zero = Value::integer(0);
  const bool is_default = tape.is_sequence(pool) && tape.first_chunk(pool).size == 2 &&
                          tape.item(tape.first_chunk(pool).start) == zero &&
                          tape.item(tape.first_chunk(pool).start + 1) == zero;
  if (!is_default) {
    refuse();
  }
  pool_ = tape.is_box(pool, BoxKind::kTuple) ? pool : Value();  // a list's place may be used again
}

void EventSieve::note_time(EventCounts& counts, Value value) const {
  const std::int64_t time = value.is_there() ? integer(value) : -1;
  if (time < 0) {
    ++counts.n_without_time;
  }
  if (counts.n_events == 0) {
    counts.first_time = time;
  } else if (time < counts.last_time) {
    ++counts.n_times_back;
  }
  counts.last_time = time;
}

bool EventSieve::keeps(const Followed& device, Action action) const {
  if (!has_parts_) {
    return makes_segment(action) || ends_segment(action);
  }
  const std::int64_t place = device.counts.n_events;
  return device.part && device.part->begin - 1 <= place && place <= device.part->end;
}

void EventSieve::follow(Followed& device, const Event& event) {
  EventCounts& counts = device.counts;
  const bool is_of_segment = makes_segment(event.action) || ends_segment(event.action);
  if (!has_parts_ || (device.part && counts.n_events < device.part->end)) {
    if (event.action == Action::kAlloc) {
      allocate(device, event);
    } else if (event.action == Action::kFreeRequested || event.action == Action::kFreeCompleted) {
      free_block(device, event);
    } else if (is_of_segment && device.part) {
      change_segments(device, event);
    }
  }
  counts.n_segment_events += is_of_segment ? 1 : 0;
  counts.n_allocs += event.action == Action::kAlloc ? 1 : 0;
  counts.n_requests += event.action == Action::kFreeRequested ? 1 : 0;
  counts.n_completions += event.action == Action::kFreeCompleted ? 1 : 0;
}

void EventSieve::allocate(Followed& device, const Event& event) {
  InUse made{.requested_bytes = event.size, .frames = event.frames};
  if (device.part) {
    WantedPart& part = *device.part;
    const caching::Bytes rounded = caching::round_size(event.size, part.roundup_divisions);
    const lifetimes::Range* const range = part.free.find(event.address);
    if (range == nullptr || range->start != event.address || range->size() < rounded) {
      refuse();
    }
    const bool splits = caching::should_split(range->size(), rounded, part.max_split_size, part.expandable_segments);
    made.block_bytes = splits ? rounded : range->size();
    made.key = range->key;
    part.free.remove(event.address, event.address + made.block_bytes);
  }
  if (!device.in_use.emplace(event.address, made).second) {
    refuse();
  }
}

void EventSieve::free_block(Followed& device, const Event& event) {
  const auto found = device.in_use.find(event.address);
  const bool is_completed = event.action == Action::kFreeCompleted;
  if (found == device.in_use.end() || found->second.requested_bytes != event.size ||
      found->second.is_pending != is_completed) {
    refuse();
  }
  if (!is_completed) {
    found->second.is_pending = true;
    return;
  }
  if (device.part) {
    const InUse& freed = found->second;
    if (!device.part->free.insert({event.address, event.address + freed.block_bytes, freed.key})) {
      refuse();
    }
  }
  device.in_use.erase(found);
}

void EventSieve::change_segments(Followed& device, const Event& event) {
  WantedPart& part = *device.part;
  const lifetimes::Key key = part.segment_event_keys.at(as_index(device.counts.n_segment_events));
  const caching::Address end = event.address + event.size;
  const bool fits = makes_segment(event.action) ? part.free.insert({event.address, end, key})
                                                : part.free.remove(event.address, end);
  if (!fits) {
    refuse();
  }
}

}  // namespace memscope::snapshot
