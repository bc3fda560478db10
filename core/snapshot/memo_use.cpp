#include "snapshot/memo_use.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "snapshot/numbers.h"
#include "snapshot/opcode.h"

namespace memscope::snapshot {
namespace {

std::uint64_t number_in(Bytes line) {
  const Number number = decimal(line);
  const auto* index = std::get_if<std::int64_t>(&number);
  if (index == nullptr || *index < 0) {
    throw Refused(Status::kNotSliced);
  }
  return static_cast<std::uint64_t>(*index);
}

}  // namespace

void MemoUse::note(std::uint64_t index) {
  const std::size_t word = index / kBits;
  if (word >= words_.size()) {
    words_.resize(word + 1);
  }
  words_[word] |= std::uint64_t{1} << (index % kBits);
}

void MemoUse::seal() {
  std::uint32_t n = 0;
  for (const std::uint64_t word : words_) {
    n_before_.push_back(n);
    n += static_cast<std::uint32_t>(std::popcount(word));
  }
}

std::shared_ptr<MemoUse> MemoScan::take_use() {
  if (status_ != Status::kStopped) {
    throw Refused(Status::kNotSliced);
  }
  use_.seal();
  return std::make_shared<MemoUse>(std::move(use_));
}

Status MemoScan::run() {
  try {
    while (status_ == Status::kNeedInput) {
      window_.start_opcode();
      pass(window_.byte());
    }
    return status_;
  } catch (const NeedInput&) {
    return Status::kNeedInput;
  } catch (const Refused&) {
    return Status::kNotSliced;
  }
}

// Numbers grow with the pickle, so that nothing is made room for that was not read.
void MemoScan::store(std::optional<std::uint64_t> index) {
  (index ? has_numbered_ : has_unnumbered_) = true;
  if ((has_numbered_ && has_unnumbered_) || index.value_or(0) > window_.offset()) {
    throw Refused(Status::kNotSliced);
  }
  n_stored_ = index ? std::max(n_stored_, *index + 1) : n_stored_ + 1;
}

void MemoScan::get(std::uint64_t index) {
  if (index >= n_stored_) {
    throw Refused(Status::kNotSliced);
  }
  use_.note(index);
}

void MemoScan::pass(std::uint8_t code) {
  switch (static_cast<Opcode>(code)) {
    case Opcode::BINGET:
      return get(window_.number(1));
    case Opcode::LONG_BINGET:
      return get(window_.number(4));
    case Opcode::GET:
      return get(number_in(window_.line()));
    case Opcode::MEMOIZE:
      return store(std::nullopt);
    case Opcode::BINPUT:
      return store(window_.number(1));
    case Opcode::LONG_BINPUT:
      return store(window_.number(4));
    case Opcode::PUT:
      return store(number_in(window_.line()));
    case Opcode::BININT1:
    case Opcode::PROTO:
      window_.skip(1);
      return;
    case Opcode::BININT2:
      window_.skip(2);
      return;
    case Opcode::BININT:
      window_.skip(4);
      return;
    case Opcode::BINFLOAT:
    case Opcode::FRAME:
      window_.skip(8);
      return;
    case Opcode::LONG1:
    case Opcode::SHORT_BINUNICODE:
    case Opcode::SHORT_BINSTRING:
    case Opcode::SHORT_BINBYTES:
      window_.counted(1);
      return;
    case Opcode::LONG4:
    case Opcode::BINUNICODE:
    case Opcode::BINSTRING:
    case Opcode::BINBYTES:
      window_.counted(4);
      return;
    case Opcode::BINUNICODE8:
    case Opcode::BINBYTES8:
    case Opcode::BYTEARRAY8:
      window_.counted(8);
      return;
    case Opcode::INT:
    case Opcode::LONG:
    case Opcode::FLOAT:
    case Opcode::STRING:
    case Opcode::UNICODE:
      window_.line();
      return;
    case Opcode::STOP:
      status_ = Status::kStopped;
      return;
    case Opcode::NONE:
    case Opcode::NEWFALSE:
    case Opcode::NEWTRUE:
    case Opcode::EMPTY_LIST:
    case Opcode::EMPTY_TUPLE:
    case Opcode::EMPTY_DICT:
    case Opcode::APPEND:
    case Opcode::APPENDS:
    case Opcode::SETITEM:
    case Opcode::SETITEMS:
    case Opcode::TUPLE1:
    case Opcode::TUPLE2:
    case Opcode::TUPLE3:
    case Opcode::TUPLE:
    case Opcode::LIST:
    case Opcode::DICT:
    case Opcode::MARK:
      return;
    default:  // nothing that a pickler writes of plain values
      throw Refused(Status::kNotSliced);
  }
}

}  // namespace memscope::snapshot
