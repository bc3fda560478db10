// What each opcode does. Their meaning: the Python library's pickletools.
#include <algorithm>

#include "snapshot/machine.h"

namespace memscope::snapshot {
namespace {

constexpr std::uint8_t code_of(Opcode opcode) { return static_cast<std::uint8_t>(opcode); }

std::uint64_t index_in(Bytes line, Status if_negative) {
  const Number number = decimal(line);
  const auto* index = std::get_if<std::int64_t>(&number);
  if (index == nullptr) {
    throw Refused(Status::kBadNumber);
  }
  if (*index < 0) {
    throw Refused(if_negative);
  }
  return static_cast<std::uint64_t>(*index);
}

// Escapes and other encodings than ASCII are in no snapshot that protocol 0 wrote.
Bytes plain(Bytes text) {
  if (std::ranges::any_of(text, [](std::uint8_t byte) { return byte == '\\' || byte >= 0x80; })) {
    throw Refused(Status::kUnsupported);
  }
  return text;
}

Bytes unquoted(Bytes text) {
  if (text.size() < 2 || text.front() != text.back() || (text.front() != '\'' && text.front() != '"')) {
    throw Refused(Status::kUnsupported);
  }
  return text.subspan(1, text.size() - 2);
}

}  // namespace

// The memo: most of a real snapshot is references to it.

template <std::size_t width>
void Machine::get() {
  push_stored(window_.number(width));
  get_run();
}

// References come in runs, the frames of a stack. What is unusual ends the run, and is left to its opcode's own act.
void Machine::get_run() {
  const Bytes ahead = window_.ahead();
  std::size_t n_read = 0;
  for (Bytes rest = ahead; rest.size() > 4; rest = ahead.subspan(n_read)) {
    const bool is_long = rest[0] == code_of(Opcode::LONG_BINGET);
    if (!is_long && rest[0] != code_of(Opcode::BINGET)) {
      break;
    }
    const std::uint64_t index = is_long ? ByteWindow::little_endian(rest.subspan<1, 4>()) : rest[1];
    const Value* const value = stored(index);
    if (value == nullptr || stack_.size() >= stack_room_) {
      break;
    }
    stack_.push_back(*value);
    n_read += is_long ? 5 : 2;
  }
  window_.skip(n_read);
}

void Machine::get_line() { push_stored(index_in(window_.line(), Status::kMemoMissing)); }

void Machine::push_stored(std::uint64_t index) {
  const Value* const value = stored(index);
  if (value == nullptr) {
    throw Refused(Status::kMemoMissing);
  }
  push(*value);
}

// What was stored under a number, nullptr for nothing.
const Value* Machine::stored(std::uint64_t index) const {
  if (use_) {
    const std::optional<std::size_t> place = use_->place(index);
    if (!place) {
      return nullptr;
    }
    index = *place;
  }
  return index < memo_.size() && memo_[index] != Value() ? &memo_[index] : nullptr;
}

void Machine::memoize() { store(n_stored_); }

template <std::size_t width>
void Machine::put() {
  store(window_.number(width));
}

void Machine::put_line() { store(index_in(window_.line(), Status::kMemoBeyond)); }

void Machine::store(std::uint64_t index) {
  const Value value = top(1).front();
  if (index > window_.offset()) {
    throw Refused(Status::kMemoBeyond);
  }
  check_objects(n_stored_ + 1);
  if (use_) {
    store_used(index, value);
    return;
  }
  while (memo_.size() <= index) {
    memo_.push_back(Value());
  }
  n_stored_ += memo_[index] == Value() ? 1 : 0;
  memo_[index] = value;
}

// A part of a pickle is read: there is a place for what is asked for again, and nothing is stored twice.
void Machine::store_used(std::uint64_t index, Value value) {
  ++n_stored_;
  const std::optional<std::size_t> place = use_->place(index);
  if (!place) {
    return;
  }
  while (memo_.size() <= *place) {
    memo_.push_back(Value());
  }
  memo_[*place] = value;
  if (!value.is(Tag::kBox)) {
    return;
  }
  if (!tape_->is_box(value, BoxKind::kTuple) && tape_->is_stored(value)) {
    throw Refused(Status::kNotSliced);
  }
  tape_->note_stored(value);
  if (tape_->is_box(value, BoxKind::kList)) {
    last_list_ = value;
    last_list_place_ = *place;
  }
}

// Numbers and constants.

template <std::size_t width>
void Machine::unsigned_integer() {
  push(Value::integer(static_cast<std::int64_t>(window_.number(width))));
}

void Machine::signed_integer() {
  push(Value::integer(static_cast<std::int32_t>(static_cast<std::uint32_t>(window_.number(4)))));
}

template <std::size_t width>
void Machine::long_integer() {
  push(snapshot::long_integer(window_.counted(width)));
}

void Machine::int_line() {
  const Bytes line = window_.line();
  if (line.size() == 2 && line[0] == '0' && (line[1] == '0' || line[1] == '1')) {
    push(Value(line[1] == '1' ? Constant::kTrue : Constant::kFalse));
  } else {
    push(decimal(line));
  }
}

void Machine::long_line() {
  const Bytes line = window_.line();
  push(decimal(!line.empty() && line.back() == 'L' ? line.first(line.size() - 1) : line));
}

void Machine::binary_float() { push(big_endian_float(window_.bytes(8))); }

template <Constant constant>
void Machine::push_constant() {
  push(Value(constant));
}

// Texts and bytes.

template <std::size_t width>
void Machine::text() {
  push(tape_->add_text(window_.counted(width)));
}

template <std::size_t width>
void Machine::byte_text() {
  push(tape_->add_bytes(window_.counted(width)));
}

void Machine::unicode_line() { push(tape_->add_text(plain(window_.line()))); }

void Machine::string_line() { push(tape_->add_text(plain(unquoted(window_.line())))); }

void Machine::float_line() {
  const Value text = tape_->add_text(plain(window_.line()));
  push(Wide{static_cast<std::int64_t>(text.id()), WideKind::kFloatText});
}

// Lists, tuples and dicts.

template <BoxKind kind>
void Machine::empty_box() {
  check_objects(tape_->n_boxes() + 1);
  push(kind == BoxKind::kTuple ? tape_->add_tuple({}) : tape_->add_box(kind));
}

void Machine::append() {
  const Value list = top(2).front();
  if (!tape_->is_box(list, BoxKind::kList)) {
    throw Refused(Status::kWrongTarget);
  }
  fill(stack_.size() - 2, top(1));
  drop(1);
}

void Machine::appends() {
  const Value list = value_below_mark();
  if (!tape_->is_box(list, BoxKind::kList)) {
    throw Refused(Status::kWrongTarget);
  }
  fill(marks_.back() - 1, above_mark());
  drop_to_mark();
}

// Puts items into the list at a height of the stack. Where a part is read, events go through the sieve, and of equal lists
// that picklers fill at once, the stacks of calls, there is one.
void Machine::fill(std::size_t list_at, std::span<const Value> items) {
  constexpr std::size_t kBatch = 1000;  // of Python's pickler: a longer list goes on after it
  const Value list = stack_.at(list_at);
  if (!sieve_) {
    tape_->append(list, items);
    return;
  }
  if (const auto device = sieve_->device_of(*tape_, list, std::span(stack_).first(list_at))) {
    sieve_->take(*tape_, list, *device, items);
    return;
  }
  if (tape_->is_filled(list)) {
    throw Refused(Status::kNotSliced);
  }
  const bool is_stored = tape_->is_stored(list);
  if (items.empty() || items.size() >= kBatch || tape_->first_chunk(list).size > 0 || (is_stored && last_list_ != list)) {
    tape_->append(list, items);
    return;
  }
  const Value same = tape_->fill(list, items);
  stack_.at(list_at) = same;
  if (is_stored) {
    memo_[last_list_place_] = same;
    tape_->note_stored(same);
    last_list_ = Value();
  }
}

void Machine::set_item() {
  const Value dict = top(3).front();
  if (!tape_->is_box(dict, BoxKind::kDict)) {
    throw Refused(Status::kWrongTarget);
  }
  tape_->set_items(dict, top(2));
  drop(2);
}

void Machine::set_items() {
  const Value dict = value_below_mark();
  const auto items = above_mark();
  if (!tape_->is_box(dict, BoxKind::kDict) || items.size() % 2 == 1) {
    throw Refused(Status::kWrongTarget);
  }
  tape_->set_items(dict, items);
  drop_to_mark();
}

template <std::size_t n>
void Machine::tuple() {
  check_objects(tape_->n_boxes() + 1);
  const Value tuple = tape_->add_tuple(top(n));
  drop(n);
  push(tuple);
}

void Machine::tuple_to_mark() {
  check_objects(tape_->n_boxes() + 1);
  const Value tuple = tape_->add_tuple(above_mark());
  drop_to_mark();
  push(tuple);
}

void Machine::list_to_mark() {
  check_objects(tape_->n_boxes() + 1);
  const auto items = above_mark();
  const Value list = tape_->add_box(BoxKind::kList);
  tape_->append(list, items);
  drop_to_mark();
  push(list);
}

void Machine::dict_to_mark() {
  check_objects(tape_->n_boxes() + 1);
  const auto items = above_mark();
  if (items.size() % 2 == 1) {
    throw Refused(Status::kWrongTarget);
  }
  const Value dict = tape_->add_box(BoxKind::kDict);
  tape_->set_items(dict, items);
  drop_to_mark();
  push(dict);
}

// The stack itself, and what surrounds the values.

void Machine::mark() {
  if (marks_.size() >= kFreeObjects + window_.offset() / kBytesPerStackRow) {
    throw Refused(Status::kTooManyObjects);
  }
  make_room(marks_, *tape_->budget());
  marks_.push_back(stack_.size());
}

void Machine::pop() {
  if (!marks_.empty() && marks_.back() == stack_.size()) {
    marks_.pop_back();
  } else if (stack_.empty()) {
    throw Refused(Status::kStackEmpty);
  } else {
    drop(1);
  }
}

void Machine::pop_mark() {
  above_mark();
  drop_to_mark();
}

void Machine::duplicate() {
  if (sieve_) {
    throw Refused(Status::kNotSliced);
  }
  push(top(1).front());
}

void Machine::protocol() {
  constexpr std::uint8_t kNewest = 5;
  if (window_.byte() > kNewest) {
    throw Refused(Status::kBadProtocol);
  }
}

// A hint for buffering only.
void Machine::frame() { window_.bytes(8); }

void Machine::stop() {
  tape_->seal(top(1).front());
  status_ = Status::kStopped;
}

template <Status reason>
void Machine::refused() {
  throw Refused(reason);
}

// Every opcode has a row.
struct Machine::OpcodeTable {
  struct Row {
    Opcode opcode;
    Act act;
  };

  template <auto method>
  static void call(Machine& machine) {
    (machine.*method)();
  }

  static constexpr auto kRows = std::to_array<Row>({
    {Opcode::BINGET, call<&Machine::get<1>>},
    {Opcode::LONG_BINGET, call<&Machine::get<4>>},
    {Opcode::GET, call<&Machine::get_line>},
    {Opcode::MEMOIZE, call<&Machine::memoize>},
    {Opcode::BINPUT, call<&Machine::put<1>>},
    {Opcode::LONG_BINPUT, call<&Machine::put<4>>},
    {Opcode::PUT, call<&Machine::put_line>},

    {Opcode::BININT1, call<&Machine::unsigned_integer<1>>},
    {Opcode::BININT2, call<&Machine::unsigned_integer<2>>},
    {Opcode::BININT, call<&Machine::signed_integer>},
    {Opcode::LONG1, call<&Machine::long_integer<1>>},
    {Opcode::LONG4, call<&Machine::long_integer<4>>},
    {Opcode::INT, call<&Machine::int_line>},
    {Opcode::LONG, call<&Machine::long_line>},
    {Opcode::BINFLOAT, call<&Machine::binary_float>},
    {Opcode::NONE, call<&Machine::push_constant<Constant::kNone>>},
    {Opcode::NEWFALSE, call<&Machine::push_constant<Constant::kFalse>>},
    {Opcode::NEWTRUE, call<&Machine::push_constant<Constant::kTrue>>},

    {Opcode::SHORT_BINUNICODE, call<&Machine::text<1>>},
    {Opcode::BINUNICODE, call<&Machine::text<4>>},
    {Opcode::BINUNICODE8, call<&Machine::text<8>>},
    {Opcode::SHORT_BINSTRING, call<&Machine::text<1>>},
    {Opcode::BINSTRING, call<&Machine::text<4>>},
    {Opcode::SHORT_BINBYTES, call<&Machine::byte_text<1>>},
    {Opcode::BINBYTES, call<&Machine::byte_text<4>>},
    {Opcode::BINBYTES8, call<&Machine::byte_text<8>>},
    {Opcode::BYTEARRAY8, call<&Machine::byte_text<8>>},
    {Opcode::UNICODE, call<&Machine::unicode_line>},
    {Opcode::STRING, call<&Machine::string_line>},
    {Opcode::FLOAT, call<&Machine::float_line>},

    {Opcode::EMPTY_LIST, call<&Machine::empty_box<BoxKind::kList>>},
    {Opcode::EMPTY_TUPLE, call<&Machine::empty_box<BoxKind::kTuple>>},
    {Opcode::EMPTY_DICT, call<&Machine::empty_box<BoxKind::kDict>>},
    {Opcode::APPEND, call<&Machine::append>},
    {Opcode::APPENDS, call<&Machine::appends>},
    {Opcode::SETITEM, call<&Machine::set_item>},
    {Opcode::SETITEMS, call<&Machine::set_items>},
    {Opcode::TUPLE1, call<&Machine::tuple<1>>},
    {Opcode::TUPLE2, call<&Machine::tuple<2>>},
    {Opcode::TUPLE3, call<&Machine::tuple<3>>},
    {Opcode::TUPLE, call<&Machine::tuple_to_mark>},
    {Opcode::LIST, call<&Machine::list_to_mark>},
    {Opcode::DICT, call<&Machine::dict_to_mark>},

    {Opcode::MARK, call<&Machine::mark>},
    {Opcode::POP, call<&Machine::pop>},
    {Opcode::POP_MARK, call<&Machine::pop_mark>},
    {Opcode::DUP, call<&Machine::duplicate>},
    {Opcode::PROTO, call<&Machine::protocol>},
    {Opcode::FRAME, call<&Machine::frame>},
    {Opcode::STOP, call<&Machine::stop>},

    {Opcode::GLOBAL, call<&Machine::refused<Status::kAsksGlobal>>},
    {Opcode::STACK_GLOBAL, call<&Machine::refused<Status::kAsksGlobal>>},
    {Opcode::INST, call<&Machine::refused<Status::kAsksGlobal>>},
    {Opcode::EXT1, call<&Machine::refused<Status::kAsksGlobal>>},
    {Opcode::EXT2, call<&Machine::refused<Status::kAsksGlobal>>},
    {Opcode::EXT4, call<&Machine::refused<Status::kAsksGlobal>>},

    {Opcode::OBJ, call<&Machine::refused<Status::kAsksCall>>},
    {Opcode::NEWOBJ, call<&Machine::refused<Status::kAsksCall>>},
    {Opcode::NEWOBJ_EX, call<&Machine::refused<Status::kAsksCall>>},
    {Opcode::REDUCE, call<&Machine::refused<Status::kAsksCall>>},
    {Opcode::BUILD, call<&Machine::refused<Status::kAsksCall>>},
    {Opcode::PERSID, call<&Machine::refused<Status::kAsksCall>>},
    {Opcode::BINPERSID, call<&Machine::refused<Status::kAsksCall>>},

    {Opcode::EMPTY_SET, call<&Machine::refused<Status::kUnsupported>>},
    {Opcode::ADDITEMS, call<&Machine::refused<Status::kUnsupported>>},
    {Opcode::FROZENSET, call<&Machine::refused<Status::kUnsupported>>},
    {Opcode::NEXT_BUFFER, call<&Machine::refused<Status::kUnsupported>>},
    {Opcode::READONLY_BUFFER, call<&Machine::refused<Status::kUnsupported>>},
  });

  static constexpr std::array<Act, 256> by_code() {
    std::array<Act, 256> acts{};
    acts.fill(call<&Machine::refused<Status::kUnknownOpcode>>);
    for (const Row& row : kRows) {
      acts[code_of(row.opcode)] = row.act;
    }
    return acts;
  }
};

constinit const std::array<Machine::Act, 256> Machine::kActs = OpcodeTable::by_code();

}  // namespace memscope::snapshot
