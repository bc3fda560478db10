#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <bit>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "arrays.h"
#include "snapshot/json.h"
#include "snapshot/machine.h"
#include "snapshot/stacks.h"
#include "snapshot/tables.h"
#include "snapshot/tape.h"

using namespace memscope;
using namespace nb::literals;
using memscope::snapshot::Bytes, memscope::snapshot::Constant, memscope::snapshot::JsonReader;
using memscope::snapshot::Kind, memscope::snapshot::Machine;
using memscope::snapshot::Opcode, memscope::snapshot::Stacks, memscope::snapshot::Status, memscope::snapshot::Tag;
using memscope::snapshot::Tape, memscope::snapshot::Value, memscope::snapshot::Wide, memscope::snapshot::WideKind;

namespace {

using Rows = Array<std::int64_t>;
using BoolArray = NewArray<bool>;

// Bytes of 0 and 1 are numpy's booleans.
BoolArray to_booleans(std::vector<std::uint8_t> values) {
  auto* owned = new std::vector<std::uint8_t>(std::move(values));
  nb::capsule owner(owned, [](void* pointer) noexcept { delete static_cast<std::vector<std::uint8_t>*>(pointer); });
  return BoolArray(reinterpret_cast<bool*>(owned->data()), {owned->size()}, owner);
}

std::vector<Int64s> views(const std::vector<Rows>& columns) {
  std::vector<Int64s> all;
  for (const Rows& column : columns) {
    all.push_back(view(column));
  }
  return all;
}

nb::bytes to_bytes(Bytes bytes) { return nb::bytes(bytes.data(), bytes.size()); }

// Reading.

template <typename Reader>
Status feed(Reader& reader, const nb::bytes& data, std::uint64_t n_file_bytes) {
  const Bytes bytes(static_cast<const std::uint8_t*>(data.data()), data.size());
  return without_gil([&] { return reader.feed(bytes, n_file_bytes); });
}

std::vector<nb::bytes> global_names(const Machine& machine) {
  std::vector<nb::bytes> names;
  for (const std::string& name : machine.global_names()) {
    names.emplace_back(name.data(), name.size());
  }
  return names;
}

bool asks_for_extension(const Machine& machine) {
  return Opcode::EXT1 <= machine.opcode() && machine.opcode() <= Opcode::EXT4;
}

template <typename Reader>
std::shared_ptr<Tape> take_tape(Reader& reader) {
  return reader.take_tape();
}

// Single values.

Kind kind(const Tape& tape, std::int64_t value) { return tape.kind(Value::from_bits(value)); }

nb::object scalar(const Tape& tape, std::int64_t bits) {
  const Value value = Value::from_bits(bits);
  const Kind kind = tape.kind(value);
  if (kind == Kind::kBoolean) {
    return nb::bool_(value == Value(Constant::kTrue));
  }
  if (kind == Kind::kInteger && value.is(Tag::kInteger)) {
    return nb::int_(value.number());
  }
  if (kind == Kind::kInteger) {
    const Wide& wide = tape.wide(value);
    return wide.kind == WideKind::kInt64 ? nb::int_(wide.bits) : nb::int_(static_cast<std::uint64_t>(wide.bits));
  }
  if (kind == Kind::kFloat) {
    return nb::float_(std::bit_cast<double>(tape.wide(value).bits));
  }
  return nb::none();
}

nb::bytes text(const Tape& tape, std::int64_t text_id) { return to_bytes(tape.texts()[as_index(text_id)]); }

std::int64_t text_id(const Tape& tape, std::int64_t bits) {
  const Value value = Value::from_bits(bits);
  if (value.is(Tag::kText) || value.is(Tag::kBytes)) {
    return static_cast<std::int64_t>(value.id());
  }
  return tape.kind(value) == Kind::kFloatText ? tape.wide(value).bits : -1;
}

NewArray<std::int64_t> keys_and_values(const Tape& tape, std::int64_t dict) {
  return to_numpy(snapshot::keys_and_values(tape, Value::from_bits(dict)));
}

// Columns of many dicts.

auto check_dicts(const Tape& tape, const Rows& rows, const Rows& keys) {
  auto found = without_gil([&] { return snapshot::check_dicts(tape, view(rows), view(keys)); });
  return std::pair(to_booleans(std::move(found.is_seen)), found.bad_row);
}

NewArray<std::int64_t> column(const Tape& tape, const Rows& rows, std::int64_t key) {
  return to_numpy(without_gil([&] { return snapshot::column(tape, view(rows), key); }));
}

BoolArray has(const Tape& tape, const Rows& rows, std::int64_t key) {
  return to_booleans(without_gil([&] { return snapshot::has(tape, view(rows), key); }));
}

auto integers(const Tape& tape, const Rows& rows, std::int64_t key, std::int64_t missing, bool wrap) {
  auto found = without_gil([&] { return snapshot::integers(tape, view(rows), key, missing, wrap); });
  return std::tuple(to_numpy(std::move(found.numbers)), found.bad_row, found.is_beyond);
}

auto text_ids(const Tape& tape, const Rows& rows, std::int64_t key) {
  auto found = without_gil([&] { return snapshot::text_ids(tape, view(rows), key); });
  return std::pair(to_numpy(std::move(found.ids)), found.bad_row);
}

auto booleans(const Tape& tape, const Rows& rows, std::int64_t key) {
  auto found = without_gil([&] { return snapshot::booleans(tape, view(rows), key); });
  return std::pair(to_booleans(std::move(found.values)), found.bad_row);
}

auto pairs(const Tape& tape, const Rows& rows, std::int64_t key) {
  auto found = without_gil([&] { return snapshot::pairs(tape, view(rows), key); });
  return std::tuple(to_numpy(std::move(found.first)), to_numpy(std::move(found.second)),
                    to_booleans(std::move(found.is_there)), found.bad_row);
}

// Many lists.

auto lengths(const Tape& tape, const Rows& rows) {
  auto found = without_gil([&] { return snapshot::lengths(tape, view(rows)); });
  return std::pair(to_numpy(std::move(found.lengths)), found.bad_row);
}

NewArray<std::int64_t> items(const Tape& tape, const Rows& rows, std::int64_t limit) {
  return to_numpy(without_gil([&] { return snapshot::items(tape, view(rows), limit); }));
}

auto sequences_in(const Tape& tape, const std::vector<Rows>& columns) {
  auto found = without_gil([&] { return snapshot::sequences_in(tape, views(columns)); });
  return std::pair(to_numpy(std::move(found.rows)), found.bad_row);
}

auto boxes_in(const Tape& tape, const Rows& lists) {
  auto found = without_gil([&] { return snapshot::boxes_in(tape, view(lists)); });
  return std::pair(to_numpy(std::move(found.rows)), found.bad_row);
}

Stacks number_stacks(const Tape& tape, const Rows& lists, const Rows& frames, const Array<std::int32_t>& frame_ids) {
  return without_gil([&] { return snapshot::number_stacks(tape, view(lists), view(frames), view(frame_ids)); });
}

NewArray<std::int32_t> stack_ids(const Stacks& stacks, const Rows& values) {
  return to_numpy(without_gil([&] { return snapshot::stack_ids(stacks, view(values)); }));
}

auto dense_ids(const std::vector<Rows>& columns, std::uint64_t secret) {
  auto found = without_gil([&] { return snapshot::dense_ids(views(columns), secret); });
  return std::pair(to_numpy(std::move(found.ids)), to_numpy(std::move(found.first_rows)));
}

// What is bound.

void bind_enums(nb::module_& module) {
  nb::enum_<Status>(module, "Status", "How a step of reading ended.")
      .value("NEED_INPUT", Status::kNeedInput)
      .value("STOPPED", Status::kStopped)
      .value("ASKS_GLOBAL", Status::kAsksGlobal)
      .value("ASKS_CALL", Status::kAsksCall)
      .value("UNKNOWN_OPCODE", Status::kUnknownOpcode)
      .value("UNSUPPORTED", Status::kUnsupported)
      .value("STACK_EMPTY", Status::kStackEmpty)
      .value("NO_MARK", Status::kNoMark)
      .value("MEMO_MISSING", Status::kMemoMissing)
      .value("MEMO_BEYOND", Status::kMemoBeyond)
      .value("TOO_LONG", Status::kTooLong)
      .value("WRONG_TARGET", Status::kWrongTarget)
      .value("BAD_PROTOCOL", Status::kBadProtocol)
      .value("BAD_NUMBER", Status::kBadNumber)
      .value("TOO_MANY_OBJECTS", Status::kTooManyObjects)
      .value("TOO_MUCH_MEMORY", Status::kTooMuchMemory)
      .value("NOT_JSON", Status::kNotJson)
      .value("TOO_DEEP", Status::kTooDeep);
  nb::enum_<Kind>(module, "Kind", "What a value is.")
      .value("NOTHING", Kind::kNothing)
      .value("BOOLEAN", Kind::kBoolean)
      .value("INTEGER", Kind::kInteger)
      .value("BEYOND_INTEGER", Kind::kBeyondInteger)
      .value("FLOAT", Kind::kFloat)
      .value("FLOAT_TEXT", Kind::kFloatText)
      .value("TEXT", Kind::kText)
      .value("BYTES", Kind::kBytes)
      .value("LIST", Kind::kList)
      .value("TUPLE", Kind::kTuple)
      .value("DICT", Kind::kDict);
}

void bind_machine(nb::module_& module) {
  nb::class_<Machine>(module, "Machine", "A pickle machine that builds no Python object and can call nothing.")
      .def(nb::init<const std::vector<std::string>&, std::uint64_t>(), "known_texts"_a, "secret"_a,
           "Known texts get the ids 0, 1, … in their order. ``secret`` keeps the hashes unforeseeable.")
      .def("feed", &feed<Machine>, "data"_a, "n_file_bytes"_a,
           "Go on with the next bytes; ``n_file_bytes`` have been read of the file so far, where it may be packed.")
      .def("take_tape", &take_tape<Machine>, "The values read, once, after STOPPED.")
      .def_prop_ro("offset", &Machine::offset, "Where the pickle breaks off, or the refused opcode stands.")
      .def_prop_ro(
          "call_name", [](const Machine& machine) { return std::string(snapshot::name_of_call(machine.opcode())); },
          "Name of the refused opcode, if it is one that runs code.")
      .def_prop_ro("asks_for_extension", &asks_for_extension, "Whether the refused opcode is EXT1, EXT2 or EXT4.")
      .def_prop_ro("global_names", &global_names, "Module and name of the global asked for, if they can be told.");
}

void bind_json(nb::module_& module) {
  nb::class_<JsonReader>(module, "JsonReader", "A reader of JSON that fills a tape as the pickle machine does.")
      .def(nb::init<const std::vector<std::string>&, std::uint64_t>(), "known_texts"_a, "secret"_a,
           "Known texts get the ids 0, 1, … in their order. ``secret`` keeps the hashes unforeseeable.")
      .def("feed", &feed<JsonReader>, "data"_a, "n_file_bytes"_a,
           "Go on with the next bytes; ``n_file_bytes`` have been read of the file so far, where it may be packed.")
      .def("take_tape", &take_tape<JsonReader>, "The values read, once, after STOPPED.")
      .def_prop_ro("offset", &JsonReader::offset,
                   "Where the text breaks off, the refused token stands, or the value ends.");
}

void bind_columns(nb::class_<Tape>& tape) {
  tape.def("check_dicts", &check_dicts, "rows"_a, "keys"_a,
           "For each key, a text id, whether any of the dicts has it: bool (keys,). And the first row that is no dict,\n"
           "−1 if all are. Raises Multiplies if dicts stand in many rows each, Refused if the rows are too many.")
      .def("column", &column, "rows"_a, "key"_a, "Values that dicts have for a key, 0 where one has not: int64 (rows,).")
      .def("has", &has, "rows"_a, "key"_a, "Which dicts have the key, with something other than None: bool (rows,).")
      .def("integers", &integers, "rows"_a, "key"_a, "missing"_a, "wrap"_a,
           "Integers of a key: int64 (rows,), the first row with something else, −1, and whether that is an integer\n"
           "beyond 64 bits. ``wrap`` takes unsigned 64 bits as the int64 of the same bits.")
      .def("text_ids", &text_ids, "rows"_a, "key"_a,
           "Text ids of a key, −1 where there is none: int64 (rows,); and the first row with something else, −1.")
      .def("booleans", &booleans, "rows"_a, "key"_a,
           "Booleans of a key, False where there is none: bool (rows,); and the first row with something else, −1.")
      .def("pairs", &pairs, "rows"_a, "key"_a,
           "Pairs of integers of a key: int64 (rows,) twice, which rows have one, bool (rows,), and the first row with\n"
           "something else, −1.");
}

void bind_lists(nb::class_<Tape>& tape) {
  tape.def("lengths", &lengths, "rows"_a,
           "Lengths of lists or tuples: int64 (rows,); and the first row that is neither, −1. O(chunks).")
      .def("items", &items, "rows"_a, "limit"_a,
           "Items of lists or tuples, one after the other, at most ``limit`` of each: int64 (items,).")
      .def("keys_and_values", &keys_and_values, "dict"_a, "Keys and values of a dict in turns: int64 (2 × items,).")
      .def("sequences_in", &sequences_in, "columns"_a,
           "The lists and tuples in columns of values, each once: int64 (lists,); and the first row with something else\n"
           "than those and None, −1.")
      .def("boxes_in", &boxes_in, "lists"_a,
           "The lists, tuples and dicts in lists, each once: int64 (boxes,); and the first list with other items, −1.")
      .def("number_stacks", &number_stacks, "lists"_a, "frames"_a, "frame_ids"_a,
           "Number lists of frames by content and first appearance; ``frame_ids`` are int32 ids of the frames.");
}

}  // namespace

NB_MODULE(snapshot, module) {
  memscope::end_quietly();
  module.doc() =
      "Pickles of plain data, read without running anything. A value is an int64 that only a tape can take apart; 0 is no\n"
      "value.";
  nb::exception<snapshot::Multiplies>(module, "Multiplies");
  nb::exception<snapshot::Refused>(module, "Refused");
  bind_enums(module);
  bind_machine(module);
  bind_json(module);
  nb::class_<Tape> tape(module, "Tape", "The values of a pickle.");
  tape.def_prop_ro("root", [](const Tape& t) { return t.root().bits(); }, "The pickle's value.")
      .def_prop_ro("n_texts", [](const Tape& t) { return t.texts().size(); }, "Distinct texts, known ones included.")
      .def_prop_ro("held_bytes", [](const Tape& t) { return t.budget()->held_bytes(); }, "Memory that the values take.")
      .def("kind", &kind, "value"_a, "What a value is.")
      .def("scalar", &scalar, "value"_a, "A number or boolean as Python's own; None for everything else.")
      .def("text", &text, "text_id"_a, "A text's bytes.")
      .def("text_id", &text_id, "value"_a, "The id of a text, of bytes, or of a float written in decimals; −1 for others.");
  bind_columns(tape);
  bind_lists(tape);
  nb::class_<Stacks>(module, "Stacks", "Distinct lists of frames.")
      .def("ids", &stack_ids, "values"_a, "The stack of each value of a column, −1 where there is none: int32 (rows,).")
      .def("offsets", [](const Stacks& s) { return to_numpy(s.offsets); }, "Of each stack in the frames: int64 (stacks + 1,).")
      .def("frame_ids", [](const Stacks& s) { return to_numpy(s.frame_ids); }, "Frames of all stacks: int32 (frames,).");
  module.def("dense_ids", &dense_ids, "columns"_a, "secret"_a,
             "Number distinct rows of columns by first appearance: the id of each row, int32 (rows,), and the row where\n"
             "each id first appears, int64 (ids,).");
}
