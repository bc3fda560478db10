// The values of a pickle: lists, tuples and dicts as runs of eight-byte values, texts and runs kept once.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checked.h"
#include "snapshot/budget.h"
#include "snapshot/id_table.h"
#include "snapshot/paged_vector.h"
#include "snapshot/shapes.h"
#include "snapshot/texts.h"
#include "snapshot/value.h"

namespace memscope::snapshot {

// Items of a box that lie together. The pickler fills boxes in batches, and what is inside is written in between: so a
// box is a list of chunks.
struct Chunk {
  std::uint64_t start : 48 = 0;
  std::uint64_t shape : 16 = Shapes::kPairs;  // of a dict's chunk, whose items are the values alone unless it is kPairs
  std::uint32_t size = 0;
  std::uint32_t next = 0;  // 0 for none

  std::uint64_t end() const { return start + size; }
};

// The items of a list that was filled at once are a run, and equal runs are one: a million events have a list of frames
// each, of a few hundred contents. Tuples never change, so equal ones are one box.
class Tape {
 public:
  // Known texts get the ids 0, 1, ... in their order, so that keys can be looked up by constant ids.
  Tape(const std::vector<std::string>& known_texts, std::uint64_t secret);
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  // Filling.
  Value add_text(Bytes text) { return {Tag::kText, texts_.intern(text)}; }
  Value add_bytes(Bytes bytes) { return {Tag::kBytes, texts_.intern(bytes)}; }
  Value add_wide(std::int64_t bits, WideKind kind);
  Value add_box(BoxKind kind);
  Value add_tuple(std::span<const Value> items) { return add_shared(BoxKind::kTuple, items); }
  // A box that never changes: equal ones are one. A tape has either tuples of this kind or dicts, never both.
  Value add_shared(BoxKind kind, std::span<const Value> items);
  void append(Value list, std::span<const Value> items);
  // Fills an empty list that nothing but the caller refers to, for good: the list with these items, which may be another.
  Value fill(Value list, std::span<const Value> items);
  // Uses the room of a dict of an event again: nothing may refer to it but what `note_stored` was told of.
  void recycle(Value dict);
  void note_stored(Value box) { boxes_[box.id()].is_stored = true; }
  void set_items(Value dict, std::span<const Value> keys_and_values);
  void seal(Value root);
  const std::shared_ptr<Budget>& budget() const { return budget_; }

  // Looking.
  Value root() const { return root_; }
  std::size_t n_boxes() const { return boxes_.size(); }
  const Texts& texts() const { return texts_; }
  const Shapes& shapes() const { return shapes_; }
  Kind kind(Value value) const;
  const Wide& wide(Value value) const { return wide_[value.id()]; }
  std::uint64_t secret() const { return secret_; }
  bool is_box(Value value, BoxKind kind) const {
    return value.is(Tag::kBox) && boxes_[value.id()].kind == kind;
  }
  bool is_stored(Value box) const { return boxes_[box.id()].is_stored; }
  // Whether other places than its own may refer to a list, which is never changed again then.
  bool is_filled(Value list) const { return boxes_[list.id()].is_filled; }
  bool is_sequence(Value value) const { return is_box(value, BoxKind::kList) || is_box(value, BoxKind::kTuple); }

  // The first chunk of a box, of size 0 if it has no items.
  const Chunk& first_chunk(Value box) const { return boxes_[box.id()].first; }
  // Hands every chunk of a box that has items to `use`, in their order, until it returns false.
  template <typename Use>
  void each_chunk(Value box, Use&& use) const {
    const Chunk* chunk = &first_chunk(box);
    while (chunk->size > 0 && use(*chunk) && chunk->next != 0) {
      chunk = &chunks_[chunk->next];
    }
  }
  template <typename Use>
  void each_piece(const Chunk& chunk, std::size_t limit, Use&& use) const {
    items_.each_piece(chunk.start, std::min<std::size_t>(chunk.size, limit), use);
  }
  Value item(std::uint64_t at) const { return items_[at]; }

  // Items that all boxes hold, keys included: what a walk through every box once would pass.
  std::uint64_t n_held_items() const { return n_held_items_; }

 private:
  struct Box {
    Chunk first;
    std::uint32_t last = 0;  // its last chunk, 0 if that is the first
    BoxKind kind = BoxKind::kList;
    bool is_stored = false;
    bool is_filled = false;
  };
  struct Run {
    std::uint64_t start = 0;
    std::uint32_t size = 0;
    std::uint32_t box = 0;  // the shared box with these items, its id + 1
  };

  Chunk& last_chunk(Box& box) { return box.last == 0 ? box.first : chunks_[box.last]; }
  bool can_extend(const Chunk& chunk, std::size_t n) const;
  Chunk& add_chunk(Box& box);
  Run& intern_run(std::span<const Value> items);
  bool set_shaped(Box& box, std::span<const Value> keys_and_values);
  void set_pairs(Box& box, std::span<const Value> keys_and_values);
  void free_box(Value box);
  std::optional<std::uint64_t> free_place(std::size_t n_items);

  std::shared_ptr<Budget> budget_ = std::make_shared<Budget>();
  std::uint64_t secret_;
  Texts texts_;
  Shapes shapes_;
  PagedVector<Value> items_;
  PagedVector<Box> boxes_;
  PagedVector<Chunk> chunks_;
  PagedVector<Run> runs_;
  PagedVector<Wide> wide_;
  IdTable run_ids_;
  std::vector<std::uint32_t> free_boxes_;
  std::array<std::vector<std::uint64_t>, Shapes::kMaxKeys + 1> free_places_;  // of items, by how many
  std::uint64_t n_held_items_ = 0;
  Value root_;
};

}  // namespace memscope::snapshot
