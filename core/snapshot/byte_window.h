// The bytes of a pickle that are at hand: every read is checked, and what is not there yet is asked for.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>

#include "snapshot/status.h"
#include "snapshot/texts.h"

namespace memscope::snapshot {

// Thrown where an opcode's argument goes on past the bytes at hand; it is read again with more of them.
struct NeedInput {};

class ByteWindow {
 public:
  // Longest text or integer taken. The longest real ones, demangled C++ names, have some ten thousand bytes.
  static constexpr std::uint64_t kMaxTextBytes = std::uint64_t{16} << 20;
  // Longest line of a text opcode (protocols 0 and 1).
  static constexpr std::size_t kMaxLineBytes = std::size_t{1} << 20;

  // `offset` is where in the pickle the bytes begin.
  void open(Bytes bytes, std::uint64_t offset) {
    bytes_ = bytes;
    offset_ = offset;
    at_ = start_ = 0;
  }

  void start_opcode() { start_ = at_; }
  bool at_end() const { return at_ == bytes_.size(); }
  // Place of the opcode being read, and the bytes from there on.
  std::uint64_t offset() const { return offset_ + start_; }
  Bytes rest() const { return bytes_.subspan(start_); }
  // The bytes that were not read yet, and the end of reading some of them.
  Bytes ahead() const { return bytes_.subspan(at_); }
  void skip(std::size_t n) { bytes(n); }
  std::uint64_t end_offset() const { return offset_ + bytes_.size(); }

  std::uint8_t byte() {
    if (at_end()) [[unlikely]] {
      throw NeedInput{};
    }
    return bytes_[at_++];
  }

  Bytes bytes(std::size_t n) {
    if (n > bytes_.size() - at_) [[unlikely]] {
      throw NeedInput{};
    }
    at_ += n;
    return bytes_.subspan(at_ - n, n);
  }

  // A little-endian number of 1 to 8 bytes.
  std::uint64_t number(std::size_t width) { return little_endian(bytes(width)); }

  static std::uint64_t little_endian(Bytes bytes) {
    std::uint64_t number = 0;
    unsigned shift = 0;
    for (const std::uint8_t byte : bytes) {
      number |= std::uint64_t{byte} << shift;
      shift += 8;
    }
    return number;
  }

  // Bytes behind their own length.
  Bytes counted(std::size_t width) {
    const std::uint64_t n = number(width);
    if (n > kMaxTextBytes) {
      throw Refused(Status::kTooLong);
    }
    return bytes(n);
  }

  // Up to the next newline, which is read too.
  Bytes line() {
    const Bytes ahead = bytes_.subspan(at_, std::min(bytes_.size() - at_, kMaxLineBytes));
    const auto newline = std::ranges::find(ahead, std::uint8_t{'\n'});
    if (newline == ahead.end()) {
      ahead.size() == kMaxLineBytes ? throw Refused(Status::kTooLong) : throw NeedInput{};
    }
    const Bytes line = ahead.first(static_cast<std::size_t>(newline - ahead.begin()));
    at_ += line.size() + 1;
    return line;
  }

 private:
  Bytes bytes_;
  std::uint64_t offset_ = 0;
  std::size_t start_ = 0;
  std::size_t at_ = 0;
};

}  // namespace memscope::snapshot
