#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
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
#include "snapshot/event_sieve.h"
#include "snapshot/json.h"
#include "snapshot/machine.h"
#include "snapshot/memo_use.h"
#include "snapshot/stacks.h"
#include "snapshot/tables.h"
#include "snapshot/tape.h"

using namespace memscope;
using namespace nb::literals;
using memscope::snapshot::Bytes, memscope::snapshot::Constant, memscope::snapshot::JsonReader;
using memscope::snapshot::EventCounts, memscope::snapshot::EventSieve, memscope::snapshot::EventWords;
using memscope::snapshot::WantedPart;
using memscope::snapshot::MemoScan, memscope::snapshot::MemoUse;
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

// Reading a part of the events.

using Triple = std::tuple<Rows, Rows, Rows>;

// The blocks that lie in segments before the first event, [address, address + bytes), are taken out of the free ranges.
void want(EventSieve& sieve, std::size_t device, std::int64_t begin, std::int64_t end, const Triple& segments,
          const Rows& address, const Rows& block_bytes, const Rows& segment_event_keys,
          const caching::RoundupDivisions& roundup_divisions, std::int64_t max_split_bytes, bool is_expandable) {
  WantedPart part;
  part.begin = begin;
  part.end = end;
  const auto& [start, stop, key] = segments;
  part.free = lifetimes::to_ranges({view(start), view(stop), view(key)});
  for (std::size_t i = 0; i < address.size(); ++i) {
    const std::int64_t from = view(address)[i];
    if (!part.free.remove(from, wrapping_add(from, view(block_bytes)[i]))) {
      throw snapshot::Refused(Status::kNotSliced);
    }
  }
  part.segment_event_keys.assign(view(segment_event_keys).begin(), view(segment_event_keys).end());
  part.roundup_divisions = roundup_divisions;
  part.max_split_size = max_split_bytes;
  part.expandable_segments = is_expandable;
  sieve.want(device, std::move(part));
}

auto in_use(const EventSieve& sieve, std::size_t device) {
  std::vector<std::int64_t> address, requested, block_bytes, frames;
  std::vector<std::uint8_t> is_pending;
  for (const auto& [at, held] : sieve.in_use(device)) {
    address.push_back(at);
    requested.push_back(held.requested_bytes);
    block_bytes.push_back(held.block_bytes);
    is_pending.push_back(held.is_pending ? 1 : 0);
    frames.push_back(held.frames.bits());
  }
  return std::tuple(to_numpy(std::move(address)), to_numpy(std::move(requested)), to_numpy(std::move(block_bytes)),
                    to_booleans(std::move(is_pending)), to_numpy(std::move(frames)));
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
      .value("TOO_DEEP", Status::kTooDeep)
      .value("NOT_SLICED", Status::kNotSliced);
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
      .def("keep_part", &Machine::keep_part, "use"_a, "sieve"_a,
           "Before the first bytes: keep what the sieve keeps of the events. Refused with NOT_SLICED where that needs\n"
           "more than a pass over them.")
      .def("take_tape", &take_tape<Machine>, "The values read, once, after STOPPED.")
      .def_prop_ro("offset", &Machine::offset, "Where the pickle breaks off, or the refused opcode stands.")
      .def_prop_ro(
          "call_name", [](const Machine& machine) { return std::string(snapshot::name_of_call(machine.opcode())); },
          "Name of the refused opcode, if it is one that runs code.")
      .def_prop_ro("asks_for_extension", &asks_for_extension, "Whether the refused opcode is EXT1, EXT2 or EXT4.")
      .def_prop_ro("global_names", &global_names, "Module and name of the global asked for, if they can be told.");
}

void bind_parts(nb::module_& module) {
  nb::class_<MemoUse>(module, "MemoUse", "Which stored objects of a pickle are ever asked for.");
  nb::class_<MemoScan>(module, "MemoScan", "A pass over a pickle that makes no value.")
      .def(nb::init<>())
      .def("feed", &feed<MemoScan>, "data"_a, "n_file_bytes"_a, "Go on with the next bytes.")
      .def("take_use", &MemoScan::take_use, "What was found, once, after STOPPED.");
  nb::class_<EventCounts>(module, "EventCounts", "What is told of all events of a device.")
      .def_ro("n_events", &EventCounts::n_events)
      .def_ro("n_segment_events", &EventCounts::n_segment_events)
      .def_ro("n_allocs", &EventCounts::n_allocs)
      .def_ro("n_requests", &EventCounts::n_requests)
      .def_ro("n_completions", &EventCounts::n_completions)
      .def_ro("n_times_back", &EventCounts::n_times_back)
      .def_ro("n_without_time", &EventCounts::n_without_time)
      .def_ro("first_time", &EventCounts::first_time)
      .def_ro("last_time", &EventCounts::last_time);
  nb::class_<EventSieve>(module, "EventSieve",
                         "What is kept of a snapshot's events: those of segments, or a part with its neighbours, and what\n"
                         "is in use.")
      .def(nb::init<EventWords, std::vector<std::int64_t>>(), "words"_a, "actions"_a,
           "Ids of known texts: of device_traces, action, addr, size, time_us, pool_id and frames; and of the actions, in\n"
           "the order of their numbers.")
      .def("want", &want, "device"_a, "begin"_a, "end"_a, "segments"_a, "address"_a, "block_bytes"_a,
           "segment_event_keys"_a, "roundup_divisions"_a, "max_split_bytes"_a, "is_expandable"_a,
           "Before reading: keep the events [begin, end) of a device and one on either side. ``segments``: start, end\n"
           "and key, int64 (m,), before the first event; ``address`` and ``block_bytes``, int64 (n,), of what is in use\n"
           "then and ever after; ``segment_event_keys`` int64: the key of each event of a segment.")
      .def_prop_ro("n_devices", &EventSieve::n_devices, "Devices that have events.")
      .def_prop_ro("outer_list", [](const EventSieve& sieve) { return sieve.outer_list().bits(); },
                   "The list of the devices' lists, 0 if none was found.")
      .def("counts", &EventSieve::counts, "device"_a, "What is told of all of its events.")
      .def("kept", [](const EventSieve& sieve, std::size_t device) { return to_numpy(sieve.kept(device)); }, "device"_a,
           "Places of the events kept in the device's list: int64 (n,).")
      .def("in_use", &in_use, "device"_a,
           "What is in use after the part, or after all events, in no order: address, requested and block bytes, int64,\n"
           "whether its free is pending, bool, and the value of its frames, int64 (n,) each.")
      .def("is_seen", &EventSieve::is_seen, "tape"_a, "key"_a, "Whether an event, kept or not, has a key.");
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
  bind_parts(module);
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
