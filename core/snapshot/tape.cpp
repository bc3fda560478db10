#include "snapshot/tape.h"

#include <limits>

namespace memscope::snapshot {
namespace {

constexpr std::size_t kMaxId = std::numeric_limits<std::uint32_t>::max();
constexpr std::uint64_t kMaxItems = (std::uint64_t{1} << 48) - 1;

std::uint32_t as_id(std::size_t n) {
  if (n >= kMaxId) {
    throw Refused(Status::kTooMuchMemory);
  }
  return static_cast<std::uint32_t>(n);
}

Kind kind_of(BoxKind kind) {
  return kind == BoxKind::kDict ? Kind::kDict : kind == BoxKind::kList ? Kind::kList : Kind::kTuple;
}

Kind kind_of(WideKind kind) {
  switch (kind) {
    case WideKind::kFloat:
      return Kind::kFloat;
    case WideKind::kFloatText:
      return Kind::kFloatText;
    case WideKind::kBeyond:
      return Kind::kBeyondInteger;
    default:
      return Kind::kInteger;
  }
}

// Places have 48 bits, which no memory reaches; the mask says so to the compiler.
void place(Chunk& chunk, std::uint64_t start, std::uint32_t size, ShapeId shape) {
  chunk.start = start & kMaxItems;
  chunk.size = size;
  chunk.shape = shape;
}

}  // namespace

Tape::Tape(const std::vector<std::string>& known_texts, std::uint64_t secret)
    : secret_(secret),
      texts_(budget_, secret),
      shapes_(secret),
      items_(budget_),
      boxes_(budget_),
      chunks_(budget_),
      runs_(budget_),
      wide_(budget_),
      run_ids_(budget_) {
  chunks_.push_back({});  // id 0 is none
  for (const std::string& text : known_texts) {
    texts_.intern(Bytes(reinterpret_cast<const std::uint8_t*>(text.data()), text.size()));
  }
}

Value Tape::add_wide(std::int64_t bits, WideKind kind) {
  wide_.push_back({bits, kind});
  return {Tag::kWide, wide_.size() - 1};
}

Value Tape::add_box(BoxKind kind) {
  if (!free_boxes_.empty()) {
    const std::uint32_t id = free_boxes_.back();
    free_boxes_.pop_back();
    boxes_[id] = {.first = {}, .last = 0, .kind = kind};
    return {Tag::kBox, id};
  }
  boxes_.push_back({.first = {}, .last = 0, .kind = kind});
  return {Tag::kBox, as_id(boxes_.size()) - 1};
}

Value Tape::add_shared(BoxKind kind, std::span<const Value> items) {
  n_held_items_ += items.size();
  Run& run = intern_run(items);
  if (run.box == 0) {
    const Value box = add_box(kind);
    place(boxes_[box.id()].first, run.start, run.size, Shapes::kPairs);
    run.box = as_id(box.id() + 1);
  }
  return {Tag::kBox, run.box - 1};
}

void Tape::append(Value list, std::span<const Value> items) {
  if (items.empty()) {
    return;
  }
  n_held_items_ += items.size();
  Box& box = boxes_[list.id()];
  Chunk& last = last_chunk(box);
  if (last.size == 0) {
    const Run& run = intern_run(items);
    place(last, run.start, run.size, Shapes::kPairs);
  } else if (can_extend(last, items.size())) {
    items_.append(items);
    last.size += as_id(items.size());
  } else {
    place(add_chunk(box), items_.size(), as_id(items.size()), Shapes::kPairs);
    items_.append(items);
  }
}

Value Tape::fill(Value list, std::span<const Value> items) {
  n_held_items_ += items.size();
  Run& run = intern_run(items);
  if (run.box == 0) {
    Box& box = boxes_[list.id()];
    place(box.first, run.start, run.size, Shapes::kPairs);
    box.is_filled = true;
    run.box = as_id(list.id() + 1);
  }
  const Value same{Tag::kBox, run.box - 1};
  if (!is_box(same, BoxKind::kList)) {  // a tuple
    place(boxes_[list.id()].first, run.start, run.size, Shapes::kPairs);
    return list;
  }
  if (same != list) {
    free_box(list);
  }
  return same;
}

void Tape::recycle(Value dict) {
  const Box& box = boxes_[dict.id()];
  const Chunk chunk = box.first;
  if (box.kind != BoxKind::kDict || box.is_stored || chunk.next != 0 || chunk.shape == Shapes::kPairs) {
    return;
  }
  for (std::uint64_t at = chunk.start; at < chunk.end(); ++at) {
    const Value item = items_[at];
    const bool is_empty_list = is_box(item, BoxKind::kList) && first_chunk(item).size == 0;
    if (is_empty_list && !is_stored(item) && !is_filled(item)) {
      free_box(item);
      items_[at] = Value();
    }
  }
  std::vector<std::uint64_t>& places = free_places_.at(chunk.size);
  make_room(places, *budget_);
  places.push_back(chunk.start);
  free_box(dict);
}

void Tape::free_box(Value box) {
  boxes_[box.id()] = {};
  make_room(free_boxes_, *budget_);
  free_boxes_.push_back(static_cast<std::uint32_t>(box.id()));
}

std::optional<std::uint64_t> Tape::free_place(std::size_t n_items) {
  std::vector<std::uint64_t>& places = free_places_.at(n_items);
  if (places.empty()) {
    return std::nullopt;
  }
  const std::uint64_t start = places.back();
  places.pop_back();
  return start;
}

void Tape::set_items(Value dict, std::span<const Value> keys_and_values) {
  if (keys_and_values.empty()) {
    return;
  }
  n_held_items_ += keys_and_values.size();
  Box& box = boxes_[dict.id()];
  if (!set_shaped(box, keys_and_values)) {
    set_pairs(box, keys_and_values);
  }
}

void Tape::seal(Value root) {
  root_ = root;
  texts_.seal();
  run_ids_.clear();
  free_boxes_ = {};
  free_places_ = {};
}

Kind Tape::kind(Value value) const {
  switch (value.tag()) {
    case Tag::kInteger:
      return Kind::kInteger;
    case Tag::kText:
      return Kind::kText;
    case Tag::kBytes:
      return Kind::kBytes;
    case Tag::kBox:
      return kind_of(boxes_[value.id()].kind);
    case Tag::kWide:
      return kind_of(wide(value).kind);
    case Tag::kConstant:
      return value.is_there() ? Kind::kBoolean : Kind::kNothing;
    case Tag::kNone:
      break;
  }
  return Kind::kNothing;
}

// Items may be added behind a chunk that ends where everything ends. A run that shares its items is not touched by it.
bool Tape::can_extend(const Chunk& chunk, std::size_t n) const {
  return chunk.size > 0 && chunk.end() == items_.size() && n < kMaxId - chunk.size;
}

Chunk& Tape::add_chunk(Box& box) {
  const std::uint32_t id = as_id(chunks_.size());
  chunks_.push_back({});
  last_chunk(box).next = id;
  box.last = id;
  return chunks_[id];
}

Tape::Run& Tape::intern_run(std::span<const Value> items) {
  Hash hash(secret_);
  for (const Value item : items) {
    hash.add(static_cast<std::uint64_t>(item.bits()));
  }
  const auto is_same = [&](std::uint32_t id) {
    return runs_[id].size == items.size() && items_.has_at(runs_[id].start, items);
  };
  const std::uint32_t id = run_ids_.find_or_add(hash.value(), runs_.size(), is_same);
  if (id == runs_.size()) {
    runs_.push_back({.start = items_.size(), .size = as_id(items.size()), .box = 0});
    items_.append(items);
  }
  return runs_[id];
}

// Sets the values in one chunk of a shape; does nothing and returns false if there is none for all these keys.
bool Tape::set_shaped(Box& box, std::span<const Value> keys_and_values) {
  const std::size_t n = keys_and_values.size() / 2;
  if (n > Shapes::kMaxKeys) {
    return false;
  }
  const Chunk& last = last_chunk(box);
  const bool extends =
      last.shape != Shapes::kPairs && can_extend(last, n) && last.size + n <= Shapes::kMaxKeys;
  const auto shape =
      shapes_.with(extends ? static_cast<ShapeId>(last.shape) : Shapes::kEmpty, keys_and_values);
  if (!shape) {
    return false;
  }
  const std::optional<std::uint64_t> free = extends ? std::nullopt : free_place(n);
  const std::uint64_t start = extends ? std::uint64_t{last.start} : free.value_or(items_.size());
  Chunk& chunk = extends || last.size == 0 ? last_chunk(box) : add_chunk(box);
  place(chunk, start, (extends ? chunk.size : 0) + as_id(n), *shape);
  if (free) {
    for (std::size_t i = 0; i < n; ++i) {
      items_[start + i] = keys_and_values[2 * i + 1];
    }
    return true;
  }
  items_.append(n, [item = keys_and_values.begin()](std::span<Value> piece) mutable {
    for (Value& value : piece) {
      value = *++item;
      ++item;
    }
  });
  return true;
}

void Tape::set_pairs(Box& box, std::span<const Value> keys_and_values) {
  Chunk& last = last_chunk(box);
  if (last.shape == Shapes::kPairs && can_extend(last, keys_and_values.size())) {
    last.size += as_id(keys_and_values.size());
  } else {
    Chunk& chunk = last.size == 0 ? last : add_chunk(box);
    place(chunk, items_.size(), as_id(keys_and_values.size()), Shapes::kPairs);
  }
  items_.append(keys_and_values);
}

}  // namespace memscope::snapshot
