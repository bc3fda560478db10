#include "snapshot/machine.h"

#include <algorithm>
#include <utility>

namespace memscope::snapshot {
namespace {

constexpr std::size_t kMaxNameBytes = 400;  // of a global's two lines, to name it

std::string as_string(Bytes bytes) { return {bytes.begin(), bytes.end()}; }

}  // namespace

Status Machine::run() {
  try {
    while (status_ == Status::kNeedInput) {
      window_.start_opcode();
      const std::uint8_t code = window_.byte();
      opcode_ = static_cast<Opcode>(code);
      kActs[code](*this);
    }
    return status_;
  } catch (const NeedInput&) {
    return Status::kNeedInput;
  } catch (const Refused& refused) {
    return refuse(refused.status);
  }
}

Status Machine::refuse(Status reason) {
  offset_ = window_.offset();
  if (reason == Status::kAsksGlobal) {
    global_names_ = names_asked_for();
  }
  return reason;
}

std::vector<std::string> Machine::names_asked_for() const {
  if (opcode_ == Opcode::STACK_GLOBAL && stack_.size() >= 2) {
    const Value module = stack_.at(stack_.size() - 2);
    const Value name = stack_.back();
    if (module.is(Tag::kText) && name.is(Tag::kText)) {
      return {as_string(tape_->texts()[module.id()]), as_string(tape_->texts()[name.id()])};
    }
  }
  if (opcode_ == Opcode::GLOBAL || opcode_ == Opcode::INST) {
    Bytes ahead = window_.rest().subspan(1);
    ahead = ahead.first(std::min(ahead.size(), kMaxNameBytes));
    const auto first = std::ranges::find(ahead, std::uint8_t{'\n'});
    const auto second = first == ahead.end() ? first : std::find(first + 1, ahead.end(), std::uint8_t{'\n'});
    if (second != ahead.end()) {
      return {{ahead.begin(), first}, {first + 1, second}};
    }
  }
  return {};
}

void Machine::make_stack_room() {
  const std::uint64_t limit = kFreeObjects + window_.offset() / kBytesPerStackRow;
  if (stack_.size() >= limit) {
    throw Refused(Status::kTooManyObjects);
  }
  make_room(stack_, *tape_->budget());
  stack_room_ = std::min(limit, stack_.capacity());
}

void Machine::push(const Number& number) {
  const auto* wide = std::get_if<Wide>(&number);
  push(wide != nullptr ? tape_->add_wide(wide->bits, wide->kind) : Value::integer(std::get<std::int64_t>(number)));
}

std::span<const Value> Machine::top(std::size_t n) const {
  if (stack_.size() - floor() < n) {
    throw Refused(Status::kStackEmpty);
  }
  return std::span(stack_).last(n);
}

std::span<const Value> Machine::above_mark() const {
  if (marks_.empty()) {
    throw Refused(Status::kNoMark);
  }
  return std::span(stack_).subspan(marks_.back());
}

void Machine::drop_to_mark() {
  stack_.resize(marks_.back());
  marks_.pop_back();
}

// What the values above the mark are put into.
Value Machine::value_below_mark() const {
  if (marks_.empty() || (marks_.back() == 0 && marks_.size() == 1)) {
    throw Refused(Status::kNoMark);
  }
  const std::size_t height = marks_.back();
  if (marks_.size() > 1 && marks_.at(marks_.size() - 2) == height) {
    throw Refused(Status::kWrongTarget);  // another mark
  }
  return stack_.at(height - 1);
}

void Machine::check_objects(std::uint64_t n) const {
  if (n > kFreeObjects && n > kFreeObjects + window_.offset() / kBytesPerObject) [[unlikely]] {
    throw Refused(Status::kTooManyObjects);
  }
}

}  // namespace memscope::snapshot
