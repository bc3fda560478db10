#include "snapshot/stacks.h"

#include <algorithm>
#include <span>

#include "snapshot/id_table.h"

namespace memscope::snapshot {
namespace {

constexpr std::int32_t kNoStack = -1;

std::vector<std::int64_t> rows_of(const std::vector<bool>& is_box) {
  std::vector<std::int64_t> rows;
  for (std::size_t id = 0; id < is_box.size(); ++id) {
    if (is_box[id]) {
      rows.push_back(Value(Tag::kBox, id).bits());
    }
  }
  return rows;
}

// Numbers chunks by the place of their items: lists of equal items, filled at once, have the same.
class ChunkIds {
 public:
  explicit ChunkIds(const Tape& tape) : secret_(tape.secret()) {}

  std::uint32_t id(const Chunk& chunk) {
    Hash hash(secret_);
    hash.add(chunk.start);
    hash.add(chunk.size);
    const auto is_same = [&](std::uint32_t id) {
      return chunks_.at(id).start == chunk.start && chunks_.at(id).size == chunk.size;
    };
    const std::uint32_t id = ids_.find_or_add(hash.value(), chunks_.size(), is_same);
    if (id == chunks_.size()) {
      chunks_.push_back(chunk);
    }
    return id;
  }
  std::size_t size() const { return chunks_.size(); }

 private:
  std::uint64_t secret_;
  std::vector<Chunk> chunks_;
  IdTable ids_;
};

// Marks the items of a chunk; false if one of them is no box.
bool mark_boxes(const Tape& tape, const Chunk& chunk, std::vector<bool>& is_marked) {
  bool all_are_boxes = true;
  tape.each_piece(chunk, chunk.size, [&](std::span<const Value> piece) {
    for (const Value item : piece) {
      if (item.is(Tag::kBox)) {
        is_marked.at(item.id()) = true;
      } else {
        all_are_boxes = false;
      }
    }
  });
  return all_are_boxes;
}

class StackNumbering {
 public:
  StackNumbering(const Tape& tape, Stacks& stacks, std::vector<std::int32_t> frame_of_box)
      : tape_(tape), stacks_(stacks), frame_of_box_(std::move(frame_of_box)), chunk_ids_(tape) {}

  std::int32_t number(Value list) {
    const Chunk& chunk = tape_.first_chunk(list);
    if (chunk.size == 0) {
      return kNoStack;
    }
    if (chunk.next != 0) {
      return by_content(list);
    }
    const std::uint32_t id = chunk_ids_.id(chunk);
    if (id == stack_of_chunk_.size()) {
      stack_of_chunk_.push_back(by_content(list));
    }
    return stack_of_chunk_.at(id);
  }

 private:
  std::int32_t by_content(Value list) {
    std::vector<std::int32_t>& ids = stacks_.frame_ids;
    const std::size_t start = ids.size();
    Hash hash(tape_.secret());
    tape_.each_chunk(list, [&](const Chunk& chunk) {
      tape_.each_piece(chunk, chunk.size, [&](std::span<const Value> piece) {
        for (const Value frame : piece) {
          ids.push_back(frame_of_box_.at(frame.id()));
          hash.add(static_cast<std::uint64_t>(ids.back()));
        }
      });
      return true;
    });
    const auto mine = std::span(ids).subspan(start);
    const auto is_same = [&](std::uint32_t id) {
      const std::size_t at = as_index(stacks_.offsets.at(id));
      const std::size_t n = as_index(stacks_.offsets.at(id + 1)) - at;
      return n == mine.size() && std::ranges::equal(std::span(ids).subspan(at, n), mine);
    };
    const std::size_t n_stacks = stacks_.offsets.size() - 1;
    const std::uint32_t id = stack_ids_.find_or_add(hash.value(), n_stacks, is_same);
    if (id == n_stacks) {
      stacks_.offsets.push_back(static_cast<std::int64_t>(ids.size()));
    } else {
      ids.resize(start);
    }
    return static_cast<std::int32_t>(id);
  }

  const Tape& tape_;
  Stacks& stacks_;
  std::vector<std::int32_t> frame_of_box_;
  ChunkIds chunk_ids_;
  std::vector<std::int32_t> stack_of_chunk_;
  IdTable stack_ids_;
};

}  // namespace

Boxes sequences_in(const Tape& tape, const std::vector<Int64s>& columns) {
  std::vector<bool> is_list(tape.n_boxes());
  for (const Int64s& column : columns) {
    for (std::size_t i = 0; i < column.size(); ++i) {
      const Value value = Value::from_bits(column[i]);
      if (tape.is_sequence(value)) {
        is_list.at(value.id()) = true;
      } else if (value.is_there()) {
        return {{}, static_cast<std::int64_t>(i)};
      }
    }
  }
  return {rows_of(is_list)};
}

Boxes boxes_in(const Tape& tape, Int64s lists) {
  std::vector<bool> is_item(tape.n_boxes());
  ChunkIds seen(tape);
  for (std::size_t i = 0; i < lists.size(); ++i) {
    bool is_good = true;
    tape.each_chunk(Value::from_bits(lists[i]), [&](const Chunk& chunk) {
      const std::size_t n_seen = seen.size();
      is_good = seen.id(chunk) < n_seen || mark_boxes(tape, chunk, is_item);
      return is_good;
    });
    if (!is_good) {
      return {{}, static_cast<std::int64_t>(i)};
    }
  }
  return {rows_of(is_item)};
}

Stacks number_stacks(const Tape& tape, Int64s lists, Int64s frames, Checked<const std::int32_t> frame_ids) {
  std::vector<std::int32_t> frame_of_box(tape.n_boxes(), -1);
  for (std::size_t i = 0; i < frames.size(); ++i) {
    frame_of_box.at(Value::from_bits(frames[i]).id()) = frame_ids[i];
  }
  Stacks stacks{std::vector<std::int32_t>(tape.n_boxes(), kNoStack), {0}, {}};
  StackNumbering numbering(tape, stacks, std::move(frame_of_box));
  for (const std::int64_t row : lists) {
    const Value list = Value::from_bits(row);
    stacks.stack_of_box.at(list.id()) = numbering.number(list);
  }
  return stacks;
}

std::vector<std::int32_t> stack_ids(const Stacks& stacks, Int64s values) {
  std::vector<std::int32_t> ids(values.size(), kNoStack);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Value value = Value::from_bits(values[i]);
    ids[i] = value.is(Tag::kBox) ? stacks.stack_of_box.at(value.id()) : kNoStack;
  }
  return ids;
}

DenseIds dense_ids(const std::vector<Int64s>& columns, std::uint64_t secret) {
  DenseIds found;
  found.ids.resize(columns.empty() ? 0 : columns.front().size());
  IdTable table;
  for (std::size_t row = 0; row < found.ids.size(); ++row) {
    const auto is_row = [&](std::int64_t other) {
      return std::ranges::all_of(columns, [&](const Int64s& column) { return column[other] == column[row]; });
    };
    if (row > 0 && is_row(static_cast<std::int64_t>(row) - 1)) {
      found.ids[row] = found.ids[row - 1];
      continue;
    }
    Hash hash(secret);
    for (const Int64s& column : columns) {
      hash.add(static_cast<std::uint64_t>(column[row]));
    }
    const auto is_same = [&](std::uint32_t id) { return is_row(found.first_rows.at(id)); };
    const std::uint32_t id = table.find_or_add(hash.value(), found.first_rows.size(), is_same);
    if (id == found.first_rows.size()) {
      found.first_rows.push_back(static_cast<std::int64_t>(row));
    }
    found.ids[row] = static_cast<std::int32_t>(id);
  }
  return found;
}

}  // namespace memscope::snapshot
