// Any bytes, in pieces of any size, to the reader of snapshots: they end in a value or in a refusal.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "snapshot/json.h"
#include "snapshot/machine.h"
#include "snapshot/stacks.h"
#include "snapshot/tables.h"

namespace {

using namespace memscope;
using namespace memscope::snapshot;

const std::vector<std::string> kKnownTexts = {"", "segments", "device_traces", "action", "addr", "size", "frames", "name"};
constexpr std::uint64_t kSecret = 1;

// The columns that the reader takes out of rows, whatever the rows are.
void look_at_dicts(const Tape& tape, Int64s rows, Int64s keys) {
  if (check_dicts(tape, rows, keys).bad_row != kNoRow) {
    return;
  }
  std::vector<std::vector<std::int64_t>> columns;
  for (const std::int64_t key : keys) {
    has(tape, rows, key);
    integers(tape, rows, key, -1, true);
    text_ids(tape, rows, key);
    booleans(tape, rows, key);
    pairs(tape, rows, key);
    columns.push_back(column(tape, rows, key));
  }
  std::vector<Int64s> views(columns.begin(), columns.end());
  dense_ids(views, kSecret);
  const Boxes lists = sequences_in(tape, {views.back()});
  const Boxes frames = boxes_in(tape, Int64s(lists.rows));
  std::vector<std::int32_t> ids(frames.rows.size());
  std::iota(ids.begin(), ids.end(), 0);
  const Checked<const std::int32_t> frame_ids(ids);
  stack_ids(number_stacks(tape, Int64s(lists.rows), Int64s(frames.rows), frame_ids), views.back());
}

// Everything in a value, level by level; what holds itself ends it by its depth.
void look_at(const Tape& tape, Value root) {
  constexpr int kMaxDepth = 5;
  std::vector<std::int64_t> keys(kKnownTexts.size());
  std::iota(keys.begin(), keys.end(), 0);
  std::vector<std::int64_t> level = {root.bits()};
  for (int depth = 0; depth < kMaxDepth; ++depth) {
    look_at_dicts(tape, Int64s(level), Int64s(keys));
    std::vector<std::int64_t> next;
    for (const std::int64_t bits : level) {
      const Value value = Value::from_bits(bits);
      if (tape.is_box(value, BoxKind::kDict)) {
        const auto inside = keys_and_values(tape, value);
        next.insert(next.end(), inside.begin(), inside.end());
      }
    }
    std::erase_if(level, [&](std::int64_t bits) { return !tape.is_sequence(Value::from_bits(bits)); });
    lengths(tape, Int64s(level));
    const auto inside = items(tape, Int64s(level), 1 << 10);
    next.insert(next.end(), inside.begin(), inside.end());
    next.resize(std::min<std::size_t>(next.size(), 1 << 12));
    level = std::move(next);
  }
}

// Bytes in pieces to a reader, and all that the tape has to tell of what it read.
template <typename Reader>
void read(Bytes bytes, std::size_t piece) {
  Reader reader(kKnownTexts, kSecret);
  Status status = Status::kNeedInput;
  Bytes rest = bytes;
  while (status == Status::kNeedInput && !rest.empty()) {
    const Bytes next = rest.first(std::min(piece, rest.size()));
    rest = rest.subspan(next.size());
    status = reader.feed(next, bytes.size() - rest.size());
  }
  if (status != Status::kStopped) {
    return;
  }
  const std::shared_ptr<const Tape> tape = reader.take_tape();
  try {
    look_at(*tape, tape->root());
  } catch (const Multiplies&) {
  } catch (const Refused&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  // The first byte says in what pieces the others come. JSON is what begins as its lists and dicts do.
  const std::size_t piece = data[0] == 0 ? size : data[0];
  const Bytes bytes(data + 1, size - 1);
  const bool is_json = !bytes.empty() && (bytes[0] == '{' || bytes[0] == '[');
  is_json ? read<JsonReader>(bytes, piece) : read<Machine>(bytes, piece);
  return 0;
}
