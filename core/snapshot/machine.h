// A pickle machine that builds no Python object and can call nothing.
//
// Bytes go in, a tape of plain values comes out. Nothing recurses, so nesting costs only rows of the stack; a global, a
// call or a persistent id has no representation, so it can only be refused. Each byte is handled once: O(1) for each
// opcode, O(length) for texts and for the items of a batch.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "snapshot/chunked_reader.h"
#include "snapshot/event_sieve.h"
#include "snapshot/memo_use.h"
#include "snapshot/numbers.h"
#include "snapshot/opcode.h"
#include "snapshot/tape.h"

namespace memscope::snapshot {

class Machine : public ChunkedReader {
 public:
  // A real box, or stored object, takes eight bytes of pickle or more, and the deepest real stack (TorchScript's pickler
  // puts a whole list on it) fifty bytes a row. A pickle with many more of them than that is built to fill memory.
  static constexpr std::uint64_t kFreeObjects = 1 << 16;
  static constexpr std::uint64_t kBytesPerObject = 3;
  static constexpr std::uint64_t kBytesPerStackRow = 4;

  Machine(const std::vector<std::string>& known_texts, std::uint64_t secret)
      : ChunkedReader(known_texts, secret), memo_(tape_->budget()) {}

  // Keep a part of the events. Of stored objects only those that are asked for, which another pass has found, get a place.
  void keep_part(std::shared_ptr<MemoUse> use, std::shared_ptr<EventSieve> sieve) {
    use_ = std::move(use);
    sieve_ = std::move(sieve);
  }

  Opcode opcode() const { return opcode_; }
  // Module and name of the global that a refused opcode asks for; empty if they cannot be told.
  const std::vector<std::string>& global_names() const { return global_names_; }

 private:
  using Act = void (*)(Machine&);
  struct OpcodeTable;
  static const std::array<Act, 256> kActs;

  Status run() override;
  Status refuse(Status reason);
  std::vector<std::string> names_asked_for() const;

  // The stack. Marks are heights of it; nothing below the topmost one is within reach.
  void push(Value value) {
    if (stack_.size() >= stack_room_) [[unlikely]] {
      make_stack_room();
    }
    stack_.push_back(value);
  }
  void push(const Number& number);
  void make_stack_room();
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  std::span<const Value> top(std::size_t n) const;
  std::span<const Value> above_mark() const;
  void drop(std::size_t n) { stack_.resize(stack_.size() - n); }
  void drop_to_mark();
  Value value_below_mark() const;
  void check_objects(std::uint64_t n) const;

  // Acts of opcodes, by kind. Each reads its whole argument before it changes anything, so that it can be done again.
  template <std::size_t width>
  void get();
  void get_run();
  void get_line();
  void push_stored(std::uint64_t index);
  const Value* stored(std::uint64_t index) const;
  void memoize();
  template <std::size_t width>
  void put();
  void put_line();
  void store(std::uint64_t index);
  void store_used(std::uint64_t index, Value value);
  void fill(std::size_t list_at, std::span<const Value> items);

  template <std::size_t width>
  void unsigned_integer();
  void signed_integer();
  template <std::size_t width>
  void long_integer();
  void int_line();
  void long_line();
  void binary_float();
  template <Constant constant>
  void push_constant();

  template <std::size_t width>
  void text();
  template <std::size_t width>
  void byte_text();
  void unicode_line();
  void string_line();
  void float_line();

  template <BoxKind kind>
  void empty_box();
  void append();
  void appends();
  void set_item();
  void set_items();
  template <std::size_t n>
  void tuple();
  void tuple_to_mark();
  void list_to_mark();
  void dict_to_mark();

  void mark();
  void pop();
  void pop_mark();
  void duplicate();
  void protocol();
  void frame();
  void stop();
  template <Status reason>
  void refused();

  std::vector<Value> stack_;
  std::vector<std::size_t> marks_;
  PagedVector<Value> memo_;
  std::uint64_t n_stored_ = 0;
  std::shared_ptr<MemoUse> use_;
  std::shared_ptr<EventSieve> sieve_;
  Value last_list_;  // the list that was stored last, and its place among the stored
  std::size_t last_list_place_ = 0;
  std::size_t stack_room_ = 0;  // rows that may be pushed before room is made
  Opcode opcode_ = Opcode::STOP;
  std::vector<std::string> global_names_;
};

}  // namespace memscope::snapshot
