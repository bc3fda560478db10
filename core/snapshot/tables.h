// Tables out of a tape: what many dicts have for a key, what lists hold.
//
// A row is the bits of a value. Where a row is not of the kind that is asked for, its index is told in `bad_row`.
#pragma once

#include <cstdint>
#include <exception>
#include <vector>

#include "checked.h"
#include "snapshot/tape.h"

namespace memscope::snapshot {

inline constexpr std::int64_t kNoRow = -1;

// Thrown where one list or dict stands in so many places that its content multiplies beyond the pickle.
struct Multiplies : std::exception {
  const char* what() const noexcept override { return "one list or dict stands in very many places"; }
};

struct DictCheck {
  std::vector<std::uint8_t> is_seen;  // for each key, whether any dict has it; empty if a row is bad
  std::int64_t bad_row = kNoRow;
};

// Whether all rows are dicts, and which keys, given as ids of texts, they have. Refused where the columns that are made
// of so many rows would be beyond the budget, as where one dict stands in millions of rows. O(rows).
DictCheck check_dicts(const Tape& tape, Int64s rows, Int64s keys);

// The columns below are of rows that check_dicts found to be dicts. O(rows) each; of equal keys the last one counts.

// What is there for a key, as bits of values; 0 where it is not.
std::vector<std::int64_t> column(const Tape& tape, Int64s rows, std::int64_t key);

// Whether there is something other than None.
std::vector<std::uint8_t> has(const Tape& tape, Int64s rows, std::int64_t key);

struct Integers {
  std::vector<std::int64_t> numbers;
  std::int64_t bad_row = kNoRow;
  bool is_beyond = false;  // it is an integer, but has more than 64 bits
};

// `missing` where there is none. With `wrap`, 2^63 to 2^64-1 are taken as the int64 of the same bits.
Integers integers(const Tape& tape, Int64s rows, std::int64_t key, std::int64_t missing, bool wrap);

struct Ids {
  std::vector<std::int64_t> ids;
  std::int64_t bad_row = kNoRow;
};

// Ids of texts, -1 where there is none.
Ids text_ids(const Tape& tape, Int64s rows, std::int64_t key);

struct Booleans {
  std::vector<std::uint8_t> values;
  std::int64_t bad_row = kNoRow;
};

Booleans booleans(const Tape& tape, Int64s rows, std::int64_t key);

struct Pairs {
  std::vector<std::int64_t> first;
  std::vector<std::int64_t> second;
  std::vector<std::uint8_t> is_there;
  std::int64_t bad_row = kNoRow;
};

// Lists or tuples of two integers of 64 bits; 0 and 0 where there is none.
Pairs pairs(const Tape& tape, Int64s rows, std::int64_t key);

struct Lengths {
  std::vector<std::int64_t> lengths;
  std::int64_t bad_row = kNoRow;
};

// Lengths of lists or tuples. O(chunks).
Lengths lengths(const Tape& tape, Int64s rows);

// Items of many lists, tuples or dicts, one after the other, at most `limit` of each; refused where they would be beyond
// the budget. O(items).
std::vector<std::int64_t> items(const Tape& tape, Int64s rows, std::int64_t limit);

// Keys and values of a dict in turns, in the order in which they were set.
std::vector<std::int64_t> keys_and_values(const Tape& tape, Value dict);

}  // namespace memscope::snapshot
