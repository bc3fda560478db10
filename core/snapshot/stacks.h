// Call stacks of a snapshot by their content, and dense ids for what repeats.
#pragma once

#include <cstdint>
#include <vector>

#include "checked.h"
#include "snapshot/tables.h"
#include "snapshot/tape.h"

namespace memscope::snapshot {

struct Boxes {
  std::vector<std::int64_t> rows;  // each once, as bits of values, in the order in which the pickle made them
  std::int64_t bad_row = kNoRow;   // the first of what was given that is, or holds, something else
};

// The lists and tuples among columns of values, which otherwise may hold only None and nothing. O(rows).
Boxes sequences_in(const Tape& tape, const std::vector<Int64s>& columns);

// The items of many different lists, all of which must be boxes. O(items).
Boxes boxes_in(const Tape& tape, Int64s lists);

// Distinct runs of frames.
struct Stacks {
  std::vector<std::int32_t> stack_of_box;  // by box id; -1 for an empty list and for what is none
  std::vector<std::int64_t> offsets;       // of each stack in frame_ids, and the end of the last
  std::vector<std::int32_t> frame_ids;
};

// Numbers lists by the ids of their items, by first appearance. `frame_ids` are of the rows `frames`. O(items).
Stacks number_stacks(const Tape& tape, Int64s lists, Int64s frames, Checked<const std::int32_t> frame_ids);

// The stack of each value of a column, -1 where there is none.
std::vector<std::int32_t> stack_ids(const Stacks& stacks, Int64s values);

struct DenseIds {
  std::vector<std::int32_t> ids;
  std::vector<std::int64_t> first_rows;  // where each id first appears
};

// Numbers distinct rows of columns of equal length by first appearance. Expected O(rows * columns).
DenseIds dense_ids(const std::vector<Int64s>& columns, std::uint64_t secret);

}  // namespace memscope::snapshot
