#include "snapshot/tables.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <span>
#include <utility>

namespace memscope::snapshot {
namespace {

constexpr std::uint64_t kFreeItems = 1 << 20;
constexpr std::uint64_t kBytesPerRow = 128;  // of the columns that are made of an event
constexpr std::uint64_t kBytesPerItem = 16;  // of a list's items, and their lengths
constexpr std::uint64_t kMaxPlaces = 4;  // in which one item may stand, on average

Value key_of(std::int64_t text_id) { return {Tag::kText, as_index(text_id)}; }

// Counts what is walked through, and ends what would never end.
class Walk {
 public:
  Walk(const Tape& tape, std::size_t n_rows)
      : left_(std::max(kFreeItems, kMaxPlaces * tape.n_held_items()) + n_rows) {}

  void pass(std::uint64_t n) {
    if (n > left_) {
      throw Multiplies();
    }
    left_ -= n;
  }

 private:
  std::uint64_t left_;
};

// Where each shape has the value of a key.
class Column {
 public:
  Column(const Tape& tape, std::int64_t key) : tape_(tape), key_(key_of(key)) {
    for (std::size_t shape = 0; shape < tape.shapes().size(); ++shape) {
      positions_.push_back(tape.shapes().position(static_cast<ShapeId>(shape), key_));
    }
  }

  // The value that a dict has, none if it has not the key.
  Value operator[](std::int64_t row) const {
    Value found;
    tape_.each_chunk(Value::from_bits(row), [&](const Chunk& chunk) {
      if (chunk.shape == Shapes::kPairs) {
        look_through(chunk, found);
      } else if (const auto& position = positions_.at(chunk.shape)) {
        found = tape_.item(chunk.start + *position);
      }
      return true;
    });
    return found;
  }

 private:
  void look_through(const Chunk& chunk, Value& found) const {
    for (std::uint64_t at = chunk.start; at + 1 < chunk.end(); at += 2) {
      if (tape_.item(at) == key_) {
        found = tape_.item(at + 1);
      }
    }
  }

  const Tape& tape_;
  Value key_;
  std::vector<std::optional<std::size_t>> positions_;
};

// Calls use(i, value) for each row that has something other than None; use returns false for a bad one.
template <typename Use>
std::int64_t each_value(const Tape& tape, Int64s rows, std::int64_t key, Use&& use) {
  const Column column(tape, key);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Value value = column[rows[i]];
    if (value.is_there() && !use(i, value)) {
      return static_cast<std::int64_t>(i);
    }
  }
  return kNoRow;
}

std::optional<std::int64_t> as_int64(const Tape& tape, Value value, bool wrap) {
  if (value.is(Tag::kInteger)) {
    return value.number();
  }
  if (value.is(Tag::kWide)) {
    const Wide& wide = tape.wide(value);
    if (wide.kind == WideKind::kInt64 || (wrap && wide.kind == WideKind::kUint64)) {
      return wide.bits;
    }
  }
  return std::nullopt;
}

// The two integers of a list or tuple that holds nothing else.
std::optional<std::pair<std::int64_t, std::int64_t>> pair_in(const Tape& tape, Value value) {
  if (!tape.is_sequence(value)) {
    return std::nullopt;
  }
  std::vector<std::optional<std::int64_t>> numbers;
  tape.each_chunk(value, [&](const Chunk& chunk) {
    tape.each_piece(chunk, 3, [&](std::span<const Value> piece) {
      for (const Value item : piece) {
        numbers.push_back(as_int64(tape, item, true));
      }
    });
    return numbers.size() <= 2;
  });
  if (numbers.size() != 2 || !numbers.front() || !numbers.back()) {
    return std::nullopt;
  }
  return std::pair(*numbers.front(), *numbers.back());
}

bool is_wide_integer(const Tape& tape, Value value) {
  return value.is(Tag::kWide) && tape.wide(value).kind <= WideKind::kBeyond;
}

// Calls use(chunk, n) for each chunk of many boxes, of which n items are wanted: at most `limit` of a box.
template <typename Use>
void each_part(const Tape& tape, Int64s rows, std::int64_t limit, Use&& use) {
  for (const std::int64_t row : rows) {
    std::size_t left = as_index(limit);
    tape.each_chunk(Value::from_bits(row), [&](const Chunk& chunk) {
      const std::size_t n = std::min<std::size_t>(left, chunk.size);
      use(chunk, n);
      left -= n;
      return left > 0;
    });
  }
}

// Which texts are keys of dicts.
class SeenKeys {
 public:
  SeenKeys(const Tape& tape, Int64s keys)
      : tape_(tape), keys_(keys), is_seen_(keys.size()), is_seen_shape_(tape.shapes().size()) {}

  void note(const Chunk& chunk) {
    is_seen_shape_.at(chunk.shape) = true;
    for (std::uint64_t at = chunk.start; chunk.shape == Shapes::kPairs && at < chunk.end(); at += 2) {
      const auto key = std::ranges::find(keys_, tape_.item(at), key_of);
      if (key != keys_.end()) {
        is_seen_.at(static_cast<std::size_t>(key - keys_.begin())) = 1;
      }
    }
  }

  std::vector<std::uint8_t> finish() {
    for (std::size_t shape = 0; shape < is_seen_shape_.size(); ++shape) {
      for (std::size_t k = 0; k < keys_.size() && is_seen_shape_.at(shape); ++k) {
        if (tape_.shapes().position(static_cast<ShapeId>(shape), key_of(keys_[k]))) {
          is_seen_.at(k) = 1;
        }
      }
    }
    return std::move(is_seen_);
  }

 private:
  const Tape& tape_;
  Int64s keys_;
  std::vector<std::uint8_t> is_seen_;
  std::vector<bool> is_seen_shape_;
};

}  // namespace

DictCheck check_dicts(const Tape& tape, Int64s rows, Int64s keys) {
  tape.budget()->take(kBytesPerRow * rows.size());
  SeenKeys seen_keys(tape, keys);
  Walk walk(tape, 0);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Value dict = Value::from_bits(rows[i]);
    if (!tape.is_box(dict, BoxKind::kDict)) {
      return {{}, static_cast<std::int64_t>(i)};
    }
    tape.each_chunk(dict, [&](const Chunk& chunk) {
      walk.pass(chunk.shape == Shapes::kPairs ? chunk.size : 2 * std::uint64_t{chunk.size});
      seen_keys.note(chunk);
      return true;
    });
  }
  return {seen_keys.finish(), kNoRow};
}

std::vector<std::int64_t> column(const Tape& tape, Int64s rows, std::int64_t key) {
  const Column column(tape, key);
  std::vector<std::int64_t> values(rows.size());
  std::ranges::transform(rows, values.begin(), [&](std::int64_t row) { return column[row].bits(); });
  return values;
}

std::vector<std::uint8_t> has(const Tape& tape, Int64s rows, std::int64_t key) {
  std::vector<std::uint8_t> is_there(rows.size());
  each_value(tape, rows, key, [&](std::size_t i, Value) { return is_there[i] = 1, true; });
  return is_there;
}

Integers integers(const Tape& tape, Int64s rows, std::int64_t key, std::int64_t missing, bool wrap) {
  Integers found{std::vector<std::int64_t>(rows.size(), missing)};
  found.bad_row = each_value(tape, rows, key, [&](std::size_t i, Value value) {
    const auto number = as_int64(tape, value, wrap);
    found.numbers[i] = number.value_or(missing);
    found.is_beyond = !number && is_wide_integer(tape, value);
    return number.has_value();
  });
  return found;
}

Ids text_ids(const Tape& tape, Int64s rows, std::int64_t key) {
  Ids found{std::vector<std::int64_t>(rows.size(), -1)};
  found.bad_row = each_value(tape, rows, key, [&](std::size_t i, Value value) {
    found.ids[i] = static_cast<std::int64_t>(value.id());
    return value.is(Tag::kText);
  });
  return found;
}

Booleans booleans(const Tape& tape, Int64s rows, std::int64_t key) {
  Booleans found{std::vector<std::uint8_t>(rows.size())};
  found.bad_row = each_value(tape, rows, key, [&](std::size_t i, Value value) {
    found.values[i] = value == Value(Constant::kTrue) ? 1 : 0;
    return value.is(Tag::kConstant);
  });
  return found;
}

Pairs pairs(const Tape& tape, Int64s rows, std::int64_t key) {
  Pairs found{std::vector<std::int64_t>(rows.size()), std::vector<std::int64_t>(rows.size()),
              std::vector<std::uint8_t>(rows.size())};
  Value last;
  std::optional<std::pair<std::int64_t, std::int64_t>> pair;
  found.bad_row = each_value(tape, rows, key, [&](std::size_t i, Value value) {
    if (value != last) {
      pair = pair_in(tape, value);
      last = value;
    }
    if (pair) {
      found.first[i] = pair->first;
      found.second[i] = pair->second;
      found.is_there[i] = 1;
    }
    return pair.has_value();
  });
  return found;
}

Lengths lengths(const Tape& tape, Int64s rows) {
  Lengths found{std::vector<std::int64_t>(rows.size())};
  Walk walk(tape, rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Value list = Value::from_bits(rows[i]);
    if (!tape.is_sequence(list)) {
      found.bad_row = static_cast<std::int64_t>(i);
      break;
    }
    tape.each_chunk(list, [&](const Chunk& chunk) {
      walk.pass(1);
      found.lengths[i] += chunk.size;
      return true;
    });
  }
  return found;
}

std::vector<std::int64_t> items(const Tape& tape, Int64s rows, std::int64_t limit) {
  Walk walk(tape, 0);
  std::uint64_t n = 0;
  each_part(tape, rows, limit, [&](const Chunk&, std::size_t n_items) {
    walk.pass(n_items);
    n += n_items;
  });
  tape.budget()->take(kBytesPerItem * n);
  std::vector<std::int64_t> found;
  found.reserve(n);
  each_part(tape, rows, limit, [&](const Chunk& chunk, std::size_t n_items) {
    tape.each_piece(chunk, n_items, [&](std::span<const Value> piece) {
      std::ranges::transform(piece, std::back_inserter(found), &Value::bits);
    });
  });
  return found;
}

std::vector<std::int64_t> keys_and_values(const Tape& tape, Value dict) {
  std::vector<std::int64_t> found;
  tape.each_chunk(dict, [&](const Chunk& chunk) {
    const std::vector<Value> keys = tape.shapes().keys(static_cast<ShapeId>(chunk.shape));
    std::size_t i = 0;
    tape.each_piece(chunk, chunk.size, [&](std::span<const Value> piece) {
      for (const Value item : piece) {
        if (chunk.shape != Shapes::kPairs) {
          found.push_back(keys.at(i++).bits());
        }
        found.push_back(item.bits());
      }
    });
    return true;
  });
  return found;
}

}  // namespace memscope::snapshot
