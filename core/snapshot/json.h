// A reader of JSON that fills the same tape as the pickle machine: bytes go in, plain values come out.
//
// Nothing recurses, and what is open is a row of a stack, of which there are few: no snapshot nests deep. Memory is asked
// of the tape's budget. Each byte is handled once, but for a token that goes on past the bytes at hand, which is read
// again: O(length) in all.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "snapshot/chunked_reader.h"
#include "snapshot/numbers.h"
#include "snapshot/tape.h"

namespace memscope::snapshot {

class JsonReader : public ChunkedReader {
 public:
  // A snapshot nests seven deep.
  static constexpr std::size_t kMaxDepth = 64;
  // A dict of so few values is likely a frame of a stack, which JSON repeats in full wherever it stands: equal ones are
  // kept once. Those of events are all different.
  static constexpr std::size_t kMaxSharedKeys = 4;

  JsonReader(const std::vector<std::string>& known_texts, std::uint64_t secret)
      : ChunkedReader(known_texts, secret) {}

 private:
  enum class Expects : std::uint8_t { kValue, kValueOrEnd, kKey, kKeyOrEnd, kColon, kCommaOrEnd };
  struct Open {
    BoxKind kind = BoxKind::kList;
    std::size_t first = 0;  // of its values on the stack
  };

  Status run() override;
  void token(std::uint8_t first);
  void start_value(std::uint8_t first);
  void open(BoxKind kind);
  void close(BoxKind kind);
  void push(Value value);
  void push(const Number& number);
  Value text();
  void number();
  void word(std::string_view rest, Value value);
  void word_of_float(std::string_view word);
  void escaped(std::vector<std::uint8_t>& text);
  std::uint32_t four_hex();

  std::vector<Value> stack_;
  std::vector<Open> open_;
  Expects expects_ = Expects::kValue;
};

}  // namespace memscope::snapshot
